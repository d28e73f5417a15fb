//! A file written past the kernel's cache. A log that syncs each batch pays less for it, the more the larger its batches are: no page is marked, found
//! and written back. Hot path.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::raft::log::disk::DiskFile;
use crate::raft::log::removal::mark_open;

/// Offsets, lengths and addresses of direct writes are multiples of this, which is one of every disk's own blocks.
pub const BLOCK_BYTES: u64 = 4096;
const BLOCK: usize = BLOCK_BYTES as usize;
/// Written at once.
const STEP_BYTES: usize = 1 << 20;

/// Every write is a file's new end: what its last block holds behind it becomes zeros.
pub struct DirectFile {
    /// For who reads, for all that is no write, and for writes once there are no direct ones.
    cached: File,
    end: Mutex<End>,
}

struct End {
    /// The same file. § As long as it is written through, it is the one that is synced: what fails is told there. `None` once direct writes were
    /// refused, or the file is full: what is read back only must not take a descriptor and a mebibyte.
    direct: Option<Arc<File>>,
    /// What is written, aligned; room for a step and a block.
    room: Vec<u8>,
    /// The block that the last write ended in, with the bytes up to there.
    block: u64,
    bytes: Vec<u8>,
}

impl DirectFile {
    /// Fails if the file exists. Where there are no direct writes, or no second descriptor, it is written as any other.
    pub fn create(path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let cached = mark_open(options.clone().create_new(true).open(path)?)?;
        match options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path).and_then(mark_open) {
            Ok(direct) => Ok(Arc::new(Self::new(direct, cached))),
            Err(_) => Ok(Arc::new(cached)),
        }
    }

    fn new(direct: File, cached: File) -> Self {
        let end = End { direct: Some(Arc::new(direct)), room: Vec::new(), block: 0, bytes: Vec::new() };
        Self { cached, end: Mutex::new(end) }
    }
}

impl End {
    fn leave(&mut self) {
        *self = Self { direct: None, room: Vec::new(), block: 0, bytes: Vec::new() };
    }

    fn write(&mut self, direct: &File, cached: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        let Self { room, block, bytes: last, .. } = self;
        while !bytes.is_empty() {
            let before = (offset % BLOCK_BYTES) as usize;
            let first = offset - before as u64;
            let step = bytes.len().min(STEP_BYTES - before);
            let padded = (before + step).next_multiple_of(BLOCK);
            if room.len() < padded + BLOCK {
                *room = vec![0; padded + BLOCK];
            }
            let skipped = room.as_ptr().align_offset(BLOCK);
            let aligned = &mut room[skipped..skipped + padded];
            if before > 0 && (*block != first || last.len() < before) {
                last.resize(before, 0);
                cached.read_exact_at(last, first)?;
            }
            aligned[..before].copy_from_slice(&last[..before]);
            aligned[before..before + step].copy_from_slice(&bytes[..step]);
            aligned[before + step..].fill(0);
            direct.write_all_at(aligned, first)?;
            let whole = (before + step) / BLOCK * BLOCK;
            // Blocks that begin and end with the write leave what is known of another.
            if whole < before + step {
                *block = first + whole as u64;
                last.clear();
                last.extend_from_slice(&aligned[whole..before + step]);
            }
            offset += step as u64;
            bytes = &bytes[step..];
        }
        Ok(())
    }
}

impl DiskFile for DirectFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut end = self.end.lock();
        if let Some(direct) = end.direct.clone() {
            match end.write(&direct, &self.cached, bytes, offset) {
                // Some file systems say so only now, some disks have larger blocks.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    tracing::info!("this disk takes no direct writes");
                    end.leave();
                }
                written => return written,
            }
        }
        FileExt::write_all_at(&self.cached, bytes, offset)
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.cached.reserve(offset, bytes)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        DiskFile::read_at(&self.cached, bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.cached.length()
    }

    fn sync(&self) -> io::Result<()> {
        let direct = self.end.lock().direct.clone();
        DiskFile::sync(direct.as_deref().unwrap_or(&self.cached))
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.end.lock().leave();
        self.cached.cut(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::simulated::Chance;

    /// In a directory of a disk, and in memory where there is such a file system.
    fn directories() -> Vec<tempfile::TempDir> {
        let in_memory = Path::new("/dev/shm").is_dir().then(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));
        in_memory.into_iter().chain([tempfile::tempdir().expect("a directory")]).collect()
    }

    /// `None` where there are no direct writes.
    fn create(directory: &Path) -> Option<DirectFile> {
        let path = directory.join("file");
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let cached = options.clone().create_new(true).open(&path).expect("creates");
        let direct = options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&path).ok()?;
        Some(DirectFile::new(direct, cached))
    }

    fn check(file: &DirectFile, expected: &[u8]) {
        let mut found = vec![0; expected.len()];
        assert_eq!(DiskFile::read_at(file, &mut found, 0).expect("reads"), found.len());
        assert!(found == expected, "first difference at {:?}", found.iter().zip(expected).position(|(a, b)| a != b));
        let mut rest = vec![0; 2 * BLOCK];
        let length = DiskFile::read_at(file, &mut rest, expected.len() as u64).expect("reads");
        assert!(length < BLOCK && rest.iter().all(|byte| *byte == 0), "zeros to the end of a block");
    }

    fn write_at_random(file: &DirectFile) {
        let (mut chance, mut expected) = (Chance(7), Vec::new());
        for number in 0..300u64 {
            let most = [50, 5000, 9000, 3 << 20][usize::try_from(chance.below(100) / 33).expect("small")];
            let bytes = vec![
                u8::try_from(number % 251).expect("a byte") + 1;
                usize::try_from(chance.below(most)).expect("small")
            ];
            file.write_at(&bytes, expected.len() as u64).expect("writes");
            expected.extend(bytes);
            if chance.below(10) == 0 {
                check(file, &expected);
            }
        }
        DiskFile::sync(file).expect("syncs");
        check(file, &expected);
    }

    #[test]
    fn what_is_written_at_the_end_is_read_back_whatever_its_size() {
        directories().iter().filter_map(|directory| create(directory.path())).for_each(|file| write_at_random(&file));
    }

    #[test]
    fn a_file_that_takes_no_direct_writes_any_more_is_written_all_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let Some(file) = create(directory.path()) else { return };
        file.write_at(&[1; 5000], 0).expect("writes");
        DiskFile::sync(&file).expect("syncs");
        file.cut(5000).expect("cuts");
        assert!(file.end.lock().direct.is_none(), "what is full is only read");
        file.write_at(&[2; 5000], 5000).expect("writes");
        DiskFile::sync(&file).expect("syncs");
        let expected = [vec![1; 5000], vec![2; 5000]].concat();
        let mut found = vec![0; expected.len()];
        assert_eq!(DiskFile::read_at(&file, &mut found, 0).expect("reads"), found.len());
        assert!(found == expected);
    }

    #[test]
    fn a_disk_that_opens_files_for_direct_writes_and_refuses_them_is_written_through_the_cache() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let cached = File::options().read(true).write(true).create_new(true).open(&path).expect("creates");
        // It answers what such file systems answer: EINVAL to all that is no number.
        let Ok(refusing) = File::options().write(true).open("/proc/self/oom_score_adj") else { return };
        let file = DirectFile::new(refusing, cached);
        file.write_at(&[7; 5000], 0).expect("writes");
        assert!(file.end.lock().direct.is_none(), "it is not tried again");
        DiskFile::sync(&file).expect("syncs");
        assert_eq!(std::fs::read(&path).expect("reads"), [7; 5000]);
    }

    /// What the log does: zeros ahead, then batches over them, the last of which may be written again.
    #[test]
    fn zeros_ahead_and_the_same_place_again_leave_what_is_before() {
        for directory in directories() {
            let Some(file) = create(directory.path()) else { continue };
            file.write_at(&[1; 100], 0).expect("writes");
            file.write_at(&[0; 4 * BLOCK], BLOCK_BYTES).expect("writes zeros");
            file.write_at(&[2; 100], 100).expect("writes");
            file.write_at(&[3; 50], 100).expect("writes again");
            file.write_at(&[4; 2 * BLOCK], 150).expect("writes over a block's end");
            file.write_at(&[5; 10], 160).expect("writes in a block that is not the last");
            let mut expected = [vec![1; 100], vec![3; 50], vec![4; 10], vec![5; 10]].concat();
            let mut found = vec![0; expected.len()];
            DiskFile::read_at(&file, &mut found, 0).expect("reads");
            assert!(found == expected);
            expected.resize(5 * BLOCK, 0);
            assert_eq!(file.length().expect("is there"), expected.len() as u64);
        }
    }

    #[test]
    fn a_file_that_exists_is_not_created() {
        for directory in directories() {
            let path = directory.path().join("file");
            DirectFile::create(&path).expect("creates").write_at(&[1; 10], 0).expect("writes");
            let again = DirectFile::create(&path);
            assert_eq!(again.err().expect("it is there").kind(), io::ErrorKind::AlreadyExists);
        }
    }
}
