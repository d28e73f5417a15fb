//! Snapshots of a data group: without fork, copy or pause.
//!
//! Bucket by bucket, the Arcs of the sub-tables and the position are cloned under the read lock and serialized outside it; writers copy only
//! what they touch meanwhile. So a bucket may be newer than the snapshot's index S, and replay skips by position.
//!
//! Blocks (see `raft/snapshot_io.rs`): the postcard [`Head`], then the pieces of `keyspace::BucketExport`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::storage::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::keyspace::{Keyspace, SlotState};
use crate::planted::{self, Bug};
use crate::raft::blocking::{blocking, rest};
use crate::raft::group::GroupState;
use crate::raft::log::Disk;
use crate::raft::slots::SlotTable;
use crate::raft::snapshot_files::{GroupSnapshot, PublishError, SnapshotFiles};
use crate::raft::snapshot_io::{SnapshotReader, SnapshotWriter};
use crate::raft::snapshot_turns::SnapshotTurns;
use crate::raft::space::{is_full, wait_for_more};
use crate::raft::types::{LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::raft::{GroupLog, SnapshotFile};
use crate::slot::{KeySlot, Slot};

/// A snapshot takes a quarter of a core: the replicas of a group may make theirs at the same time, and where nodes share cores, or have one
/// each, clients would wait behind them.
const WORK_AT_ONCE: Duration = Duration::from_millis(1);
const REST_FACTOR: u32 = 3;

/// § Group-wide state, captured at S between two entries, and replayed from S without skipping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Head {
    last_log_id: Option<LogId>,
    membership: StoredMembership,
    stamp: Timestamp,
    founded: bool,
    slots: SlotTable,
}

impl Head {
    fn capture(state: &GroupState) -> Self {
        let applied = state.applied();
        Self {
            last_log_id: applied.log_id,
            membership: applied.membership,
            stamp: state.stamp(),
            founded: applied.founded,
            slots: state.read_slots(SlotTable::clone),
        }
    }

    fn restore(self, state: &GroupState) {
        state.restore_stamp(self.stamp);
        state.update_applied(|applied| {
            applied.log_id = self.last_log_id;
            applied.membership = self.membership;
            applied.founded = self.founded;
        });
        // § Last: reads are refused until everything else is in place.
        for slot in Slot::all() {
            let owned = self.slots.owns(slot);
            state.keyspace.set_state(slot, if owned { SlotState::Owned } else { SlotState::Absent });
        }
        state.update_slots(|slots| *slots = self.slots);
        state.note_slots();
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_log_id, last_membership: self.membership.clone() }
    }
}

/// A replica's snapshots, and how its state is made from them.
#[derive(Debug)]
pub struct SnapshotStore {
    files: SnapshotFiles,
    turns: SnapshotTurns,
}

impl SnapshotStore {
    /// Loads the newest snapshot into the empty `state`, if there is one. An error if `log` does not continue it.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        turns: SnapshotTurns,
        state: &GroupState,
        log: &GroupLog,
    ) -> io::Result<Self> {
        let mut files = SnapshotFiles::open(disk, directory)?;
        if let Some(path) = files.newest() {
            let head = load(files.disk(), &path, &state.keyspace)?;
            files.adopt(head.meta(), path)?;
            head.restore(state);
        }
        log.check_covered(state.applied_id(), files.directory())?;
        Ok(Self { files, turns })
    }

    pub fn current(&self) -> Option<GroupSnapshot> {
        self.files.current()
    }

    pub fn directory(&self) -> &Path {
        self.files.directory()
    }

    pub fn builder(&self, state: Arc<GroupState>, log: GroupLog) -> GroupSnapshotBuilder {
        let (files, turns) = (self.files.clone(), self.turns.clone());
        GroupSnapshotBuilder { head: Head::capture(&state), state, log, files, turns }
    }

    /// § Installing cancels a running build: its buckets are about to be replaced under it, and what it must give way to is published
    /// before. Afterwards `applied_state` is exactly S.
    pub async fn install(
        &self,
        state: &Arc<GroupState>,
        log: &GroupLog,
        meta: &SnapshotMeta,
        received: SnapshotFile,
    ) -> io::Result<()> {
        let (files, path) = (self.files.clone(), received.path.clone());
        // Read to its end first: a damaged file must not leave half a keyspace.
        blocking(move || verify(files.disk(), &path)).await??;
        // § What openraft truncated for it, entries of a deposed leader, must not be in a log that a crash leaves beside the snapshot: a replica
        // that had both would start with other entries than it has applied, or not at all.
        log.flush().await?;
        match self.files.publish(meta.clone(), &received.path).await {
            Ok(snapshot) => {
                let (bytes, files) = (snapshot.snapshot.len, self.files.clone());
                let loaded = state.clone();
                let load_it = move || {
                    loaded.keyspace.clear_for_import();
                    load(files.disk(), &snapshot.snapshot.path, &loaded.keyspace)?.restore(&loaded);
                    Ok::<(), io::Error>(())
                };
                blocking(load_it).await??;
                tracing::info!(group = %state.id, bytes, "installed a snapshot");
            }
            Err(PublishError::Older(_)) => (),
            Err(PublishError::Io(error)) => return Err(error),
        }
        if let Some(log_id) = meta.last_log_id {
            log.snapshot_saved(log_id);
        }
        Ok(())
    }
}

fn verify(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut reader = SnapshotReader::open(disk, path)?;
    let mut block = Vec::new();
    while reader.next(&mut block)? {}
    Ok(())
}

pub(super) fn load(disk: &dyn Disk, path: &Path, keyspace: &Keyspace) -> io::Result<Head> {
    let mut reader = SnapshotReader::open(disk, path)?;
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

#[cfg(fuzzing)]
pub(super) fn empty_head() -> Vec<u8> {
    let (last_log_id, membership, slots) = (None, StoredMembership::default(), SlotTable::default());
    let head = Head { last_log_id, membership, stamp: Timestamp(0), founded: true, slots };
    postcard::to_stdvec(&head).expect("a head encodes")
}

#[derive(Debug)]
pub struct GroupSnapshotBuilder {
    head: Head,
    state: Arc<GroupState>,
    log: GroupLog,
    files: SnapshotFiles,
    turns: SnapshotTurns,
}

impl GroupSnapshotBuilder {
    /// The turn is for the file alone: a snapshot that waits for space on the disk must not hold up one that needs less.
    async fn write(&self, path: &Path) -> io::Result<()> {
        let (head, state, files) = (self.head.clone(), self.state.clone(), self.files.clone());
        let (target, meta) = (path.to_owned(), self.head.meta());
        let wanted = move || files.newer_than(&meta).is_none();
        let turn = self.turns.take(|| self.log.bytes(), &wanted).await;
        let files = self.files.clone();
        blocking(move || {
            // Work that blocks goes on when nobody waits for it any more, and so does its turn.
            let _turn = turn;
            write(files.disk(), &head, &state.keyspace, &target, wanted)
        })
        .await?
    }
}

impl RaftSnapshotBuilder<TypeConfig> for GroupSnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<GroupSnapshot> {
        let started = Instant::now();
        let meta = self.head.meta();
        let path = self.files.temporary();
        // § An error would stop the node. The state was captured at S and may be written at any time: its log stays until then.
        while let Err(error) = self.write(&path).await {
            if !is_full(&error) {
                return Err(error);
            }
            wait_for_more(&self.files, &path, || self.files.newer_than(&meta).is_none()).await?;
            if self.files.newer_than(&meta).is_some() {
                break;
            }
        }
        if let Some(newer) = self.files.newer_than(&meta) {
            let _ = self.files.disk().remove(&path);
            return Ok(newer);
        }
        // § Buckets may hold ops past S: the log must be durable through the highest of them, in every fsync mode, or a power
        // loss could leave a snapshot ahead of the log it continues. All of them were appended before this.
        if !planted::is(Bug::SnapshotAheadOfLog) {
            self.log.flush().await?;
        }
        match self.files.publish(meta, &path).await {
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

/// Writes and fsyncs the file; stops half-way when it is not wanted any more.
fn write(disk: &dyn Disk, head: &Head, keyspace: &Keyspace, path: &Path, wanted: impl Fn() -> bool) -> io::Result<()> {
    let mut writer = SnapshotWriter::create(disk, path)?;
    writer.block(&postcard::to_stdvec(head).map_err(io::Error::other)?)?;
    let (mut piece, mut began) = (Vec::new(), Instant::now());
    for key_slot in KeySlot::all() {
        if !wanted() {
            return Ok(());
        }
        let worked = began.elapsed();
        if worked >= WORK_AT_ONCE {
            rest(worked * REST_FACTOR);
            began = Instant::now();
        }
        let mut export = keyspace.export(key_slot);
        while export.encode_into(&mut piece) {
            writer.block(&piece)?;
            piece.clear();
        }
    }
    writer.finish().map(|_| ())
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::storage::{IOFlushed, RaftLogStorage};
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::cluster::{GroupId, ReplicaId};
    use crate::keyspace::{Applied, HashSecret, Position, Value};
    use crate::raft::log::{Fault, Fsync, LogOptions, MemoryDisk, NodeLog, RealDisk, SimulatedLog};
    use crate::raft::types::{Batch, Entry, LeaderId};
    use crate::random::simulated::Chance;

    struct Replica {
        directory: tempfile::TempDir,
        _node_log: NodeLog,
        log: GroupLog,
        state: Arc<GroupState>,
        store: SnapshotStore,
    }

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    fn options(fsync: Fsync) -> LogOptions {
        LogOptions { fsync, segment_bytes: 1 << 20, accept_loss: false, memory_bytes: 0 }
    }

    fn empty_state() -> GroupState {
        GroupState::new(GroupId(1), ReplicaId(1), 7, Keyspace::new(HashSecret([1; 4])), None)
    }

    impl Replica {
        /// Owns every slot, holds `key` in each of the first buckets, and has applied up to `index`.
        fn new(key: &str, index: u64) -> Self {
            Self::on(Arc::new(RealDisk), key, index)
        }

        fn on(disk: Arc<dyn Disk>, key: &str, index: u64) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let (node_log, _) = NodeLog::open(&directory.path().join("log"), options(Fsync::No)).expect("opens");
            let log = node_log.group(GroupId(1), ReplicaId(1));
            let state = Arc::new(empty_state());
            let (place, turns) = (directory.path().join("groups"), SnapshotTurns::new(u64::MAX));
            let store = SnapshotStore::open(disk, place, turns, &state, &log).expect("opens");
            Slot::all().for_each(|slot| state.keyspace.set_state(slot, SlotState::Owned));
            state.update_slots(|slots| slots.found(Slot::all()));
            for number in 0..5000 {
                let key = format!("{{{number}}}{key}");
                let applied =
                    state.keyspace.apply(KeySlot::of_key(key.as_bytes()), Position { index, op: number }, |bucket| {
                        bucket.insert(key.as_bytes(), Value::Slice(&[7; 100]), None);
                    });
                assert!(matches!(applied, Applied::Done(())));
            }
            state.update_applied(|applied| applied.log_id = Some(log_id(index)));
            Self { directory, _node_log: node_log, log, state, store }
        }

        async fn snapshot(&self) -> GroupSnapshot {
            self.store.builder(self.state.clone(), self.log.clone()).build_snapshot().await.expect("builds")
        }

        /// A copy of `snapshot`, as the transport leaves it.
        fn receive(&self, snapshot: &GroupSnapshot) -> SnapshotFile {
            let path = self.directory.path().join("groups/received.tmp");
            let len = std::fs::copy(&snapshot.snapshot.path, &path).expect("copies");
            SnapshotFile { path, len }
        }
    }

    #[tokio::test]
    async fn installing_a_snapshot_ends_a_running_build_without_an_error() {
        let newer = Replica::new("new", 50);
        let snapshot = newer.snapshot().await;
        for _ in 0..5 {
            let replica = Replica::new("old", 5);
            let received = replica.receive(&snapshot);
            let mut build = replica.store.builder(replica.state.clone(), replica.log.clone());
            let install = replica.store.install(&replica.state, &replica.log, &snapshot.meta, received);
            let (built, installed) = tokio::join!(build.build_snapshot(), install);
            installed.expect("installs");
            // A build that was done before the snapshot was published stands; it is older all the same.
            assert!(built.expect("a build that gives way has not failed").meta.last_log_id <= Some(log_id(50)));
            assert_eq!(replica.store.current().map(|current| current.meta), Some(snapshot.meta.clone()));
            assert_eq!(replica.state.applied_id(), Some(log_id(50)));
            assert_eq!(replica.state.keyspace.counters(), newer.state.keyspace.counters());
            let files = std::fs::read_dir(replica.directory.path().join("groups")).expect("reads");
            assert_eq!(files.count(), 1, "one snapshot and no leftovers");
        }
    }

    /// Raft's figure 8, met by a snapshot: entries of a deposed leader stand where the snapshot's are.
    #[tokio::test]
    async fn a_crash_while_installing_leaves_no_entries_that_the_snapshot_replaces() {
        let mut machine = SimulatedLog::default();
        let (node_log, _, mut writer) = machine.open(options(Fsync::Always)).expect("opens");
        let mut log = node_log.group(GroupId(1), ReplicaId(1));
        let entry = |index| Entry { log_id: log_id(index), payload: EntryPayload::Normal(Batch::default()) };
        let (flushed, _told) = TypeConfig::oneshot();
        log.append((0..60).map(entry), IOFlushed::signal(flushed)).await.expect("appends");
        assert!(writer.step());
        let source = Replica::on(machine.disk(), "k", 50);
        let snapshot = source.snapshot().await;
        let (state, turns) = (Arc::new(empty_state()), SnapshotTurns::new(u64::MAX));
        let store = SnapshotStore::open(machine.disk(), PathBuf::from("/groups"), turns, &state, &log).expect("opens");

        log.truncate_after(Some(log_id(40))).await.expect("truncates");
        let mut installing = std::pin::pin!(store.install(&state, &log, &snapshot.meta, snapshot.snapshot.clone()));
        let while_the_log_stands_still = tokio::time::timeout(Duration::from_millis(300), &mut installing).await;
        assert!(while_the_log_stands_still.is_err() && store.current().is_none(), "it waits for the log");
        let on_with_the_log = async {
            while store.current().is_none() {
                assert!(writer.step());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (installed, ()) = tokio::join!(installing, on_with_the_log);
        installed.expect("installs");
        machine.kill();
        let (node_log, ..) = machine.open(options(Fsync::Always)).expect("opens again");
        assert_eq!(node_log.group(GroupId(1), ReplicaId(1)).last_log_id(), Some(log_id(40)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_finds_no_space_is_written_when_there_is_some() {
        let disk = MemoryDisk::default();
        let replica = Replica::on(Arc::new(disk.clone()), "k", 50);
        disk.limit_free(Some(100_000));
        let more = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(replica.store.current().map(|current| current.meta), None);
            disk.limit_free(None);
        };
        let (snapshot, ()) = tokio::join!(replica.snapshot(), more);
        assert_eq!(snapshot.meta.last_log_id, Some(log_id(50)));
        verify(&disk, &snapshot.snapshot.path).expect("whole");
        let files = disk.list(&replica.directory.path().join("groups")).expect("lists");
        assert_eq!(files, [snapshot.snapshot.path], "no leftovers");
    }

    /// § The kernel reports a failed sync once: a later one that succeeds says nothing of what the first was for.
    #[tokio::test(start_paused = true)]
    async fn a_build_fails_with_the_sync_of_its_directory_also_for_want_of_space() {
        let (whole, failing) = (MemoryDisk::default(), MemoryDisk::default());
        Replica::on(Arc::new(whole.clone()), "k", 50).snapshot().await;
        let replica = Replica::on(Arc::new(failing.clone()), "k", 50);
        // The last operation of the first build: there is no older snapshot to remove.
        failing.fail_at(whole.operations(), Fault::Error(io::ErrorKind::StorageFull));
        let built = replica.store.builder(replica.state.clone(), replica.log.clone()).build_snapshot().await;
        assert_eq!(failing.operations(), whole.operations(), "it was not tried again");
        assert_eq!(built.expect_err("not durable").kind(), io::ErrorKind::StorageFull);
        let files = failing.list(&replica.directory.path().join("groups")).expect("lists");
        assert!(
            files.iter().any(|path| path.extension().is_some_and(|extension| extension == "kvs")),
            "renamed before"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_waits_for_its_turn_and_gives_it_back_however_it_ends() {
        let disk = MemoryDisk::default();
        let replica = Replica::on(Arc::new(disk.clone()), "k", 50);
        let ask = || replica.store.turns.take(|| 0, || true);
        let turn = ask().await;
        let mut building = std::pin::pin!(replica.snapshot());
        tokio::time::timeout(Duration::from_secs(60), &mut building).await.expect_err("another has the turn");
        drop(turn);
        assert_eq!(building.await.meta.last_log_id, Some(log_id(50)));
        drop(ask().await);
        replica.state.update_applied(|applied| applied.log_id = Some(log_id(51)));
        disk.fail_at(disk.operations() + 3, Fault::Dead);
        let built = replica.store.builder(replica.state.clone(), replica.log.clone()).build_snapshot().await;
        assert!(built.is_err());
        assert!(futures_util::poll!(std::pin::pin!(ask())).is_ready(), "a failed build has given it back");
    }

    #[tokio::test]
    async fn buckets_stay_absent_until_the_whole_snapshot_is_in_place() {
        let source = Replica::new("k", 50);
        let snapshot = source.snapshot().await;
        let target = Replica::new("old", 5);
        target.state.keyspace.clear_for_import();
        let head = load(&RealDisk, &snapshot.snapshot.path, &target.state.keyspace).expect("loads");
        for key_slot in KeySlot::all() {
            let state = target.state.keyspace.read(key_slot, crate::keyspace::Bucket::state);
            assert_eq!(state, SlotState::Absent, "{key_slot}");
        }
        head.restore(&target.state);
        assert_eq!(target.state.keyspace.counters(), source.state.keyspace.counters());
        assert!(Slot::all().all(|slot| target.state.keyspace.slot_state(slot) == SlotState::Owned));
    }

    /// § After a crash the replica has the snapshot that was published last, whole, or the one that was being published.
    #[tokio::test]
    async fn a_disk_that_dies_at_any_operation_of_a_build_leaves_a_whole_snapshot() {
        for operation in 1.. {
            let disk = MemoryDisk::default();
            let replica = Replica::on(Arc::new(disk.clone()), "k", 5);
            let first = replica.snapshot().await;
            replica.state.update_applied(|applied| applied.log_id = Some(log_id(6)));
            let fatal = disk.operations() + operation;
            disk.fail_at(fatal, Fault::Dead);
            let built = replica.store.builder(replica.state.clone(), replica.log.clone()).build_snapshot().await;
            for seed in 0..8 {
                let (restarted, state) = (disk.after_power_loss(&mut Chance(seed)), empty_state());
                let opened = SnapshotStore::open(
                    Arc::new(restarted),
                    replica.store.directory().to_owned(),
                    SnapshotTurns::new(u64::MAX),
                    &state,
                    &replica.log,
                );
                let found = opened.expect("one is whole").current().expect("one is there").meta.last_log_id;
                let least = if built.is_ok() { Some(log_id(6)) } else { first.meta.last_log_id };
                assert!(found >= least && found <= Some(log_id(6)), "operation {operation}, seed {seed}: {found:?}");
                assert_eq!(state.keyspace.counters().keys, replica.state.keyspace.counters().keys);
            }
            if disk.operations() < fatal {
                assert!(operation > 5, "a build creates, writes, syncs, renames, and syncs the directory");
                return;
            }
        }
    }
}
