//! Entries that memory has let go of are read back from the log's files: the same ones, or an error.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};

use super::memory_disk::MemoryDisk;
use super::place::{Found, Piece, Place, SegmentFile};
use super::tail::{LARGE_KEPT, Tail};
use super::writer::{BATCH_BYTES, MOVED_BYTES_MIN, PART_BYTES};
use super::*;
use crate::cluster::{GroupId, ReplicaId};
use crate::raft::types::{Batch, Entry, LeaderId, LogId};

const MEMORY_BYTES: u64 = 5000;
const OPTIONS: LogOptions =
    LogOptions { fsync: Fsync::Always, segment_bytes: 64 << 10, accept_loss: false, memory_bytes: MEMORY_BYTES };

fn open(directory: &Path) -> (NodeLog, GroupLog) {
    let log = NodeLog::open(directory, OPTIONS).expect("opens").0;
    let group = log.group(GroupId(1), ReplicaId(1));
    (log, group)
}

fn entry(term: u64, index: u64, length: usize) -> Entry {
    let bytes: Vec<u8> = (0..length).map(|byte| (byte as u64 * 7 + index + term) as u8).collect();
    Entry::new(LogId::new(LeaderId { term, node_id: 1 }, index), EntryPayload::Normal(Batch(Bytes::from(bytes))))
}

/// Tiny ones, small ones, and one that is written in parts, over two batches.
fn entries() -> Vec<Entry> {
    let length = |index| match index {
        20 => 3 * BATCH_BYTES,
        index if index % 5 == 0 => MOVED_BYTES_MIN - 1,
        index => 900 + index as usize,
    };
    (0..200).map(|index| entry(1, index, length(index))).collect()
}

fn in_memory(log: &GroupLog) -> Vec<u64> {
    let tail = log.tail.lock();
    tail.range(0, u64::MAX).filter(Found::is_here).map(|found| found.log_id().index).collect()
}

async fn check(log: &mut GroupLog, wanted: &[Entry]) {
    assert_eq!(log.try_get_log_entries(..).await.expect("reads"), wanted);
    let streamed: Vec<Entry> =
        log.entries_stream(wanted[0].log_id.index..).await.map(|entry| entry.expect("reads")).collect().await;
    assert_eq!(streamed, wanted);
    let mut limited = Vec::new();
    while let Some(next) = wanted.get(limited.len()) {
        let some = log.limited_get_log_entries(next.log_id.index, u64::MAX).await.expect("reads");
        assert!(!some.is_empty());
        limited.extend(some);
    }
    assert_eq!(limited, wanted);
}

#[tokio::test]
async fn old_entries_leave_memory_and_are_read_back_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let wanted = entries();
    {
        let (_log, mut group) = open(directory.path());
        for entries in wanted.chunks(3) {
            group.blocking_append(entries.to_vec()).await.expect("appends");
        }
        check(&mut group, &wanted).await;
        let here = in_memory(&group);
        let large: Vec<u64> = here.iter().copied().filter(|index| index % 5 != 0).collect();
        assert!((3..20).contains(&large.len()), "about five thousand bytes stay: {large:?}");
        assert!(!here.contains(&20) && here.contains(&199), "what is new: {here:?}");
    }
    let (_log, mut group) = open(directory.path());
    check(&mut group, &wanted).await;
    let large = in_memory(&group).into_iter().filter(|index| index % 5 != 0).count();
    assert!((3..20).contains(&large), "{:?}", in_memory(&group));
}

/// As many as may be under way at a time are not read back to be sent and applied.
#[tokio::test]
async fn the_newest_large_entries_stay_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_log, mut group) = open(directory.path());
    let mut wanted = Vec::new();
    for index in 0..LARGE_KEPT as u64 + 3 {
        wanted.push(entry(1, index, PART_BYTES + 1));
        group.blocking_append([wanted[index as usize].clone()]).await.expect("appends");
    }
    assert_eq!(in_memory(&group), (3..LARGE_KEPT as u64 + 3).collect::<Vec<_>>());
    check(&mut group, &wanted).await;
}

#[tokio::test]
async fn what_replaces_moved_entries_is_what_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut wanted: Vec<Entry> = (0..50).map(|index| entry(1, index, 1000)).collect();
    {
        let (_log, mut group) = open(directory.path());
        for entry in &wanted {
            group.blocking_append([entry.clone()]).await.expect("appends");
        }
        wanted.truncate(10);
        group.truncate_after(Some(wanted[9].log_id)).await.expect("truncates");
        wanted.extend((10..40).map(|index| entry(2, index, 1500)));
        for entry in &wanted[10..] {
            group.blocking_append([entry.clone()]).await.expect("appends");
        }
        check(&mut group, &wanted).await;
        group.purge(wanted[4].log_id).await.expect("purges");
        wanted.drain(..5);
        check(&mut group, &wanted).await;
    }
    check(&mut open(directory.path()).1, &wanted).await;
}

#[test]
fn a_place_that_comes_late_is_not_taken_for_another_entrys() {
    let mut tail = Tail::default();
    let file = MemoryDisk::default().create(Path::new("segment")).expect("creates");
    let segment = Arc::new(SegmentFile { file, path: "segment".into() });
    let place = Place::Whole(Piece { segment, offset: 0, length: 1000, crc32: 0 });
    tail.push(entry(1, 0, 1000)).expect("follows");
    tail.truncate_from(0);
    tail.push(entry(2, 0, 1000)).expect("follows");
    tail.written(entry(1, 0, 0).log_id, Some(place.clone()));
    tail.written(entry(1, 7, 0).log_id, Some(place.clone()));
    tail.move_to_disk(0, 8);
    assert!(tail.range(0, 1).all(|found| found.is_here()), "not known to be written");
    tail.written(entry(2, 0, 0).log_id, Some(place));
    tail.move_to_disk(0, 8);
    let found = tail.range(0, 1).next().expect("it is there");
    assert!(!found.is_here());
    assert!(found.read().is_err(), "the file holds nothing");
}

#[tokio::test]
async fn damage_in_a_moved_entry_is_an_error_that_says_where() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_log, mut group) = open(directory.path());
    for index in 0..20 {
        group.blocking_append([entry(1, index, 1000)]).await.expect("appends");
    }
    let files = fs::read_dir(directory.path()).expect("reads").map(|file| file.expect("a file").path());
    let path = files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).min().expect("one");
    let mut bytes = fs::read(&path).expect("reads");
    let payload = entry(1, 3, 1000);
    let EntryPayload::Normal(Batch(payload)) = payload.payload else { panic!("ops") };
    let at = bytes.windows(payload.len()).position(|window| *window == payload).expect("it is written");
    bytes[at + 500] ^= 1;
    fs::write(&path, bytes).expect("writes");
    assert_eq!(group.limited_get_log_entries(4, 6).await.expect("reads").len(), 2);
    let error = group.limited_get_log_entries(3, 6).await.expect_err("damaged").to_string();
    assert!(error.contains("wal-") && error.contains(&format!("offset {at}")), "{error}");
    let streamed: Vec<_> = group.entries_stream(3..6).await.collect().await;
    assert!(streamed.len() == 1 && streamed[0].is_err(), "{streamed:?}");
}
