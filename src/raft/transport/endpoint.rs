//! The transport of one node: its peers, its replicas, and what the node layer sends.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::Raft;
use openraft::storage::RaftStateMachine;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::errors::{CallError, LinkError};
use super::frame::{FRAGMENT_BYTES_MAX, Header, Kind};
use super::handshake::{Hello, PROTOCOL_OLDEST, PROTOCOL_VERSION};
use super::inbound::Receiver;
use super::link::Link;
use super::network::GroupNetwork;
use super::peer::{self, Peer};
use super::registry::{RaftPort, Registry, SnapshotPlace};
use super::tasks::Tasks;
use super::throttle::Throttle;
use super::wire::Wire;
use crate::cluster::{ClusterId, GroupId, NodeId, ReplicaId};
use crate::config::ConfigTable;
use crate::keyspace::HashSecret;
use crate::raft::acks::Acks;
use crate::raft::log::{Disk, Room};
use crate::raft::{SnapshotFile, TypeConfig};

/// Largest body of `ask`, its answer, and a hint: they travel in one frame each.
pub const ASK_BYTES_MAX: usize = FRAGMENT_BYTES_MAX - 64;
/// Connections that have not yet said who they are.
const HANDSHAKES_MAX: usize = 64;
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct TransportConfig {
    pub listen: Vec<SocketAddr>,
    pub node: NodeId,
    pub cluster: ClusterId,
    /// Of the cluster.
    pub hash_secret: HashSecret,
    /// The hash of a fixed text under the cluster's secret: equal on all nodes, or they refuse each other.
    pub hash_vector: u64,
    /// Fingerprint of the settings all nodes must share (group count and kin).
    pub settings_fingerprint: u32,
    /// The longest that this node waits for a leader.
    pub election_timeout: Duration,
    /// For the password as it is at the time.
    pub parameters: Arc<ConfigTable>,
    /// Of this node's log.
    pub room: Arc<Room>,
    /// A connection that brings nothing for so long, pings included, is dropped and dialled again.
    pub silent_max: Duration,
    /// Where snapshots are.
    pub disk: Arc<dyn Disk>,
}

/// A peer as CLUSTER LINKS shows it.
#[derive(Debug, Clone)]
pub struct PeerState {
    pub node: NodeId,
    /// Host and peer port, if `set_peer` named them.
    pub address: Option<(String, u16)>,
    /// How long the connection has lasted; `None` without one.
    pub connected_for: Option<Duration>,
    /// How long there has been no connection; `None` while there is one.
    pub lost_for: Option<Duration>,
    /// Since anything was last heard on the present connection.
    pub silent_for: Option<Duration>,
    /// True if this node dials, false if the peer does.
    pub dialled_here: bool,
    pub connects: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub frames_sent: u64,
    pub frames_received: u64,
    pub queue_bytes: usize,
    pub queue_frames: usize,
    /// Requests sent and not yet answered.
    pub requests_pending: usize,
}

/// Cheap to clone; all clones are the same transport.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
    local_addresses: Arc<[SocketAddr]>,
}

pub struct Shared {
    /// Its `password_check` is set for each handshake.
    pub(super) hello: Hello,
    hash_secret: HashSecret,
    parameters: Arc<ConfigTable>,
    pub(super) room: Arc<Room>,
    pub(super) silent_max: Duration,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) receiver: Arc<dyn Receiver>,
    pub(super) registry: Registry,
    pub(super) wire: Arc<dyn Wire>,
    pub(super) tasks: Tasks,
    pub(super) runtime: Handle,
    pub(super) handshakes: Arc<Semaphore>,
    pub(super) hint: Mutex<Option<Bytes>>,
    pub(super) refusals: Mutex<Throttle>,
    stop: watch::Sender<bool>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
}

impl Transport {
    /// Binds the listeners; connections run on the current runtime.
    pub fn start(wire: Arc<dyn Wire>, config: TransportConfig, receiver: Arc<dyn Receiver>) -> io::Result<Self> {
        let listeners = config.listen.iter().map(|address| wire.listen(*address)).collect::<io::Result<Vec<_>>>()?;
        let local_addresses = listeners.iter().map(|listener| listener.local_address()).collect::<io::Result<_>>()?;
        let hello = Hello {
            version: PROTOCOL_VERSION,
            oldest: PROTOCOL_OLDEST,
            cluster: config.cluster,
            node: config.node,
            hash_vector: config.hash_vector,
            settings_fingerprint: config.settings_fingerprint,
            election_timeout: u32::try_from(config.election_timeout.as_millis()).unwrap_or(u32::MAX),
            password_check: 0,
        };
        let shared = Arc::new(Shared {
            hello,
            hash_secret: config.hash_secret,
            parameters: config.parameters,
            room: config.room,
            silent_max: config.silent_max,
            disk: config.disk,
            receiver,
            registry: Registry::default(),
            wire,
            tasks: Tasks::default(),
            runtime: Handle::current(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            hint: Mutex::default(),
            refusals: Mutex::default(),
            stop: watch::Sender::new(false),
            peers: RwLock::default(),
        });
        for listener in listeners {
            shared.tasks.spawn_on(&shared.runtime, peer::accept_loop(Arc::clone(&shared), listener));
        }
        Ok(Self { shared, local_addresses })
    }

    /// Where the transport listens; port 0 in the configuration has become a real one.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local_addresses
    }

    /// Names a peer and where it is. With an address that changed, the next connection goes there; the present one, which
    /// has proved that it is the right node, is kept. This node itself is ignored.
    pub fn set_peer(&self, node: NodeId, host: &str, peer_port: u16) {
        if node == self.shared.hello.node {
            return;
        }
        let Some(peer) = self.shared.peer_or_new(node) else { return };
        let now = Some((host.to_owned(), peer_port));
        let before = std::mem::replace(&mut *peer.address.lock(), now.clone());
        if before != now {
            *peer.told_address.lock() = None;
        }
        if before.is_none() && self.shared.hello.node < node {
            self.shared.tasks.spawn_on(&self.shared.runtime, peer::dial_loop(Arc::clone(&self.shared), peer));
        }
    }

    /// Where a peer without a connection says that it is: dialled beside the address that `set_peer` named, until that one changes.
    pub fn hear_address(&self, node: NodeId, host: &str, peer_port: u16) {
        let peer = self.shared.peers.read().get(&node).cloned();
        if let Some(peer) = peer.filter(|peer| peer.link.load().is_none()) {
            *peer.told_address.lock() = Some((host.to_owned(), peer_port));
        }
    }

    /// Drops the peer and its connection.
    pub fn remove_peer(&self, node: NodeId) {
        let removed = self.shared.peers.write().remove(&node);
        if let Some(peer) = removed {
            peer.end(LinkError::Removed);
        }
    }

    /// All peers, by node id.
    pub fn peers(&self) -> Vec<PeerState> {
        let peers: Vec<Arc<Peer>> = self.shared.peers.read().values().cloned().collect();
        peers.iter().map(|peer| self.state(peer)).collect()
    }

    fn state(&self, peer: &Peer) -> PeerState {
        let link = peer.link.load_full();
        let (queue_bytes, queue_frames, requests_pending) = link.as_ref().map(|link| link.load()).unwrap_or_default();
        PeerState {
            node: peer.node,
            address: peer.address.lock().clone(),
            connected_for: link.as_ref().map(|link| link.connected_for()),
            lost_for: link.is_none().then(|| peer.lost_at.lock().elapsed()),
            silent_for: link.as_ref().map(|link| link.silent_for()),
            dialled_here: self.shared.hello.node < peer.node,
            connects: peer.stats.connects.load(Ordering::Relaxed),
            bytes_sent: peer.stats.bytes_sent.load(Ordering::Relaxed),
            bytes_received: peer.stats.bytes_received.load(Ordering::Relaxed),
            frames_sent: peer.stats.frames_sent.load(Ordering::Relaxed),
            frames_received: peer.stats.frames_received.load(Ordering::Relaxed),
            queue_bytes,
            queue_frames,
            requests_pending,
        }
    }

    pub fn is_connected(&self, node: NodeId) -> bool {
        self.shared.link(node).is_some()
    }

    /// openraft's network for one group. Appends of entries before index `floor` are given up (see `network.rs`).
    pub fn network(&self, group: GroupId, acks: Arc<Acks>, floor: watch::Receiver<u64>) -> GroupNetwork {
        GroupNetwork { shared: Arc::clone(&self.shared), group, acks, floor }
    }

    /// Lets a replica take part: from now on frames that name exactly this id reach it. Call it on the runtime the replica
    /// lives on, once it may vote (§ a restarted voter stays silent for a while). Received snapshots are written to
    /// the directory of `snapshots`, which must exist and be on the file system they are renamed on.
    pub fn register<SM>(&self, group: GroupId, replica: ReplicaId, raft: Raft<TypeConfig, SM>, snapshots: SnapshotPlace)
    where
        SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotFile>,
    {
        self.register_port(group, replica, Arc::new(raft), snapshots);
    }

    /// The same for anything that answers like a replica.
    pub fn register_port(&self, group: GroupId, replica: ReplicaId, port: Arc<dyn RaftPort>, snapshots: SnapshotPlace) {
        self.shared.registry.register(group, replica, port, snapshots);
    }

    pub fn deregister(&self, group: GroupId, replica: ReplicaId) {
        self.shared.registry.deregister(group, replica);
    }

    /// Sends `hint` to all peers, and to those that connect later. Latest wins: one not yet written is replaced. False if
    /// it is larger than `ASK_BYTES_MAX`.
    pub fn broadcast_hint(&self, hint: Bytes) -> bool {
        if hint.len() > ASK_BYTES_MAX {
            return false;
        }
        *self.shared.hint.lock() = Some(hint.clone());
        let peers: Vec<Arc<Peer>> = self.shared.peers.read().values().cloned().collect();
        for link in peers.iter().filter_map(|peer| peer.link.load_full()) {
            link.send_hint(hint.clone());
        }
        true
    }

    /// A request to another node's layer above, answered by its `Receiver::ask`.
    pub async fn ask(&self, node: NodeId, kind: u8, body: &[u8], wait_max: Duration) -> Result<Bytes, CallError> {
        if body.len() > ASK_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        let mut question = BytesMut::with_capacity(1 + body.len());
        question.put_u8(kind);
        question.put_slice(body);
        let link = self.shared.link(node).ok_or(CallError::NotConnected)?;
        let reply = link.request(Header::of_node(Kind::Ask, 0), question.freeze().into())?;
        tokio::time::timeout(wait_max, reply).await.unwrap_or(Err(CallError::TimedOut))
    }

    /// Closes the listeners and all connections, and joins every task.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        let peers = std::mem::take(&mut *self.shared.peers.write());
        for peer in peers.values() {
            peer.end(LinkError::Stopping);
        }
        self.shared.tasks.join(SHUTDOWN_WAIT_MAX).await;
    }
}

impl Shared {
    pub(super) async fn stopping(&self) {
        // The sender is in `self`, so waiting cannot fail.
        self.stop.subscribe().wait_for(|stop| *stop).await.ok();
    }

    /// § Under the cluster's secret, so that what travels tells nothing about the password.
    pub(super) fn hello(&self) -> Hello {
        let password = self.parameters.tunables().requirepass.clone().unwrap_or_default();
        Hello { password_check: self.hash_secret.hash(password.0.as_bytes()), ..self.hello.clone() }
    }

    pub(super) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.peers.read().get(&node)?.link.load_full()
    }

    /// `None` if the node is stopping.
    pub(super) fn peer_or_new(&self, node: NodeId) -> Option<Arc<Peer>> {
        let mut peers = self.peers.write();
        if *self.stop.borrow() {
            return None;
        }
        Some(Arc::clone(peers.entry(node).or_insert_with(|| Arc::new(Peer::new(node)))))
    }

    /// Why a node that dialled us is not welcome, if so.
    pub(super) fn objection(&self, node: NodeId) -> Option<String> {
        if node > self.hello.node {
            return Some(format!("of two nodes the smaller id dials: {} here, {node} there", self.hello.node));
        }
        let known = self.peers.read().contains_key(&node) || self.receiver.knows(node);
        (!known).then(|| format!("node {node} is not known to node {}", self.hello.node))
    }
}
