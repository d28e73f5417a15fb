//! Snapshots of a data group: without fork, copy or pause.
//!
//! Bucket by bucket, the Arcs of the sub-tables and the position are cloned under the read lock and serialized outside it; writers copy only
//! what they touch meanwhile. So a bucket may be newer than the snapshot's index S, and replay skips by position.
//!
//! Blocks (see `raft/snapshot_io.rs`): the postcard [`Head`], then the pieces of `keyspace::BucketExport`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::keyspace::{Keyspace, SlotState};
use crate::raft::group::GroupState;
use crate::raft::snapshot_files::{GroupSnapshot, PublishError, SnapshotFiles};
use crate::raft::snapshot_io::{SnapshotReader, SnapshotWriter};
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::raft::{GroupLog, SnapshotFile};
use crate::slot::{KeySlot, Slot};

/// § Group-wide state, captured at S between two entries, and replayed from S without skipping.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    last_log_id: Option<LogId>,
    membership: StoredMembership,
    stamp: Timestamp,
    founded: bool,
    owned: Vec<Slot>,
}

impl Head {
    fn capture(state: &GroupState) -> Self {
        let applied = state.applied();
        let owned = Slot::all().filter(|slot| state.keyspace.slot_state(*slot) == SlotState::Owned).collect();
        Self {
            last_log_id: applied.log_id,
            membership: applied.membership,
            stamp: state.stamp(),
            founded: applied.founded,
            owned,
        }
    }

    fn restore(self, state: &GroupState) {
        for slot in Slot::all() {
            let owned = self.owned.binary_search(&slot).is_ok();
            state.keyspace.set_state(slot, if owned { SlotState::Owned } else { SlotState::Absent });
        }
        state.restore_stamp(self.stamp);
        state.update_applied(|applied| {
            applied.log_id = self.last_log_id;
            applied.membership = self.membership;
            applied.founded = self.founded;
        });
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_log_id, last_membership: self.membership.clone() }
    }
}

/// A replica's snapshots, and how its state is made from them.
#[derive(Debug)]
pub struct SnapshotStore {
    files: SnapshotFiles,
}

impl SnapshotStore {
    /// Loads the newest snapshot into the empty `state`, if there is one. An error if `log` does not continue it.
    pub fn open(directory: PathBuf, state: &GroupState, log: &GroupLog) -> io::Result<Self> {
        let mut files = SnapshotFiles::open(directory)?;
        if let Some(path) = files.newest() {
            let head = load(&path, &state.keyspace)?;
            files.adopt(head.meta(), path)?;
            head.restore(state);
        }
        log.check_covered(state.applied_id(), files.directory())?;
        Ok(Self { files })
    }

    pub fn current(&self) -> Option<GroupSnapshot> {
        self.files.current()
    }

    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    pub fn builder(&self, state: Arc<GroupState>, log: GroupLog) -> GroupSnapshotBuilder {
        GroupSnapshotBuilder { head: Head::capture(&state), state, log, files: self.files.clone() }
    }

    /// § Installing cancels a running build: its buckets are about to be replaced under it. Afterwards `applied_state` is exactly S.
    pub async fn install(
        &self,
        state: &Arc<GroupState>,
        log: &GroupLog,
        meta: &SnapshotMeta,
        received: SnapshotFile,
    ) -> io::Result<()> {
        self.files.cancel_builds();
        let (files, state, meta) = (self.files.clone(), state.clone(), meta.clone());
        let last = meta.last_log_id;
        let install = move || {
            // Read to its end first: a damaged file must not leave half a keyspace.
            verify(&received.path)?;
            match files.publish(meta, &received.path) {
                Ok(snapshot) => {
                    state.keyspace.clear_for_import();
                    load(&snapshot.snapshot.path, &state.keyspace)?.restore(&state);
                    Ok(())
                }
                Err(PublishError::Older(_)) => Ok(()),
                Err(PublishError::Io(error)) => Err(error),
            }
        };
        tokio::task::spawn_blocking(install).await.map_err(io::Error::other)??;
        if let Some(log_id) = last {
            log.snapshot_saved(log_id);
        }
        Ok(())
    }
}

fn verify(path: &Path) -> io::Result<()> {
    let mut reader = SnapshotReader::open(path)?;
    let mut block = Vec::new();
    while reader.next(&mut block)? {}
    Ok(())
}

fn load(path: &Path, keyspace: &Keyspace) -> io::Result<Head> {
    let mut reader = SnapshotReader::open(path)?;
    let mut block = Vec::new();
    if !reader.next(&mut block)? {
        return Err(reader.damaged("it has no header"));
    }
    let head: Head = postcard::from_bytes(&block).map_err(|_| reader.damaged("its header does not decode"))?;
    while reader.next(&mut block)? {
        keyspace.import(&block).map_err(|error| reader.damaged(&error.to_string()))?;
    }
    Ok(head)
}

#[derive(Debug)]
pub struct GroupSnapshotBuilder {
    head: Head,
    state: Arc<GroupState>,
    log: GroupLog,
    files: SnapshotFiles,
}

impl RaftSnapshotBuilder<TypeConfig> for GroupSnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<GroupSnapshot> {
        let started = std::time::Instant::now();
        let generation = self.files.generation();
        let path = self.files.temporary();
        let (head, state, files) = (self.head.clone(), self.state.clone(), self.files.clone());
        let target = path.clone();
        let write = move || write(&head, &state.keyspace, &target, || files.generation() == generation);
        let written = tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??;
        if !written {
            let _ = std::fs::remove_file(&path);
            return self
                .files
                .current()
                .ok_or_else(|| io::Error::other("a snapshot build was cancelled without a newer one"));
        }
        // § Buckets may hold ops past S: the log must be durable through the highest of them, in every fsync mode, or a power
        // loss could leave a snapshot ahead of the log it continues. All of them were appended before this.
        self.log.flush().await?;
        match self.files.publish(self.head.meta(), &path) {
            Ok(snapshot) => {
                if let Some(log_id) = snapshot.meta.last_log_id {
                    self.log.snapshot_saved(log_id);
                }
                self.state.metrics.snapshots.increment(1);
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(group = %self.state.id, bytes = snapshot.snapshot.len, seconds, "wrote a snapshot");
                Ok(snapshot)
            }
            Err(PublishError::Older(newer)) => Ok(*newer),
            Err(PublishError::Io(error)) => Err(error),
        }
    }
}

/// Writes and fsyncs the file; false when the build was cancelled.
fn write(head: &Head, keyspace: &Keyspace, path: &Path, wanted: impl Fn() -> bool) -> io::Result<bool> {
    let mut writer = SnapshotWriter::create(path)?;
    writer.block(&postcard::to_stdvec(head).map_err(io::Error::other)?)?;
    let mut piece = Vec::new();
    for key_slot in KeySlot::all() {
        if !wanted() {
            return Ok(false);
        }
        let mut export = keyspace.export(key_slot);
        while export.encode_into(&mut piece) {
            writer.block(&piece)?;
            piece.clear();
        }
    }
    writer.finish()?;
    Ok(true)
}
