//! Removing a large file without holding up the disk.
//!
//! A file system that tells the disk which blocks are free (the mount option `discard`) takes tens of milliseconds for 64 MiB, and every sync of
//! the log, and with it every write, waits meanwhile. So the name goes at once, and the space in small steps, with rests between. A process that
//! ends first leaves the rest to the kernel.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// What goes at once.
const STEP_BYTES: u64 = 1 << 20;
/// A rest takes so many times what the step before took.
const REST_FACTOR: u32 = 3;
/// With more files than this behind the one whose space is given back there are no rests: the log must not outgrow the disk.
const QUEUED_MAX: usize = 4;
/// How often files that somebody still reads are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Files that the thread has not looked at yet.
static QUEUED: AtomicUsize = AtomicUsize::new(0);
/// `None` without a thread.
static REMOVED: LazyLock<Option<Sender<File>>> = LazyLock::new(|| {
    let (sender, receiver) = channel();
    let thread = Builder::new().name("kvorum-removal".to_owned()).spawn(move || give_back_all(&receiver));
    thread.is_ok().then_some(sender)
});

/// Marks the file as read until it is closed. `NotFound` if it is being removed.
///
/// § Whoever has a removed file open may read all of it: a snapshot that is being sent, an entry that was purged meanwhile.
pub fn mark_open(file: File) -> io::Result<File> {
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::NotFound.into()),
        // It was removed, and perhaps emptied, between its opening and the lock.
        Ok(()) if file.metadata()?.nlink() == 0 => Err(io::ErrorKind::NotFound.into()),
        // On a file system without locks nobody gets the other lock either.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

pub fn remove(path: &Path) -> io::Result<()> {
    // Without a descriptor to spare its space goes with its name.
    let file = File::options().write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path);
    fs::remove_file(path)?;
    // A file with another name, a backup's perhaps, is not ours to empty.
    let is_ours = |file: &File| file.metadata().is_ok_and(|found| found.nlink() == 0 && found.len() > STEP_BYTES);
    if let (Ok(file), Some(removed)) = (file, &*REMOVED)
        && is_ours(&file)
    {
        QUEUED.fetch_add(1, Ordering::Relaxed);
        // A thread that is gone: the file is closed here.
        let _ = removed.send(file);
    }
    Ok(())
}

/// With the files in it. What is gone already is no error.
pub fn remove_directory(directory: &Path) -> io::Result<()> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    let Ok(files) = fs::read_dir(directory) else { return fs::remove_dir_all(directory).or_else(gone) };
    for file in files {
        let file = file?;
        if file.file_type()?.is_file() {
            remove(&file.path()).or_else(gone)?;
        }
    }
    fs::remove_dir_all(directory).or_else(gone)
}

fn give_back_all(removed: &Receiver<File>) {
    let mut waiting = Vec::new();
    loop {
        let next = match waiting.is_empty() {
            true => removed.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => removed.recv_timeout(LOOK_INTERVAL),
        };
        match next {
            Ok(file) => {
                QUEUED.fetch_sub(1, Ordering::Relaxed);
                waiting.push(file);
            }
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|file| match file.try_lock() {
            Ok(()) => {
                give_back(file);
                false
            }
            Err(TryLockError::WouldBlock) => true,
            // Then nobody knows who reads it, and it goes when the last one closes it.
            Err(TryLockError::Error(_)) => false,
        });
    }
}

/// An error is passed over: the file has no name, and closing it gives back the rest.
fn give_back(file: &File) {
    let mut left = file.metadata().map_or(0, |metadata| metadata.len());
    while left > 0 {
        left = left.saturating_sub(STEP_BYTES);
        let began = Instant::now();
        if file.set_len(left).is_err() {
            return;
        }
        if QUEUED.load(Ordering::Relaxed) <= QUEUED_MAX {
            sleep(began.elapsed() * REST_FACTOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn file_of(directory: &Path, bytes: usize) -> std::path::PathBuf {
        let path = directory.join("file");
        fs::write(&path, vec![7; bytes]).expect("writes");
        path
    }

    fn wait_until_empty(file: &File) {
        let began = Instant::now();
        while file.metadata().expect("is open").blocks() > 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "its space does not come back");
            sleep(Duration::from_millis(1));
        }
    }

    fn open(path: &Path) -> File {
        mark_open(File::open(path).expect("opens")).expect("is not being removed")
    }

    #[test]
    fn a_file_that_is_removed_is_gone_and_its_space_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = file_of(directory.path(), 5 << 20);
        // Not marked, and so not waited for.
        let watch = File::open(&path).expect("opens");
        remove(&path).expect("removes");
        assert!(!path.exists());
        assert_eq!(remove(&path).expect_err("it is gone").kind(), io::ErrorKind::NotFound);
        wait_until_empty(&watch);
    }

    #[test]
    fn who_reads_a_removed_file_can_read_all_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = file_of(directory.path(), 5 << 20);
        let (mut reader, other) = (open(&path), open(&path));
        let watch = File::open(&path).expect("opens");
        remove(&path).expect("removes");
        // Another goes meanwhile.
        let second = file_of(directory.path(), 3 << 20);
        let watch_second = File::open(&second).expect("opens");
        remove(&second).expect("removes");
        wait_until_empty(&watch_second);
        drop(other);
        sleep(3 * LOOK_INTERVAL);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("reads");
        assert_eq!(bytes.len(), 5 << 20);
        drop(reader);
        wait_until_empty(&watch);
    }

    #[test]
    fn a_file_that_has_another_name_and_what_a_link_points_to_stay_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = file_of(directory.path(), 3 << 20);
        let (backup, link) = (directory.path().join("backup"), directory.path().join("link"));
        fs::hard_link(&path, &backup).expect("links");
        std::os::unix::fs::symlink(&backup, &link).expect("links");
        remove(&path).expect("removes");
        remove(&link).expect("removes");
        sleep(2 * LOOK_INTERVAL);
        assert_eq!(fs::metadata(&backup).expect("it is there").len(), 3 << 20);
        assert!(!path.exists() && fs::symlink_metadata(&link).is_err());
    }

    #[test]
    fn a_directory_goes_with_its_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let (replica, within) = (directory.path().join("replica"), directory.path().join("replica/within"));
        fs::create_dir_all(&within).expect("creates");
        file_of(&replica, 2 << 20);
        file_of(&within, 10);
        remove_directory(&replica).expect("removes");
        assert!(!replica.exists());
        remove_directory(&replica).expect("it is gone already");
    }

    #[test]
    fn a_file_whose_space_is_given_back_is_not_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = file_of(directory.path(), 10);
        let remover = File::options().write(true).open(&path).expect("opens");
        remover.try_lock().expect("locks");
        let found = mark_open(File::open(&path).expect("opens"));
        assert_eq!(found.expect_err("it is being removed").kind(), io::ErrorKind::NotFound);
        remover.unlock().expect("unlocks");
        let opened = File::open(&path).expect("opens");
        remove(&path).expect("removes");
        assert_eq!(mark_open(opened).expect_err("it is removed").kind(), io::ErrorKind::NotFound);
    }
}
