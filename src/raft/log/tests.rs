//! Tests of the log on real files: openraft's conformance suite, restarts, torn tails, corruption, power loss.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};

use super::writer::BATCH_BYTES;
use super::*;
use crate::cluster::{GroupId, ReplicaId};
use crate::keyspace::{HashSecret, Keyspace};
use crate::raft::group::GroupState;
use crate::raft::machine::GroupMachine;
use crate::raft::meta::{MetaMachine, MetaState};
use crate::raft::snapshot::SnapshotStore;
use crate::raft::types::{Batch, Entry, LeaderId, LogId, Vote};
use crate::raft::{SnapshotTurns, TypeConfig};

const OPTIONS: LogOptions =
    LogOptions { fsync: Fsync::Always, segment_bytes: 64 << 20, accept_loss: false, memory_bytes: 3000 };
const KEY: (GroupId, ReplicaId) = (GroupId(1), ReplicaId(1));

fn open(directory: &Path) -> NodeLog {
    NodeLog::open(directory, OPTIONS).expect("opens").0
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(index: u64, bytes: &[u8]) -> Entry {
    Entry::new(log_id(1, index), EntryPayload::Normal(Batch(Bytes::copy_from_slice(bytes))))
}

async fn append(log: &mut GroupLog, entries: Vec<Entry>) {
    log.blocking_append(entries).await.expect("appends");
}

async fn contents(log: &mut GroupLog) -> Vec<(u64, Vec<u8>)> {
    let entries = log.try_get_log_entries(..).await.expect("reads");
    let bytes = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.to_vec(),
        EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
    };
    entries.iter().map(|entry| (entry.log_id.index, bytes(entry))).collect()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).expect("reads").map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

struct Builder;

impl StoreBuilder<TypeConfig, GroupLog, GroupMachine, (tempfile::TempDir, NodeLog)> for Builder {
    async fn build(&self) -> Result<((tempfile::TempDir, NodeLog), GroupLog, GroupMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().expect("a directory");
        let node_log = open(&directory.path().join("log"));
        let log = node_log.group(KEY.0, KEY.1);
        let state = Arc::new(GroupState::new(KEY.0, KEY.1, 7, Keyspace::new(HashSecret([1; 4])), None));
        let snapshots = SnapshotStore::open(
            Arc::new(RealDisk),
            directory.path().join("snapshots"),
            SnapshotTurns::new(0),
            &state,
            &log,
        )
        .expect("opens");
        let machine = GroupMachine { state, log: log.clone(), snapshots };
        Ok(((directory, node_log), log, machine))
    }
}

#[test]
fn the_log_passes_openrafts_conformance_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(Suite::test_all(Builder)).expect("conforms");
}

#[tokio::test]
async fn votes_entries_and_purges_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let node_log = open(directory.path());
    let mut log = node_log.group(KEY.0, KEY.1);
    let vote = Vote::new(3, 1);
    log.save_vote(&vote).await.expect("saves");
    append(&mut log, (0..5).map(|index| entry(index, b"old")).collect()).await;
    log.truncate_after(Some(log_id(1, 2))).await.expect("truncates");
    append(&mut log, vec![entry(3, b"new")]).await;
    log.purge(log_id(1, 0)).await.expect("purges");
    log.flush().await.expect("flushes");
    node_log.close();
    drop((log, node_log));
    let node_log = open(directory.path());
    let mut log = node_log.group(KEY.0, KEY.1);
    assert_eq!(log.vote(), Some(vote));
    assert_eq!(contents(&mut log).await, [(1, b"old".to_vec()), (2, b"old".to_vec()), (3, b"new".to_vec())]);
    assert_eq!(log.get_log_state().await.expect("reads").last_purged_log_id, Some(log_id(1, 0)));
    let other = node_log.group(KEY.0, ReplicaId(2));
    assert_eq!((other.vote(), other.last_log_id()), (None, None), "another replica's log is another log");
}

#[tokio::test]
async fn a_purged_entry_is_an_error_to_apply_and_nothing_to_replicate() {
    let directory = tempfile::tempdir().expect("a directory");
    let node_log = open(directory.path());
    let mut log = node_log.group(KEY.0, KEY.1);
    append(&mut log, (0..200).map(|index| entry(index, b"v")).collect()).await;
    for (purged, end) in [(9, 200), (199, 200)] {
        log.purge(log_id(1, purged)).await.expect("purges");
        let read: Vec<_> = log.entries_stream(purged..end).await.collect().await;
        assert!(read.len() == 1 && read[0].is_err(), "{read:?}");
        assert!(log.limited_get_log_entries(purged, end).await.expect("reads").is_empty());
        let rest: Vec<_> = log.entries_stream(purged + 1..end).await.collect().await;
        assert_eq!(rest.into_iter().filter_map(Result::ok).count() as u64, end - purged - 1);
    }
}

#[tokio::test]
async fn a_replica_that_lost_the_snapshot_its_log_continues_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("groups/1-1");
    let node_log = open(&directory.path().join("log"));
    let mut log = node_log.group(KEY.0, KEY.1);
    append(&mut log, (0..10).map(|index| entry(index, b"v")).collect()).await;
    let machine = |log: &GroupLog| {
        let state = Arc::new(GroupState::new(KEY.0, KEY.1, 7, Keyspace::new(HashSecret([1; 4])), None));
        let snapshots = SnapshotStore::open(Arc::new(RealDisk), place.clone(), SnapshotTurns::new(0), &state, log)?;
        Ok::<_, std::io::Error>(GroupMachine { state, log: log.clone(), snapshots })
    };
    let mut saved = machine(&log).expect("nothing is purged yet");
    saved.state.update_applied(|applied| applied.log_id = Some(log_id(1, 6)));
    saved.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    log.purge(log_id(1, 6)).await.expect("purges");
    machine(&log).expect("the log continues the snapshot");
    log.purge(log_id(1, 7)).await.expect("purges");
    let refused = machine(&log).expect_err("entry 7 is nowhere").to_string();
    assert!(
        refused.contains("groups/1-1") && refused.contains("up to 7") && refused.contains("ends at 6"),
        "{refused}"
    );
    fs::remove_dir_all(&place).expect("removes");
    let refused = machine(&log).expect_err("entries up to 7 are nowhere").to_string();
    assert!(refused.contains("there is none"), "{refused}");
    let meta = MetaMachine::open(
        Arc::new(RealDisk),
        Arc::new(MetaState::new(KEY.1, 7, 0, Arc::default(), None)),
        log.clone(),
        place,
    );
    assert!(meta.expect_err("the same").to_string().contains("lacks the snapshot"));
}

#[tokio::test]
async fn a_damaged_beginning_is_corruption_when_older_segments_are_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path()));
    // Nothing needs the first segment, so the second start removes it.
    drop(open(directory.path()));
    let paths = segments(directory.path());
    let [sole] = &paths[..] else { panic!("{paths:?}") };
    let beginning = fs::read(sole).expect("reads")[..40].to_vec();
    fs::write(sole, beginning).expect("writes");
    assert!(matches!(NodeLog::open(directory.path(), OPTIONS), Err(LogError::Corrupt { .. })));
}

#[tokio::test]
async fn an_entry_larger_than_a_batch_comes_back_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let large: Vec<u8> = (0..3 * BATCH_BYTES + 17).map(|byte| byte as u8).collect();
    {
        let node_log = open(directory.path());
        let mut log = node_log.group(KEY.0, KEY.1);
        append(&mut log, vec![entry(0, b"a"), entry(1, &large), entry(2, b"c")]).await;
    }
    let mut log = open(directory.path()).group(KEY.0, KEY.1);
    assert_eq!(contents(&mut log).await, [(0, b"a".to_vec()), (1, large), (2, b"c".to_vec())]);
}

#[tokio::test]
async fn segments_go_only_when_every_group_is_purged_past_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = LogOptions { segment_bytes: 4096, ..OPTIONS };
    let node_log = NodeLog::open(directory.path(), options).expect("opens").0;
    let (mut log, mut other) = (node_log.group(KEY.0, KEY.1), node_log.group(GroupId(2), ReplicaId(2)));
    append(&mut other, vec![entry(0, b"kept")]).await;
    for index in 0..40 {
        append(&mut log, vec![entry(index, &[7; 1000])]).await;
    }
    let before = segments(directory.path()).len();
    assert!(before > 5, "{before} segments");
    log.purge(log_id(1, 39)).await.expect("purges");
    append(&mut log, vec![entry(40, &[7; 5000]), entry(41, &[7; 5000])]).await;
    append(&mut log, vec![entry(42, b"x")]).await;
    assert!(segments(directory.path()).len() > before, "the other group's entry holds the first segment");
    other.purge(log_id(1, 0)).await.expect("purges");
    append(&mut log, vec![entry(43, &[7; 5000])]).await;
    append(&mut log, vec![entry(44, &[7; 5000])]).await;
    append(&mut log, vec![entry(45, b"x")]).await;
    assert!(segments(directory.path()).len() < 6, "{:?}", segments(directory.path()));
    node_log.close();
    drop((log, other, node_log));
    let node_log = open(directory.path());
    let mut log = node_log.group(KEY.0, KEY.1);
    let indexes: Vec<u64> = contents(&mut log).await.into_iter().map(|(index, _)| index).collect();
    assert_eq!(indexes, [40, 41, 42, 43, 44, 45]);
}

#[tokio::test]
async fn only_those_who_hold_segments_beyond_the_limit_pin_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let node_log = NodeLog::open(directory.path(), LogOptions { segment_bytes: 4096, ..OPTIONS }).expect("opens").0;
    let (mut busy, mut quiet) = (node_log.group(KEY.0, KEY.1), node_log.group(GroupId(2), ReplicaId(2)));
    append(&mut quiet, (0..3).map(|index| entry(index, b"kept")).collect()).await;
    for index in 0..40 {
        append(&mut busy, vec![entry(index, &[7; 1000])]).await;
    }
    assert_eq!(node_log.pins(1 << 20), [], "the log is no longer than it may be");
    let pinning =
        |bytes_max| node_log.pins(bytes_max).into_iter().map(|pin| (pin.group, pin.index)).collect::<Vec<_>>();
    let [(GroupId(1), some), (GroupId(2), 2)] = pinning(16 << 10)[..] else { panic!("{:?}", pinning(16 << 10)) };
    assert!((3..39).contains(&some), "the newest segments are not counted: {some}");
    busy.purge(log_id(1, some)).await.expect("purges");
    quiet.snapshot_saved(log_id(1, 1));
    let pin = Pin { group: GroupId(2), replica: ReplicaId(2), index: 2, purged: None, covered: false };
    assert_eq!(node_log.pins(16 << 10), [pin]);
    quiet.snapshot_saved(log_id(1, 2));
    quiet.purge(log_id(1, 0)).await.expect("purges");
    assert_eq!(node_log.pins(16 << 10), [Pin { purged: Some(0), covered: true, ..pin }]);
    quiet.purge(log_id(1, 2)).await.expect("purges");
    assert_eq!(node_log.pins(16 << 10), []);
}

#[tokio::test]
async fn a_crash_at_any_byte_of_a_new_segment_is_survived() {
    let source = tempfile::tempdir().expect("a directory");
    drop(open(source.path()));
    let whole = used(&segments(source.path())[0]);
    for cut in 0..whole.len() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("wal-00000000000000000001.log"), &whole[..cut]).expect("writes");
        for _ in 0..2 {
            let node_log = open(directory.path());
            let mut log = node_log.group(KEY.0, KEY.1);
            let next = log.last_log_id().map_or(0, |last| last.index + 1);
            append(&mut log, vec![entry(next, b"a")]).await;
        }
        assert_eq!(open(directory.path()).group(KEY.0, KEY.1).last_log_id(), Some(log_id(1, 1)), "cut at {cut}");
    }
}

/// Ten acknowledged entries, and the bytes of their one segment.
async fn ten_entries(directory: &Path) -> Vec<u8> {
    let node_log = open(directory);
    let mut log = node_log.group(KEY.0, KEY.1);
    for index in 0..10 {
        append(&mut log, vec![entry(index, format!("entry {index}").as_bytes())]).await;
    }
    used(&segments(directory)[0])
}

/// A segment without the zeros written ahead.
fn used(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).expect("reads");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    bytes.truncate(last + 1);
    bytes
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_of_the_last_batch_is_dropped_and_reported() {
    let source = tempfile::tempdir().expect("a directory");
    let whole = ten_entries(source.path()).await;
    // The last batch is what nobody was told about when it was torn.
    let last_batch = 32 + 17 + 17 + 8 + 25;
    for cut in whole.len() - last_batch..whole.len() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("wal-00000000000000000001.log"), &whole[..cut]).expect("writes");
        let (node_log, recovered) = NodeLog::open(directory.path(), OPTIONS).expect("a torn tail is not corruption");
        let mut log = node_log.group(KEY.0, KEY.1);
        let found = contents(&mut log).await;
        assert!(found.len() >= 8, "cut at {cut}: {} entries", found.len());
        let expected: Vec<(u64, Vec<u8>)> =
            (0..found.len() as u64).map(|index| (index, format!("entry {index}").into_bytes())).collect();
        assert_eq!(found, expected);
        let removed = recovered.dropped_tail.map_or(0, |dropped| dropped.bytes);
        let kept = fs::metadata(directory.path().join("wal-00000000000000000001.log")).expect("exists").len();
        let written = whole[kept as usize..cut].iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        assert_eq!(removed, written, "zeros are not counted");
        // What was cut off stays off: appending goes on behind it and a second start agrees.
        let next = found.len() as u64;
        append(&mut log, vec![entry(next, b"after")]).await;
        drop((log, node_log));
        let mut log = open(directory.path()).group(KEY.0, KEY.1);
        assert_eq!(contents(&mut log).await.last(), Some(&(next, b"after".to_vec())), "cut at {cut}");
    }
}

#[tokio::test]
async fn damage_before_what_had_reached_the_disk_is_corruption() {
    let source = tempfile::tempdir().expect("a directory");
    let whole = ten_entries(source.path()).await;
    for position in (8..whole.len() / 2).step_by(7) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut damaged = whole.clone();
        damaged[position] ^= 0x10;
        fs::write(directory.path().join("wal-00000000000000000001.log"), damaged).expect("writes");
        match NodeLog::open(directory.path(), OPTIONS) {
            Err(LogError::Corrupt { path, offset, .. }) => {
                assert!(path.ends_with("wal-00000000000000000001.log") && offset <= position as u64);
            }
            Err(other) => panic!("byte {position}: {other}"),
            Ok(_) => panic!("byte {position}: damage was taken for a torn tail"),
        }
    }
}

#[test]
fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let _log = open(directory.path());
    assert!(matches!(NodeLog::open(directory.path(), OPTIONS), Err(LogError::Locked { .. })));
}

#[tokio::test]
async fn only_a_reboot_without_a_clean_stop_makes_an_unsynced_log_suspect() {
    for (fsync, clean, rebooted, suspected) in [
        (Fsync::EverySec, false, true, true),
        (Fsync::No, false, true, true),
        (Fsync::EverySec, true, true, false),
        (Fsync::EverySec, false, false, false),
        (Fsync::Always, false, true, false),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let options = LogOptions { fsync, ..OPTIONS };
        {
            let boot_id = if rebooted { b"an earlier boot".to_vec() } else { node_log::boot_id() };
            let node_log =
                NodeLog::open_on(Arc::new(RealDisk), directory.path(), options, boot_id, None).expect("opens").0;
            let mut log = node_log.group(KEY.0, KEY.1);
            append(&mut log, vec![entry(0, b"a")]).await;
            if !clean {
                // As after a crash: the file as it is before the stop mark.
                let bytes = fs::read(&segments(directory.path())[0]).expect("reads");
                node_log.close();
                fs::write(&segments(directory.path())[0], bytes).expect("writes");
            }
        }
        let (_log, recovered) = NodeLog::open(directory.path(), options).expect("opens");
        assert_eq!(recovered.power_loss_suspected, suspected, "{fsync:?} clean {clean} rebooted {rebooted}");
    }
}
