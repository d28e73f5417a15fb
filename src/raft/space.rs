//! Space on the disks: which nodes are short of it, and what that means for a group.
//!
//! A node is short when its disk has less free space than `disk-free-min`, or when its log got no more (`log/segments.rs`). It says so with
//! its hints. It hands its leaderships over to nodes that are not (`rebalance/driver.rs`) and follows as long as its log can take entries.
//! § A leader refuses its clients' writes, before anything is proposed, when the voters with space are no majority: what it took could
//! not be committed, and nobody could be told what became of it. Reads, votes and heartbeats go on, and all of it ends with the shortage.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::cluster::{NodeId, ReplicaId};
use crate::metrics::NodeMetrics;
use crate::raft::blocking::blocking;
use crate::raft::log::{Disk, RealDisk, Room};
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
    /// Peers that are connected and whether they are short of space.
    peers: Mutex<BTreeMap<NodeId, bool>>,
}

impl Space {
    pub fn new(room: Arc<Room>) -> Self {
        Self { room, low: AtomicBool::new(false), peers: Mutex::default() }
    }

    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    pub fn is_short(&self) -> bool {
        self.low.load(Ordering::Acquire) || self.room.has_ended()
    }

    pub fn learn(&self, peer: NodeId, short: bool) {
        self.peers.lock().insert(peer, short);
    }

    /// Not connected any more: nobody knows.
    pub fn forget(&self, peer: NodeId) {
        self.peers.lock().remove(&peer);
    }

    /// Whether the peer has said that it has space.
    pub fn is_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer) == Some(&false)
    }

    pub fn is_short_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer) == Some(&true)
    }

    /// Whether the group of this replica, which leads it, is to refuse writes. In a joint membership each of the two sets needs a majority.
    pub fn is_short_for(&self, own: ReplicaId, membership: &StoredMembership) -> bool {
        let peers = self.peers.lock();
        if self.room.has_ended() {
            return true;
        }
        if !self.is_short() && !peers.values().any(|short| *short) {
            return false;
        }
        let membership = membership.membership();
        let has_space = |voter: &u64| {
            let node = membership.get_node(voter).map(|member| member.node);
            if *voter == own.0 { !self.is_short() } else { node.is_some_and(|node| peers.get(&node) == Some(&false)) }
        };
        let lacks_majority = |voters: &std::collections::BTreeSet<u64>| {
            voters.iter().filter(|voter| has_space(voter)).count() <= voters.len() / 2
        };
        membership.get_joint_config().iter().any(lacks_majority)
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

pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
    use super::*;
    use crate::raft::types::tests::membership;

    const OWN: ReplicaId = ReplicaId(1);

    fn node(replica: u64) -> NodeId {
        NodeId([replica as u8; 20])
    }

    #[test]
    fn writes_are_refused_when_the_voters_with_space_are_no_majority() {
        let space = Space::new(Arc::default());
        let (three, joint) = (membership(&[&[1, 2, 3]]), membership(&[&[1, 2, 3], &[1, 4, 5]]));
        assert!(!space.is_short_for(OWN, &three), "nobody has said that it is short");
        space.learn(node(2), true);
        assert!(space.is_short_for(OWN, &three), "nobody knows about the third");
        space.learn(node(3), false);
        assert!(!space.is_short_for(OWN, &three));
        assert!(space.is_short_for(OWN, &joint), "the second set has no majority");
        [4, 5].into_iter().for_each(|peer| space.learn(node(peer), false));
        assert!(!space.is_short_for(OWN, &joint));
        space.take_note(99, 100);
        assert!(space.is_short() && space.is_short_for(OWN, &three));
        space.learn(node(2), false);
        assert!(!space.is_short_for(OWN, &three), "the others have space");
        space.forget(node(2));
        assert!(space.is_short_for(OWN, &three));
        space.take_note(124, 100);
        assert!(space.is_short(), "not enough more");
        space.take_note(125, 100);
        assert!(!space.is_short() && !space.is_short_for(OWN, &three));
    }

    #[test]
    fn one_node_alone_refuses_when_it_is_short() {
        let space = Space::new(Arc::default());
        assert!(!space.is_short_for(OWN, &membership(&[&[1]])));
        space.take_note(99, 100);
        assert!(space.is_short_for(OWN, &membership(&[&[1]])));
    }
}
