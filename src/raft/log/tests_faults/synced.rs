//! What is on the disk when it is acknowledged, whatever the mode.

use super::*;
use crate::clock::Timestamp;
use crate::raft::batch::{self, BatchHeader, BatchKind, Origin};

fn batch_of(durable: bool, bytes: usize) -> Vec<u8> {
    let (kind, origin) = (BatchKind::Ops, Origin { replica: 1, nonce: 2 });
    let header = BatchHeader { level: 1, kind, count: 1, stamp: Timestamp(0), origin, seq: 1, durable };
    batch::encode(&header, [vec![7; bytes]].iter()).0.to_vec()
}

#[tokio::test]
async fn without_fsync_an_entry_that_says_so_is_synced_with_all_before_it_and_another_is_not() {
    for bytes in [10, 3 * PART_BYTES] {
        let disk = MemoryDisk::default();
        let (node_log, _) = open(&disk, Fsync::No).expect("opens");
        let mut replica = Replica::new(&node_log, KEYS[1]);
        for (index, durable) in [(0, false), (1, false), (2, true)] {
            replica.append(vec![entry(log_id(1, index), batch_of(durable, bytes))], Fsync::No).await.expect("queued");
            replica.listen_to_all().await;
            assert_eq!(disk.has_unsynced(), !durable, "entry {index} of {bytes} bytes");
        }
        let lost = disk.after_power_loss(&mut Chance(1));
        node_log.close();
        let (node_log, _) = open(&lost, Fsync::No).expect("opens");
        assert_eq!(Holds::of(&mut node_log.group(KEYS[1].0, KEYS[1].1)).entries.len(), 3);
    }
}
