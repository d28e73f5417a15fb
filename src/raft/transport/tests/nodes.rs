//! Nodes with a transport and nothing behind it, for the tests of this folder.

use std::path::Path;
pub(super) use std::sync::Arc;
pub(super) use std::time::{Duration, Instant};

pub(super) use bytes::Bytes;
pub(super) use parking_lot::Mutex;

pub(super) use crate::cluster::{ClusterId, NodeId};
use crate::config::{Config, ConfigTable};
use crate::keyspace::HashSecret;
pub(super) use crate::raft::transport::{AskReply, Receiver, Transport, TransportConfig};
use crate::raft::{RealDisk, SnapshotPlace, Space};

pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// What a node's layer above saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) known: Vec<NodeId>,
    pub(super) hints: Mutex<Vec<(NodeId, Bytes)>>,
    pub(super) changes: Mutex<Vec<(NodeId, bool)>>,
}

impl Receiver for Seen {
    fn knows(&self, node: NodeId) -> bool {
        self.known.contains(&node)
    }

    fn hint(&self, from: NodeId, hint: Bytes) {
        self.hints.lock().push((from, hint));
    }

    /// Kind 0 is dropped unanswered, others are echoed.
    fn ask(&self, _from: NodeId, kind: u8, body: Bytes, reply: AskReply) {
        if kind > 0 {
            reply.send(&[&[kind], body.as_ref()].concat());
        }
    }

    fn connection_changed(&self, node: NodeId, connected: bool) {
        self.changes.lock().push((node, connected));
    }
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) transport: Transport,
    pub(super) seen: Arc<Seen>,
}

pub(super) fn node_id(number: u8) -> NodeId {
    NodeId([number; 20])
}

pub(super) fn config(number: u8) -> TransportConfig {
    TransportConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        node: node_id(number),
        cluster: ClusterId([7; 16]),
        hash_vector: 1,
        settings_fingerprint: 2,
        election_timeout: Duration::from_millis(400),
        hash_secret: HashSecret([1; 4]),
        parameters: Arc::new(ConfigTable::new(&Config::default())),
        room: Arc::default(),
        silent_max: Duration::from_secs(5),
        disk: Arc::new(RealDisk),
    }
}

pub(super) fn place(directory: &Path) -> SnapshotPlace {
    let space = Arc::new(Space::new(Arc::default()));
    SnapshotPlace { disk: Arc::new(RealDisk), directory: directory.to_owned(), space }
}

pub(super) fn start_with(config: TransportConfig, seen: Seen) -> Node {
    let seen = Arc::new(seen);
    let id = config.node;
    Node {
        id,
        transport: Transport::start(Arc::new(super::super::wire::Tcp), config, Arc::clone(&seen) as Arc<dyn Receiver>)
            .unwrap(),
        seen,
    }
}

pub(super) fn start(number: u8) -> Node {
    start_with(config(number), Seen::default())
}

pub(super) fn introduce(from: &Node, to: &Node) {
    from.transport.set_peer(to.id, "127.0.0.1", to.transport.local_addresses()[0].port());
}

/// Nodes 1 to `count`, connected to each other.
pub(super) async fn connected_nodes(count: u8) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=count).map(start).collect();
    for from in &nodes {
        nodes.iter().for_each(|to| introduce(from, to));
    }
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id != from.id) {
            until("all nodes are connected", || from.transport.is_connected(to.id)).await;
        }
    }
    nodes
}

pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
