//! The log on a disk that fails, dies and forgets. After every fault the log is opened again and must be in a state that each replica's log
//! passed through, no older than what was acknowledged.

mod failed_sync;
mod full_disk;
mod synced;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, Membership};

use super::disk::Disk;
use super::format::{LogKey, payload};
use super::memory_disk::{Fault, MemoryDisk};
use super::writer::PART_BYTES;
use super::*;
use crate::cluster::{GroupId, NodeId, ReplicaId};
use crate::raft::types::{Batch, Entry, LeaderId, LogId, Vote};
use crate::raft::{Member, TypeConfig};
use crate::random::simulated::Chance;

const DIRECTORY: &str = "/log";
const KEYS: [LogKey; 3] = [(GroupId(0), ReplicaId(0)), (GroupId(1), ReplicaId(4)), (GroupId(1), ReplicaId(5))];
const STEPS: u64 = 30;
/// Random workloads per kind of fault.
const SEEDS: u64 = 3;

fn open(disk: &MemoryDisk, fsync: Fsync) -> Result<(NodeLog, Recovered), LogError> {
    let options = LogOptions { fsync, segment_bytes: 1500, accept_loss: false, memory_bytes: u64::MAX };
    NodeLog::open_on(Arc::new(disk.clone()), Path::new(DIRECTORY), options, b"boot".to_vec(), None)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(log_id: LogId, bytes: Vec<u8>) -> Entry {
    Entry { log_id, payload: EntryPayload::Normal(Batch(Bytes::from(bytes))) }
}

/// What a replica's log holds.
#[derive(Debug, Clone, Default, PartialEq)]
struct Holds {
    vote: Option<Vote>,
    purged: Option<LogId>,
    snapshot: Option<LogId>,
    /// Log id, length and checksum of the payload.
    entries: Vec<(LogId, usize, u32)>,
}

impl Holds {
    fn of(log: &mut GroupLog) -> Self {
        let entries = log.try_get_log_entries(..).now_or_never().expect("reads do not wait").expect("reads");
        let tail = log.tail.lock();
        let entries = entries.iter().map(summary).collect();
        Self { vote: tail.vote, purged: tail.purged, snapshot: tail.snapshot, entries }
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|(log_id, _, _)| *log_id).or(self.purged)
    }
}

fn summary(entry: &Entry) -> (LogId, usize, u32) {
    (entry.log_id, payload(entry).len(), crc32fast::hash(payload(entry)))
}

/// An append, and the states it reaches once it is acknowledged.
struct Waiting {
    written: usize,
    durable: usize,
    told: Pin<Box<dyn Future<Output = Option<io::Result<()>>>>>,
}

/// One replica and all states its log passed through.
struct Replica {
    log: GroupLog,
    states: Vec<Holds>,
    /// The oldest state that may be found after the process was killed.
    written: usize,
    /// The oldest state that may be found after a power loss.
    durable: usize,
    term: u64,
    waiting: Vec<Waiting>,
    removed: bool,
}

impl Replica {
    fn new(node_log: &NodeLog, key: LogKey) -> Self {
        let mut log = node_log.group(key.0, key.1);
        let states = vec![Holds::of(&mut log)];
        let term = states[0].last().map_or(0, |last| last.leader_id.term) + 1;
        Self { log, states, written: 0, durable: 0, term, waiting: Vec::new(), removed: false }
    }

    fn now(&self) -> &Holds {
        self.states.last().expect("there is always one")
    }

    fn passes(&mut self, change: impl FnOnce(&mut Holds)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }

    fn reached(&mut self, written: usize, durable: usize) {
        self.written = self.written.max(written);
        self.durable = self.durable.max(durable);
    }

    /// The log has said that everything so far is on the disk.
    fn is_durable(&mut self) {
        self.reached(self.states.len() - 1, self.states.len() - 1);
    }

    async fn append(&mut self, entries: Vec<Entry>, fsync: Fsync) -> io::Result<()> {
        let mut durable = self.durable;
        for entry in &entries {
            self.passes(|holds| holds.entries.push(summary(entry)));
            if fsync == Fsync::Always || matches!(entry.payload, EntryPayload::Membership(_)) {
                durable = self.states.len() - 1;
            }
        }
        let (callback, told) = TypeConfig::oneshot();
        self.log.append(entries, IOFlushed::signal(callback)).await?;
        let written = self.states.len() - 1;
        self.waiting.push(Waiting { written, durable, told: Box::pin(async { told.await.ok() }) });
        Ok(())
    }

    /// Takes note of what has been acknowledged by now.
    fn listen(&mut self) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            match (&mut waiting.told).now_or_never() {
                Some(Some(Ok(()))) => self.reached(waiting.written, waiting.durable),
                Some(_) => (),
                None => self.waiting.push(waiting),
            }
        }
    }

    /// § Nobody waits for ever, whatever failed.
    async fn listen_to_all(&mut self) {
        for Waiting { written, durable, told } in std::mem::take(&mut self.waiting) {
            let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("every wait ends");
            if told.expect("callbacks are called, not dropped").is_ok() {
                self.reached(written, durable);
            }
        }
    }

    fn payload(&mut self, chance: &mut Chance, index: u64) -> Entry {
        let log_id = log_id(self.term, index);
        let length = match chance.below(25) {
            0 => PART_BYTES * 2 + chance.below(1000) as usize,
            1..4 => return Entry { log_id, payload: EntryPayload::Membership(membership()) },
            _ => chance.below(300) as usize,
        };
        let fill = chance.draw() as u8;
        entry(log_id, vec![fill; length])
    }

    async fn step(&mut self, node_log: &NodeLog, fsync: Fsync, chance: &mut Chance) -> io::Result<()> {
        let (last, purged) = (self.now().last(), self.now().purged);
        let next = last.map_or(chance.below(3), |last| last.index + 1);
        let first = purged.map_or(0, |purged| purged.index + 1);
        match chance.below(20) {
            0..9 => {
                let entries = (0..1 + chance.below(4)).map(|add| self.payload(chance, next + add)).collect();
                self.append(entries, fsync).await?;
            }
            9..12 => {
                let vote = Vote::new(self.term + chance.below(3), 1);
                self.passes(|holds| holds.vote = Some(vote));
                self.log.save_vote(&vote).await?;
                self.is_durable();
            }
            12..14 if next > first => {
                let kept = self.now().entries.get(chance.below(next - first) as usize).map(|(log_id, _, _)| *log_id);
                let from = kept.map_or(first, |kept| kept.index + 1);
                self.term += 1;
                self.passes(|holds| holds.entries.retain(|(log_id, _, _)| log_id.index < from));
                self.log.truncate_after(kept.or(purged)).await?;
            }
            14..17 if next > first => {
                let entries = &self.now().entries;
                let Some((upto, _, _)) = entries.get(chance.below(entries.len().max(1) as u64) as usize).copied()
                else {
                    return Ok(());
                };
                self.passes(|holds| holds.snapshot = Some(upto));
                self.log.snapshot_saved(upto);
                self.passes(|holds| {
                    holds.purged = Some(upto);
                    holds.entries.retain(|(log_id, _, _)| log_id.index > upto.index);
                });
                self.log.purge(upto).await?;
            }
            17 => {
                // A snapshot from the leader was installed.
                let upto = log_id(self.term, next + chance.below(5));
                self.passes(|holds| {
                    holds.purged = Some(upto);
                    holds.entries.clear();
                });
                self.log.purge(upto).await?;
            }
            18 => {
                self.log.flush().await?;
                self.is_durable();
            }
            _ if self.log.key == KEYS[2] && chance.below(4) == 0 => {
                self.passes(|holds| *holds = Holds::default());
                self.removed = true;
                node_log.remove_group(KEYS[2].0, KEYS[2].1);
            }
            _ => self.listen_to_all().await,
        }
        Ok(())
    }
}

fn membership() -> Membership<u64, Member> {
    let nodes = BTreeMap::from([(1, Member { node: NodeId([1; 20]) })]);
    Membership::new(vec![BTreeSet::from([1])], nodes).expect("valid")
}

/// Random steps on all replicas until one fails.
async fn work(node_log: &NodeLog, fsync: Fsync, chance: &mut Chance) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = KEYS.iter().map(|key| Replica::new(node_log, *key)).collect();
    for _ in 0..STEPS {
        let replica = &mut replicas[chance.below(KEYS.len() as u64) as usize];
        if !replica.removed && replica.step(node_log, fsync, chance).await.is_err() {
            break;
        }
        replica.listen();
    }
    for replica in &mut replicas {
        replica.listen_to_all().await;
    }
    replicas
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    PowerLoss,
}

/// Each replica's log must be in a state it passed through, no older than what was acknowledged.
fn check(node_log: &NodeLog, before: &[Replica], end: End, context: &str) {
    for replica in before {
        let (group, id) = replica.log.key;
        let found = Holds::of(&mut node_log.group(group, id));
        let oldest = match end {
            End::Kill => replica.written,
            End::PowerLoss => replica.durable,
        };
        let passed = &replica.states[oldest..];
        assert!(passed.contains(&found), "{context}: {group}/{id} holds\n{found:#?}\nbut passed\n{passed:#?}");
    }
}

/// Three lives of a log: the disk fails at the given operation of the first, at a random one of the second, not in the third. `ends`: of each.
fn live_thrice(fsync: Fsync, fail_at: u64, fault: Fault, ends: [End; 3], seed: u64) -> bool {
    let context = format!("{fsync:?} {fault:?} at operation {fail_at}, {ends:?}, seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut chance = Chance(seed);
    let mut disk = MemoryDisk::default();
    let mut before: Vec<Replica> = Vec::new();
    let mut first_life_met_the_fault = false;
    for (life, end) in ends.into_iter().enumerate() {
        let operation = if life == 0 { fail_at } else { 1 + chance.below(120) };
        if life < 2 {
            disk.fail_at(operation, fault);
        }
        match open(&disk, fsync) {
            Ok((node_log, _)) => {
                check(&node_log, &before, ends[life.saturating_sub(1)], &context);
                before = runtime.block_on(work(&node_log, fsync, &mut chance));
                node_log.close();
            }
            Err(LogError::Io { .. } | LogError::Unsynced { .. } | LogError::Full { .. }) if life < 2 => (),
            Err(error) => panic!("{context}: life {life}: {error}"),
        }
        if life == 0 {
            first_life_met_the_fault = disk.operations() >= fail_at;
        }
        disk = match end {
            End::Kill => disk.after_kill(),
            End::PowerLoss => disk.after_power_loss(&mut chance),
        };
    }
    // The third life ended with a clean stop.
    let (node_log, recovered) = open(&disk, fsync).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!((recovered.dropped_tail, recovered.power_loss_suspected), (None, false), "{context}");
    for replica in &mut before {
        replica.is_durable();
    }
    check(&node_log, &before, ends[2], &context);
    first_life_met_the_fault
}

fn fail_everywhere(fsync: Fsync, fault: Fault, end: End) {
    fail_everywhere_in(fsync, fault, [end; 3]);
}

fn fail_everywhere_in(fsync: Fsync, fault: Fault, ends: [End; 3]) {
    for seed in 0..SEEDS {
        let mut fail_at = 1;
        while live_thrice(fsync, fail_at, fault, ends, seed * 1000 + fail_at) {
            fail_at += 1;
        }
        assert!(fail_at > 20, "the first life did enough to fail: {fail_at}");
    }
}

#[test]
fn an_error_at_any_operation_loses_nothing_acknowledged() {
    fail_everywhere(Fsync::Always, Fault::Error(io::ErrorKind::Other), End::Kill);
}

/// What a failed sync has left in the kernel's memory is found by the next start, and must not be taken for what is on the disk.
#[test]
fn a_power_loss_after_an_error_and_a_start_loses_nothing_that_was_found() {
    let ends = [End::Kill, End::PowerLoss, End::PowerLoss];
    fail_everywhere_in(Fsync::Always, Fault::Error(io::ErrorKind::Other), ends);
}

#[test]
fn a_power_loss_at_any_operation_loses_nothing_acknowledged() {
    fail_everywhere(Fsync::Always, Fault::Dead, End::PowerLoss);
}

#[test]
fn without_fsync_a_killed_process_loses_nothing_acknowledged() {
    fail_everywhere(Fsync::EverySec, Fault::Dead, End::Kill);
    fail_everywhere(Fsync::No, Fault::Dead, End::Kill);
}

#[test]
fn without_fsync_a_power_loss_takes_no_vote_no_membership_and_nothing_flushed() {
    fail_everywhere(Fsync::EverySec, Fault::Dead, End::PowerLoss);
    fail_everywhere(Fsync::No, Fault::Dead, End::PowerLoss);
}

/// The mark of a clean stop is a batch like others, and the last one whose sync may fail.
#[tokio::test]
async fn a_stop_mark_that_was_not_synced_is_not_taken_for_what_is_on_the_disk() {
    let live = async |disk: &MemoryDisk| {
        let (node_log, _) = open(disk, Fsync::Always).expect("opens");
        let mut replica = Replica::new(&node_log, KEYS[0]);
        replica.append(vec![entry(log_id(1, 0), vec![1])], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
        node_log.close();
    };
    let (disk, failing) = (MemoryDisk::default(), MemoryDisk::default());
    live(&disk).await;
    failing.fail_at(disk.operations(), Fault::Error(io::ErrorKind::Other));
    live(&failing).await;
    assert_eq!(failing.operations(), disk.operations(), "the last one was the sync");
    let disk = failing.after_kill();
    let (second, _) = open(&disk, Fsync::Always).expect("opens");
    let disk = disk.after_loss_of_all();
    second.close();
    open(&disk, Fsync::Always).expect("opens").0.close();
}

#[tokio::test]
async fn a_failed_sync_stops_the_log_for_good_and_says_so() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    replica.append(vec![entry(log_id(1, 0), vec![1])], Fsync::Always).await.expect("queued");
    replica.listen_to_all().await;
    // After the write. Some file systems notice only now that they are full.
    let sync = disk.operations() + 2;
    disk.fail_at(sync, Fault::Error(io::ErrorKind::StorageFull));
    let (callback, told) = TypeConfig::oneshot();
    replica.log.append(vec![entry(log_id(1, 1), vec![1])], IOFlushed::signal(callback)).await.expect("queued");
    let told = told.await.expect("called").expect_err("not synced");
    assert_eq!(told.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(*node_log.failure().await, LogError::Unsynced { .. }));
    let refused = replica.log.save_vote(&Vote::new(9, 1)).await.expect_err("the log has failed");
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    node_log.close();
    // § No retry on the same file.
    assert_eq!(disk.operations(), sync);
}

/// A power loss may bring back what was removed since the directory was last synced.
#[test]
fn a_disk_that_loses_power_may_find_a_removed_file_again() {
    let path = Path::new("/log/file");
    let found = |synced: bool, seed| {
        let disk = MemoryDisk::default();
        disk.create(path).and_then(|file| file.sync()).and_then(|()| disk.sync_directory(path)).expect("created");
        disk.remove(path).expect("removed");
        if synced {
            disk.sync_directory(path).expect("synced");
        }
        disk.after_power_loss(&mut Chance(seed)).open(path).is_ok()
    };
    assert!((0..20).any(|seed| found(false, seed)) && (0..20).any(|seed| !found(false, seed)));
    assert!((0..20).all(|seed| !found(true, seed)));
}

#[tokio::test]
async fn a_vote_does_not_wait_for_another_groups_huge_entry() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let (mut huge, mut voter) = (node_log.group(KEYS[0].0, KEYS[0].1), node_log.group(KEYS[1].0, KEYS[1].1));
    // The entry needs 32 batches; the disk dies long before the last.
    disk.fail_at(disk.operations() + 60, Fault::Dead);
    let (callback, told) = TypeConfig::oneshot();
    let bytes = vec![7; 64 * PART_BYTES];
    let vote = Vote::new(3, 4);
    let mut saved = Box::pin(voter.save_vote(&vote));
    disk.hold(|| {
        let appended = huge.append(vec![entry(log_id(1, 0), bytes)], IOFlushed::signal(callback)).now_or_never();
        appended.expect("there is room").expect("queued");
        assert!((&mut saved).now_or_never().is_none(), "queued behind it");
    });
    saved.await.expect("the vote passes");
    told.await.expect("called").expect_err("the entry was not written");
}

#[tokio::test]
async fn everysec_syncs_in_the_background_within_about_a_second() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::EverySec).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    replica.append(vec![entry(log_id(1, 0), vec![1])], Fsync::EverySec).await.expect("queued");
    replica.listen_to_all().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while disk.has_unsynced() {
        assert!(Instant::now() < deadline, "never synced");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_suspected_power_loss_stays_suspected_at_later_starts() {
    let disk = MemoryDisk::default();
    let options =
        LogOptions { fsync: Fsync::EverySec, segment_bytes: 1500, accept_loss: false, memory_bytes: u64::MAX };
    let open = |disk: &MemoryDisk, boot_id: &[u8]| {
        let disk = Arc::new(disk.clone());
        NodeLog::open_on(disk, Path::new(DIRECTORY), options, boot_id.to_vec(), None).expect("opens")
    };
    let killed = {
        let (_node_log, _) = open(&disk, b"first boot");
        disk.after_kill()
    };
    for start in 0..3 {
        let (node_log, recovered) = open(&killed, b"second boot");
        assert!(recovered.power_loss_suspected, "start {start}");
        node_log.close();
    }
    let accepting = LogOptions { accept_loss: true, ..options };
    for options in [accepting, options] {
        let disk = Arc::new(killed.clone());
        let opened = NodeLog::open_on(disk, Path::new(DIRECTORY), options, b"second boot".to_vec(), None);
        let (node_log, recovered) = opened.expect("opens");
        assert!(!recovered.power_loss_suspected, "the loss was accepted");
        node_log.close();
    }
}

/// Five acknowledged entries of one replica in one segment, its path and length without room.
async fn five_entries() -> (MemoryDisk, PathBuf, usize) {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[1]);
    for index in 0..5 {
        let bytes = format!("entry {index}").into_bytes();
        replica.append(vec![entry(log_id(1, index), bytes)], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
    }
    let killed = disk.after_kill();
    let path = killed.list(Path::new(DIRECTORY)).expect("lists").remove(0);
    let bytes = killed.read(&path).expect("reads");
    (killed, path, bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1)
}

#[tokio::test]
async fn a_flipped_bit_is_refused_before_the_last_recorded_durable_batch_and_dropped_behind_it() {
    let (whole, path, length) = five_entries().await;
    let last_batch = length - (32 + 17 + 24 + 1 + "entry 4".len());
    for position in 0..length {
        for bit in [1, 128] {
            let disk = whole.after_kill();
            disk.damage(&path, |bytes| bytes[position] ^= bit);
            let opened = open(&disk, Fsync::Always);
            match opened {
                Err(LogError::Corrupt { .. } | LogError::Foreign { .. }) if position < last_batch => (),
                Ok((node_log, recovered)) if position >= last_batch => {
                    let dropped = recovered.dropped_tail.expect("reported");
                    assert_eq!((dropped.offset, dropped.bytes), (last_batch as u64, (length - last_batch) as u64));
                    assert_eq!(node_log.group(KEYS[1].0, KEYS[1].1).last_log_id(), Some(log_id(1, 3)));
                }
                Err(error) => panic!("bit {bit} of byte {position}: {error}"),
                Ok(_) => panic!("bit {bit} of byte {position}: damage was taken for a torn tail"),
            }
        }
    }
}

#[tokio::test]
async fn a_segment_that_is_missing_is_noticed() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[1]);
    for index in 0..30 {
        replica.append(vec![entry(log_id(1, index), vec![1; 200])], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
    }
    drop((node_log, replica));
    let mut segments = disk.list(Path::new(DIRECTORY)).expect("lists");
    segments.sort();
    assert!(segments.len() > 3);
    for (number, segment) in segments[..segments.len() - 1].iter().enumerate() {
        let disk = disk.after_kill();
        disk.remove(segment).expect("removes");
        match (open(&disk, Fsync::Always), number) {
            (Err(LogError::Missing { .. }), 0) => (),
            (Err(LogError::Corrupt { path, .. }), 1..) => assert_eq!(path, segments[number - 1]),
            (Err(error), _) => panic!("without segment {number}: {error}"),
            (Ok(_), _) => panic!("segment {number} was not missed"),
        }
    }
}

#[tokio::test]
async fn a_value_that_looks_like_a_batch_does_not_turn_a_torn_tail_into_corruption() {
    let (whole, path, length) = five_entries().await;
    // Of the same log, but of another segment, as a client could know at best.
    let forged = whole.read(&path).expect("reads")[24..length].to_vec();
    let disk = whole.after_kill();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[1]);
    replica.append(vec![entry(log_id(1, 5), forged)], Fsync::Always).await.expect("queued");
    replica.listen_to_all().await;
    let torn = disk.after_kill();
    let mut segments = torn.list(Path::new(DIRECTORY)).expect("lists");
    segments.sort();
    let newest = segments.last().expect("there are two");
    torn.damage(newest, |bytes| {
        let last = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
        bytes[last] ^= 1;
    });
    let (node_log, recovered) = open(&torn, Fsync::Always).expect("a torn tail is not corruption");
    assert!(recovered.dropped_tail.is_some());
    assert_eq!(node_log.group(KEYS[1].0, KEYS[1].1).last_log_id(), Some(log_id(1, 4)));
}
