//! How clusters come to be, and who is refused.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::harness::{Cluster, Connection, Node, Reply, eventually};

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
    let mut cluster = Cluster::prepare(3, &[]);
    let list: Vec<String> = cluster.ports().iter().map(|port| format!("localhost:{port}")).collect();
    for node in &mut cluster.nodes {
        node.replace_flag("--initial-cluster", &list.join(","));
        node.start();
    }
    cluster.wait_ready();
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
    // The host was not named again.
    let nodes = cluster.nodes[0].ask(&["CLUSTER", "NODES"]).text();
    assert_eq!(nodes.matches(" localhost:").count(), 3, "{nodes}");

    cluster.nodes[0].kill();
    cluster.nodes[0].flags.extend(["--replicas".to_owned(), "2".to_owned()]);
    cluster.nodes[0].start();
    assert_ne!(cluster.nodes[0].wait(Duration::from_secs(20)), Some(0));
    let log = cluster.nodes[0].log();
    assert!(log.contains("replicas 2 here, 3 in the cluster"), "{log}");
}

#[test]
fn nodes_with_different_passwords_are_told_so_before_they_share_a_cluster() {
    let mut cluster = Cluster::prepare(2, &["--requirepass", "first-sesame"]);
    cluster.nodes[1].replace_flag("--requirepass", "other-sesame");
    cluster.nodes.iter_mut().for_each(Node::start);
    for node in &mut cluster.nodes {
        assert_ne!(node.wait(Duration::from_secs(20)), Some(0));
        let log = node.log();
        assert!(log.contains("requirepass has to be the same on all nodes") && !log.contains("sesame"), "{log}");
    }
}

#[test]
fn a_node_whose_list_or_password_is_not_the_clusters_is_told_so() {
    let mut cluster = Cluster::start(3, &[]);
    let ports = cluster.ports();
    cluster.nodes[0].kill();
    cluster.nodes[0].wipe();
    let refused = |node: &mut Node, text: &str| {
        node.start();
        assert_ne!(node.wait(Duration::from_secs(20)), Some(0));
        assert!(node.log().contains(text), "{}", node.log());
    };
    cluster.nodes[0].set_environment("KVORUM_REQUIREPASS", "sesame");
    refused(&mut cluster.nodes[0], "requirepass has to be the same on all nodes");
    cluster.nodes[0].set_environment("KVORUM_REQUIREPASS", "");
    cluster.nodes[0].replace_flag("--initial-cluster", "127.0.0.1:1");
    refused(&mut cluster.nodes[0], &format!("own address 127.0.0.1:{} is not in --initial-cluster", ports[0]));
    // Part of the list finds the cluster, but may be another's.
    cluster.nodes[0].replace_flag("--initial-cluster", &format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]));
    cluster.nodes[0].start();
    cluster.wait_ready();
    let log = cluster.nodes[0].log();
    assert!(log.contains(&format!("not listed are 127.0.0.1:{}", ports[2])), "{log}");

    // A member keeps running with another password, since an operator changes it node by node, but not in silence.
    assert_eq!(cluster.nodes[0].stop(), Some(0));
    cluster.nodes[0].set_environment("KVORUM_REQUIREPASS", "sesame");
    cluster.nodes[0].start();
    eventually(
        Duration::from_secs(20),
        || "all say that the password differs".to_owned(),
        || cluster.nodes.iter().all(|node| node.log().contains("the peer's requirepass differs from this node's")),
    );
    assert!(cluster.nodes.iter().all(|node| !node.log().contains("sesame")));
}

#[test]
fn a_clean_start_and_stop_log_no_warning() {
    let mut cluster = Cluster::start(3, &[]);
    for round in 0..2 {
        cluster.nodes.iter().for_each(|node| node.signal("TERM"));
        for node in &mut cluster.nodes {
            assert_eq!(node.wait(Duration::from_secs(20)), Some(0));
        }
        if round == 0 {
            cluster.nodes.iter_mut().for_each(Node::start);
            cluster.wait_ready();
        }
    }
    for node in &cluster.nodes {
        let log = node.log();
        assert!(log.contains(" INFO "), "{log}");
        let warnings = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        assert_eq!(warnings.collect::<Vec<_>>(), [""; 0]);
    }
}

/// This machine's, if it is in a network.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // Sends nothing.
    socket.connect(("192.0.2.1", 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) => Some(*address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified()),
        SocketAddr::V6(_) => None,
    }
}

#[test]
fn nodes_in_protected_mode_find_each_other_and_serve_nobody_else_elsewhere() {
    let Some(own) = own_address() else {
        println!("skipped: this machine has no address but its loopback's");
        return;
    };
    let mut cluster = Cluster::prepare(3, &["--bind", &format!("{own},127.0.0.1")]);
    let list: Vec<String> = cluster.ports().iter().map(|port| format!("{own}:{port}")).collect();
    for node in &mut cluster.nodes {
        node.replace_flag("--initial-cluster", &list.join(","));
        node.start();
    }
    cluster.wait_ready();
    // A wiped one finds its way back.
    cluster.nodes[1].kill();
    cluster.nodes[1].wipe();
    cluster.nodes[1].start();
    cluster.wait_ready();

    let from_elsewhere = (own, cluster.nodes[0].port).into();
    for words in [&["PING"][..], &["CLUSTER", "KVORUM", "STATUS"], &["CLUSTER", "KVORUM", "PROBE", "x"]] {
        let mut connection = Connection::open_at(from_elsewhere).expect("accepts");
        // Lines that ask nothing are passed over.
        connection.send_raw(b"\r\n\n").expect("sends");
        std::thread::sleep(Duration::from_millis(20));
        let answer = connection.call(&["CLUSTER", "KVORUM", "PROBE"]).expect("answers");
        assert!(matches!(answer, Reply::Bulk(_)), "{answer:?}");
        let answer = connection.call(words).expect("answers").text();
        assert!(answer.starts_with("DENIED Kvorum is running in protected mode"), "{answer}");
        assert!(connection.receive().is_err(), "closed after a refusal");
    }
}
