//! Nodes that run at other addresses than the topology says: how they are found again, and how it gets to know.
//!
//! While a node lacks the connection to a peer it tells nodes at their client ports who and where it is, and hears the same of them: where
//! the topology says that its peers are, where it says that this node itself is (who took its place), and where the operator's list says.
//! Either of the two then dials by its own rules. § What is told so is only where else to dial: the peers' handshake checks who is there,
//! and the topology stays the only truth for clients and changes by the meta group alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::cluster::{Address, ClusterId, MetaError, MetaOp, NodeId, NodeInfo, Topology};
use crate::config::Secret;
use crate::raft::formation::{self, Reporter};
use crate::raft::meta::ProposeError;
use crate::raft::replication::Replication;

const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that was lost for less is most likely made again by itself.
const MISSING_AFTER: Duration = Duration::from_millis(500);
const SEARCH_PAUSE_MIN: Duration = Duration::from_millis(500);
/// While the same peers stay away. One that starts tells of itself at once.
const SEARCH_PAUSE_MAX: Duration = Duration::from_secs(5);
const CALL_WAIT_MAX: Duration = Duration::from_secs(1);
const CALLS_AT_ONCE: usize = 64;
/// Longest host name of the DNS, and then some.
const HOST_BYTES_MAX: usize = 255;

/// What a node says of itself: the argument and the answer of `CLUSTER KVORUM HERE`, in postcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Presence {
    cluster: ClusterId,
    node: NodeId,
    /// As announced, whatever the topology says.
    info: NodeInfo,
}

/// What every node will print and dial from now on.
pub(super) fn check_reachable(info: &NodeInfo) -> Result<(), String> {
    let host = &info.host;
    let is_host = (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic());
    // § `.invalid` is the place of members that are nowhere: see `NodeInfo::unknown`.
    let is_reserved = host.to_ascii_lowercase().ends_with(".invalid");
    if !is_host || is_reserved || host.contains([',', '@', '"']) || info.port == 0 || info.peer_port == 0 {
        return Err("refused: the address is none that clients and peers could connect to".to_owned());
    }
    Ok(())
}

/// Tells the cluster this node's present address while another one is registered. Runs until aborted: another node may still take the
/// registered one.
pub async fn announce_address(replication: Arc<Replication>) {
    let mut topologies = replication.newest_topologies();
    let (node, info) = (replication.node(), replication.announced().clone());
    let op = MetaOp::UpdateAddress { node, info: info.clone() };
    let mut reporter = Reporter::default();
    loop {
        let differs = |topology: &Topology| topology.node(node).is_some_and(|known| *known != info);
        // The sender is gone when the node stops.
        if topologies.wait_for(|topology| topology.as_deref().is_some_and(differs)).await.is_err() {
            return;
        }
        if let Err(error) = replication.propose_anywhere(&op).await {
            reporter.note(&format!("this node's new address {} is not registered yet: {error}", info.address()));
        }
        tokio::time::sleep(ANNOUNCE_INTERVAL).await;
    }
}

/// Exchanges addresses with other nodes while there are peers without a connection. `listed` are client addresses that the operator has named.
/// Runs until aborted.
pub async fn find_peers(replication: Arc<Replication>, listed: BTreeSet<Address>) {
    let (mut missing, mut pause) = (BTreeSet::new(), SEARCH_PAUSE_MIN);
    loop {
        tokio::time::sleep(pause).await;
        let now = replication.missing_peers();
        pause = if now == missing { (pause * 2).min(SEARCH_PAUSE_MAX) } else { SEARCH_PAUSE_MIN };
        missing = now;
        if missing.is_empty() {
            pause = SEARCH_PAUSE_MIN;
            continue;
        }
        let (own, password) = (replication.presence(), replication.password());
        let places: Vec<Address> = replication.places_to_ask(&missing, &listed).into_iter().collect();
        for some in places.chunks(CALLS_AT_ONCE) {
            let found = join_all(some.iter().map(|address| call(&own, password.as_ref(), address))).await;
            found.iter().flatten().for_each(|presence| replication.hear_presence(presence));
        }
    }
}

/// Who is at `address`, if it is a member of a cluster and answers.
async fn call(own: &Presence, password: Option<&Secret>, address: &Address) -> Option<Presence> {
    let own = postcard::to_stdvec(own).expect("an address encodes");
    let words: [&[u8]; 4] = [b"CLUSTER", b"KVORUM", b"HERE", &own];
    let answer = tokio::time::timeout(CALL_WAIT_MAX, formation::call(address, password, &words)).await;
    postcard::from_bytes(&answer.ok()?.ok()?.ok()?).ok()
}

impl Replication {
    fn presence(&self) -> Presence {
        let (cluster, node) = (self.topology().cluster_id(), self.node());
        Presence { cluster, node, info: self.announced().clone() }
    }

    fn missing_peers(&self) -> BTreeSet<NodeId> {
        let peers = self.peers().into_iter();
        peers.filter(|peer| peer.lost_for.is_some_and(|lost| lost > MISSING_AFTER)).map(|peer| peer.node).collect()
    }

    fn places_to_ask(&self, missing: &BTreeSet<NodeId>, listed: &BTreeSet<Address>) -> BTreeSet<Address> {
        let (topology, own) = (self.newest_topology(), self.node());
        let registered = missing.iter().chain([&own]).filter_map(|node| topology.node(*node));
        let known = registered.filter(|info| info.is_known()).map(NodeInfo::address);
        let mut places: BTreeSet<Address> = known.chain(listed.iter().cloned()).collect();
        places.remove(&self.announced().address());
        places
    }

    fn hear_presence(&self, presence: &Presence) {
        let Presence { cluster, node, info } = presence;
        if *cluster == self.topology().cluster_id() && check_reachable(info).is_ok() {
            self.hear_address(*node, info);
        }
    }

    /// Takes note of where the caller is, and answers where this node is. Both are encoded.
    pub fn exchange_presence(&self, caller: &[u8]) -> Result<Vec<u8>, String> {
        let caller = postcard::from_bytes(caller).map_err(|error| error.to_string())?;
        self.hear_presence(&caller);
        Ok(postcard::to_stdvec(&self.presence()).expect("an address encodes"))
    }

    /// § Two nodes may announce one address, because one of them is wrong about its own: only that one gets it that answers there.
    pub(super) async fn check_address(&self, op: &MetaOp) -> Result<(), ProposeError> {
        let MetaOp::UpdateAddress { node, info } = op else { return Ok(()) };
        let address = info.address();
        let Some(holder) = self.newest_topology().node_at(&address).filter(|holder| holder != node) else {
            return Ok(());
        };
        let found = call(&self.presence(), self.password().as_ref(), &address).await;
        match found.filter(|found| found.node == *node && found.cluster == self.topology().cluster_id()) {
            Some(_) => Ok(()),
            None => Err(MetaError::AddressTaken { address, holder }.into()),
        }
    }
}
