//! Who belongs to a Raft group, as its leader sees it, and the two steps that change it (Raft section 6; openraft's joint
//! consensus). Used for data groups and the meta group alike; what to change is decided in `rebalance/`.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftStateMachine;

use crate::cluster::{NodeId, ReplicaId};
use crate::raft::types::{Member, StoredMembership, TypeConfig};

/// A group's membership and how far each member's log is.
#[derive(Debug, Clone, Default)]
pub struct MembershipStatus {
    pub voters: BTreeSet<ReplicaId>,
    /// Voters and learners, with the node each lives on.
    pub members: BTreeMap<ReplicaId, NodeId>,
    /// Highest log index known to be on the member; only the leader knows.
    pub matched: BTreeMap<ReplicaId, u64>,
    pub last_log_index: u64,
    /// A change is under way: two sets of voters must agree.
    pub joint: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the membership was not changed: {0}")]
pub struct ChangeError(pub String);

pub(super) fn status<SM: RaftStateMachine<TypeConfig>>(raft: &openraft::Raft<TypeConfig, SM>) -> MembershipStatus {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let membership = metrics.membership_config.membership();
    let matched = metrics.replication.iter().flatten();
    MembershipStatus {
        voters: membership.voter_ids().map(ReplicaId).collect(),
        members: membership.nodes().map(|(id, member)| (ReplicaId(*id), member.node)).collect(),
        matched: matched.filter_map(|(id, log_id)| Some((ReplicaId(*id), log_id.as_ref()?.index))).collect(),
        last_log_index: metrics.last_log_index.unwrap_or(0),
        joint: membership.get_joint_config().len() > 1,
    }
}

/// The voters, if there is nobody else and no change under way.
pub(super) fn members_at_rest(membership: &StoredMembership) -> BTreeSet<ReplicaId> {
    let membership = membership.membership();
    let voters: BTreeSet<ReplicaId> = membership.voter_ids().map(ReplicaId).collect();
    let at_rest = membership.get_joint_config().len() == 1 && membership.nodes().count() == voters.len();
    if at_rest { voters } else { BTreeSet::new() }
}

pub(super) async fn add_learner<SM: RaftStateMachine<TypeConfig>>(
    raft: &openraft::Raft<TypeConfig, SM>,
    replica: ReplicaId,
    node: NodeId,
) -> Result<(), ChangeError> {
    let added = raft.add_learner(replica.0, Member { node }, false).await;
    added.map(|_| ()).map_err(|error| ChangeError(error.to_string()))
}

/// Replaces the voters; who is in neither set leaves the group.
pub(super) async fn change_voters<SM: RaftStateMachine<TypeConfig>>(
    raft: &openraft::Raft<TypeConfig, SM>,
    voters: &BTreeSet<ReplicaId>,
    learners_stay: bool,
) -> Result<(), ChangeError> {
    let voters: BTreeSet<u64> = voters.iter().map(|replica| replica.0).collect();
    let changed = raft.change_membership(voters, learners_stay).await;
    changed.map(|_| ()).map_err(|error| ChangeError(error.to_string()))
}

pub(super) async fn remove_learners<SM: RaftStateMachine<TypeConfig>>(
    raft: &openraft::Raft<TypeConfig, SM>,
    gone: &BTreeSet<ReplicaId>,
) -> Result<(), ChangeError> {
    let gone: BTreeSet<u64> = gone.iter().map(|replica| replica.0).collect();
    let changed = raft.change_membership(openraft::ChangeMembers::RemoveNodes(gone), true).await;
    changed.map(|_| ()).map_err(|error| ChangeError(error.to_string()))
}
