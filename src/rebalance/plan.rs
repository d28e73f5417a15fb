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

pub fn next_step(desired: &Desired, status: &MembershipStatus) -> Step {
    let wanted = desired.voters.iter().chain(&desired.learners);
    if let Some((replica, node)) = wanted.clone().find(|(replica, _)| !status.members.contains_key(replica)) {
        return Step::AddLearner(*replica, *node);
    }
    let voters: BTreeSet<ReplicaId> = desired.voters.keys().copied().collect();
    if status.voters != voters || status.joint {
        let caught_up = |replica: &&ReplicaId| {
            let matched = status.matched.get(replica).copied();
            matched.is_some_and(|matched| matched + PROMOTION_LAG_ENTRIES_MAX >= status.last_log_index)
        };
        let new: Vec<&ReplicaId> = voters.difference(&status.voters).collect();
        return if new.iter().all(caught_up) { Step::ChangeVoters(voters) } else { Step::Wait };
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

    #[test]
    fn a_replica_is_replaced_by_learner_then_voter_then_removal() {
        let desired = Desired { voters: members(&[1, 2, 4]), learners: BTreeMap::new() };
        let before = status(&[1, 2, 3], &[1, 2, 3], &[]);
        assert_eq!(next_step(&desired, &before), Step::AddLearner(ReplicaId(4), NodeId([4; 20])));
        let lagging = status(&[1, 2, 3], &[1, 2, 3, 4], &[(4, 10)]);
        assert_eq!(next_step(&desired, &lagging), Step::Wait);
        let ready = status(&[1, 2, 3], &[1, 2, 3, 4], &[(4, 990)]);
        assert_eq!(next_step(&desired, &ready), Step::ChangeVoters(desired.voters.keys().copied().collect()));
        let leftover = status(&[1, 2, 4], &[1, 2, 3, 4], &[]);
        assert_eq!(next_step(&desired, &leftover), Step::RemoveLearners([ReplicaId(3)].into()));
        assert_eq!(next_step(&desired, &status(&[1, 2, 4], &[1, 2, 4], &[])), Step::Done);
    }

    #[test]
    fn a_change_that_a_lost_leader_left_half_done_is_finished() {
        let desired = Desired { voters: members(&[1, 2]), learners: BTreeMap::new() };
        let joint = MembershipStatus { joint: true, ..status(&[1, 2], &[1, 2], &[]) };
        assert_eq!(next_step(&desired, &joint), Step::ChangeVoters(desired.voters.keys().copied().collect()));
    }
}
