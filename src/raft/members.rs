//! Nodes that come and go by an operator's word, asked of any member; and how a node hears that it is no member any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Address, MetaOp, NodeId, NodeInfo, Probe, Topology, WantedSettings};
use crate::config::Secret;
use crate::raft::formation::{self, FormationConfig, JoinFailure, Newcomer, Reporter};
use crate::raft::node_file::{Membership, NodeRecord};
use crate::raft::replication::Replication;

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);
/// Between two questions whether this node is still a member, while there is a peer that it does not reach.
const DOUBT_INTERVAL: Duration = Duration::from_secs(2);
/// How often a node that was told to join asks for it before it gives up.
const JOIN_ATTEMPTS: u32 = 20;
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// Hex digits by which a node may be named.
const ID_PREFIX_MIN: usize = 4;

impl Replication {
    /// The member that an operator means by its id, the beginning of it, or its address.
    pub fn member_named(&self, name: &str) -> Result<NodeId, String> {
        let topology = self.newest_topology();
        if let Some(node) = Address::parse(name).and_then(|address| topology.node_at(&address)) {
            return Ok(node);
        }
        let matches = |node: &&NodeId| name.len() >= ID_PREFIX_MIN && node.to_string().starts_with(name);
        let found: Vec<&NodeId> = topology.nodes().keys().filter(matches).collect();
        match found[..] {
            [node] => Ok(*node),
            [] => Err(format!(
                "no node of this cluster is named {name}: give its id, the beginning of it, or its HOST:PORT"
            )),
            _ => Err(format!("{} nodes of this cluster have ids that begin with {name}", found.len())),
        }
    }

    /// Proposes that the node leaves, which it then does step by step. `gone`: it is not up and will not come back.
    pub async fn drain(&self, node: NodeId, successor: Option<NodeId>, gone: bool) -> Result<(), String> {
        let topology = self.newest_topology();
        if topology.is_paused() {
            return Err("rebalancing is paused: first run `kvorum cluster resume-rebalance`".to_owned());
        }
        let reachable = self.reachable();
        let reached = |node| reachable.contains(&node);
        let name = topology.name_of(node);
        if !reached(node) && !gone {
            return Err(format!("{name} is not connected: start it, or use --force if it will not come back"));
        }
        if let Some(new) = successor.filter(|new| !reached(*new)) {
            return Err(format!("{} is not connected: it cannot take over", topology.name_of(new)));
        }
        self.check_places_without(&topology, node, &reachable)?;
        self.propose_anywhere(&MetaOp::Drain { node, successor, gone: gone && !reached(node) }).await
    }

    /// Proposes that a node stays that is to leave. Err if it is not to.
    pub async fn stay(&self, node: NodeId) -> Result<(), String> {
        let topology = self.newest_topology();
        if topology.draining(node).is_none() {
            return Err(format!("{} is not to leave", topology.name_of(node)));
        }
        self.propose_anywhere(&MetaOp::Stay { node }).await
    }

    /// A node whose replicas find no place would wait for others to come back without anybody having been told.
    fn check_places_without(
        &self,
        topology: &Topology,
        node: NodeId,
        reachable: &BTreeSet<NodeId>,
    ) -> Result<(), String> {
        let trouble = |other: NodeId| {
            let own = other == self.node();
            let full = if own { self.space().is_crammed() } else { self.space().is_crammed_at(other) };
            match (reachable.contains(&other), topology.is_given_up(other), full) {
                (false, ..) => Some("is not connected"),
                (true, true, _) => Some("has only just come back"),
                (true, false, true) => Some("has no disk space left"),
                (true, false, false) => None,
            }
        };
        topology.check_places_without(node, |other| trouble(other).is_none()).map_err(|error| {
            let others = topology.staying().filter(|other| *other != node);
            let reasons = others.filter_map(|other| Some(format!("{} {}", topology.name_of(other), trouble(other)?)));
            let reasons: Vec<String> = reasons.chain([error.to_string()]).collect();
            reasons.join("; ")
        })
    }

    /// Has the node at `address` join this cluster. It must be alone and empty.
    pub async fn take_in(&self, address: &Address) -> Result<(), String> {
        if self.newest_topology().node_at(address).is_some() {
            return Ok(());
        }
        let own = self.address().to_string();
        let words: [&[u8]; 4] = [b"CLUSTER", b"KVORUM", b"MEET", own.as_bytes()];
        ask_at(address, self.password().as_ref(), &words).await.map(|_| ())
    }

    /// Whether this node may leave its own cluster, of which it is the only node, for the one at `address`.
    pub async fn check_meeting(&self, address: &Address) -> Result<(), String> {
        self.check_alone()?;
        let words: [&[u8]; 3] = [b"CLUSTER", b"KVORUM", b"PROBE"];
        let answer = ask_at(address, self.password().as_ref(), &words).await?;
        match postcard::from_bytes(&answer) {
            Ok(Probe::Member { cluster }) if cluster == self.topology().cluster_id() => {
                Err(format!("{address} is this node itself"))
            }
            Ok(Probe::Member { .. }) => Ok(()),
            Ok(_) | Err(_) => Err(format!("{address} is not in a cluster")),
        }
    }

    /// § A node that has others, or a key, has something to lose.
    pub fn check_alone(&self) -> Result<(), String> {
        let topology = self.newest_topology();
        if topology.nodes().len() > 1 {
            return Err(format!("{} is in a cluster of {} nodes", self.address(), topology.nodes().len()));
        }
        let groups = self.groups();
        if groups.len() < topology.groups().len() {
            return Err(format!("{} is starting", self.address()));
        }
        match groups.iter().map(|group| group.keyspace().counters().keys).sum::<u64>() {
            0 => Ok(()),
            keys => Err(format!(
                "{} holds {keys} keys: it joins no other cluster until it is empty (FLUSHALL)",
                self.address()
            )),
        }
    }

    /// What this node knows of the membership of another, for that node: "member", "removed" or "unknown".
    pub fn standing_of(&self, cluster: &[u8], node: &[u8]) -> &'static str {
        let topology = self.newest_topology();
        match NodeId::parse(node) {
            Some(_) if cluster != topology.cluster_id().to_string().as_bytes() => "unknown",
            Some(node) if topology.was_forgotten(node) => "removed",
            Some(node) if topology.node(node).is_some() => "member",
            Some(_) | None => "unknown",
        }
    }
}

/// A node that was removed while it was away gets no connection to the others, who do not know it any more. So it asks them at their client
/// ports, one after the other, while there are some that it does not reach. Runs until aborted.
pub async fn watch_membership(replication: Arc<Replication>) {
    let (mut round, mut reporter) = (0, Reporter::default());
    loop {
        tokio::time::sleep(DOUBT_INTERVAL).await;
        let topology = replication.topology();
        let lost: Vec<&NodeInfo> = (replication.peers().iter())
            .filter(|peer| peer.lost_for.is_some_and(|lost_for| lost_for > DOUBT_INTERVAL))
            .filter_map(|peer| topology.node(peer.node))
            .collect();
        let Some(peer) = lost.get(round % lost.len().max(1)) else { continue };
        round += 1;
        let (cluster, own) = (topology.cluster_id().to_string(), replication.node().to_string());
        let words: [&[u8]; 5] = [b"CLUSTER", b"KVORUM", b"STANDING", cluster.as_bytes(), own.as_bytes()];
        let (address, password) = (peer.address(), replication.password());
        let ask = formation::call(&address, password.as_ref(), &words);
        match tokio::time::timeout(ANSWER_WAIT_MAX, ask).await {
            Ok(Ok(Ok(answer))) if answer == b"removed" => {
                replication.mark_removed();
                return;
            }
            Ok(Ok(Err(text))) => {
                reporter.note(&format!("{address} does not say whether this node is still a member: {text}"));
            }
            // No answer says nothing.
            Ok(Ok(Ok(_)) | Err(_)) | Err(_) => (),
        }
    }
}

async fn ask_at(address: &Address, password: Option<&Secret>, words: &[&[u8]]) -> Result<Vec<u8>, String> {
    let answer = tokio::time::timeout(ANSWER_WAIT_MAX, formation::call(address, password, words)).await;
    let answer = answer.map_err(|_| format!("{address} does not answer"))?;
    let answer = answer.map_err(|error| format!("{address} cannot be reached: {error}"))?;
    answer.map_err(|text| format!("{address} answers: {}", text.strip_prefix("ERR ").unwrap_or(&text)))
}

/// Makes this node, which has given up the cluster that it was alone in, a member of the one at `address`. `replicas` as far as they were asked for:
/// the next start compares them.
pub async fn join_other(
    config: &FormationConfig,
    replicas: Option<u32>,
    address: &Address,
) -> Result<NodeRecord, String> {
    let node = NodeId::random();
    let settings = WantedSettings { replicas, ..config.intent.settings };
    let op = MetaOp::Join { node, info: config.info.clone(), settings };
    let mut last = String::new();
    for _ in 0..JOIN_ATTEMPTS {
        match formation::join(&op, Newcomer::Stranger, &BTreeSet::new(), config.password.as_ref(), address).await {
            Ok(topology) => return Ok(record_of(node, topology)),
            Err(JoinFailure::Refused(reason)) => return Err(reason),
            Err(JoinFailure::Later(reason)) => last = reason,
        }
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Err(last)
}

fn record_of(node: NodeId, topology: Topology) -> NodeRecord {
    NodeRecord { node, membership: Membership::Member { topology: Box::new(topology), plan: None } }
}
