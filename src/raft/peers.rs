//! What nodes ask of each other beside Raft: to join, to hand leadership over, to tell of the groups they lead (`status.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::{Address, GroupId, MetaError, MetaOp, NodeId, Probe, ReplicaId, Topology};
use crate::raft::addresses::check_reachable;
use crate::raft::formation::Newcomer;
use crate::raft::meta::ProposeError;
use crate::raft::replication::Replication;
use crate::raft::{AskReply, PeerState, Receiver};

/// `ask` kinds: the body is postcard of (group, replica): hand leadership of the group to the replica.
const ASK_TRANSFER: u8 = 1;
/// The body is a meta op: propose it.
const ASK_PROPOSE: u8 = 2;
/// The body is empty: what is known of the groups led there?
pub(super) const ASK_LED_GROUPS: u8 = 3;
/// A step of a move; see `move_calls.rs`.
pub(super) const ASK_MOVE: u8 = 4;
/// The body is empty: what does each slot led there cost?
pub(super) const ASK_SLOT_LOADS: u8 = 5;
/// The beginning of a page that is too long for its step; see `move_calls.rs`.
pub(super) const ASK_MOVE_PART: u8 = 6;
/// The body is postcard of a group that is led there: commit an entry in it.
const ASK_COMMIT: u8 = 7;
/// The body is empty: how often is each slot asked for, as the scheduler there has seen it?
pub(super) const ASK_SLOT_RATES: u8 = 8;
/// The body is postcard of a join's meta op, encoded, and what the newcomer is: admit it.
const ASK_JOIN: u8 = 9;
/// Beyond it questions are dropped, and asked again.
const ANSWERED_AT_ONCE: usize = 64;
/// Groups that are asked for a commit at a time.
const COMMITS_AT_ONCE: usize = 16;
/// Less than an operator's command waits for its answer, and longer than an election takes.
const PROPOSE_WAIT_MAX: Duration = Duration::from_secs(6);
const PROPOSE_PAUSE: Duration = Duration::from_millis(100);
const HINT_POLL: Duration = Duration::from_millis(20);
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
    pub hints: mpsc::Sender<(NodeId, Bytes)>,
    pub questions: mpsc::Sender<Question>,
    pub connections: mpsc::Sender<(NodeId, bool)>,
    /// Nodes that the topology knows.
    pub known: Arc<dyn Fn(NodeId) -> bool + Send + Sync>,
}

impl Receiver for PeerInbox {
    fn knows(&self, node: NodeId) -> bool {
        (self.known)(node)
    }

    fn hint(&self, from: NodeId, hint: Bytes) {
        // Full: a newer one follows within half a second.
        let _ = self.hints.try_send((from, hint));
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

/// Answers peers until the channel closes. Beside each other, since most wait for a commit.
pub async fn answer_questions(replication: Arc<Replication>, mut questions: mpsc::Receiver<Question>) {
    // Moves have places of their own: their many steps must not keep out what decides about them.
    let (mut steps, mut others) = (JoinSet::new(), JoinSet::new());
    while let Some(question) = questions.recv().await {
        let is_step = matches!(question.kind, ASK_MOVE | ASK_MOVE_PART);
        let answering = if is_step { &mut steps } else { &mut others };
        while answering.try_join_next().is_some() {}
        if answering.len() < ANSWERED_AT_ONCE {
            let replication = replication.clone();
            answering
                .spawn(async move { question.reply.send(&answer(&replication, question.kind, &question.body).await) });
        }
    }
}

async fn answer(replication: &Arc<Replication>, kind: u8, body: &Bytes) -> Vec<u8> {
    match kind {
        ASK_TRANSFER => encode(&transfer_to(replication, body).await),
        ASK_PROPOSE => encode(&propose_for(replication, body).await),
        ASK_COMMIT => encode(&commit_for(replication, body).await),
        ASK_JOIN => encode(&join_for(replication, body).await),
        ASK_LED_GROUPS => replication.encoded_led_groups().await,
        ASK_MOVE => replication.answer_move(body).await,
        ASK_MOVE_PART => encode(&replication.take_part(body)),
        ASK_SLOT_LOADS => replication.encoded_slot_loads().await,
        ASK_SLOT_RATES => replication.encoded_slot_rates(),
        other => encode(&Err::<(), String>(format!("unknown question {other}"))),
    }
}

fn encode<T: Serialize>(answer: &T) -> Vec<u8> {
    postcard::to_stdvec(answer).expect("a text encodes")
}

/// Why an op was not applied.
#[derive(Debug, Serialize, Deserialize)]
enum NotProposed {
    /// For good.
    Refused(String),
    /// No leader, or not in time: it may be proposed again.
    Later(String),
}

impl From<ProposeError> for NotProposed {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(refusal) => Self::Refused(refusal.to_string()),
            later @ (ProposeError::NotLeader | ProposeError::Unknown) => Self::Later(later.to_string()),
        }
    }
}

async fn transfer_to(replication: &Replication, body: &[u8]) -> Result<(), String> {
    let (group, target): (GroupId, ReplicaId) = postcard::from_bytes(body).map_err(|error| error.to_string())?;
    let group = replication.group(group).ok_or_else(|| format!("group {group} has no replica here"))?;
    group.transfer(target).await.map_err(|error| error.to_string())
}

async fn commit_for(replication: &Replication, body: &[u8]) -> Result<(), String> {
    let group: GroupId = postcard::from_bytes(body).map_err(|error| error.to_string())?;
    match replication.group(group) {
        Some(led) if led.leads() && led.stamp().await => Ok(()),
        Some(_) | None => Err(format!("group {group} commits nothing here")),
    }
}

async fn propose_for(replication: &Replication, body: &[u8]) -> Result<(), NotProposed> {
    let op = MetaOp::decode(body).map_err(|error| NotProposed::Refused(error.to_string()))?;
    if let MetaOp::Join { info, .. } | MetaOp::UpdateAddress { info, .. } = &op {
        check_reachable(info).map_err(NotProposed::Refused)?;
    }
    replication.propose(&op).await.map(|_| ()).map_err(NotProposed::from)
}

/// What it holds, and that it asked from its own address, was looked at where it asked.
async fn join_for(replication: &Replication, body: &[u8]) -> Result<(), String> {
    let (op, newcomer): (Vec<u8>, Newcomer) = postcard::from_bytes(body).map_err(|error| error.to_string())?;
    let op = replication.check_join(&op, newcomer)?;
    match replication.admit(&op).await {
        Some(outcome) => outcome,
        None => Err("the meta group has no leader now".to_owned()),
    }
}

/// Of the member that is registered at `address`, which is not up.
fn check_given_up(topology: &Topology, address: &Address, joiner: NodeId) -> Result<(), String> {
    let holder = topology.node_at(address).filter(|holder| *holder != joiner);
    match holder.filter(|holder| !topology.is_given_up(*holder)) {
        Some(holder) => Err(format!(
            "{address} belongs to node {holder}, which is away and not given up yet: it is replaced when it has been away for the cluster's \
             node-down-after, or after `kvorum cluster remove-node {holder} --force`"
        )),
        None => Ok(()),
    }
}

impl Replication {
    /// Here or at the meta leader, again and again through elections: every op may be proposed twice.
    pub async fn propose_anywhere(&self, op: &MetaOp) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PROPOSE_WAIT_MAX;
        loop {
            let proposed = match self.propose(op).await {
                Ok(_) => return Ok(()),
                Err(ProposeError::NotLeader) => self.propose_elsewhere(op).await,
                Err(error) => Err(error.into()),
            };
            match proposed {
                Ok(()) => return Ok(()),
                Err(NotProposed::Refused(reason)) => return Err(reason),
                Err(NotProposed::Later(reason)) if tokio::time::Instant::now() > deadline => return Err(reason),
                Err(NotProposed::Later(_)) => tokio::time::sleep(PROPOSE_PAUSE).await,
            }
        }
    }

    /// To the meta leader, whose answer says whether it was done.
    async fn propose_elsewhere(&self, op: &MetaOp) -> Result<(), NotProposed> {
        let Some(leader) = self.hints().leader(GroupId::META) else {
            return Err(NotProposed::Later("the meta group has no leader now".to_owned()));
        };
        let op = op.encode();
        let asked = self.ask(leader.node, ASK_PROPOSE, &op, TRANSFER_WAIT_MAX);
        let unanswered = |error| NotProposed::Later(format!("the leader of the meta group does not answer: {error}"));
        let answer = tokio::select! {
            answer = asked => answer.map_err(|error| unanswered(error.to_string()))?,
            () = self.meta_leader_changes(leader.node) => return Err(unanswered("another leads it now".to_owned())),
        };
        postcard::from_bytes::<Result<(), NotProposed>>(&answer).map_err(|error| unanswered(error.to_string()))?
    }

    /// § A slot may be frozen until the meta group answers: a leader that hangs is not waited for once there is another.
    async fn meta_leader_changes(&self, from: NodeId) {
        while self.hints().leader(GroupId::META).is_none_or(|leader| leader.node == from) {
            tokio::time::sleep(HINT_POLL).await;
        }
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
    /// "refused: " is final, after others the node tries again. `held`, encoded, are the groups that the node is about to give up copies of.
    pub async fn join(&self, op: &[u8], newcomer: Newcomer, held: Option<&[u8]>) -> Result<Vec<u8>, String> {
        let decoded = self.check_join(op, newcomer)?;
        if let Some(held) = held {
            let held = postcard::from_bytes(held).map_err(|error| format!("refused: {error}"))?;
            self.check_spared(&held, "this node").await?;
        }
        self.check_holder_spared(&decoded).await?;
        match self.admit(&decoded).await {
            Some(outcome) => outcome?,
            None => self.admit_elsewhere(op, newcomer).await?,
        }
        let MetaOp::Join { node, .. } = decoded else { return Err("refused: not a join".to_owned()) };
        let mut topologies = self.newest_topologies();
        let knows =
            |topology: &Option<Arc<Topology>>| topology.as_ref().is_some_and(|known| known.node(node).is_some());
        match tokio::time::timeout(TRANSFER_WAIT_MAX, topologies.wait_for(knows)).await {
            Ok(Ok(_)) => Ok(self.newest_topology().encode()),
            Ok(Err(_)) | Err(_) => Err("this node has not heard yet that it is a member".to_owned()),
        }
    }

    fn check_join(&self, op: &[u8], newcomer: Newcomer) -> Result<MetaOp, String> {
        let op = MetaOp::decode(op).map_err(|error| format!("refused: {error}"))?;
        let MetaOp::Join { node, info, .. } = &op else { return Err("refused: not a join".to_owned()) };
        check_reachable(info)?;
        if let Some(holder) = self.holder_that_is_up(&info.address(), *node) {
            return Err(format!("{} belongs to node {holder}, which is up", info.address()));
        }
        if newcomer == Newcomer::Stranger {
            check_given_up(&self.newest_topology(), &info.address(), *node)?;
        }
        Ok(op)
    }

    /// `None` if this node does not lead the meta group.
    async fn admit(&self, op: &MetaOp) -> Option<Result<(), String>> {
        match self.propose(op).await {
            Ok(_) => Some(Ok(())),
            Err(ProposeError::Refused(error @ MetaError::NotFounded)) => Some(Err(error.to_string())),
            Err(ProposeError::Refused(error)) => Some(Err(format!("refused: {error}"))),
            Err(ProposeError::Unknown) => Some(Err(ProposeError::Unknown.to_string())),
            Err(ProposeError::NotLeader) => None,
        }
    }

    /// By the peers' connection. § At its client port the meta leader would see this node's address, not the one that the newcomer asks from.
    async fn admit_elsewhere(&self, op: &[u8], newcomer: Newcomer) -> Result<(), String> {
        let leader = self.hints().leader(GroupId::META).filter(|leader| leader.node != self.node());
        let Some(leader) = leader else { return Err("the meta group has no leader now".to_owned()) };
        let body = encode(&(op, newcomer));
        let answer = self.ask(leader.node, ASK_JOIN, &body, JOIN_WAIT_MAX).await;
        let unanswered =
            |error: &dyn std::fmt::Display| format!("the leader of the meta group does not answer: {error}");
        let answer = answer.map_err(|error| unanswered(&error))?;
        postcard::from_bytes::<Result<(), String>>(&answer).map_err(|error| unanswered(&error))?
    }

    /// § The copies that a node gives up may be what a group's quorum counted on, or the only ones. They are needed no more once the group
    /// commits an entry without them: whoever is of the quorum that has it has all that was committed before it.
    async fn check_spared(&self, held: &BTreeSet<GroupId>, whose: &str) -> Result<(), String> {
        let topology = self.newest_topology();
        // Whoever asks may name anything.
        if held.iter().any(|group| *group >= topology.next_group()) {
            return Err("it has copies of groups that are not known here".to_owned());
        }
        // Of a group that was dissolved nobody needs a copy.
        let all: Vec<GroupId> = held.iter().copied().filter(|group| topology.group(*group).is_some()).collect();
        let mut stuck = Vec::new();
        for some in all.chunks(COMMITS_AT_ONCE) {
            let commits = join_all(some.iter().map(|group| self.commits(*group))).await;
            stuck.extend(some.iter().zip(commits).filter(|(_, commits)| !commits).map(|(group, _)| group.to_string()));
        }
        match stuck.join(", ") {
            none if none.is_empty() => Ok(()),
            groups => Err(format!("without the copies of {whose} no quorum goes on in group {groups}")),
        }
    }

    /// § The member that a newcomer takes the place of is forgotten at once, with its votes and whatever it has on its disk: it may have been given up and still be
    /// the only one that a group has.
    async fn check_holder_spared(&self, join: &MetaOp) -> Result<(), String> {
        let MetaOp::Join { node, info, .. } = join else { return Ok(()) };
        let topology = self.newest_topology();
        let Some(holder) = topology.node_at(&info.address()).filter(|holder| holder != node) else { return Ok(()) };
        let held = topology.replicas_on(holder).map(|(group, _)| group).collect();
        let spared = self.check_spared(&held, &format!("node {holder}, whose address this is,")).await;
        spared.map_err(|reason| format!("{reason}; bring it back, or join at another address"))
    }

    async fn commits(&self, group: GroupId) -> bool {
        let body = postcard::to_stdvec(&group).expect("a number encodes");
        match self.hints().leader(group) {
            Some(leader) if leader.node == self.node() => commit_for(self, &body).await.is_ok(),
            Some(leader) => {
                let answer = self.ask(leader.node, ASK_COMMIT, &body, TRANSFER_WAIT_MAX).await;
                answer.is_ok_and(|answer| matches!(postcard::from_bytes::<Result<(), String>>(&answer), Ok(Ok(()))))
            }
            None => false,
        }
    }

    /// § A node that joins at a registered address replaces the node there, so that one must be gone: two nodes may only seem to have one
    /// address because one of them announces the wrong one.
    fn holder_that_is_up(&self, address: &Address, joiner: NodeId) -> Option<NodeId> {
        let holder = self.newest_topology().node_at(address).filter(|holder| *holder != joiner)?;
        let is_up = |peer: &PeerState| peer.node == holder && peer.connected_for.is_some();
        (holder == self.node() || self.peers().iter().any(is_up)).then_some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{fixture_info, fixture_node, fixture_topology};

    #[test]
    fn only_the_place_of_a_member_that_is_given_up_goes_to_a_stranger() {
        let mut topology = fixture_topology(3, 3, 3);
        let check = |topology: &Topology, joiner, at| {
            check_given_up(topology, &fixture_info(at).address(), fixture_node(joiner)).is_ok()
        };
        assert!(check(&topology, 4, 4) && !check(&topology, 4, 3));
        assert!(check(&topology, 3, 3), "one that asks again");
        for (given_up, expected) in [(false, false), (true, true)] {
            topology.apply(&MetaOp::Absent { node: fixture_node(3), counted_ms: 1, given_up }).unwrap();
            assert_eq!(check(&topology, 4, 3), expected);
        }
    }
}
