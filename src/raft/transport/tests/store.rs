//! The least that openraft runs on: a log in memory, and a state machine that counts and concatenates nothing.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::alias::SnapshotOf;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot};
use parking_lot::Mutex;

use crate::raft::{Entry, LogId, SnapshotFile, SnapshotMeta, StoredMembership, TypeConfig, Vote};

#[derive(Default)]
struct Log {
    vote: Option<Vote>,
    entries: Vec<Entry>,
    purged: Option<LogId>,
}

#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Log>>);

impl RaftLogReader<TypeConfig> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        Ok(self.0.lock().entries.iter().filter(|entry| range.contains(&entry.index())).cloned().collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let log = self.0.lock();
        let last = log.entries.last().map(|entry| entry.log_id).or(log.purged);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.0.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.lock().entries.extend(entries);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let range = (last.map_or(Bound::Unbounded, |last| Bound::Excluded(last.index)), Bound::Unbounded);
        self.0.lock().entries.retain(|entry| !range.contains(&entry.index()));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let mut log = self.0.lock();
        log.entries.retain(|entry| entry.index() > upto.index);
        log.purged = Some(upto);
        Ok(())
    }
}

#[derive(Default)]
pub struct Machine {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    /// All batches, one after the other.
    pub text: Vec<u8>,
    snapshot: Option<SnapshotMeta>,
    pub directory: PathBuf,
}

#[derive(Clone, Default)]
pub struct MemoryMachine(pub Arc<Mutex<Machine>>);

impl MemoryMachine {
    fn file(&self) -> PathBuf {
        self.0.lock().directory.join("snapshot")
    }
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let path = self.file();
        let mut machine = self.0.lock();
        std::fs::write(&path, &machine.text)?;
        let meta = SnapshotMeta { last_log_id: machine.applied, last_membership: machine.membership.clone() };
        machine.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: SnapshotFile { path, len: machine.text.len() as u64 } })
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.0.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut machine = self.0.lock();
            machine.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal(batch) => machine.text.extend_from_slice(&batch.0),
                EntryPayload::Membership(membership) => {
                    machine.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
                EntryPayload::Blank => {}
            }
            drop(machine);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let path = self.file();
        std::fs::rename(&snapshot.path, &path)?;
        let text = std::fs::read(&path)?;
        assert_eq!(text.len() as u64, snapshot.len);
        let mut machine = self.0.lock();
        machine.applied = meta.last_log_id;
        machine.membership = meta.last_membership.clone();
        machine.snapshot = Some(meta.clone());
        machine.text = text;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        let path = self.file();
        let Some(meta) = self.0.lock().snapshot.clone() else { return Ok(None) };
        let len = std::fs::metadata(&path)?.len();
        Ok(Some(Snapshot { meta, snapshot: SnapshotFile { path, len } }))
    }
}
