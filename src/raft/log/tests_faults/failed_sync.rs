//! Syncs that fail where what was acknowledged was not synced before.

use super::*;

/// An acknowledged entry, then a vote whose sync fails; the disk as the next start finds it when the kernel has let go of what it could not write.
async fn failed_sync(fsync: Fsync) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, fsync).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    replica.append(vec![entry(log_id(1, 0), vec![1])], fsync).await.expect("queued");
    replica.listen_to_all().await;
    // After the write.
    disk.fail_at(disk.operations() + 2, Fault::Error(io::ErrorKind::Other));
    replica.log.save_vote(&Vote::new(9, 1)).await.expect_err("not synced");
    assert!(matches!(*node_log.failure().await, LogError::Unsynced { .. }));
    node_log.close();
    disk.after_loss_of_all()
}

#[tokio::test]
async fn a_failed_sync_is_suspected_of_loss_where_what_was_acknowledged_was_not_synced() {
    for (fsync, suspected) in [(Fsync::Always, false), (Fsync::EverySec, true), (Fsync::No, true)] {
        let disk = failed_sync(fsync).await;
        let start = |accept_loss| {
            let options = LogOptions { fsync, segment_bytes: 1500, accept_loss, memory_bytes: u64::MAX };
            let disk = Arc::new(disk.clone());
            let opened = NodeLog::open_on(disk, Path::new(DIRECTORY), options, b"boot".to_vec(), None);
            let (node_log, recovered) = opened.expect("opens");
            let last = node_log.group(KEYS[0].0, KEYS[0].1).last_log_id();
            assert_eq!(last, (!suspected).then(|| log_id(1, 0)), "{fsync:?}");
            node_log.close();
            recovered.power_loss_suspected
        };
        // Until the loss is accepted, and not after.
        let found = [false, false, true, false].map(start);
        assert_eq!(found, [suspected, suspected, false, false], "{fsync:?}");
    }
}

/// What a process that was killed had acknowledged is in the kernel's memory, and it is the next start that hears of the disk.
#[tokio::test]
async fn a_start_that_cannot_sync_what_was_acknowledged_is_suspected_of_loss_by_the_next() {
    for (torn, written) in [(false, unsynced_entry().await), (true, torn_entry().await)] {
        for (fsync, kind) in [Fsync::No, Fsync::EverySec, Fsync::Always]
            .into_iter()
            .flat_map(|fsync| [(fsync, io::ErrorKind::Other), (fsync, io::ErrorKind::StorageFull)])
        {
            let mut met = 0;
            for operation in 1..=5 {
                let disk = written.after_kill();
                disk.fail_at(operation, Fault::Error(kind));
                let Err(error) = open(&disk, fsync) else { continue };
                // Not a write that failed: that takes nothing from the kernel's memory.
                let (LogError::Unsynced { .. }
                | LogError::Io { action: "cut the torn end off", .. }
                | LogError::Full { action: "sync" | "cut the torn end off", .. }) = error
                else {
                    continue;
                };
                let (node_log, recovered) = open(&disk.after_loss_of_all(), fsync).expect("opens");
                let last = node_log.group(KEYS[0].0, KEYS[0].1).last_log_id();
                let case = format!("{torn}, {fsync:?}, {kind}, operation {operation}");
                assert!(last.is_some() || recovered.power_loss_suspected, "{case}");
                met += usize::from(last.is_none());
            }
            assert!(met > 0, "no sync has failed: {torn}, {fsync:?}, {kind}");
        }
    }
}

/// Acknowledged, and in the kernel's memory when the process was killed.
async fn unsynced_entry() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let (node_log, _) = open(&disk, Fsync::No).expect("opens");
    let mut replica = Replica::new(&node_log, KEYS[0]);
    replica.append(vec![entry(log_id(1, 0), vec![1])], Fsync::No).await.expect("queued");
    replica.listen_to_all().await;
    disk.after_kill()
}

/// The same, and a write that was cut short behind it.
async fn torn_entry() -> MemoryDisk {
    let disk = unsynced_entry().await;
    let path = disk.list(Path::new(DIRECTORY)).expect("lists").remove(0);
    let end = disk.read(&path).expect("reads").iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    disk.open(&path).expect("opens").write_at(&[1; 9], end as u64).expect("writes");
    disk
}
