//! The file operations of the log and of snapshots, so that tests can fail each one and lose what was not synced (`memory_disk.rs`).
//!
//! Every operation blocks: the log's run on its own threads, those of snapshots under `raft/blocking.rs`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};

use crate::raft::directory::{create_directory, sync_directory};
use crate::raft::log::direct::DirectFile;
use crate::raft::log::removal::{self, mark_open};

pub trait Disk: std::fmt::Debug + Send + Sync {
    /// With those above it that are missing; returns when it is durable.
    fn create_directory(&self, directory: &Path) -> io::Result<()>;
    /// Files directly in the directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Fails if the file exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// For small writes that are synced one by one, each at the file's end. Fails if the file exists.
    fn create_for_syncs(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Who has it open can read it; its space may come back later.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// In place of what `to` was, if there was anything.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// What this process may still take of the directory's file system.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

pub trait DiskFile: Send + Sync {
    /// All of `bytes`, or an error that leaves the range in an unknown state. Of a file for syncs, the block that they end in holds zeros behind them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Takes space for these bytes of the file, so that writing them does not fail for want of it; what the file holds, and its length, stay.
    /// Without effect where the file system cannot do that.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()>;
    /// Bytes read; fewer than `bytes` has room for only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    fn length(&self) -> io::Result<u64>;
    /// Returns when everything written before the call is on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file, gives back what was reserved behind, and makes its new length durable.
    fn cut(&self, length: u64) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        create_directory(directory)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(mark_open(File::options().read(true).write(true).create_new(true).open(path)?)?))
    }

    fn create_for_syncs(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        DirectFile::create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(mark_open(File::options().read(true).write(true).open(path)?)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        removal::remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(directory)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        sync_directory(directory)
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(self, FallocateFlags::KEEP_SIZE, offset, bytes)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < bytes.len() {
            match FileExt::read_at(self, &mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
    }
}
