//! What `CLUSTER KVORUM STATUS` answers, as one JSON bulk string: the state of the cluster as the asked node sees it.
//! `kvorum cluster status` prints it, the status page shows it. Fields are only ever added.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// 32 hex digits; empty while the cluster forms.
    pub cluster_id: String,
    pub epoch: u64,
    /// The node that answered.
    pub asked: String,
    pub nodes: Vec<NodeStatus>,
    /// The meta group (0) first, then the data groups.
    pub groups: Vec<GroupStatus>,
    /// Oldest first.
    #[serde(default)]
    pub moves: Vec<MoveStatus>,
    /// Slots that stay where an operator has moved them.
    #[serde(default)]
    pub held_slots: usize,
    /// Groups that get no slots, since an operator has moved theirs away.
    #[serde(default)]
    pub held_empty: Vec<u32>,
    /// Rebalancing is paused by an operator.
    #[serde(default)]
    pub paused: bool,
}

/// A slot's move between groups that is not over, or not cleaned up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MoveStatus {
    pub id: u64,
    pub slot: u16,
    pub from: u32,
    pub to: u32,
    pub state: MoveProgress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveProgress {
    Waiting,
    /// The slot is the new group's; what is left is to clean up.
    Done,
    /// To be done again.
    Repeating,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// 40 hex digits.
    pub id: String,
    /// host:port for clients.
    pub address: String,
    /// host:port for other nodes.
    pub peer_address: String,
    pub state: NodeState,
    /// It is to leave, also while it is away.
    #[serde(default)]
    pub leaves: bool,
}

/// As seen by the asked node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Up,
    /// No connection to it stands.
    Down,
    /// Connected, and its disk is full, or nearly so, or has no space for a replica that it is to get.
    Full,
    /// Known to the cluster but not yet a member of the meta group.
    Joining,
    /// Up, and on its way out: what it has moves to the others.
    Leaving,
    /// Down for so long that its replicas are rebuilt elsewhere.
    Lost,
    /// Connected again after it was lost, but not for long enough to be given anything.
    Returned,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    pub id: u32,
    /// Node id of the leader; `None` while there is none as far as the asked node can tell.
    pub leader: Option<String>,
    pub term: u64,
    pub replicas: Vec<ReplicaStatus>,
    pub slot_count: u32,
    /// First and last slot of each run, rising; slots, not key slots.
    pub slot_ranges: Vec<(u16, u16)>,
    /// `None` if neither the leader answers nor the asked node has a replica of the group.
    pub keys: Option<u64>,
    /// Sent to other groups by the leader's process since it started; `None` if the leader does not answer.
    #[serde(default)]
    pub moved_keys: Option<u64>,
    #[serde(default)]
    pub moved_bytes: Option<u64>,
    /// Why the last step of a move to another group failed, if none has come to its end since.
    #[serde(default)]
    pub move_trouble: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub id: u64,
    /// Node id.
    pub node: String,
    pub voter: bool,
    /// To be taken away when the group has no need of it any more.
    #[serde(default)]
    pub leaving: bool,
    /// Log entries that the replica is behind the leader; `None` if the leader does not answer.
    pub lag_entries: Option<u64>,
}
