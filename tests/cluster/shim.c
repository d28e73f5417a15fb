/* Loaded into a node before the C library: fails its syncs and shifts its wall clock, as a file says that is shared with the test
 * (see shim.rs). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t syncs_fail;
    volatile int64_t wall_ahead_seconds;
};

static const struct control *control(void) {
    static const struct control nothing;
    static const struct control *mapped;
    const struct control *known = __atomic_load_n(&mapped, __ATOMIC_ACQUIRE);
    if (known)
        return known;
    known = &nothing;
    const char *path = getenv("KVORUM_TEST_SHIM");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *memory = mmap(NULL, sizeof *known, PROT_READ, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED)
            known = memory;
        close(file);
    }
    __atomic_store_n(&mapped, known, __ATOMIC_RELEASE);
    return known;
}

static int sync_file(long call, int file) {
    if (control()->syncs_fail) {
        errno = EIO;
        return -1;
    }
    return syscall(call, file);
}

int fsync(int file) {
    return sync_file(SYS_fsync, file);
}

int fdatasync(int file) {
    return sync_file(SYS_fdatasync, file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += control()->wall_ahead_seconds;
    return result;
}
