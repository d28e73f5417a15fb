/* Loaded into a node before the C library: fails its syncs, lets one operation on its files fail or be its last, and shifts its wall clock, as a file
 * says that is shared with the test; and notes what a power loss would take (see shim.rs). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t syncs_fail;
    volatile int64_t wall_ahead_seconds;
    /* Counts down with each write, cut, sync and rename; the one that makes it 0 meets the fault. At 0 and below it stands still. */
    volatile int64_t operations_left;
    /* Or the operation fails. */
    volatile int64_t kills;
};

static struct control *control(void) {
    static struct control nothing;
    static struct control *mapped;
    struct control *known = __atomic_load_n(&mapped, __ATOMIC_ACQUIRE);
    if (known)
        return known;
    known = &nothing;
    const char *path = getenv("KVORUM_TEST_SHIM");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *memory = mmap(NULL, sizeof *known, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED)
            known = memory;
        close(file);
    }
    __atomic_store_n(&mapped, known, __ATOMIC_RELEASE);
    return known;
}

/* Whether this operation is the one that fails. */
static int fails(void) {
    if (control()->operations_left <= 0 || __atomic_sub_fetch(&control()->operations_left, 1, __ATOMIC_ACQ_REL))
        return 0;
    if (control()->kills)
        kill(getpid(), SIGKILL);
    errno = EIO;
    return 1;
}

/* In $KVORUM_TEST_UNDO/<inode>: what a file held before each write since its last sync, `length` old bytes behind each of these. An offset
 * of -1 says that what comes before byte `size` of the notes is synced. */
struct note {
    int64_t offset, size, length;
};

static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;

static int notes_of(int file, struct stat *about) {
    const char *directory = getenv("KVORUM_TEST_UNDO");
    char path[4096];
    if (!directory || fstat(file, about) || !S_ISREG(about->st_mode))
        return -1;
    snprintf(path, sizeof path, "%s/%ju", directory, (uintmax_t)about->st_ino);
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* Before these bytes of the file change. */
static void note_old(int file, int64_t offset, int64_t count) {
    struct stat about;
    int notes = notes_of(file, &about);
    if (notes < 0)
        return;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    char *old = malloc(count + 1);
    struct note note = {offset, about.st_size, reader < 0 || !old ? -1 : pread(reader, old, count, offset)};
    struct iovec parts[] = {{&note, sizeof note}, {old, note.length}};
    /* Of a file that is empty all else is known: the inode may have been another's before. */
    if (note.length < 0 || (about.st_size == 0 && syscall(SYS_ftruncate, notes, 0L)) || writev(notes, parts, 2) < 0)
        abort();
    free(old);
    close(reader);
    close(notes);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    if (fails())
        return -1;
    pthread_mutex_lock(&notes_lock);
    note_old(file, offset, count);
    ssize_t result = syscall(SYS_pwrite64, file, bytes, count, offset);
    pthread_mutex_unlock(&notes_lock);
    return result;
}

/* Of what is not a file: what the node says, and its wake-ups. */
ssize_t write(int file, const void *bytes, size_t count) {
    struct stat about;
    if (file <= STDERR_FILENO || fstat(file, &about) || !S_ISREG(about.st_mode))
        return syscall(SYS_write, file, bytes, count);
    if (fails())
        return -1;
    pthread_mutex_lock(&notes_lock);
    note_old(file, syscall(SYS_lseek, file, 0L, SEEK_CUR), count);
    ssize_t result = syscall(SYS_write, file, bytes, count);
    pthread_mutex_unlock(&notes_lock);
    return result;
}

int rename(const char *from, const char *to) {
    return fails() ? -1 : syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int ftruncate64(int file, off64_t length) {
    struct stat about;
    if (fails())
        return -1;
    pthread_mutex_lock(&notes_lock);
    /* A file without a name is lost as a whole. */
    if (!fstat(file, &about) && about.st_nlink > 0)
        note_old(file, length, about.st_size > length ? about.st_size - length : 0);
    int result = syscall(SYS_ftruncate, file, length);
    pthread_mutex_unlock(&notes_lock);
    return result;
}

/* Its inode may become another file's. */
int unlink(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC), result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int error = errno;
    struct stat about;
    int notes = result == 0 && file >= 0 ? notes_of(file, &about) : -1;
    if (notes >= 0 && about.st_nlink == 0 && syscall(SYS_ftruncate, notes, 0L))
        abort();
    close(notes);
    close(file);
    errno = error;
    return result;
}

/* What is written while the sync runs may not be part of it. */
static int sync_and_forget(long call, int file) {
    struct stat about;
    pthread_mutex_lock(&notes_lock);
    int notes = notes_of(file, &about);
    off_t end = lseek(notes, 0, SEEK_END);
    pthread_mutex_unlock(&notes_lock);
    int result = syscall(call, file);
    if (notes < 0)
        return result;
    pthread_mutex_lock(&notes_lock);
    struct note synced = {-1, end, 0};
    if (result == 0 && lseek(notes, 0, SEEK_END) == end)
        result = syscall(SYS_ftruncate, notes, 0L);
    else if (result == 0 && syscall(SYS_write, notes, &synced, sizeof synced) < 0)
        abort();
    pthread_mutex_unlock(&notes_lock);
    close(notes);
    return result;
}

static int sync_file(long call, int file) {
    if (control()->syncs_fail) {
        errno = EIO;
        return -1;
    }
    if (fails())
        return -1;
    return sync_and_forget(call, file);
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
