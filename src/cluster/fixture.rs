//! Small clusters for the tests of this folder.

use std::collections::BTreeMap;

use super::{Address, ClusterId, Founder, FoundingPlan, Intent, NodeId, NodeInfo, PlanSeed, Topology, WantedSettings};

/// Node ids count from 1.
pub(crate) fn node(number: u8) -> NodeId {
    NodeId([number; 20])
}

/// Node n is at 127.0.0.1:7000+n.
pub(crate) fn info(number: u8) -> NodeInfo {
    let port = 7000 + u16::from(number);
    NodeInfo { host: "127.0.0.1".to_owned(), port, peer_port: port + 10_000, http_port: 0 }
}

pub(super) fn seed(number: u8) -> PlanSeed {
    PlanSeed { cluster_id: ClusterId([number; 16]), hash_secret: [u64::from(number); 4] }
}

/// No groups: one for each node.
pub(super) fn intent(nodes: usize, groups: u32, replicas: u32) -> Intent {
    let settings =
        WantedSettings { groups: Some(groups).filter(|groups| *groups > 0), replicas: Some(replicas), hash_check: 7 };
    Intent { addresses: (1..=nodes as u8).map(|number| info(number).address()).collect(), settings }
}

pub(super) fn members(nodes: usize) -> BTreeMap<Address, Founder> {
    let founder = |number| (info(number).address(), Founder { node: node(number), info: info(number) });
    (1..=nodes as u8).map(founder).collect()
}

pub(super) fn plan(nodes: usize, groups: u32, replicas: u32) -> FoundingPlan {
    FoundingPlan::new(1, node(1), intent(nodes, groups, replicas), &members(nodes), seed(1)).unwrap()
}

pub(crate) fn topology(nodes: usize, groups: u32, replicas: u32) -> Topology {
    plan(nodes, groups, replicas).topology().clone()
}
