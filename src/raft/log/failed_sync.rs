//! The mark of a failed sync: a file beside the segments, left where what was acknowledged was not synced (`appendfsync` everysec or no).
//!
//! § What the kernel could not write it drops, and the next start finds the log as it was before, with no sign that there was more. So a start that
//! finds the mark suspects a loss, as after a power failure (`raft/power_loss.rs`), until the loss is accepted or the log is set aside, and the mark with it.

use std::io;
use std::path::{Path, PathBuf};

use crate::raft::log::disk::Disk;

const FILE: &str = "failed-sync";
const TEXT: &[u8] = b"A sync of this log failed, and acknowledged writes may be missing from it.\n";

fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Durably, if the disk still takes it: there is nothing else that could be done.
pub fn mark(disk: &dyn Disk, directory: &Path) {
    let marked = match disk.create(&path(directory)) {
        Ok(file) => file.write_at(TEXT, 0).and_then(|()| file.sync()),
        // Of an earlier time, and may not have been durable.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    // § The name is what counts.
    if let (Err(error), _) | (Ok(()), Err(error)) = (disk.sync_directory(directory), marked) {
        tracing::error!(%error, "it cannot be noted that a sync of the log has failed: the next start may not know that acknowledged writes are missing");
    }
}

pub fn is_marked(disk: &dyn Disk, directory: &Path) -> io::Result<bool> {
    Ok(disk.list(directory)?.contains(&path(directory)))
}

pub fn clear(disk: &dyn Disk, directory: &Path) -> io::Result<()> {
    disk.remove(&path(directory))?;
    disk.sync_directory(directory)
}
