//! Space on the disks: which nodes are short of it, and what that means for a group.
//!
//! A node is short when its disk has less free space than `disk-free-min`, or when its log got no more (`log/segments.rs`). It says so with
//! its hints. It hands its leaderships over to nodes that are not (`rebalance/driver.rs`) and follows as long as its log can take entries.
//! A leader refuses its clients' writes when a majority of the voters is short: what they have left is for what must be written.
//! § It does so too, before anything is proposed, when those that can still write are no majority: what it took could not be committed, and
//! nobody could be told what became of it. Reads, votes and heartbeats go on, and all of it ends with the shortage.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cluster::{DiskSpace, NodeId, ReplicaId};
use crate::metrics::NodeMetrics;
use crate::raft::blocking::blocking;
use crate::raft::log::{Disk, RealDisk, Room, is_crowded};
use crate::raft::snapshot_files::SnapshotFiles;
use crate::raft::types::StoredMembership;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What a snapshot that found no space needs more than it got, at least, before it is written again.
const RETRY_BYTES_MIN: u64 = 4 << 20;

#[derive(Debug)]
pub struct Space {
    room: Arc<Room>,
    /// The disk has less free space than it should have.
    low: AtomicBool,
    /// Peers that are connected.
    peers: Mutex<BTreeMap<NodeId, DiskSpace>>,
}

impl Space {
    pub fn new(room: Arc<Room>) -> Self {
        Self { room, low: AtomicBool::new(false), peers: Mutex::default() }
    }

    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// On this node's disk.
    pub fn own(&self) -> DiskSpace {
        match (self.room.has_ended(), self.low.load(Ordering::Acquire)) {
            (true, _) => DiskSpace::Ended,
            (false, true) => DiskSpace::Low,
            (false, false) => DiskSpace::Enough,
        }
    }

    pub fn is_short(&self) -> bool {
        self.own() != DiskSpace::Enough
    }

    pub fn learn(&self, peer: NodeId, space: DiskSpace) {
        self.peers.lock().insert(peer, space);
    }

    /// Not connected any more: nobody knows.
    pub fn forget(&self, peer: NodeId) {
        self.peers.lock().remove(&peer);
    }

    /// Whether the peer has said that it has space.
    pub fn is_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer) == Some(&DiskSpace::Enough)
    }

    pub fn is_short_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer).is_some_and(|space| *space != DiskSpace::Enough)
    }

    /// What the group of this replica, which leads it, can do. In a joint membership each of the two sets needs a majority. Voters nobody hears
    /// of are not short; without a quorum of voters that answer nothing commits anyway, and clients wait for one.
    pub fn of_group(&self, own: ReplicaId, membership: &StoredMembership) -> DiskSpace {
        let (peers, own_space) = (self.peers.lock(), self.own());
        if own_space == DiskSpace::Ended {
            return DiskSpace::Ended;
        }
        if [own_space].iter().chain(peers.values()).all(|space| *space == DiskSpace::Enough) {
            return DiskSpace::Enough;
        }
        let membership = membership.membership();
        let space_at = |voter: &u64| match membership.get_node(voter) {
            Some(_) if *voter == own.0 => Some(own_space),
            Some(member) => peers.get(&member.node).copied(),
            None => None,
        };
        let of_set = |voters: &BTreeSet<u64>| {
            let known: Vec<DiskSpace> = voters.iter().filter_map(space_at).collect();
            let count = |space| known.iter().filter(|known| **known == space).count();
            let (ended, low, half) = (count(DiskSpace::Ended), count(DiskSpace::Low), voters.len() / 2);
            if ended > 0 && known.len() - ended <= half {
                DiskSpace::Ended
            } else if voters.len() - low - ended <= half {
                DiskSpace::Low
            } else {
                DiskSpace::Enough
            }
        };
        membership.get_joint_config().iter().map(of_set).max().unwrap_or_default()
    }

    /// `free` is what the disk has, of which it should have `least`. It counts as enough again at a quarter more, so that it is not said
    /// again and again.
    fn take_note(&self, free: u64, least: u64) {
        let enough = if self.low.load(Ordering::Acquire) { least.saturating_add(least / 4) } else { least };
        self.low.store(free < enough, Ordering::Release);
    }
}

/// Looks at the free space of the data directory's disk until aborted.
pub async fn watch_space(space: Arc<Space>, directory: PathBuf, least: u64) {
    let gauge = NodeMetrics::disk_full();
    let mut was_short = false;
    loop {
        let looked = directory.clone();
        let free = match blocking(move || RealDisk.free_bytes(&looked)).await.flatten() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, directory = %directory.display(), "the free space of the disk is not known");
                u64::MAX
            }
        };
        space.take_note(free, least);
        let short = space.is_short();
        if short != was_short {
            was_short = short;
            let directory = directory.display();
            if short {
                tracing::error!(
                    %directory, free, least,
                    "the disk is full: this node refuses writes, or leaves them to nodes that have space; make room, it goes on by itself"
                );
            } else {
                tracing::info!(%directory, free, "the disk has space again");
            }
        }
        gauge.set(f64::from(u8::from(short)));
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Or no file can be opened now: what waits for space is as well off waiting for that.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) || is_crowded(error)
}

/// After a file could not be written for want of space: removes it and waits until there is more than it found, or it is not wanted.
pub async fn wait_for_more(files: &SnapshotFiles, path: &Path, wanted: impl Fn() -> bool) -> io::Result<()> {
    let found = files.disk().open(path).and_then(|file| file.length()).unwrap_or(0);
    // A leftover is removed at the next start.
    let _ = files.disk().remove(path);
    let needed = found.saturating_add((found / 4).max(RETRY_BYTES_MIN));
    let directory = path.parent().expect("a file in a directory").to_owned();
    tracing::warn!(path = %path.display(), needed, "a snapshot waits for space on the disk");
    while wanted() {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let (files, looked) = (files.clone(), directory.clone());
        if blocking(move || files.disk().free_bytes(&looked)).await.flatten().is_ok_and(|free| free >= needed) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::DiskSpace::{Ended, Enough, Low};
    use super::*;
    use crate::raft::types::tests::membership;

    const OWN: ReplicaId = ReplicaId(1);

    fn node(replica: u64) -> NodeId {
        NodeId([replica as u8; 20])
    }

    #[test]
    fn writes_are_refused_when_a_majority_is_short_or_those_that_can_write_are_none() {
        let space = Space::new(Arc::default());
        let (three, joint) = (membership(&[&[1, 2, 3]]), membership(&[&[1, 2, 3], &[1, 4, 5]]));
        let of_three = || space.of_group(OWN, &three);
        assert_eq!(of_three(), Enough, "nobody has said that it is short");
        space.learn(node(2), Low);
        assert_eq!(of_three(), Enough, "the second can write, and the third may only be restarting");
        space.learn(node(2), Ended);
        assert_eq!(of_three(), Ended, "nobody knows about the third");
        space.learn(node(3), Enough);
        assert_eq!(of_three(), Enough);
        space.learn(node(4), Ended);
        assert_eq!(space.of_group(OWN, &joint), Ended, "the second set has no majority");
        [4, 5].into_iter().for_each(|peer| space.learn(node(peer), Enough));
        assert_eq!(space.of_group(OWN, &joint), Enough);
        space.learn(node(2), Low);
        space.take_note(99, 100);
        assert!(space.is_short() && of_three() == Low);
        space.learn(node(3), Ended);
        assert_eq!(of_three(), Low, "two of three can write");
        space.learn(node(3), Enough);
        space.learn(node(2), Enough);
        assert_eq!(of_three(), Enough, "the others have space");
        space.take_note(124, 100);
        assert!(space.is_short(), "not enough more");
        space.take_note(125, 100);
        assert!(!space.is_short());
    }

    #[test]
    fn one_node_alone_refuses_when_it_is_short() {
        let space = Space::new(Arc::default());
        assert_eq!(space.of_group(OWN, &membership(&[&[1]])), Enough);
        space.take_note(99, 100);
        assert_eq!(space.of_group(OWN, &membership(&[&[1]])), Low);
    }
}
