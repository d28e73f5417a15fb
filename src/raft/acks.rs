//! When each follower last acknowledged this node's leadership, for the lease.
//!
//! § Counted here, where requests are sent, and not taken from openraft: `Leader::last_quorum_acked` credits an acknowledgement with
//! the time of the newest request that ends at the same log id, also when that one was not answered yet, so a slow
//! follower could be credited with a time after its last contact. What counts here is the time before the
//! answered request itself was queued.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Boottime;
use crate::cluster::ReplicaId;
use crate::raft::types::{LeaderId, StoredMembership};

/// Of one group.
#[derive(Debug, Default)]
pub struct Acks(Mutex<BTreeMap<ReplicaId, (LeaderId, Boottime)>>);

impl Acks {
    /// `replica` has accepted a request of `leader` that was sent at or after `sent`.
    pub fn record(&self, replica: ReplicaId, leader: LeaderId, sent: Boottime) {
        let mut acks = self.0.lock();
        let known = acks.entry(replica).or_insert((leader, sent));
        *known = (*known).max((leader, sent));
    }

    /// A time at or after which a quorum of every voter set has acknowledged `leader`, who is `own`.
    pub fn quorum(&self, leader: LeaderId, own: ReplicaId, membership: &StoredMembership) -> Option<Boottime> {
        let acks = self.0.lock();
        let acked = |voter: &u64| match acks.get(&ReplicaId(*voter)) {
            // It acknowledges itself at any time.
            _ if *voter == own.0 => Some(Boottime(u64::MAX)),
            Some((of, sent)) if *of == leader => Some(*sent),
            Some(_) | None => None,
        };
        let sets = membership.membership().get_joint_config();
        let quorums = sets.iter().map(|voters| {
            let mut times: Vec<Option<Boottime>> = voters.iter().map(acked).collect();
            times.sort_unstable_by(|left, right| right.cmp(left));
            times.get(voters.len() / 2).copied().flatten()
        });
        quorums.min().flatten().filter(|time| *time != Boottime(u64::MAX))
    }

    /// Whether a quorum has acknowledged `leader`, who is `own`, of late. A sole voter is one by itself.
    pub fn hears_quorum(
        &self,
        leader: LeaderId,
        own: ReplicaId,
        membership: &StoredMembership,
        within: Duration,
    ) -> bool {
        let acked = self.quorum(leader, own, membership);
        membership.voter_ids().eq([own.0])
            || acked.is_some_and(|acked| Boottime::now().saturating_since(acked) < within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::tests::membership;

    const OWN: ReplicaId = ReplicaId(1);

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: OWN.0 }
    }

    fn acks(times: &[(u64, u64)]) -> Acks {
        let acks = Acks::default();
        times.iter().for_each(|(replica, time)| acks.record(ReplicaId(*replica), leader(3), Boottime(*time)));
        acks
    }

    #[test]
    fn a_quorum_is_as_old_as_its_oldest_member() {
        let five = membership(&[&[1, 2, 3, 4, 5]]);
        assert_eq!(acks(&[(2, 40), (3, 10)]).quorum(leader(3), OWN, &five), Some(Boottime(10)));
        assert_eq!(acks(&[(2, 40), (3, 10), (5, 30)]).quorum(leader(3), OWN, &five), Some(Boottime(30)));
        assert_eq!(acks(&[(2, 40)]).quorum(leader(3), OWN, &five), None);
        assert_eq!(acks(&[(2, 40), (9, 50)]).quorum(leader(3), OWN, &five), None, "9 does not vote");
    }

    #[test]
    fn both_sets_of_a_joint_membership_must_have_acknowledged() {
        let joint = membership(&[&[1, 2, 3], &[1, 4, 5]]);
        assert_eq!(acks(&[(2, 40), (3, 50)]).quorum(leader(3), OWN, &joint), None);
        assert_eq!(acks(&[(2, 40), (4, 20)]).quorum(leader(3), OWN, &joint), Some(Boottime(20)));
    }

    #[test]
    fn an_acknowledgement_of_another_term_is_none_and_times_never_go_back() {
        let three = membership(&[&[1, 2, 3]]);
        let acks = acks(&[(2, 40), (2, 30)]);
        assert_eq!(acks.quorum(leader(3), OWN, &three), Some(Boottime(40)));
        assert_eq!(acks.quorum(leader(4), OWN, &three), None);
        acks.record(ReplicaId(2), leader(4), Boottime(35));
        assert_eq!(acks.quorum(leader(4), OWN, &three), Some(Boottime(35)));
    }
}
