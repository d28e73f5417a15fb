//! Handing leaderships over: to whom, and all at once when a node stops.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Replication;
use crate::cluster::{GroupId, ReplicaId};
use crate::raft::group::{Group, TransferError};
use crate::raft::membership::MembershipStatus;
use crate::raft::succession::{self, Heir, Leaderships};

impl Replication {
    /// Tries one voter elsewhere after the other, the best first, on nodes that suit.
    pub async fn hand_over(&self, group: Arc<Group>, deadline: Instant, suits: impl Fn(&Heir) -> bool) {
        let mut heirs = self.heirs(group.id(), group.replica(), &self.membership(&group));
        heirs.retain(suits);
        succession::rank(&mut heirs, &self.leaderships.load());
        hand_over(group, heirs, deadline).await;
    }

    /// Hands every leadership of this node to a caught-up voter elsewhere, all groups at once; returns when that is done or `deadline`
    /// has passed.
    pub async fn hand_over_leadership(&self, deadline: Instant) {
        let mut leaderships = Leaderships::clone(&self.leaderships.load());
        let mut handed_over = Vec::new();
        for group in self.led_groups() {
            let mut heirs = self.heirs(group.id(), group.replica(), &self.membership(&group));
            succession::rank(&mut heirs, &leaderships);
            if let Some(heir) = heirs.first() {
                *leaderships.entry(heir.node).or_default() += 1;
            }
            handed_over.push(hand_over(group, heirs, deadline));
        }
        join_all(handed_over).await;
        self.hand_over_meta(|_| true).await;
    }

    /// Hands leadership of the meta group, if it is here, to the best of the voters that suit.
    pub async fn hand_over_meta(&self, suits: impl Fn(ReplicaId) -> bool) {
        let Some(leader) = self.meta.leadership(&self.meta_raft) else { return };
        let mut heirs = self.heirs(GroupId::META, ReplicaId(leader.node_id), &self.meta_membership());
        heirs.retain(|heir| suits(heir.replica));
        succession::rank(&mut heirs, &Leaderships::new());
        if let Some(heir) = heirs.first() {
            // Nothing is served under a lease of the meta group, so there is none to revoke.
            let _ = self.meta_raft.trigger().transfer_leader(heir.replica.0).await;
        }
    }

    fn heirs(&self, group: GroupId, own: ReplicaId, status: &MembershipStatus) -> Vec<Heir> {
        let (leaving, topology) = (self.leaving.load(), self.topology());
        let preferred = topology.group(group).map(|info| info.preferred);
        let heir = |voter: &ReplicaId| {
            let matched = status.matched.get(voter).copied().unwrap_or(0);
            let lag = status.last_log_index.saturating_sub(matched);
            let node = *status.members.get(voter)?;
            let able = self.transport.is_connected(node) && !self.space.is_short_at(node);
            Some(Heir { replica: *voter, node, lag, preferred: preferred == Some(*voter), able })
        };
        let heirs = status.voters.iter().filter(|voter| **voter != own).filter_map(heir);
        heirs.filter(|heir| !leaving.contains(&heir.node)).collect()
    }
}

async fn hand_over(group: Arc<Group>, heirs: Vec<Heir>, deadline: Instant) {
    for heir in heirs {
        match tokio::time::timeout_at(deadline, group.transfer(heir.replica)).await {
            Ok(Ok(()) | Err(TransferError::NotLeader)) | Err(_) => return,
            Ok(Err(TransferError::NotVoter | TransferError::Lagging | TransferError::TimedOut)) => (),
        }
    }
}
