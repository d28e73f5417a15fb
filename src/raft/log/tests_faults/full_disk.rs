//! The log on a disk that gets full: what must find a place does, the rest waits, nothing acknowledged is lost.

use futures_util::future::join_all;

use super::*;
use crate::raft::log::segments::{RESERVE_BYTES, ROOM_INTERVAL};

/// Appends small entries until the log has no more space for segments; the next index.
async fn fill(node_log: &NodeLog, replica: &mut Replica) -> u64 {
    fill_from(node_log, replica, 0).await
}

async fn fill_from(node_log: &NodeLog, replica: &mut Replica, first: u64) -> u64 {
    for index in first.. {
        if node_log.room().has_ended() {
            return index;
        }
        replica.append(vec![entry(log_id(1, index), vec![1; 300])], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
    }
    unreachable!("indexes do not end")
}

#[tokio::test]
async fn on_a_full_disk_votes_and_what_is_under_way_find_a_place_and_later_entries_wait_for_space() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    disk.limit_free(Some(0));
    let next = fill(&node_log, &mut replica).await;
    let vote = Vote::new(9, 1);
    replica.passes(|holds| holds.vote = Some(vote));
    replica.log.save_vote(&vote).await.expect("there is the reserve");
    replica.is_durable();
    // What a power loss leaves now is a whole log.
    let after = disk.after_power_loss(&mut Chance(7));
    let (found, _) = open(&after, Fsync::Always).expect("opens");
    check(&found, std::slice::from_ref(&replica), End::PowerLoss, "while the disk is full");
    found.close();

    let huge = vec![7; RESERVE_BYTES as usize + 1];
    replica.append(vec![entry(log_id(1, next), huge)], Fsync::Always).await.expect("queued");
    tokio::time::sleep(3 * ROOM_INTERVAL).await;
    replica.listen();
    assert_eq!(replica.waiting.len(), 1, "it waits for space, and has not failed");
    disk.limit_free(None);
    replica.listen_to_all().await;
    assert!(replica.durable + 1 == replica.states.len(), "written when there was space");
    while node_log.room().has_ended() {
        tokio::task::yield_now().await;
    }
    node_log.close();
    let (found, _) = open(&disk.after_kill(), Fsync::Always).expect("opens");
    check(&found, &[replica], End::Kill, "with space again");
}

#[tokio::test]
async fn a_log_that_waits_for_space_can_be_closed() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    disk.limit_free(Some(0));
    let next = fill(&node_log, &mut replica).await;
    let (callback, told) = TypeConfig::oneshot();
    let huge = entry(log_id(1, next), vec![7; 2 * RESERVE_BYTES as usize]);
    replica.log.append(vec![huge], IOFlushed::signal(callback)).await.expect("queued");
    tokio::task::spawn_blocking(move || node_log.close()).await.expect("closes");
    told.await.expect("called").expect_err("not written");
}

/// § The reserve of the life before is all that such a node has for its vote.
#[tokio::test]
async fn a_log_opens_on_a_disk_that_was_full_when_its_last_process_ended() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    disk.limit_free(Some(0));
    fill(&node_log, &mut replica).await;
    node_log.close();
    for life in 0..3 {
        let disk = disk.after_kill();
        disk.limit_free(Some(0));
        let (node_log, _) = open(&disk, Fsync::Always).unwrap_or_else(|error| panic!("life {life}: {error}"));
        let mut again = Replica::new(&node_log, KEYS[0]);
        let vote = Vote::new(9 + life, 1);
        tokio::time::timeout(Duration::from_secs(20), again.log.save_vote(&vote))
            .await
            .expect("in time")
            .expect("saved");
        node_log.close();
    }
}

/// Neither btrfs, which writes elsewhere what is written again, nor NFS keeps space for a file.
#[tokio::test]
async fn a_disk_that_keeps_no_space_is_known_to_be_full_while_a_batch_waits() {
    let disk = MemoryDisk::default();
    disk.keep_no_space();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    disk.limit_free(Some(0));
    let large = vec![7; 100_000];
    replica.append(vec![entry(log_id(1, 0), large)], Fsync::Always).await.expect("queued");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !(node_log.room().has_ended() && node_log.room().is_spent()) {
        assert!(Instant::now() < deadline, "nobody is told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    disk.limit_free(None);
    replica.listen_to_all().await;
    assert!(replica.durable + 1 == replica.states.len(), "written when there was space");
    while node_log.room().has_ended() {
        assert!(Instant::now() < deadline, "it stays full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node_log.close();
}

/// Some file systems find that they are full when a file is cut or removed, also what was just created in vain.
#[tokio::test]
async fn a_disk_that_is_full_for_some_operations_does_not_stop_the_log() {
    for duration in 1..=3 {
        // Side by side, as each waits for space in its turn.
        let mut first = 1;
        while join_all((first..first + 50).map(|operation| is_reached(operation, duration))).await.contains(&true) {
            first += 50;
        }
        assert!(first > 50, "some were");
    }
}

/// Of a log that works meanwhile. False if it ended before.
async fn is_reached(operation: u64, duration: u64) -> bool {
    let context = format!("full for {duration} from operation {operation} on");
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    let full = disk.operations() + operation;
    disk.fail_at(full, Fault::Full(duration));
    for index in 0..20 {
        replica.append(vec![entry(log_id(1, index), vec![1; 300])], Fsync::Always).await.expect(&context);
        replica.listen_to_all().await;
        let purged = log_id(1, index / 2);
        replica.passes(|holds| {
            holds.purged = Some(purged);
            holds.entries.retain(|(log_id, _, _)| log_id.index > purged.index);
        });
        replica.log.purge(purged).await.expect(&context);
    }
    assert!(node_log.failure().now_or_never().is_none(), "{context}: {:?}", node_log.failure().now_or_never());
    node_log.close();
    let (found, _) = open(&disk.after_power_loss(&mut Chance(operation)), Fsync::Always).expect("opens");
    check(&found, &[replica], End::PowerLoss, &context);
    disk.operations() >= full
}

#[tokio::test]
async fn without_a_file_descriptor_the_log_goes_on_in_its_segment_until_there_is_one() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    let segments = || disk.list(Path::new(DIRECTORY)).expect("lists").len();
    let before = segments();
    disk.fail_at(0, Fault::Crowded);
    for index in 0..40 {
        replica.append(vec![entry(log_id(1, index), vec![1; 300])], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
    }
    assert!(node_log.failure().now_or_never().is_none() && !node_log.room().has_ended());
    assert_eq!(segments(), before);
    disk.fail_at(u64::MAX, Fault::Crowded);
    let deadline = Instant::now() + Duration::from_secs(20);
    for index in 40.. {
        replica.append(vec![entry(log_id(1, index), vec![1; 300])], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
        if segments() > before {
            break;
        }
        assert!(Instant::now() < deadline, "no segment is begun");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node_log.close();
    let (found, _) = open(&disk.after_power_loss(&mut Chance(7)), Fsync::Always).expect("opens");
    check(&found, &[replica], End::PowerLoss, "after a crowd");
}

#[tokio::test]
async fn on_a_full_disk_segments_that_are_not_needed_are_given_back_without_another_write() {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    let segments = || disk.list(Path::new(DIRECTORY)).expect("lists").len();
    for index in 0..20 {
        replica.append(vec![entry(log_id(1, index), vec![1; 300])], Fsync::Always).await.expect("queued");
        replica.listen_to_all().await;
    }
    disk.limit_free(Some(0));
    let last = fill_from(&node_log, &mut replica, 20).await - 1;
    assert!(segments() > 3);
    replica.log.purge(log_id(1, last)).await.expect("queued");
    let deadline = Instant::now() + Duration::from_secs(20);
    while segments() > 1 {
        assert!(Instant::now() < deadline, "{} segments stay", segments());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(node_log.failure().now_or_never().is_none());
    node_log.close();
    let (found, _) = open(&disk.after_power_loss(&mut Chance(7)), Fsync::Always).expect("opens");
    assert_eq!(found.group(KEYS[0].0, KEYS[0].1).last_log_id(), Some(log_id(1, last)));
}

/// The disk is full half of the time, now and then.
#[test]
fn a_disk_that_gets_full_again_and_again_loses_nothing_acknowledged() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for seed in 0..8 {
        let (disk, mut chance) = (MemoryDisk::default(), Chance(seed));
        let (node_log, _) = open(&disk, Fsync::Always).expect("opens");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let filled = disk.clone();
        let filling = std::thread::spawn(move || {
            let mut pauses = Chance(seed + 100);
            let mut pause = || stopped.recv_timeout(Duration::from_micros(pauses.below(3000))).is_err_and(is_timeout);
            while pause() {
                filled.limit_free(Some(0));
                pause();
                filled.limit_free(None);
            }
        });
        let before = runtime.block_on(work(&node_log, Fsync::Always, &mut chance));
        drop(stop);
        filling.join().expect("no panic");
        let context = format!("seed {seed}");
        let (found, _) = open(&disk.after_power_loss(&mut chance), Fsync::Always).expect("opens");
        check(&found, &before, End::PowerLoss, &context);
    }
}

fn is_timeout(error: std::sync::mpsc::RecvTimeoutError) -> bool {
    error == std::sync::mpsc::RecvTimeoutError::Timeout
}
