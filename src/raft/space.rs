//! Space on the disks: which nodes are short of it, and what that means for a group.
//!
//! A node is short when its disk has less free space than `disk-free-min`, or when its log got no more (`log/segments.rs`). It says so with
//! its hints, and so does one that has no space for a snapshot that it is sent: such a one is *tight*, gets no further replicas, and leads and
//! writes as before. A short one hands its leaderships over to nodes that are not (`rebalance/driver.rs`) and follows as long as its log can take entries.
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
use tokio::time::Instant;

use crate::cluster::{DiskSpace, GroupId, NodeId, ReplicaId};
use crate::metrics::NodeMetrics;
use crate::raft::blocking::blocking;
use crate::raft::log::{Disk, RealDisk, Room, is_crowded};
use crate::raft::snapshot_files::SnapshotFiles;
use crate::raft::types::StoredMembership;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What a snapshot that found no space needs more than it got, at least, before it is written again.
const RETRY_BYTES_MIN: u64 = 4 << 20;
/// A snapshot that did not fit is sent again twice a second.
const REFUSAL_SAID_INTERVAL: Duration = Duration::from_secs(60);
/// One that is not sent any more is looked for elsewhere; after this long a smaller one may be tried.
const REFUSAL_HOLDS: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Space {
    room: Arc<Room>,
    /// The disk has less free space than it should have.
    low: AtomicBool,
    /// Snapshots that did not fit.
    refused: Mutex<BTreeMap<GroupId, Refused>>,
    /// Peers that are connected.
    peers: Mutex<BTreeMap<NodeId, DiskSpace>>,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    bytes: u64,
    at: Instant,
    said: Instant,
}

impl Refused {
    fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < REFUSAL_HOLDS
    }
}

impl Space {
    pub fn new(room: Arc<Room>) -> Self {
        Self { room, low: AtomicBool::new(false), refused: Mutex::default(), peers: Mutex::default() }
    }

    pub fn room(&self) -> Arc<Room> {
        self.room.clone()
    }

    /// On this node's disk.
    pub fn own(&self) -> DiskSpace {
        let now = Instant::now();
        match (self.room.has_ended(), self.low.load(Ordering::Acquire)) {
            (true, _) => DiskSpace::Ended,
            (false, true) => DiskSpace::Low,
            (false, false) if self.refused.lock().values().any(|refused| refused.holds(now)) => DiskSpace::Tight,
            (false, false) => DiskSpace::Enough,
        }
    }

    /// What is written here may find no space.
    pub fn is_short(&self) -> bool {
        is_short(self.own())
    }

    /// Short, or tight: it is to get no replicas.
    pub fn is_crammed(&self) -> bool {
        self.own() != DiskSpace::Enough
    }

    /// No replica that is sent here arrives.
    pub fn takes_nothing(&self) -> bool {
        takes_nothing(self.own())
    }

    /// A snapshot of the group, `bytes` long, does not fit into what the disk has. True if that is to be said now.
    pub fn refuse_snapshot(&self, group: GroupId, bytes: u64, now: Instant) -> bool {
        let mut refused = self.refused.lock();
        let said = refused.get(&group).map(|refused| refused.said);
        let says = said.is_none_or(|said| now.saturating_duration_since(said) >= REFUSAL_SAID_INTERVAL);
        let said = said.filter(|_| !says).unwrap_or(now);
        refused.insert(group, Refused { bytes, at: now, said });
        says
    }

    /// One of the group's has been received.
    pub fn take_snapshot(&self, group: GroupId) {
        self.refused.lock().remove(&group);
    }

    pub fn learn(&self, peer: NodeId, space: DiskSpace) {
        self.peers.lock().insert(peer, space);
    }

    /// Not connected any more: nobody knows.
    pub fn forget(&self, peer: NodeId) {
        self.peers.lock().remove(&peer);
    }

    /// Whether the peer has said that it has space to write.
    pub fn is_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer).is_some_and(|space| !is_short(*space))
    }

    pub fn is_short_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer).is_some_and(|space| is_short(*space))
    }

    /// See `is_crammed`.
    pub fn is_crammed_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer).is_some_and(|space| *space != DiskSpace::Enough)
    }

    pub fn takes_nothing_at(&self, peer: NodeId) -> bool {
        self.peers.lock().get(&peer).is_some_and(|space| takes_nothing(*space))
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
        let now = Instant::now();
        self.refused.lock().retain(|_, refused| refused.bytes > free && refused.holds(now));
    }
}

fn is_short(space: DiskSpace) -> bool {
    match space {
        DiskSpace::Low | DiskSpace::Ended => true,
        DiskSpace::Enough | DiskSpace::Tight => false,
    }
}

fn takes_nothing(space: DiskSpace) -> bool {
    match space {
        DiskSpace::Tight | DiskSpace::Ended => true,
        DiskSpace::Enough | DiskSpace::Low => false,
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
        gauge.set(f64::from(u8::from(space.is_crammed())));
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
    let remove = || match files.disk().remove(path) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(()) => true,
    };
    let mut removed = remove();
    let needed = found.saturating_add((found / 4).max(RETRY_BYTES_MIN));
    let directory = path.parent().expect("a file in a directory").to_owned();
    tracing::warn!(path = %path.display(), needed, "a snapshot waits for space on the disk");
    while wanted() {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // § What is left of it would make the next try fail for good. A full disk may refuse this, too.
        removed = removed || remove();
        let (files, looked) = (files.clone(), directory.clone());
        let free = blocking(move || files.disk().free_bytes(&looked)).await.flatten();
        if removed && free.is_ok_and(|free| free >= needed) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::DiskSpace::{Ended, Enough, Low, Tight};
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

    #[tokio::test(start_paused = true)]
    async fn a_node_without_space_for_a_snapshot_is_tight_until_it_has_it_or_nobody_sends_it_any_more() {
        let space = Space::new(Arc::default());
        let refuse = |group, bytes| space.refuse_snapshot(GroupId(group), bytes, Instant::now());
        assert!(refuse(1, 500) && !refuse(1, 500) && refuse(2, 400), "said once for each group");
        assert_eq!((space.own(), space.is_crammed(), space.is_short()), (Tight, true, false));
        assert_eq!(space.of_group(OWN, &membership(&[&[1]])), Enough, "what is written finds a place");
        tokio::time::advance(REFUSAL_SAID_INTERVAL - Duration::from_millis(1)).await;
        assert!(!refuse(1, 500));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(refuse(1, 500) && !refuse(1, 500));
        space.take_note(400, 100);
        assert_eq!(space.own(), Tight, "the other fits");
        space.take_note(500, 100);
        assert_eq!(space.own(), Enough);
        refuse(1, 600);
        space.take_snapshot(GroupId(1));
        assert_eq!(space.own(), Enough, "there is space after all");
        refuse(1, 600);
        space.take_note(99, 100);
        assert_eq!(space.own(), Low);
        space.take_note(125, 100);
        assert_eq!(space.own(), Tight);
        tokio::time::advance(REFUSAL_HOLDS).await;
        assert_eq!(space.own(), Enough);
    }

    #[test]
    fn a_peer_that_is_tight_writes_and_leads_and_gets_no_replicas() {
        let space = Space::new(Arc::default());
        [2, 3].into_iter().for_each(|peer| space.learn(node(peer), Tight));
        assert_eq!(space.of_group(OWN, &membership(&[&[1, 2, 3]])), Enough);
        assert!(space.is_at(node(2)) && !space.is_short_at(node(2)) && space.is_crammed_at(node(2)));
        assert!(space.takes_nothing_at(node(2)));
        space.learn(node(2), Low);
        assert!(!space.is_at(node(2)) && space.is_crammed_at(node(2)));
        assert!(
            !space.takes_nothing_at(node(2)),
            "what was begun there is finished, or it would begin again when there is a little more space"
        );
    }

    #[test]
    fn one_node_alone_refuses_when_it_is_short() {
        let space = Space::new(Arc::default());
        assert_eq!(space.of_group(OWN, &membership(&[&[1]])), Enough);
        space.take_note(99, 100);
        assert_eq!(space.of_group(OWN, &membership(&[&[1]])), Low);
    }
}
