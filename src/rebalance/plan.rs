//! What to change next in one group's membership. Pure.
//!
//! One step at a time, each safe by itself and idempotent: whoever leads the group next continues where the last leader
//! stopped. A replica is replaced by adding the new one as a learner first, so that the group never has fewer voters that
//! hold the log than before.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{NodeId, ReplicaId};
use crate::raft::MembershipStatus;

/// A learner this close to the leader's log is ready to vote.
const PROMOTION_LAG_ENTRIES_MAX: u64 = 64;

/// The membership the topology wants.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    pub voters: BTreeMap<ReplicaId, NodeId>,
    pub learners: BTreeMap<ReplicaId, NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing to change.
    Done,
    /// New replicas exist but have not caught up.
    Wait,
    AddLearner(ReplicaId, NodeId),
    ChangeVoters(BTreeSet<ReplicaId>),
    /// Members that nobody wants any more.
    RemoveLearners(BTreeSet<ReplicaId>),
}

/// `reachable`: nodes that the leader is connected to, and its own.
pub fn next_step(desired: &Desired, status: &MembershipStatus, reachable: &BTreeSet<NodeId>) -> Step {
    let wanted = desired.voters.iter().chain(&desired.learners);
    if let Some((replica, node)) = wanted.clone().find(|(replica, _)| !status.members.contains_key(replica)) {
        // § Ids are given out in order and never again: one below a member's was taken away, and is being deleted, by a topology newer than ours.
        let is_newest = status.members.last_key_value().is_none_or(|(newest, _)| replica > newest);
        return if is_newest { Step::AddLearner(*replica, *node) } else { Step::Wait };
    }
    let voters: BTreeSet<ReplicaId> = desired.voters.keys().copied().collect();
    if status.voters != voters || status.joint {
        let caught_up = |replica: &&ReplicaId| {
            let matched = status.matched.get(replica).copied();
            matched.is_some_and(|matched| matched + PROMOTION_LAG_ENTRIES_MAX >= status.last_log_index)
        };
        let here = |replica: &&ReplicaId| desired.voters.get(*replica).is_some_and(|node| reachable.contains(node));
        let new: Vec<&ReplicaId> = voters.difference(&status.voters).collect();
        // § A change to voters of which too few are there could not be committed, nor taken back: the group would stand still that has a majority
        // of its old voters.
        let is_safe = new.iter().all(|replica| caught_up(replica) && here(replica))
            && 2 * voters.iter().filter(here).count() > voters.len();
        return if is_safe { Step::ChangeVoters(voters) } else { Step::Wait };
    }
    let known: BTreeSet<ReplicaId> = wanted.map(|(replica, _)| *replica).collect();
    let gone: BTreeSet<ReplicaId> = status.members.keys().filter(|replica| !known.contains(replica)).copied().collect();
    if gone.is_empty() { Step::Done } else { Step::RemoveLearners(gone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[u64]) -> BTreeMap<ReplicaId, NodeId> {
        ids.iter().map(|id| (ReplicaId(*id), NodeId([*id as u8; 20]))).collect()
    }

    fn status(voters: &[u64], all: &[u64], matched: &[(u64, u64)]) -> MembershipStatus {
        MembershipStatus {
            voters: voters.iter().copied().map(ReplicaId).collect(),
            members: members(all),
            matched: matched.iter().map(|(id, index)| (ReplicaId(*id), *index)).collect(),
            last_log_index: 1000,
            joint: false,
        }
    }

    fn nodes(ids: &[u8]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId([*id; 20])).collect()
    }

    #[test]
    fn voters_are_not_changed_to_ones_that_could_not_commit() {
        let desired = Desired { voters: members(&[1, 2, 4]), learners: BTreeMap::new() };
        let ready = status(&[1, 2, 3], &[1, 2, 3, 4], &[(4, 1000)]);
        let change = Step::ChangeVoters(desired.voters.keys().copied().collect());
        for (reachable, step) in
            [(&[1, 2, 4][..], &change), (&[1, 4], &change), (&[1, 2], &Step::Wait), (&[1, 3], &Step::Wait)]
        {
            assert_eq!(next_step(&desired, &ready, &nodes(reachable)), *step, "{reachable:?}");
        }
        // Fewer voters of whom most are away: those that are there are a majority of the old ones only.
        let fewer = Desired { voters: members(&[1, 2, 3]), learners: BTreeMap::new() };
        let five = status(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], &[]);
        assert_eq!(next_step(&fewer, &five, &nodes(&[3, 4, 5])), Step::Wait);
    }

    #[test]
    fn a_replica_that_was_taken_away_is_not_added_again_by_a_leader_that_has_not_heard() {
        let stale = Desired { voters: members(&[1, 2, 3]), learners: BTreeMap::new() };
        let moved = status(&[1, 2, 4], &[1, 2, 4], &[]);
        assert_eq!(next_step(&stale, &moved, &nodes(&[1, 2, 3, 4])), Step::Wait);
    }

    #[test]
    fn a_replica_is_replaced_by_learner_then_voter_then_removal() {
        let desired = Desired { voters: members(&[1, 2, 4]), learners: BTreeMap::new() };
        let before = status(&[1, 2, 3], &[1, 2, 3], &[]);
        assert_eq!(next_step(&desired, &before, &nodes(&[1, 2, 4])), Step::AddLearner(ReplicaId(4), NodeId([4; 20])));
        let lagging = status(&[1, 2, 3], &[1, 2, 3, 4], &[(4, 10)]);
        assert_eq!(next_step(&desired, &lagging, &nodes(&[1, 2, 4])), Step::Wait);
        let ready = status(&[1, 2, 3], &[1, 2, 3, 4], &[(4, 990)]);
        assert_eq!(
            next_step(&desired, &ready, &nodes(&[1, 4])),
            Step::ChangeVoters(desired.voters.keys().copied().collect())
        );
        let leftover = status(&[1, 2, 4], &[1, 2, 3, 4], &[]);
        assert_eq!(next_step(&desired, &leftover, &nodes(&[])), Step::RemoveLearners([ReplicaId(3)].into()));
        assert_eq!(next_step(&desired, &status(&[1, 2, 4], &[1, 2, 4], &[]), &nodes(&[])), Step::Done);
    }

    #[test]
    fn a_change_that_a_lost_leader_left_half_done_is_finished() {
        let desired = Desired { voters: members(&[1, 2]), learners: BTreeMap::new() };
        let joint = MembershipStatus { joint: true, ..status(&[1, 2], &[1, 2], &[]) };
        assert_eq!(
            next_step(&desired, &joint, &nodes(&[1, 2])),
            Step::ChangeVoters(desired.voters.keys().copied().collect())
        );
    }
}
