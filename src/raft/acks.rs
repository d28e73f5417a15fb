//! What each follower has acknowledged: when it last accepted this node's leadership, for the lease, and up to which entry, for the pace of appends
//! (`transport/pace.rs`).
//!
//! § Counted here, where requests are sent, and not taken from openraft: `Leader::last_quorum_acked` credits an acknowledgement with
//! the time of the newest request that ends at the same log id, also when that one was not answered yet, so a slow
//! follower could be credited with a time after its last contact. What counts here is the time before the
//! answered request itself was queued.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Boottime;
use crate::cluster::ReplicaId;
use crate::raft::types::{LeaderId, StoredMembership};

/// Of one group.
#[derive(Debug, Default)]
pub struct Acks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    followers: BTreeMap<ReplicaId, Acked>,
    /// As many followers as make a quorum with the leader. Entries go to them first.
    front: Vec<ReplicaId>,
}

#[derive(Debug, Clone, Copy)]
struct Acked {
    leader: LeaderId,
    sent: Boottime,
    /// Index of the last entry of an accepted request; 0 before the first.
    last: u64,
    /// Nanoseconds from sending entries to hearing that they were accepted, smoothed; `None` before the first.
    took: Option<u64>,
}

/// A follower that takes longer than this and twice the fastest's time together is of the front only if it has to be.
const SLOW_NS: u64 = 2_000_000;
/// The weight of one request in `took`, as a divisor.
const SMOOTHING: u64 = 8;

impl Acked {
    fn took_as_well(&mut self, took: Option<u64>) {
        self.took = match (self.took, took) {
            (Some(mean), Some(took)) => Some(mean - mean / SMOOTHING + took / SMOOTHING),
            (mean, took) => took.or(mean),
        };
    }
}

impl Acks {
    /// `replica` has accepted a request of `leader` that was sent at or after `sent` and ended with entry `last`, if it had any.
    pub fn record(&self, replica: ReplicaId, leader: LeaderId, sent: Boottime, last: Option<u64>) {
        let took = last.map(|_| Boottime::now().saturating_since(sent).as_nanos() as u64);
        let mut state = self.0.lock();
        let acked = Acked { leader, sent, last: last.unwrap_or(0), took };
        let known = state.followers.entry(replica).or_insert(acked);
        match leader.cmp(&known.leader) {
            Ordering::Greater => *known = acked,
            Ordering::Equal => {
                known.sent = known.sent.max(sent);
                known.last = known.last.max(acked.last);
                known.took_as_well(took);
            }
            Ordering::Less => (),
        }
    }

    /// Chooses whom entries go to first: of the other voters as many as make a quorum with the leader, in the order of `turns`, which is that of
    /// `succession.rs`: the first to stand for election should have the longest log. Not those that are slow to answer.
    pub fn form_front(&self, membership: &StoredMembership, mut turns: Vec<ReplicaId>) {
        let mut state = self.0.lock();
        let [voters] = membership.membership().get_joint_config().as_slice() else {
            // Either set has its own quorum: all at once, for as long as the change takes.
            state.front.clear();
            return;
        };
        let took = |replica: &ReplicaId| state.followers.get(replica).and_then(|acked| acked.took);
        let fastest = turns.iter().filter_map(took).min().unwrap_or(0);
        turns.sort_by_key(|replica| took(replica).is_some_and(|took| took > SLOW_NS + 2 * fastest));
        turns.truncate(voters.len() / 2);
        state.front = turns;
    }

    #[cfg(test)]
    pub fn front(&self) -> Vec<ReplicaId> {
        self.0.lock().front.clone()
    }

    /// This replica does not lead any more.
    pub fn dissolve_front(&self) {
        self.0.lock().front.clear();
    }

    /// Up to which entry `leader` can commit without `follower`; `None` if that is of the front, or there is none.
    pub fn acked_without(&self, follower: ReplicaId, leader: LeaderId) -> Option<u64> {
        let state = self.0.lock();
        if state.front.contains(&follower) {
            return None;
        }
        let acked = state.front.iter().map(|replica| match state.followers.get(replica) {
            Some(acked) if acked.leader == leader => acked.last,
            Some(_) | None => 0,
        });
        acked.min()
    }

    /// A time at or after which a quorum of every voter set has acknowledged `leader`, who is `own`.
    pub fn quorum(&self, leader: LeaderId, own: ReplicaId, membership: &StoredMembership) -> Option<Boottime> {
        let state = self.0.lock();
        let acked = |voter: &u64| match state.followers.get(&ReplicaId(*voter)) {
            // It acknowledges itself at any time.
            _ if *voter == own.0 => Some(Boottime(u64::MAX)),
            Some(acked) if acked.leader == leader => Some(acked.sent),
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

    /// Whether a quorum has acknowledged `leader`, who is `own`, at or after `since`. A sole voter is one by itself.
    pub fn confirm(&self, leader: LeaderId, own: ReplicaId, membership: &StoredMembership, since: Boottime) -> bool {
        let acked = self.quorum(leader, own, membership);
        membership.voter_ids().eq([own.0]) || acked.is_some_and(|acked| acked >= since)
    }

    /// Whether a quorum has acknowledged `leader`, who is `own`, of late. A sole voter is one by itself.
    pub fn hears_quorum(
        &self,
        leader: LeaderId,
        own: ReplicaId,
        membership: &StoredMembership,
        within: Duration,
    ) -> bool {
        let since = Boottime::now().0.saturating_sub(within.as_nanos() as u64);
        self.confirm(leader, own, membership, Boottime(since))
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
        times.iter().for_each(|(replica, time)| acks.record(ReplicaId(*replica), leader(3), Boottime(*time), None));
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
    fn a_read_is_confirmed_by_what_a_quorum_has_answered_since_it_began() {
        let (three, acks) = (membership(&[&[1, 2, 3]]), acks(&[(2, 40), (3, 10)]));
        let confirm = |leader, since| acks.confirm(leader, OWN, &three, Boottime(since));
        assert!(confirm(leader(3), 40) && !confirm(leader(3), 41) && !confirm(leader(4), 40));
        assert!(Acks::default().confirm(leader(3), OWN, &membership(&[&[OWN.0]]), Boottime(41)), "it is alone");
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
        acks.record(ReplicaId(2), leader(4), Boottime(35), None);
        assert_eq!(acks.quorum(leader(4), OWN, &three), Some(Boottime(35)));
    }

    fn form_front(acks: &Acks, membership: &StoredMembership, turns: &[u64]) {
        acks.form_front(membership, turns.iter().copied().map(ReplicaId).collect());
    }

    #[test]
    fn the_front_is_a_quorum_less_the_leader_those_whose_turn_is_first() {
        let acked_without = |turns: &[u64], follower, membership: &StoredMembership| {
            let acks = Acks::default();
            form_front(&acks, membership, turns);
            acks.acked_without(ReplicaId(follower), leader(3))
        };
        let three = membership(&[&[1, 2, 3]]);
        assert_eq!([2, 3].map(|follower| acked_without(&[2, 3], follower, &three)), [None, Some(0)]);
        assert_eq!([2, 3].map(|follower| acked_without(&[3, 2], follower, &three)), [Some(0), None]);
        let (five, turns) = (membership(&[&[1, 2, 3, 4, 5]]), [3, 4, 5, 2]);
        assert_eq!([2, 3, 4, 5].map(|follower| acked_without(&turns, follower, &five)), [Some(0), None, None, Some(0)]);
        assert_eq!(acked_without(&[2], 2, &membership(&[&[1, 2]])), None, "the leader needs it");
        assert_eq!(acked_without(&[], 9, &membership(&[&[1]])), None, "a sole voter has no front");
        let joint = membership(&[&[1, 2, 3], &[1, 4, 5]]);
        assert_eq!([2, 3, 4, 5].map(|follower| acked_without(&[2, 3, 4, 5], follower, &joint)), [None; 4]);
    }

    #[test]
    fn what_the_slowest_of_the_front_has_is_committed_without_the_others() {
        let acks = Acks::default();
        form_front(&acks, &membership(&[&[1, 2, 3, 4, 5]]), &[2, 3, 4, 5]);
        let record = |replica, term, last| acks.record(ReplicaId(replica), leader(term), Boottime(1), last);
        record(2, 3, Some(7));
        assert_eq!(acks.acked_without(ReplicaId(4), leader(3)), Some(0));
        record(3, 3, Some(5));
        record(3, 3, None);
        assert_eq!(acks.acked_without(ReplicaId(4), leader(3)), Some(5), "a heartbeat takes nothing back");
        record(3, 4, Some(4));
        assert_eq!(acks.acked_without(ReplicaId(4), leader(3)), Some(0), "of another leadership, whose log is another");
    }

    #[test]
    fn a_follower_that_is_slow_to_answer_is_not_of_the_front_until_it_is_as_fast_again() {
        let acks = Acks::default();
        let record = |replica, took_ms: u64, last| {
            let sent = Boottime(Boottime::now().0 - took_ms * 1_000_000);
            acks.record(ReplicaId(replica), leader(3), sent, Some(last));
        };
        let is_front = |replica| {
            form_front(&acks, &membership(&[&[1, 2, 3]]), &[2, 3]);
            acks.acked_without(ReplicaId(replica), leader(3)).is_none()
        };
        record(2, 30, 1);
        assert!(is_front(2), "nothing is known of the other");
        record(3, 1, 1);
        assert!(is_front(3), "it took a thirtieth of the time");
        (2..50).for_each(|last| record(2, 1, last));
        assert!(is_front(2));
    }
}
