//! What `kvorum cluster status` and the status page show: the topology and the hints, and what each group's leader alone knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::cluster::{
    ClusterStatus, GroupId, GroupInfo, GroupStatus, Move, MoveId, MoveProgress, MoveState, MoveStatus, NodeId,
    NodeState, NodeStatus, ReplicaId, ReplicaStatus, Topology,
};
use crate::raft::group::Group;
use crate::raft::membership::{self, MembershipStatus};
use crate::raft::peers::ASK_LED_GROUPS;
use crate::raft::replication::Replication;

/// A leader that does not answer by then is shown without its figures.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// One group whose leader is cut off must not keep those from being shown that the node leads beside it.
const CONFIRMATION_WAIT_MAX: Duration = Duration::from_millis(500);

/// What a leader knows of its group. Small, since those of a thousand groups travel in one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedGroup {
    pub voters: BTreeSet<ReplicaId>,
    /// Entries that each member lacks.
    lag: BTreeMap<ReplicaId, u64>,
    /// § The members of the membership that is committed and applied; empty while there are learners or a change is under way. Of the meta
    /// group all members, as the leader counts them.
    pub members: BTreeSet<ReplicaId>,
    /// § Those that are to go, as the leader has heard: only then are they not taken in again, and may be deleted.
    pub departing: BTreeSet<ReplicaId>,
    /// `None` for the meta group.
    pub keys: Option<u64>,
    /// Keys and bytes.
    moved: (u64, u64),
    /// Of a move to another group.
    move_trouble: Option<String>,
}

impl LedGroup {
    fn new(status: &MembershipStatus, keys: Option<u64>) -> Self {
        let lag = status.matched.iter().map(|(replica, at)| (*replica, status.last_log_index.saturating_sub(*at)));
        // In the middle of a change the old voters still count.
        let voters = if status.joint { BTreeSet::new() } else { status.voters.clone() };
        let (members, departing) = (BTreeSet::new(), BTreeSet::new());
        Self { voters, lag: lag.collect(), members, departing, keys, moved: (0, 0), move_trouble: None }
    }

    fn of_group(replication: &Replication, group: &Group) -> Self {
        let topology = replication.topology();
        let departing = topology.group(group.id()).map(|info| info.departing.keys().copied().collect());
        let members = membership::members_at_rest(&group.state().applied().membership);
        let keys = Some(group.keyspace().counters().keys);
        let (moved, move_trouble) = (group.moved(), group.move_trouble());
        let departing = departing.unwrap_or_default();
        Self { members, departing, moved, move_trouble, ..Self::new(&replication.membership(group), keys) }
    }

    fn of_meta(replication: &Replication) -> Self {
        let status = replication.meta_membership();
        Self { members: status.members.keys().copied().collect(), ..Self::new(&status, None) }
    }
}

impl Replication {
    /// The cluster as this node sees it, with the leaders' own figures.
    pub async fn status(&self) -> ClusterStatus {
        let topology = self.topology();
        let led = self.led_everywhere().await;
        let meta = topology.meta_members().into_iter().map(|(replica, (node, _))| (replica, node)).collect();
        let all =
            |info: &GroupInfo| info.replicas.iter().chain(&info.departing).map(|(id, node)| (*id, *node)).collect();
        let groups = topology.groups().iter().map(|(group, info)| (*group, all(info)));
        let groups = std::iter::once((GroupId::META, meta)).chain(groups);
        let groups = groups.map(|(group, replicas)| self.group_status(&topology, group, &replicas, led.get(&group)));
        ClusterStatus {
            cluster_id: topology.cluster_id().to_string(),
            epoch: topology.epoch().0,
            asked: self.node().to_string(),
            nodes: self.node_statuses(&topology, led.get(&GroupId::META)),
            groups: groups.collect(),
            moves: topology.moves().map(move_status).collect(),
            held_slots: topology.held_count(),
            held_empty: topology.groups_held_empty().map(|group| group.0).collect(),
            paused: topology.is_paused(),
        }
    }

    /// What the leaders say of their groups; those that do not answer in time are missing.
    pub async fn led_everywhere(&self) -> BTreeMap<GroupId, LedGroup> {
        let (topology, hints) = (self.topology(), self.hints());
        let mut led = self.led_here().await;
        let all = std::iter::once(GroupId::META).chain(topology.groups().keys().copied());
        let elsewhere = all.filter(|group| !led.contains_key(group)).filter_map(|group| hints.leader(group));
        let leaders: BTreeSet<NodeId> =
            elsewhere.map(|leader| leader.node).filter(|node| *node != self.node()).collect();
        for answer in join_all(leaders.into_iter().map(|node| self.ask_led_groups(node))).await {
            led.extend(answer);
        }
        led
    }

    /// The answer to a peer that makes a status.
    pub(super) async fn encoded_led_groups(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.led_here().await).expect("numbers encode")
    }

    async fn led_here(&self) -> BTreeMap<GroupId, LedGroup> {
        // § One that is cut off leads on as it knows; what another has made of the group meanwhile must not be mistaken for what it says.
        let confirmed = async |group: Arc<Group>| {
            let leads = tokio::time::timeout(CONFIRMATION_WAIT_MAX, group.confirms_leadership()).await;
            leads.unwrap_or(false).then(|| (group.id(), LedGroup::of_group(self, &group)))
        };
        let groups = join_all(self.led_groups().into_iter().map(confirmed)).await;
        let meta = self.leads_meta().then(|| (GroupId::META, LedGroup::of_meta(self)));
        groups.into_iter().flatten().chain(meta).collect()
    }

    async fn ask_led_groups(&self, node: NodeId) -> BTreeMap<GroupId, LedGroup> {
        match self.ask(node, ASK_LED_GROUPS, &[], ANSWER_WAIT_MAX).await {
            Ok(answer) => postcard::from_bytes(&answer).unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        }
    }

    /// `meta` is what the meta group's leader says; without it nobody is seen to be joining.
    fn node_statuses(&self, topology: &Topology, meta: Option<&LedGroup>) -> Vec<NodeStatus> {
        let connected: BTreeSet<NodeId> =
            self.peers().iter().filter(|peer| peer.connected_for.is_some()).map(|peer| peer.node).collect();
        let joins = |node: NodeId| {
            let replica = topology.meta_replica_on(node);
            meta.is_some_and(|meta| replica.is_some_and(|replica| !meta.members.contains(&replica)))
        };
        let state = |node: NodeId| {
            let own = node == self.node();
            let full = if own { self.space().is_crammed() } else { self.space().is_crammed_at(node) };
            match (own || connected.contains(&node), full) {
                (false, _) if topology.is_given_up(node) => NodeState::Lost,
                (false, _) => NodeState::Down,
                (true, true) => NodeState::Full,
                (true, false) if topology.draining(node).is_some() => NodeState::Leaving,
                (true, false) if topology.is_given_up(node) => NodeState::Returned,
                (true, false) if joins(node) => NodeState::Joining,
                (true, false) => NodeState::Up,
            }
        };
        let status = |(node, info): (&NodeId, &crate::cluster::NodeInfo)| NodeStatus {
            id: node.to_string(),
            address: info.address().to_string(),
            peer_address: format!("{}:{}", info.host, info.peer_port),
            state: state(*node),
            leaves: topology.draining(*node).is_some(),
        };
        topology.nodes().iter().map(status).collect()
    }

    /// `led` is what the leader says; without it, what this node's own replica knows.
    fn group_status(
        &self,
        topology: &Topology,
        id: GroupId,
        replicas: &BTreeMap<ReplicaId, NodeId>,
        led: Option<&LedGroup>,
    ) -> GroupStatus {
        let is_led = self.is_led(id);
        let hint = self.hints().leader(id);
        let own = || match self.group(id) {
            Some(group) => LedGroup::of_group(self, &group),
            None if id == GroupId::META => LedGroup::of_meta(self),
            None => LedGroup::new(&MembershipStatus::default(), None),
        };
        let known = led.cloned().unwrap_or_else(own);
        let slot_ranges = runs(topology.slots_of(id).map(|slot| slot.get()));
        GroupStatus {
            id: id.0,
            leader: hint.filter(|_| is_led).map(|hint| hint.node.to_string()),
            term: hint.map_or(0, |hint| hint.term),
            replicas: replicas
                .iter()
                .map(|(replica, node)| ReplicaStatus {
                    id: replica.0,
                    node: node.to_string(),
                    voter: known.voters.contains(replica),
                    leaving: topology.group(id).is_some_and(|info| info.departing.contains_key(replica)),
                    // A leader that is alone counts on as it knew them last.
                    lag_entries: led.filter(|_| is_led).and_then(|led| led.lag.get(replica).copied()),
                })
                .collect(),
            slot_count: slot_ranges.iter().map(|(first, last)| u32::from(last - first) + 1).sum(),
            slot_ranges,
            keys: known.keys,
            moved_keys: led.map(|led| led.moved.0),
            moved_bytes: led.map(|led| led.moved.1),
            move_trouble: known.move_trouble,
        }
    }
}

fn move_status((id, slot_move): (MoveId, &Move)) -> MoveStatus {
    let state = match slot_move.state {
        MoveState::Started => MoveProgress::Waiting,
        MoveState::Committed => MoveProgress::Done,
        MoveState::Aborted { again: true } => MoveProgress::Repeating,
        MoveState::Aborted { again: false } => MoveProgress::Cancelled,
    };
    MoveStatus { id: id.0, slot: slot_move.slot.get(), from: slot_move.from.0, to: slot_move.to.0, state }
}

/// First and last of each run of neighbours.
fn runs(slots: impl Iterator<Item = u16>) -> Vec<(u16, u16)> {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            Some(_) | None => runs.push((slot, slot)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::move_op::TROUBLE_BYTES_MAX;

    #[test]
    fn neighbouring_slots_are_one_run() {
        assert_eq!(runs([].into_iter()), []);
        assert_eq!(runs([0, 1, 2, 7, 9, 10].into_iter()), [(0, 2), (7, 7), (9, 10)]);
    }

    #[test]
    fn the_figures_of_a_thousand_groups_fit_one_answer() {
        let replicas = (1..=7).map(|replica| (ReplicaId(100_000 + replica), u64::from(u32::MAX)));
        let led = LedGroup {
            voters: replicas.clone().map(|(replica, _)| replica).collect(),
            lag: replicas.clone().collect(),
            members: replicas.clone().map(|(replica, _)| replica).collect(),
            departing: replicas.map(|(replica, _)| replica).collect(),
            keys: Some(u64::MAX),
            moved: (u64::MAX, u64::MAX),
            move_trouble: Some("x".repeat(TROUBLE_BYTES_MAX)),
        };
        let all: BTreeMap<GroupId, LedGroup> = (0..=1024).map(|group| (GroupId(group), led.clone())).collect();
        assert!(postcard::to_stdvec(&all).unwrap().len() < crate::raft::ASK_BYTES_MAX);
    }
}
