//! Nodes on machines of their own, in protected mode.

use std::net::SocketAddr;
use std::time::Duration;

use super::net::Net;
use crate::cluster::harness::{Node, eventually};

const PORT: u16 = 6379;
const READY_WAIT: Duration = Duration::from_secs(60);

fn wait_ready(nodes: &[&Node]) {
    for node in nodes {
        let is_ready = || node.ask_http("/readyz").starts_with("HTTP/1.0 200");
        eventually(READY_WAIT, || format!("{} is ready\n{}", node.address(), node.log()), is_ready);
    }
}

#[test]
fn a_wiped_node_comes_back_through_any_member() {
    let Some(net) = Net::build(3) else {
        println!("skipped: network namespaces need root and `ip`");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let list: Vec<String> = (0..3).map(|node| SocketAddr::from((net.node(node), PORT)).to_string()).collect();
    let mut nodes: Vec<Node> = (0..3)
        .map(|index| {
            let (host, place) = (net.node(index), directory.path().join(format!("node-{index}")));
            let (bind, data) = (host.to_string(), place.display().to_string());
            let flags = ["--bind", &bind, "--initial-cluster", &list.join(","), "--data-dir", &data];
            let mut node = Node::new(PORT, place, flags.map(str::to_owned).to_vec());
            node.host = host;
            node.program = [net.enter(index), node.program.clone()].concat();
            node.start();
            node
        })
        .collect();
    wait_ready(&nodes.iter().collect::<Vec<_>>());
    // The first founded the cluster and leads the meta group. Started again it does not, and it is the first that others ask.
    nodes[0].kill();
    wait_ready(&[&nodes[1], &nodes[2]]);
    nodes[0].start();
    wait_ready(&[&nodes[0]]);
    nodes[2].kill();
    nodes[2].wipe();
    nodes[2].start();
    wait_ready(&nodes.iter().collect::<Vec<_>>());
}
