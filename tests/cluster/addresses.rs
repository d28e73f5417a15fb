//! Nodes that are restarted at other addresses keep their ids and are found again.

use std::time::Duration;

use super::harness::{Cluster, Node, eventually, free_ports};

const FOUND_WAIT: Duration = Duration::from_secs(20);

/// Stopped; starts again elsewhere.
fn move_to(node: &mut Node, port: u16) {
    node.port = port;
    node.replace_flag("--port", &port.to_string());
}

fn id_of(node: &Node) -> String {
    node.ask(&["CLUSTER", "MYID"]).text()
}

/// Each node says of each that it is connected, at the port where it is.
fn wait_found(cluster: &Cluster, ids: &[String]) {
    let places: Vec<String> = cluster.nodes.iter().map(|node| node.address().to_string()).collect();
    wait_found_at(cluster, ids, &places);
}

fn wait_found_at(cluster: &Cluster, ids: &[String], places: &[String]) {
    let found_by = |asked: &Node| {
        let table = asked.ask(&["CLUSTER", "NODES"]).text();
        let is_listed = |(place, id): (&String, &String)| {
            let place = format!("{id} {place}@");
            table.lines().any(|line| line.starts_with(&place) && line.contains(" connected") && !line.contains("fail"))
        };
        places.iter().zip(ids).all(is_listed)
    };
    let missing = || {
        let told = cluster.nodes.iter().map(|node| node.ask(&["CLUSTER", "NODES"]).text() + &node.log());
        format!("all are found where they are:\n{}", told.collect::<Vec<_>>().join("\n"))
    };
    eventually(FOUND_WAIT, missing, || cluster.nodes.iter().all(found_by));
    cluster.wait_ready();
}

fn check_key(cluster: &Cluster) {
    let value = cluster.client().call(&["GET", "k"]).expect("answers").text();
    assert_eq!(value, "v");
}

#[test]
fn a_node_restarted_at_another_port_is_found_again_whatever_its_id() {
    let mut cluster = Cluster::start(3, &[]);
    let ids: Vec<String> = cluster.nodes.iter().map(id_of).collect();
    cluster.client().call(&["SET", "k", "v"]).expect("answers");
    // Each in turn: one of them has the smallest id, one the largest.
    for index in 0..3 {
        let node = &mut cluster.nodes[index];
        node.kill();
        move_to(node, free_ports(1)[0]);
        node.start();
        wait_found(&cluster, &ids);
    }
    check_key(&cluster);
    a_stranger_joins_at_the_address_of_a_node_that_is_away(&mut cluster);
}

/// As a pod that comes back elsewhere, and one that is announced by its name.
#[test]
fn a_node_restarted_at_another_ip_or_under_a_name_is_found_again_and_clients_are_sent_there() {
    let mut cluster = Cluster::start(3, &[]);
    let ids: Vec<String> = cluster.nodes.iter().map(id_of).collect();
    cluster.client().call(&["SET", "k", "v"]).expect("answers");
    let mut places: Vec<String> = cluster.nodes.iter().map(|node| node.address().to_string()).collect();
    for (index, ip, name) in [(0, [127, 0, 0, 9], None), (1, [127, 0, 0, 1], Some("localhost"))] {
        let node = &mut cluster.nodes[index];
        node.kill();
        node.host = ip.into();
        // It names the node's old place, and counts for more than what a socket is bound to.
        node.remove_flag("--initial-cluster");
        node.flags.extend(["--bind".to_owned(), node.host.to_string()]);
        node.flags.extend(name.into_iter().flat_map(|name| ["--announce-host".to_owned(), name.to_owned()]));
        places[index] = format!("{}:{}", name.map_or(node.host.to_string(), str::to_owned), node.port);
        node.start();
        wait_found_at(&cluster, &ids, &places);
    }
    for index in 0..3 {
        // The address is written down: a restart needs no flag for it, and the others find the node without being told.
        let node = &mut cluster.nodes[index];
        assert_eq!(node.stop(), Some(0), "{}", node.log());
        node.start();
        wait_found_at(&cluster, &ids, &places);
    }
    let leader = cluster.leader_of("k");
    assert_eq!(cluster.nodes[leader].ask(&["GET", "k"]).text(), "v");
    let moved = format!("MOVED 7629 {}", places[leader]);
    let others = cluster.nodes.iter().enumerate().filter(|(index, _)| *index != leader);
    eventually(
        FOUND_WAIT,
        || format!("the others say {moved}"),
        || others.clone().all(|(_, node)| node.ask(&["GET", "k"]).text() == moved),
    );
}

/// That one keeps its place until it is given up.
fn a_stranger_joins_at_the_address_of_a_node_that_is_away(cluster: &mut Cluster) {
    let away = id_of(&cluster.nodes[2]);
    cluster.nodes[2].kill();
    let stranger = cluster.add(&["--join", &format!("127.0.0.1:{}", cluster.nodes[0].port)]);
    let port = cluster.nodes[2].port;
    move_to(&mut cluster.nodes[stranger], port);
    cluster.nodes[stranger].start();
    let refusal = format!("belongs to node {away}, which is away and not given up yet");
    let log = || cluster.nodes[stranger].log();
    eventually(FOUND_WAIT, || format!("it has to wait\n{}", log()), || log().contains(&refusal));
    assert!(cluster.nodes[0].ask(&["CLUSTER", "NODES"]).text().contains(&away));
}

#[test]
fn nodes_that_exchange_addresses_or_all_move_at_once_find_each_other() {
    let mut cluster = Cluster::start(3, &[]);
    let ids: Vec<String> = cluster.nodes.iter().map(id_of).collect();
    cluster.client().call(&["SET", "k", "v"]).expect("answers");
    let ports = cluster.ports();
    for (index, port) in [(0, ports[1]), (1, ports[0])] {
        cluster.nodes[index].kill();
        move_to(&mut cluster.nodes[index], port);
    }
    cluster.nodes[..2].iter_mut().for_each(Node::start);
    wait_found(&cluster, &ids);

    cluster.nodes.iter_mut().for_each(Node::kill);
    let ports = free_ports(3);
    let list = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
    for (node, port) in cluster.nodes.iter_mut().zip(ports) {
        move_to(node, port);
        node.replace_flag("--initial-cluster", &list);
        node.start();
    }
    wait_found(&cluster, &ids);
    check_key(&cluster);
    announces_anothers_address(&mut cluster);
}

/// It has it wrong, and the other keeps its own.
fn announces_anothers_address(cluster: &mut Cluster) {
    let other = cluster.nodes[1].port.to_string();
    let node = &mut cluster.nodes[0];
    node.kill();
    node.flags.extend(["--announce-port".to_owned(), other.clone()]);
    node.start();
    let refusal = format!("127.0.0.1:{other} is not registered yet: address 127.0.0.1:{other} belongs to node");
    eventually(FOUND_WAIT, || format!("it is told so\n{}", node.log()), || node.log().contains(&refusal));
    let place = format!("{} 127.0.0.1:{other}@", id_of(&cluster.nodes[1]));
    assert!(cluster.nodes[1].ask(&["CLUSTER", "NODES"]).text().contains(&place));
}
