//! The machine restarts, and what was not synced is gone. Where only the boot id changes, what the disk loses is tried in the log's own tests.

use std::process::Command;
use std::time::{Duration, Instant};

use super::harness::{Cluster, Node, Reply, eventually};
use super::shim::Shim;

const KEYS: usize = 200;

fn start(count: usize) -> Cluster {
    start_with(count, &[])
}

fn start_with(count: usize, flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::prepare(count, &[&["--appendfsync", "everysec"], flags].concat());
    for node in &mut cluster.nodes {
        node.set_environment("KVORUM_TEST_BOOT_ID", "before");
        node.start();
    }
    cluster.wait_ready();
    let mut client = cluster.client();
    for index in 0..KEYS {
        let reply = client.call(&["SET", &format!("key:{index}"), &index.to_string()]).expect("answers");
        assert_eq!(reply.text(), "OK");
    }
    cluster
}

fn lose_power(node: &mut Node) {
    node.kill();
    node.set_environment("KVORUM_TEST_BOOT_ID", "after");
}

fn check_all_there(cluster: &Cluster, ports: &[u16]) {
    let mut client = super::harness::ClusterClient::new(ports);
    for index in 0..KEYS {
        let key = format!("key:{index}");
        eventually(
            Duration::from_secs(10),
            || format!("{key} is there: {}", cluster.nodes[0].log()),
            || client.call(&["GET", &key]).is_ok_and(|reply| reply.text() == index.to_string()),
        );
    }
}

fn accept_loss(node: &Node, yes: bool) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum"));
    command.args(["cluster", "accept-loss", "--data-dir"]).arg(&node.directory);
    if yes {
        command.arg("--yes");
    }
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_node_that_may_have_lost_writes_joins_anew_and_counts_again() {
    let mut cluster = start(3);
    let before = cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text();
    lose_power(&mut cluster.nodes[0]);
    cluster.nodes[0].start();
    cluster.wait_ready();
    let after = cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text();
    assert_ne!(before, after, "it is not the replica it was");
    assert!(cluster.nodes[0].directory.join("set-aside/log").is_dir(), "what it had is kept");
    // It is a voter again when the cluster lives without one of the others.
    eventually(
        Duration::from_secs(60),
        || format!("three voters: {}", cluster.nodes[1].log()),
        || {
            // Each knows the voters of the groups it has a replica of; all must have seen the change end.
            cluster.nodes.iter().all(|node| {
                let status = node.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
                !status.contains("\"voter\":false") && !status.contains(&before) && status.contains(&after)
            })
        },
    );
    cluster.nodes[1].kill();
    let ports = [cluster.nodes[0].port, cluster.nodes[2].port];
    check_all_there(&cluster, &ports);
    // Once is enough: under the same boot it is the same node at its next start.
    cluster.nodes[1].start();
    cluster.wait_ready();
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.wait_ready();
    assert_eq!(cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text(), after);
}

#[test]
fn when_a_quorum_lost_power_nothing_is_served_until_the_operator_accepts() {
    let mut cluster = start(3);
    cluster.nodes.iter_mut().for_each(lose_power);
    cluster.nodes.iter_mut().for_each(Node::start);
    for node in &cluster.nodes {
        eventually(
            Duration::from_secs(20),
            || format!("the node waits and says so: {}", node.log()),
            || node.ask(&["GET", "key:0"]).text().starts_with("CLUSTERDOWN this node may have lost"),
        );
    }
    let told = accept_loss(&cluster.nodes[0], false);
    assert!(told.contains("group 1, replica") && told.contains("Nothing was changed"), "{told}");
    std::thread::sleep(Duration::from_secs(2));
    assert!(matches!(cluster.nodes[0].ask(&["GET", "key:0"]), Reply::Error(_)), "a look changes nothing");
    accept_loss(&cluster.nodes[0], true);
    accept_loss(&cluster.nodes[1], true);
    cluster.wait_ready();
    check_all_there(&cluster, &cluster.ports());
    assert!(cluster.nodes[2].directory.join("set-aside/log").is_dir(), "the third node joined anew by itself");
    assert!(!cluster.nodes[0].directory.join("set-aside").exists());
}

/// The others have a meta group that could take it in, and no quorum of what it holds.
#[test]
fn a_node_keeps_what_no_quorum_of_the_others_has_until_the_operator_accepts() {
    for replicas in ["1", "2"] {
        let mut cluster = start_with(3, &["--replicas", replicas]);
        let before = cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text();
        lose_power(&mut cluster.nodes[0]);
        cluster.nodes[0].start();
        let waits = "without the copies of this node no quorum goes on in group";
        eventually(
            Duration::from_secs(20),
            || format!("{replicas} replicas: it says what it waits for: {}", cluster.nodes[0].log()),
            || cluster.nodes[0].log().contains(waits),
        );
        assert!(cluster.nodes[0].ask(&["GET", "key:0"]).text().starts_with("CLUSTERDOWN this node may have lost"));
        accept_loss(&cluster.nodes[0], true);
        cluster.wait_ready();
        check_all_there(&cluster, &cluster.ports());
        assert_eq!(cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text(), before, "{replicas} replicas");
        assert!(!cluster.nodes[0].directory.join("set-aside").exists(), "{replicas} replicas");
    }
}

#[test]
fn a_node_alone_comes_back_with_what_it_has() {
    let mut cluster = start(1);
    lose_power(&mut cluster.nodes[0]);
    cluster.nodes[0].start();
    cluster.wait_ready();
    assert!(cluster.nodes[0].log().contains("may be missing here"), "it says what may be gone");
    check_all_there(&cluster, &cluster.ports());
}

/// Counts up on a node whose machine then loses power, for so long; when each number was acknowledged, and the number found afterwards.
fn count_until_power_is_lost(appendfsync: &str, counts_for: Duration) -> Option<(Vec<Instant>, usize)> {
    let mut cluster = Cluster::prepare(1, &["--appendfsync", appendfsync]);
    let Some(shim) = Shim::build(cluster.directory(), "control") else {
        println!("skipped: no C compiler here");
        return None;
    };
    let node = &mut cluster.nodes[0];
    shim.load_into(node);
    node.set_environment("KVORUM_TEST_BOOT_ID", "before");
    node.start();
    cluster.wait_ready();
    let mut connection = cluster.nodes[0].connect();
    let (started, mut acknowledged) = (Instant::now(), Vec::new());
    while started.elapsed() < counts_for {
        assert_eq!(
            connection.call(&["INCR", "count"]).expect("answers"),
            Reply::Integer(acknowledged.len() as i64 + 1)
        );
        acknowledged.push(Instant::now());
    }
    lose_power(&mut cluster.nodes[0]);
    let lost = shim.lose_power(&cluster.nodes[0].directory);
    println!("{appendfsync}: {lost} bytes were not synced");
    cluster.nodes[0].start();
    cluster.wait_ready();
    let found = cluster.nodes[0].ask(&["GET", "count"]).text().parse().unwrap_or(0);
    Some((acknowledged, found))
}

#[test]
fn with_appendfsync_always_a_power_loss_of_the_only_node_takes_nothing_acknowledged() {
    let Some((acknowledged, found)) = count_until_power_is_lost("always", Duration::from_millis(500)) else { return };
    assert!(found >= acknowledged.len(), "{found} of {} are left", acknowledged.len());
}

/// What the README promises. A count has no holes: what is left is all up to some moment.
#[test]
fn with_appendfsync_everysec_a_power_loss_takes_about_the_last_second() {
    // Several syncs are over by then, and one is due.
    let counts_for = Duration::from_millis(3_500);
    let Some((acknowledged, found)) = count_until_power_is_lost("everysec", counts_for) else { return };
    // None, if a sync came between the last of them and the power loss.
    let last = *acknowledged.last().expect("some");
    let lost = acknowledged.get(found).map_or(Duration::ZERO, |first| last - *first);
    println!("everysec lost {lost:?}, {} of {}", acknowledged.len().saturating_sub(found), acknowledged.len());
    assert!(lost < Duration::from_secs(2), "{lost:?} of acknowledged writes are gone");
}
