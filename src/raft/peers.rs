//! What nodes ask of each other beside Raft: to join, to hand leadership over, and what `kvorum cluster status` shows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::cluster::{
    Address, ClusterStatus, GroupId, GroupStatus, MetaOp, NodeId, NodeInfo, NodeState, NodeStatus, Probe, ReplicaId,
    ReplicaStatus,
};
use crate::raft::membership::MembershipStatus;
use crate::raft::meta::ProposeError;
use crate::raft::replication::Replication;
use crate::raft::{AskReply, PeerState, Receiver, formation};

/// `ask` kinds: the body is postcard of (group, replica): hand leadership of the group to the replica.
const ASK_TRANSFER: u8 = 1;
/// The body is a meta op: propose it.
const ASK_PROPOSE: u8 = 2;
const ADDRESS_INTERVAL: Duration = Duration::from_secs(1);
const TRANSFER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Less than what the joining node allows for the whole of it.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// One question of a peer.
pub struct Question {
    pub kind: u8,
    pub body: Bytes,
    pub reply: AskReply,
}

/// Gives what comes in from peers to the coordinator's channels; never blocks.
pub struct PeerInbox {
    pub hints: mpsc::Sender<Bytes>,
    pub questions: mpsc::Sender<Question>,
    pub connections: mpsc::Sender<(NodeId, bool)>,
    /// Nodes that the topology knows.
    pub known: Arc<dyn Fn(NodeId) -> bool + Send + Sync>,
}

impl Receiver for PeerInbox {
    fn knows(&self, node: NodeId) -> bool {
        (self.known)(node)
    }

    fn hint(&self, _from: NodeId, hint: Bytes) {
        // Full: a newer one follows within half a second.
        let _ = self.hints.try_send(hint);
    }

    fn ask(&self, _from: NodeId, kind: u8, body: Bytes, reply: AskReply) {
        // Full: dropping the reply tells the asker that there is no answer.
        let _ = self.questions.try_send(Question { kind, body, reply });
    }

    fn connection_changed(&self, node: NodeId, connected: bool) {
        // Full: the coordinator sees the link's state at its next tick.
        let _ = self.connections.try_send((node, connected));
    }
}

/// Answers peers until the channel closes.
pub async fn answer_questions(replication: Arc<Replication>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let result = match question.kind {
            ASK_TRANSFER => transfer_to(&replication, &question.body).await,
            ASK_PROPOSE => propose_for(&replication, &question.body).await,
            other => Err(format!("unknown question {other}")),
        };
        question.reply.send(&postcard::to_stdvec(&result).expect("a text encodes"));
    }
}

async fn transfer_to(replication: &Replication, body: &[u8]) -> Result<(), String> {
    let (group, target): (GroupId, ReplicaId) = postcard::from_bytes(body).map_err(|error| error.to_string())?;
    let group = replication.group(group).ok_or_else(|| format!("group {group} has no replica here"))?;
    group.transfer(target).await.map_err(|error| error.to_string())
}

async fn propose_for(replication: &Replication, body: &[u8]) -> Result<(), String> {
    let op = MetaOp::decode(body).map_err(|error| error.to_string())?;
    replication.propose(&op).await.map(|_| ()).map_err(|error| error.to_string())
}

/// Tells the cluster this node's present address until it is the one registered.
pub async fn announce_address(replication: Arc<Replication>, info: NodeInfo) {
    while replication.topology().node(replication.node()) != Some(&info) {
        let op = MetaOp::UpdateAddress { node: replication.node(), info: info.clone() };
        let told = match replication.propose(&op).await {
            Ok(_) => Ok(()),
            Err(ProposeError::NotLeader) => replication.propose_elsewhere(&op).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = told {
            tracing::info!(%error, "this node's new address is not registered yet");
        }
        tokio::time::sleep(ADDRESS_INTERVAL).await;
    }
}

impl Replication {
    /// To the meta leader, whose answer says whether it was done.
    async fn propose_elsewhere(&self, op: &MetaOp) -> Result<(), String> {
        let leader = self.hints().leader(GroupId::META).ok_or("the meta group has no leader now")?;
        let answer = self.ask(leader.node, ASK_PROPOSE, &op.encode(), TRANSFER_WAIT_MAX).await;
        let answer = answer.map_err(|error| error.to_string())?;
        postcard::from_bytes::<Result<(), String>>(&answer).map_err(|error| error.to_string())?
    }

    /// Makes this node the leader of every group it has a replica of; `CLUSTER FAILOVER`.
    pub async fn take_leadership(&self) -> Result<(), String> {
        let hints = self.hints();
        for group in self.groups().iter().filter(|group| !group.leads()) {
            let leader = hints.leader(group.id()).ok_or_else(|| format!("group {} has no leader now", group.id()))?;
            let body = postcard::to_stdvec(&(group.id(), group.replica())).expect("two numbers encode");
            let answer = self.ask(leader.node, ASK_TRANSFER, &body, TRANSFER_WAIT_MAX).await;
            let answer =
                answer.map_err(|error| format!("the leader of group {} does not answer: {error}", group.id()))?;
            postcard::from_bytes::<Result<(), String>>(&answer).map_err(|error| error.to_string())??;
        }
        Ok(())
    }

    /// The answer to a forming node's probe: a cluster exists.
    pub fn probe(&self) -> Vec<u8> {
        let probe = Probe::Member { cluster: self.topology().cluster_id() };
        postcard::to_stdvec(&probe).expect("a probe's answer encodes")
    }

    /// Takes a new node in, here or through the meta leader; the topology it starts with, encoded. An error that starts with
    /// "refused: " is final, after others the node tries again.
    pub async fn join(&self, op: &[u8]) -> Result<Vec<u8>, String> {
        let op = MetaOp::decode(op).map_err(|error| format!("refused: {error}"))?;
        let MetaOp::Join { node, info, .. } = &op else { return Err("refused: not a join".to_owned()) };
        if let Some(holder) = self.holder_that_is_up(&info.address(), *node) {
            return Err(format!("{} belongs to node {holder}, which is up", info.address()));
        }
        match self.propose(&op).await {
            Ok(_) => Ok(self.newest_topology().encode()),
            Err(ProposeError::Refused(error)) => Err(format!("refused: {error}")),
            Err(ProposeError::Unknown) => Err(ProposeError::Unknown.to_string()),
            Err(ProposeError::NotLeader) => {
                let leader = self.meta_leader().filter(|leader| *leader != self.address());
                let Some(leader) = leader else { return Err("the meta group has no leader now".to_owned()) };
                self.join_at(&leader, &op).await
            }
        }
    }

    /// § A node that joins at a registered address replaces the node there, so that one must be gone: two nodes may only seem to have one
    /// address because one of them announces the wrong one.
    fn holder_that_is_up(&self, address: &Address, joiner: NodeId) -> Option<NodeId> {
        let holder = self.newest_topology().node_at(address).filter(|holder| *holder != joiner)?;
        let is_up = |peer: &PeerState| peer.node == holder && peer.connected_for.is_some();
        (holder == self.node() || self.peers().iter().any(is_up)).then_some(holder)
    }

    async fn join_at(&self, leader: &Address, op: &MetaOp) -> Result<Vec<u8>, String> {
        let (body, password) = (op.encode(), self.password());
        let words: [&[u8]; 4] = [b"CLUSTER", b"KVORUM", b"JOIN", &body];
        let ask = formation::call(leader, password.as_ref(), &words);
        let answer = tokio::time::timeout(JOIN_WAIT_MAX, ask).await;
        let answer = answer.map_err(|_| format!("{leader} does not answer"))?;
        match answer.map_err(|error| format!("{leader}: {error}"))? {
            Ok(topology) => Ok(topology),
            Err(text) => Err(text.strip_prefix("ERR ").unwrap_or(&text).to_owned()),
        }
    }

    /// The cluster as this node sees it.
    pub fn status(&self) -> ClusterStatus {
        let topology = self.topology();
        let peers = self.peers();
        let nodes = topology.nodes().iter().map(|(node, info)| {
            let connected =
                *node == self.node() || peers.iter().any(|peer| peer.node == *node && peer.connected_for.is_some());
            NodeStatus {
                id: node.to_string(),
                address: info.address().to_string(),
                peer_address: format!("{}:{}", info.host, info.peer_port),
                state: if connected { NodeState::Up } else { NodeState::Down },
            }
        });
        let meta_members = topology.meta_members();
        let meta = meta_members.iter().map(|(replica, (node, _))| (*replica, *node));
        let meta = self.group_status(GroupId::META, meta, &self.meta_membership(), self.leads_meta());
        let groups = topology.groups().iter().map(|(id, info)| {
            let handle = self.group(*id);
            let status = handle.as_ref().map(|group| self.membership(group)).unwrap_or_default();
            let leads = handle.as_ref().is_some_and(|group| group.leads());
            let replicas = info.replicas.iter().map(|(replica, node)| (*replica, *node));
            let mut group = self.group_status(*id, replicas, &status, leads);
            group.keys = handle.map(|group| group.keyspace().counters().keys);
            group
        });
        ClusterStatus {
            cluster_id: topology.cluster_id().to_string(),
            epoch: topology.epoch().0,
            asked: self.node().to_string(),
            nodes: nodes.collect(),
            groups: std::iter::once(meta).chain(groups).collect(),
        }
    }

    fn group_status(
        &self,
        id: GroupId,
        replicas: impl Iterator<Item = (ReplicaId, NodeId)>,
        status: &MembershipStatus,
        leads: bool,
    ) -> GroupStatus {
        let hint = self.hints().leader(id);
        let slots: Vec<u16> = self.topology().slots_of(id).map(|slot| slot.get()).collect();
        let mut slot_ranges: Vec<(u16, u16)> = Vec::new();
        for slot in &slots {
            match slot_ranges.last_mut() {
                Some((_, last)) if *last + 1 == *slot => *last = *slot,
                Some(_) | None => slot_ranges.push((*slot, *slot)),
            }
        }
        let lag = |replica: ReplicaId| {
            let matched = status.matched.get(&replica).copied()?;
            leads.then(|| status.last_log_index.saturating_sub(matched))
        };
        GroupStatus {
            id: id.0,
            leader: hint.map(|hint| hint.node.to_string()),
            term: hint.map_or(0, |hint| hint.term),
            replicas: replicas
                .map(|(replica, node)| ReplicaStatus {
                    id: replica.0,
                    node: node.to_string(),
                    // In the middle of a change the old voters still count.
                    voter: status.voters.contains(&replica) && !status.joint,
                    lag_entries: lag(replica),
                })
                .collect(),
            slot_count: slots.len() as u32,
            slot_ranges,
            keys: None,
        }
    }
}
