//! Who leads which group, as far as this node has heard.
//!
//! A hint travels on peer traffic and never through a log, so that a data failover does not wait for the meta group. It
//! may be stale: nothing is decided by it but where a client is sent. Merging takes the higher of two ballots, so nodes
//! that exchange their hints in any order, any number of times, end with the same ones.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

use super::{GroupId, NodeId, ReplicaId, Topology};

/// Entries that a peer's hints may have: one per slot would be the most groups, and the meta group.
const HINT_COUNT_MAX: usize = crate::slot::SLOT_COUNT + 1;

/// Orders leaderships of one group. The replica counts too: with openraft's advanced leader ids, two replicas may lead
/// in one term, one after the other, and the greater id is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Ballot {
    pub term: u64,
    pub replica: ReplicaId,
}

/// The latest leader heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaderHint {
    pub term: u64,
    pub replica: ReplicaId,
    pub node: NodeId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Heard {
    /// Kept during an election: clients must find some node for every key slot at all times.
    leader: Option<LeaderHint>,
    /// The greatest ballot that some replica voted for, won or not.
    election: Ballot,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hints {
    groups: BTreeMap<GroupId, Heard>,
}

/// What a node's disk has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum DiskSpace {
    #[default]
    Enough,
    /// Less than it should have; what is written still finds a place.
    Low,
    /// The log gets no more.
    Ended,
    /// As much as it should have, but a replica that it is to get does not fit. It leads and writes as others do.
    Tight,
}

/// What a node tells its peers, at every change and now and then.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct News {
    pub hints: Hints,
    pub space: DiskSpace,
    /// The highest feature level that it knows.
    pub level: u16,
    /// Of its wall clock.
    pub wall: Timestamp,
    /// It is about to stop, and must not be given leaderships.
    pub leaving: bool,
    /// Peers that it has a connection to.
    pub connected: BTreeSet<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HintsError {
    #[error("leader hints cannot be decoded: {0}")]
    Codec(#[from] postcard::Error),
    #[error("{0} leader hints, at most {HINT_COUNT_MAX} are possible")]
    Count(usize),
}

impl LeaderHint {
    pub fn ballot(&self) -> Ballot {
        Ballot { term: self.term, replica: self.replica }
    }
}

impl Hints {
    /// Takes in a leader that this node observed or was told of. True if that changed anything.
    pub fn learn(&mut self, group: GroupId, hint: LeaderHint) -> bool {
        let heard = self.groups.entry(group).or_default();
        let newer = heard.leader.is_none_or(|known| known.ballot() < hint.ballot());
        if newer {
            heard.leader = Some(hint);
        }
        newer
    }

    /// Takes in that a replica voted for this ballot, without knowing that it won. Until a leader of this ballot or a later
    /// one is heard of, the group's leader is not known. True if that changed anything.
    pub fn learn_election(&mut self, group: GroupId, ballot: Ballot) -> bool {
        let heard = self.groups.entry(group).or_default();
        let newer = heard.election < ballot;
        if newer {
            heard.election = ballot;
        }
        newer
    }

    /// Takes in all that a peer has heard. True if that changed anything.
    pub fn merge(&mut self, peer: &Self) -> bool {
        let mut changed = false;
        for (group, heard) in &peer.groups {
            changed |= heard.leader.is_some_and(|hint| self.learn(*group, hint));
            changed |= heard.election > Ballot::default() && self.learn_election(*group, heard.election);
        }
        changed
    }

    /// § Of groups that were dissolved: peers would tell each other of them for ever, and more than there can be groups are refused.
    pub fn forget_dissolved(&mut self, topology: &Topology) {
        let is_known = |group: GroupId| group >= topology.next_group() || topology.group(group).is_some();
        self.groups.retain(|group, _| *group == GroupId::META || is_known(*group));
    }

    /// The current leader or, during an election, the last one.
    pub fn leader(&self, group: GroupId) -> Option<LeaderHint> {
        self.groups.get(&group)?.leader
    }

    /// Whether there has been a leader, or an election after which there may have been one.
    pub fn has_begun(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|heard| heard.leader.is_some() || heard.election > Ballot::default())
    }

    /// Whether `leader` is the current one: no later election was heard of.
    pub fn is_current(&self, group: GroupId) -> bool {
        self.groups
            .get(&group)
            .is_some_and(|heard| heard.leader.is_some_and(|leader| leader.ballot() >= heard.election))
    }
}

impl News {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("hints hold nothing that postcard cannot encode")
    }

    /// Never panics on damaged bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HintsError> {
        let news: Self = postcard::from_bytes(bytes)?;
        let count = news.hints.groups.len();
        if count > HINT_COUNT_MAX { Err(HintsError::Count(count)) } else { Ok(news) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn hint(term: u64, replica: u64) -> LeaderHint {
        LeaderHint { term, replica: ReplicaId(replica), node: NodeId([replica as u8; 20]) }
    }

    fn ballot(term: u64, replica: u64) -> Ballot {
        Ballot { term, replica: ReplicaId(replica) }
    }

    #[test]
    fn the_highest_ballot_wins_in_any_order() {
        let heard = [hint(1, 3), hint(2, 1), hint(2, 2), hint(1, 9)];
        for first in 0..heard.len() {
            let mut hints = Hints::default();
            for offset in 0..heard.len() {
                hints.learn(GROUP, heard[(first + offset) % heard.len()]);
            }
            assert_eq!(hints.leader(GROUP), Some(hint(2, 2)));
        }
    }

    #[test]
    fn learning_the_same_or_older_changes_nothing() {
        let mut hints = Hints::default();
        assert!(hints.learn(GROUP, hint(2, 1)));
        assert!(!hints.learn(GROUP, hint(2, 1)));
        assert!(!hints.learn(GROUP, hint(1, 5)));
    }

    #[test]
    fn the_last_leader_is_kept_during_an_election_but_is_not_current() {
        let mut hints = Hints::default();
        assert!(!hints.is_current(GROUP));
        hints.learn(GROUP, hint(4, 1));
        assert!(hints.is_current(GROUP));
        assert!(hints.learn_election(GROUP, ballot(5, 2)));
        assert_eq!(hints.leader(GROUP), Some(hint(4, 1)));
        assert!(!hints.is_current(GROUP));
        assert!(hints.learn(GROUP, hint(5, 2)));
        assert!(hints.is_current(GROUP));
    }

    #[test]
    fn peers_that_exchange_hints_end_with_the_same_ones() {
        let (mut a, mut b) = (Hints::default(), Hints::default());
        a.learn(GROUP, hint(4, 1));
        a.learn(GroupId(2), hint(7, 2));
        b.learn(GROUP, hint(3, 2));
        b.learn_election(GROUP, ballot(5, 3));
        assert!(a.merge(&b.clone()));
        assert!(b.merge(&a));
        assert!(!a.merge(&b));
        assert_eq!(a, b);
        assert!(!a.is_current(GROUP) && a.is_current(GroupId(2)));
    }

    #[test]
    fn hints_survive_encoding_and_damage_is_refused() {
        let mut hints = Hints::default();
        hints.learn(GROUP, hint(4, 1));
        hints.learn_election(GROUP, ballot(5, 3));
        let news = News {
            hints,
            space: DiskSpace::Low,
            level: 1,
            wall: Timestamp(5),
            leaving: true,
            connected: [NodeId([7; 20])].into(),
        };
        let bytes = news.encode();
        assert_eq!(News::decode(&bytes), Ok(news));
        for length in 0..bytes.len() {
            assert!(News::decode(&bytes[..length]).is_err());
        }
        let mut crowd = News::default();
        for group in 0..=HINT_COUNT_MAX as u32 {
            crowd.hints.learn(GroupId(group), hint(1, 1));
        }
        assert_eq!(News::decode(&crowd.encode()), Err(HintsError::Count(HINT_COUNT_MAX + 1)));
    }

    #[test]
    fn hints_of_dissolved_groups_are_forgotten_and_those_of_groups_to_come_are_kept() {
        let mut topology = crate::cluster::fixture_topology(3, 0, 3);
        let (epoch, homes) = (topology.epoch(), topology.nodes().keys().copied().collect());
        topology.apply(&crate::cluster::MetaOp::MakeGroup { epoch, homes, why: String::new() }).unwrap();
        let op = crate::cluster::MetaOp::Dissolve { epoch: topology.epoch(), group: GroupId(4), why: String::new() };
        topology.apply(&op).unwrap();
        let mut hints = Hints::default();
        let hint = LeaderHint { term: 1, replica: ReplicaId(1), node: NodeId([1; 20]) };
        for group in [0, 1, 4, 5].map(GroupId) {
            hints.learn(group, hint);
        }
        hints.forget_dissolved(&topology);
        assert_eq!([0, 1, 4, 5].map(|group| hints.leader(GroupId(group)).is_some()), [true, true, false, true]);
    }
}
