//! What the meta group logs, and what each entry does to the topology. Deterministic: every node applies the same
//! entries in the same order and must end with the same bytes.
//!
//! An entry may be proposed twice (a proposer that saw no outcome tries again), so each is a no-op success when it is
//! applied to a topology that already has its effect.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Absence, Address, ClusterId, Epoch, FoundingPlan, GroupId, GroupInfo, MoveEnd, MoveId, NodeId, NodeInfo, ReplicaId,
    SettingsMismatch, Topology, WantedSettings, events,
};
use crate::clock::Timestamp;
use crate::cluster::topology::NODE_COUNT_MAX;
use crate::planted::{self, Bug};
use crate::slot::{SLOT_COUNT, Slot};

/// One entry of the meta group. New variants go to the end: postcard numbers them in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaOp {
    /// The first entry.
    Found(Box<FoundingPlan>),
    /// A node that is in no cluster asks to become a member. Under the address of a registered node it takes that node's
    /// place: it is the next incarnation of a node that has lost its data, or that one was given up. The meta leader proposes this only
    /// after it failed to reach the registered incarnation there.
    Join {
        node: NodeId,
        info: NodeInfo,
        settings: WantedSettings,
    },
    /// A member runs under another address than the one registered. If that is another's, the other is not there any more, and its own is not
    /// known until it tells; the meta leader proposes this only after the member has answered there.
    UpdateAddress {
        node: NodeId,
        info: NodeInfo,
    },
    /// Drops a node that is to leave and holds no data replica.
    Forget {
        node: NodeId,
    },
    /// A replica of the group is to move: `remove` goes when all that is wished has caught up. Only one of them: the group gets a replica
    /// more, or one less. Planned for the topology of `epoch`.
    Place {
        epoch: Epoch,
        group: GroupId,
        remove: Option<ReplicaId>,
        add: Option<NodeId>,
        why: String,
    },
    /// The group is to be led by this one of its replicas. Planned for the topology of `epoch`.
    Prefer {
        epoch: Epoch,
        group: GroupId,
        replica: ReplicaId,
        why: String,
    },
    /// The group has committed a membership without this replica, which was to go.
    Departed {
        group: GroupId,
        replica: ReplicaId,
    },
    /// The meta leader has had no connection to the node for so long, all in all; 0 and not given up: it has had one for a while.
    Absent {
        node: NodeId,
        counted_ms: u64,
        given_up: bool,
    },
    /// An operator wants the node to leave. `gone`: it will not come back.
    Drain {
        node: NodeId,
        successor: Option<NodeId>,
        gone: bool,
    },
    PauseRebalance,
    ResumeRebalance,
    /// Starts one move for each of these slots that `to` does not own, with the ids from `first` on. Changes nothing unless `first` is the
    /// next id, so a late duplicate cannot start them again.
    StartMoves {
        first: MoveId,
        to: GroupId,
        slots: BTreeSet<Slot>,
        why: String,
        /// An operator wants it: the scheduler is not to undo it.
        by_hand: bool,
    },
    /// § The one instant at which a slot's owner changes. Proposed only when the target's adopt is known to be committed.
    CommitMove {
        id: MoveId,
    },
    /// The other outcome of a move that is started. `again`: it is started anew when both groups have cleaned up.
    AbortMove {
        id: MoveId,
        again: bool,
    },
    /// One of the two groups has logged its clean-up of a move that is over.
    FinishMove {
        id: MoveId,
        end: MoveEnd,
    },
    /// A group without slots, with replicas on these nodes, the first of which is to lead it. Planned for the topology of `epoch`.
    MakeGroup {
        epoch: Epoch,
        homes: Vec<NodeId>,
        why: String,
    },
    /// Ends a group that has no slots. Planned for the topology of `epoch`.
    Dissolve {
        epoch: Epoch,
        group: GroupId,
        why: String,
    },
    /// The scheduler is to even out slots now, also those that an operator has placed.
    EvenSlots,
    /// Changes nothing: its answer says that the move is started still, and that the meta group can decide. A slot is frozen only after one.
    ConfirmMove {
        id: MoveId,
    },
    /// Every node knows this feature level: entries are written with it from now on, here and in all groups.
    RaiseLevel {
        level: u16,
    },
    /// For the events alone: these groups have come to be led by the node. Planned for the topology of `epoch`.
    Led {
        epoch: Epoch,
        node: NodeId,
        groups: BTreeSet<GroupId>,
    },
    /// What `Place` began is taken back: `replica`, which was to go and still votes, stays, and `instead`, which was to follow it, goes. Planned
    /// for the topology of `epoch`.
    Keep {
        epoch: Epoch,
        group: GroupId,
        replica: ReplicaId,
        instead: ReplicaId,
        why: String,
    },
    /// An operator takes back that the node is to leave.
    Stay {
        node: NodeId,
    },
}

/// What an applied entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaOutcome {
    Founded,
    /// The node is a member with this meta replica, and no data yet.
    Joined {
        meta: ReplicaId,
    },
    /// The node has taken the place of `old` everywhere, with fresh replica ids.
    Replaced {
        old: NodeId,
        meta: ReplicaId,
        replicas: BTreeMap<GroupId, ReplicaId>,
    },
    AddressUpdated,
    Forgotten,
    /// A move was started, committed, aborted or finished on one side.
    Moves,
    /// What the op says holds now.
    Changed,
    /// The topology already was as asked; its epoch did not move.
    Unchanged,
}

/// Why an entry changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    #[error("the cluster is not founded yet")]
    NotFounded,
    #[error("this cluster was founded as {0}")]
    AlreadyFounded(ClusterId),
    #[error(transparent)]
    Settings(#[from] SettingsMismatch),
    #[error("node {0} is not a member of this cluster")]
    UnknownNode(NodeId),
    #[error("node {0} was replaced or forgotten; empty its data directory to join as a new node")]
    WasForgotten(NodeId),
    #[error("address {address} belongs to node {holder}, and no other answers there")]
    AddressTaken { address: Address, holder: NodeId },
    #[error("node {node} still holds a replica of group {group}")]
    HoldsReplica { node: NodeId, group: GroupId },
    #[error("the cluster has {NODE_COUNT_MAX} nodes, the most that are possible")]
    ClusterFull,
    #[error("the last node of a cluster cannot be forgotten")]
    LastNode,
    #[error("planned for epoch {planned:?}, which has passed: it is {now:?} now")]
    Outdated { planned: Epoch, now: Epoch },
    #[error("there is no group {0}")]
    UnknownGroup(GroupId),
    #[error("group {group} has no replica {replica}")]
    UnknownReplica { group: GroupId, replica: ReplicaId },
    #[error("group {0} has slots, or one is on its way to it or from it")]
    GroupInUse(GroupId),
    #[error("a group needs one home at least, each but once")]
    Homes,
    #[error("there are {SLOT_COUNT} groups, the most that are possible")]
    GroupCount,
    #[error("group {0} would have no replica left")]
    LastReplica(GroupId),
    #[error("node {0} is not to leave")]
    Stays(NodeId),
    #[error("node {0} is itself to leave")]
    Leaves(NodeId),
    #[error(
        "{left} node(s) that are up would be left for {replicas} replicas of each group: let another node join first \
         (kvorum server --join), or replace this one (kvorum cluster replace-node)"
    )]
    TooFewNodes { left: usize, replicas: usize },
    #[error("there is no slot {0}")]
    UnknownSlot(Slot),
    #[error("slot {slot} is moving already, in move {id}")]
    SlotMoves { slot: Slot, id: MoveId },
    #[error("other moves were started meanwhile: the next one is {0}")]
    NextMove(MoveId),
    #[error("there is no move {0} any more")]
    UnknownMove(MoveId),
    #[error("move {0} is not over")]
    MoveNotOver(MoveId),
    #[error("move {0} was aborted")]
    MoveAborted(MoveId),
    #[error("move {0} was committed")]
    MoveCommitted(MoveId),
}

impl MetaOp {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a meta op holds nothing that postcard cannot encode")
    }

    /// Never panics on damaged bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// Applies one entry to the state of the meta group, which has no topology before its first entry.
/// `at` is the entry's time.
pub fn apply_meta(state: &mut Option<Topology>, op: &MetaOp, at: Timestamp) -> Result<MetaOutcome, MetaError> {
    let before = state.clone();
    let outcome = match (state.as_mut(), op) {
        (None, MetaOp::Found(plan)) => {
            *state = Some(plan.topology().clone());
            MetaOutcome::Founded
        }
        (None, _) => return Err(MetaError::NotFounded),
        (Some(topology), op) => topology.apply(op)?,
    };
    if let Some(topology) = state.as_mut().filter(|_| outcome != MetaOutcome::Unchanged) {
        let before = before.as_ref().unwrap_or(topology);
        if let Some(event) = topology.event_of(before, op, &outcome, at) {
            events::note(&mut topology.events, event);
        }
    }
    Ok(outcome)
}

impl Topology {
    /// Applies one entry. Every change raises the epoch by one; an error or `Unchanged` leaves everything as it was.
    pub fn apply(&mut self, op: &MetaOp) -> Result<MetaOutcome, MetaError> {
        let outcome = match op {
            MetaOp::Found(plan) if plan.topology().cluster_id == self.cluster_id => MetaOutcome::Unchanged,
            MetaOp::Found(_) => return Err(MetaError::AlreadyFounded(self.cluster_id)),
            MetaOp::Join { node, info, settings } => self.join(*node, info, *settings)?,
            MetaOp::UpdateAddress { node, info } => self.update_address(*node, info)?,
            MetaOp::Forget { node } => self.forget(*node)?,
            MetaOp::Place { epoch, group, remove, add, why: _ } => {
                self.check_epoch(*epoch)?;
                self.place(*group, *remove, *add)?
            }
            MetaOp::Prefer { epoch, group, replica, why: _ } => {
                self.check_epoch(*epoch)?;
                self.prefer(*group, *replica)?
            }
            MetaOp::Departed { group, replica } => self.departed(*group, *replica)?,
            MetaOp::Absent { node, counted_ms, given_up } => {
                self.note_absence(*node, Absence { counted_ms: *counted_ms, given_up: *given_up })?
            }
            MetaOp::Drain { node, successor, gone } => self.drain(*node, *successor, *gone)?,
            MetaOp::PauseRebalance => self.set_paused(true),
            MetaOp::ResumeRebalance => self.set_paused(false),
            MetaOp::StartMoves { first, to, slots, why: _, by_hand } => {
                self.start_moves(*first, *to, slots, *by_hand)?
            }
            MetaOp::CommitMove { id } => self.commit_move(*id)?,
            MetaOp::AbortMove { id, again } => self.abort_move(*id, *again)?,
            MetaOp::FinishMove { id, end } => self.finish_move(*id, *end)?,
            MetaOp::MakeGroup { epoch, homes, why: _ } => {
                self.check_epoch(*epoch)?;
                self.add_group(homes)?
            }
            MetaOp::Dissolve { epoch, group, why: _ } => {
                self.check_epoch(*epoch)?;
                self.dissolve(*group)?
            }
            MetaOp::EvenSlots => self.ask_for_evening(),
            MetaOp::ConfirmMove { id } => self.confirm_move(*id)?,
            MetaOp::RaiseLevel { level } => self.raise_level(*level),
            MetaOp::Led { epoch, node, groups } => {
                self.check_epoch(*epoch)?;
                self.check_known(*node, groups)?
            }
            MetaOp::Keep { epoch, group, replica, instead, why: _ } => {
                self.check_epoch(*epoch)?;
                self.keep(*group, *replica, *instead)?
            }
            MetaOp::Stay { node } => self.stay(*node)?,
        };
        if outcome != MetaOutcome::Unchanged {
            self.epoch = Epoch(self.epoch.0 + 1);
            assert_eq!(self.validate(), Ok(()), "a meta entry must leave a consistent topology");
        }
        Ok(outcome)
    }

    fn join(&mut self, node: NodeId, info: &NodeInfo, settings: WantedSettings) -> Result<MetaOutcome, MetaError> {
        if self.nodes.contains_key(&node) {
            // A late duplicate: the address in it may be older than the registered one.
            return Ok(MetaOutcome::Unchanged);
        }
        if self.forgotten.contains(&node) {
            return Err(MetaError::WasForgotten(node));
        }
        settings.check(self.settings)?;
        let old = self.node_at(&info.address());
        if old.is_none() && self.nodes.len() == NODE_COUNT_MAX {
            return Err(MetaError::ClusterFull);
        }
        // § A wiped node is a new member, never its old self: fresh ids everywhere, since the votes and entries that the
        // old ids stand for are gone.
        let replicas = old.map(|old| self.replace_replicas(old, node)).unwrap_or_default();
        if let Some(old) = old {
            self.remove_node(old);
        }
        let meta = self.draw_replica_id();
        self.meta.insert(meta, node);
        self.nodes.insert(node, info.clone());
        Ok(match old {
            Some(old) => MetaOutcome::Replaced { old, meta, replicas },
            None => MetaOutcome::Joined { meta },
        })
    }

    /// Moves every data replica of `old` to a fresh id on `new`.
    fn replace_replicas(&mut self, old: NodeId, new: NodeId) -> BTreeMap<GroupId, ReplicaId> {
        let replaced: Vec<(GroupId, ReplicaId)> = self.replicas_on(old).collect();
        let mut fresh_ids = BTreeMap::new();
        for (group, stale) in replaced {
            let fresh = self.draw_replica_id();
            let info = self.groups.get_mut(&group).expect("replicas_on lists groups that exist");
            // It was to go anyway.
            if info.departing.remove(&stale).is_none() {
                info.replace_replica(stale, fresh, new);
                fresh_ids.insert(group, fresh);
            }
        }
        fresh_ids
    }

    fn update_address(&mut self, node: NodeId, info: &NodeInfo) -> Result<MetaOutcome, MetaError> {
        let registered = self.nodes.get(&node).ok_or(MetaError::UnknownNode(node))?;
        if registered == info {
            return Ok(MetaOutcome::Unchanged);
        }
        let holder = self.node_at(&info.address()).filter(|holder| *holder != node);
        let moved_on = holder.map(|holder| (holder, NodeInfo::unknown(holder, info)));
        // § Two nodes at one address would be an entry that nobody can apply.
        if let Some((holder, unknown)) = &moved_on
            && (unknown.address() == info.address() || self.node_at(&unknown.address()).is_some())
        {
            return Err(MetaError::AddressTaken { address: info.address(), holder: *holder });
        }
        self.nodes.insert(node, info.clone());
        self.nodes.extend(moved_on);
        Ok(MetaOutcome::AddressUpdated)
    }

    fn forget(&mut self, node: NodeId) -> Result<MetaOutcome, MetaError> {
        if self.forgotten.contains(&node) {
            return Ok(MetaOutcome::Unchanged);
        }
        if !self.nodes.contains_key(&node) {
            return Err(MetaError::UnknownNode(node));
        }
        let held = self.replicas_on(node).next().filter(|_| !planted::is(Bug::ForgottenWithReplicas));
        if let Some((group, _)) = held {
            return Err(MetaError::HoldsReplica { node, group });
        }
        // Its removal was taken back since this was planned.
        if !self.draining.contains_key(&node) {
            return Err(MetaError::Stays(node));
        }
        if self.nodes.len() == 1 {
            return Err(MetaError::LastNode);
        }
        self.remove_node(node);
        Ok(MetaOutcome::Forgotten)
    }

    fn remove_node(&mut self, node: NodeId) {
        self.nodes.remove(&node);
        self.meta.retain(|_, home| *home != node);
        self.absent.remove(&node);
        self.draining.remove(&node);
        for draining in self.draining.values_mut() {
            draining.successor = draining.successor.filter(|new| *new != node);
        }
        self.forgotten.insert(node);
    }
}

impl GroupInfo {
    fn replace_replica(&mut self, stale: ReplicaId, fresh: ReplicaId, home: NodeId) {
        self.replicas.remove(&stale);
        self.replicas.insert(fresh, home);
        if self.preferred == stale {
            self.preferred = fresh;
        }
        if self.initializer == stale {
            // If the lost node had not created the group yet, somebody else of the founding members must. If none is left, the
            // group's data is lost and it must not be created again as if it were new: the initializer stays as it was.
            let survivor = self.founding.keys().find(|replica| self.replicas.contains_key(replica));
            self.initializer = survivor.copied().unwrap_or(stale);
        }
    }
}
