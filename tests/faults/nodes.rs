//! Nodes to be harmed: three of Kvorum, or six of a Redis Cluster, each in a namespace and on a small disk of its own where root allows.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use super::net::{BadLink, Net};
use crate::cluster::disks::Disk;
use crate::cluster::harness::{Connection, Node, Reply, eventually, free_ports};
use crate::cluster::shim::Shim;

const PORT: u16 = 6379;
pub const FOUNDERS: usize = 3;
const READY_WAIT: Duration = Duration::from_secs(60);
/// Holds what a run leaves after its snapshots several times over, and is soon full.
const DISK_SIZE: &str = "128m";
/// Together several times the log's files.
const BULK_VALUE: usize = 64 * 1024;
const BULK_VALUES: usize = 192;
/// Of keys that are there for their size.
pub const BULK_PREFIX: &str = "bulk:";
const REDIS_NODE_TIMEOUT_MS: &str = "1000";

/// Dropped in this order: what runs, what it stands on.
pub struct Nodes {
    pub nodes: Vec<Node>,
    /// A node that is no member, and not started; there may be one of Kvorum.
    pub spare: Option<Node>,
    /// One for each node; none where mounting is not allowed.
    pub disks: Vec<Disk>,
    pub net: Option<Net>,
    /// One for each node; none where there is no compiler.
    pub shims: Vec<Shim>,
    directory: tempfile::TempDir,
}

impl Nodes {
    pub fn kvorum() -> Self {
        Self::kvorum_in(FOUNDERS)
    }

    pub fn kvorum_with_spare() -> Self {
        Self::kvorum_in(FOUNDERS + 1)
    }

    /// Small logs, so that a run sees snapshots.
    fn kvorum_in(places: usize) -> Self {
        let flags = |address: SocketAddr, list: &[String]| {
            let list = &list[..FOUNDERS].join(",");
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let flags = ["--bind", &host, "--port", &port, "--protected-mode", "no", "--initial-cluster", list];
            let small = ["--log-bytes-max", "1mb", "--log-segment-bytes", "1mb", "--disk-free-min", "16mb"];
            let wanted = std::env::var("KVORUM_FAULT_FLAGS").unwrap_or_default();
            let wanted: Vec<&str> = wanted.split_whitespace().collect();
            [&flags[..], &small, &wanted].concat().into_iter().map(str::to_owned).collect()
        };
        let mut nodes = Self::place(places, "--data-dir", flags);
        for (index, node) in nodes.nodes.iter_mut().enumerate() {
            let shim = Shim::build(nodes.directory.path(), &format!("shim-{index}"));
            shim.iter().for_each(|shim| shim.load_into(node));
            nodes.shims.extend(shim);
        }
        if places > FOUNDERS {
            nodes.spare = nodes.nodes.pop();
        }
        for word in nodes.spare.iter_mut().flat_map(|spare| &mut spare.flags) {
            if word == "--initial-cluster" {
                "--join".clone_into(word);
            }
        }
        nodes.nodes.iter_mut().for_each(Node::start);
        nodes.wait_ready();
        nodes
    }

    /// Three primaries, each with a replica, as its own tool sets them up; every write is synced, as in Kvorum.
    pub fn redis() -> Self {
        let flags = |address: SocketAddr, _: &[String]| {
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let flags = ["--bind", &host, "--port", &port, "--protected-mode", "no", "--save", ""];
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", REDIS_NODE_TIMEOUT_MS];
            let synced = ["--appendonly", "yes", "--appendfsync", "always"];
            [&flags[..], &cluster, &synced].concat().into_iter().map(str::to_owned).collect()
        };
        let mut nodes = Self::place(6, "--dir", flags);
        for node in &mut nodes.nodes {
            let place = node.program.len() - 2;
            node.program.splice(place.., ["redis-server".to_owned()]);
            node.start();
        }
        nodes.nodes.iter().for_each(|node| drop(node.connect()));
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"]);
        command.args(nodes.addresses().iter().map(SocketAddr::to_string));
        let created = command.output().expect("redis-cli runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
        nodes.wait_ready();
        nodes
    }

    fn place(count: usize, directory_flag: &str, flags: impl Fn(SocketAddr, &[String]) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let net = Net::build(count);
        let addresses: Vec<SocketAddr> = match &net {
            Some(net) => (0..count).map(|node| (net.node(node), PORT).into()).collect(),
            None => free_ports(count).into_iter().map(|port| ([127, 0, 0, 1], port).into()).collect(),
        };
        let list = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        let mut disks = Vec::new();
        let mut nodes = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let place = directory.path().join(format!("node-{index}"));
            disks.extend(Disk::mount(&place, DISK_SIZE));
            let mut words = flags(*address, &list);
            words.extend([directory_flag.to_owned(), place.display().to_string()]);
            let mut node = Node::new(address.port(), place, words);
            if let Some(net) = &net {
                node.host = net.node(index);
                node.program = [net.enter(index), node.program.clone()].concat();
            }
            nodes.push(node);
        }
        Self { nodes, spare: None, disks, net, shims: Vec::new(), directory }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// Also where a node may be later.
    pub fn all_addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().chain(&self.spare).map(Node::address).collect()
    }

    pub fn can_spoil_links(&self) -> bool {
        let spoilt = self.net.as_ref().is_some_and(|net| net.spoil(0, BadLink::Slow));
        self.net.iter().for_each(|net| net.repair(0));
        spoilt
    }

    pub fn has_disks(&self) -> bool {
        self.disks.len() >= self.nodes.len()
    }

    pub fn wait_ready(&self) {
        for node in &self.nodes {
            eventually(
                READY_WAIT,
                || format!("{} is ready\n{}", node.address(), tail(&node.log())),
                || node.is_ready(),
            );
        }
    }

    /// The node that answers for a key.
    pub fn leader_of(&self, key: &str) -> usize {
        let mut leader = None;
        let answers = |node: &Node| matches!(node.ask(&["GET", key]), Reply::Bulk(_) | Reply::Null);
        eventually(
            READY_WAIT,
            || format!("{key} has a leader"),
            || {
                leader = self.nodes.iter().position(answers);
                leader.is_some()
            },
        );
        leader.expect("found")
    }

    /// Makes a node the leader of all groups; it may be refused for a while, so it is asked again.
    pub fn take_leadership(&self, node: usize) {
        let ask = || {
            let mut connection = Connection::open_at(self.nodes[node].address())?;
            connection.call(&["CLUSTER", "FAILOVER"])
        };
        eventually(READY_WAIT, || format!("node {node} leads"), || ask().is_ok_and(|reply| reply.text() == "OK"));
    }

    /// Large values, until they are more than the log has room for, or are refused.
    pub fn write_bulk(&self, node: usize) {
        let Ok(mut connection) = Connection::open_at(self.nodes[node].address()) else { return };
        connection.set_timeout(Duration::from_secs(2));
        let value = "b".repeat(BULK_VALUE);
        for index in 0..BULK_VALUES {
            // MOVED is as good as OK: of so many keys, enough are led here.
            if connection.call(&["SET", &format!("{BULK_PREFIX}{}", index % 64), &value]).is_err() {
                return;
            }
        }
    }

    /// Nodes whose process ended by itself, and those that panicked, with the end of their logs.
    pub fn broken(&mut self) -> Vec<String> {
        let ended = |(index, node): (usize, &mut Node)| {
            let log = node.log();
            let is_broken = node.has_ended() || log.contains("panicked at");
            is_broken.then(|| format!("node {index} broke down:\n{}", tail(&log)))
        };
        self.nodes.iter_mut().enumerate().filter_map(ended).collect()
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
