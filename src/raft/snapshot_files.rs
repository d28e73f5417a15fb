//! The snapshots of one replica on disk: one published file, temporary ones beside it.
//!
//! Names: `snapshot-<index, 20 digits>.kvs`, `building-<n>.tmp`, and what the transport receives. A file becomes the snapshot by rename,
//! followed by an fsync of the directory; older ones are deleted then (who still sends one has it open).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::alias::SnapshotOf;
use parking_lot::Mutex;

use crate::raft::SnapshotFile;
use crate::raft::blocking;
use crate::raft::directory::named;
use crate::raft::log::{Disk, is_crowded};
use crate::raft::space::is_full;
use crate::raft::types::{SnapshotMeta, TypeConfig};

/// Between two tries on a full disk.
const FULL_PAUSE: Duration = Duration::from_millis(200);

pub type GroupSnapshot = SnapshotOf<TypeConfig, SnapshotFile>;

#[derive(Debug, Clone)]
pub struct SnapshotFiles {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    current: Arc<Mutex<Option<(SnapshotMeta, SnapshotFile)>>>,
    temporaries: Arc<AtomicU64>,
}

pub enum PublishError {
    /// A newer snapshot is published already; it is what the caller should use.
    Older(Box<GroupSnapshot>),
    Io(io::Error),
}

impl SnapshotFiles {
    /// Creates the directory and removes what a crash left half-made.
    pub fn open(disk: Arc<dyn Disk>, directory: PathBuf) -> io::Result<Self> {
        let prepare = || {
            disk.create_directory(&directory)?;
            let left = disk.list(&directory)?.into_iter();
            left.filter(|path| path.extension().is_some_and(|extension| extension == "tmp"))
                .try_for_each(|path| disk.remove(&path))
        };
        prepare().map_err(|error| named(&directory, &error))?;
        Ok(Self { disk, directory, current: Arc::default(), temporaries: Arc::default() })
    }

    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The newest published file, by the index in its name.
    pub fn newest(&self) -> Option<PathBuf> {
        let files = self.disk.list(&self.directory).ok()?;
        files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "kvs")).max()
    }

    /// Makes a published file found at start the current one.
    pub fn adopt(&mut self, meta: SnapshotMeta, path: PathBuf) -> io::Result<()> {
        let opened = self.disk.open(&path).and_then(|file| file.length());
        let len = opened.map_err(|error| named(&path, &error))?;
        *self.current.lock() = Some((meta, SnapshotFile { path, len }));
        Ok(())
    }

    pub fn current(&self) -> Option<GroupSnapshot> {
        let current = self.current.lock().clone();
        current.map(|(meta, snapshot)| GroupSnapshot { meta, snapshot })
    }

    pub fn temporary(&self) -> PathBuf {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("building-{number}.tmp"))
    }

    /// The published snapshot, if it is newer than that of `meta`: who builds that one must give way.
    pub fn newer_than(&self, meta: &SnapshotMeta) -> Option<GroupSnapshot> {
        let current = self.current.lock();
        let newer = current.as_ref().filter(|(current, _)| current.last_log_id > meta.last_log_id);
        newer.cloned().map(|(meta, snapshot)| GroupSnapshot { meta, snapshot })
    }

    /// Renames a finished and fsynced file into place, unless a newer snapshot is there. A directory that cannot take it for want of space is waited for:
    /// an error would stop the node. § That of the directory's sync does, whatever it is: asked again, the kernel may say that all is well.
    pub async fn publish(&self, meta: SnapshotMeta, temporary: &Path) -> Result<GroupSnapshot, PublishError> {
        let is_renamed = Arc::new(AtomicBool::new(false));
        loop {
            let (files, meta, temporary) = (self.clone(), meta.clone(), temporary.to_owned());
            let is_renamed = is_renamed.clone();
            // Not on the group's thread, which has others to serve.
            match blocking(move || files.try_publish(&meta, &temporary, &is_renamed))
                .await
                .map_err(PublishError::Io)??
            {
                Some(published) => return Ok(published),
                None => tokio::time::sleep(FULL_PAUSE).await,
            }
        }
    }

    /// `None`: the directory has no space for it yet, or no file can be opened.
    fn try_publish(
        &self,
        meta: &SnapshotMeta,
        temporary: &Path,
        is_renamed: &AtomicBool,
    ) -> Result<Option<GroupSnapshot>, PublishError> {
        let mut current = self.current.lock();
        if let Some((newer, snapshot)) = current.as_ref().filter(|(newer, _)| newer.last_log_id > meta.last_log_id) {
            let _ = self.disk.remove(temporary);
            return Err(PublishError::Older(Box::new(GroupSnapshot {
                meta: newer.clone(),
                snapshot: snapshot.clone(),
            })));
        }
        let index = meta.last_log_id.map_or(0, |log_id| log_id.index);
        let path = self.directory.join(format!("snapshot-{index:020}.kvs"));
        if !is_renamed.load(Ordering::Relaxed) {
            match self.disk.rename(temporary, &path) {
                Err(error) if is_full(&error) => return Ok(None),
                renamed => renamed.map_err(PublishError::Io)?,
            }
            is_renamed.store(true, Ordering::Relaxed);
        }
        let synced = self.disk.sync_directory(&self.directory).and_then(|()| self.disk.open(&path)?.length());
        let len = match synced {
            // No descriptor to sync it by: it was not asked for.
            Err(error) if is_crowded(&error) => return Ok(None),
            synced => synced.map_err(PublishError::Io)?,
        };
        let snapshot = SnapshotFile { path: path.clone(), len };
        if let Some((_, old)) = current.replace((meta.clone(), snapshot.clone()))
            && old.path != path
        {
            // A leftover costs disk space only, and the next start prefers the newer file.
            let _ = self.disk.remove(&old.path);
        }
        Ok(Some(GroupSnapshot { meta: meta.clone(), snapshot }))
    }
}
