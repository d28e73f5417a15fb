//! How clusters come to be, and who is refused.

use std::time::Duration;

use super::harness::{Cluster, Node, eventually};

#[test]
fn nodes_form_a_cluster_in_any_start_order() {
    let mut cluster = Cluster::prepare(3, &[]);
    for index in [2, 0, 1] {
        cluster.nodes[index].start();
        std::thread::sleep(Duration::from_millis(300));
        if index != 1 {
            assert!(!cluster.nodes[index].is_ready(), "two of three do not found a cluster");
        }
    }
    cluster.wait_ready();
    let masters = cluster.nodes[0].ask(&["CLUSTER", "NODES"]).text();
    assert_eq!(masters.lines().filter(|line| line.contains("master")).count(), 3, "{masters}");
}

#[test]
fn a_node_killed_while_the_cluster_forms_does_not_spoil_it() {
    let mut cluster = Cluster::prepare(3, &[]);
    for round in 0..3 {
        cluster.nodes.iter_mut().for_each(Node::start);
        std::thread::sleep(Duration::from_millis(40 * round));
        cluster.nodes.iter_mut().for_each(Node::kill);
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
}

#[test]
fn nodes_started_with_different_settings_are_refused_with_both_values() {
    let mut cluster = Cluster::prepare(3, &["--groups", "3"]);
    cluster.nodes[2].replace_flag("--groups", "5");
    cluster.nodes.iter_mut().for_each(Node::start);
    // Whichever sees it first, all are told.
    for node in &mut cluster.nodes {
        assert_ne!(node.wait(Duration::from_secs(20)), Some(0));
        let log = node.log();
        assert!(log.contains('5') && log.contains('3') && log.contains("settings"), "{log}");
    }
}

#[test]
fn a_node_that_joins_with_another_group_count_is_refused_with_both_values() {
    let mut cluster = Cluster::start(3, &["--groups", "3"]);
    cluster.nodes[0].kill();
    cluster.nodes[0].wipe();
    cluster.nodes[0].replace_flag("--groups", "4");
    cluster.nodes[0].start();
    assert_ne!(cluster.nodes[0].wait(Duration::from_secs(30)), Some(0));
    let log = cluster.nodes[0].log();
    assert!(log.contains("groups 4 here, 3 in the cluster"), "{log}");
}

#[test]
fn a_restart_needs_no_flag_but_the_ports() {
    let mut cluster = Cluster::start(3, &[]);
    let mut client = cluster.client();
    client.call(&["SET", "k", "v"]).expect("answers");
    for node in &mut cluster.nodes {
        assert_eq!(node.stop(), Some(0), "{}", node.log());
        node.remove_flag("--initial-cluster");
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    eventually(
        Duration::from_secs(10),
        || "the key is there".to_owned(),
        || cluster.client().call(&["GET", "k"]).is_ok_and(|reply| reply.text() == "v"),
    );
}
