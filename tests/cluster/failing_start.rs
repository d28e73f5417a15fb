//! A start on a disk that fails, or that the machine does not survive: at the first operation on a file, at the second, and so on, until one comes to its end.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::harness::{Cluster, ClusterClient, Node, eventually};
use super::shim::Shim;

const KEYS: usize = 50;
const START_MAX: Duration = Duration::from_secs(30);
/// None of the starts does more.
const OPERATIONS_MAX: i64 = 400;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The operation says that it failed. What it was to do is not done.
    Error,
    /// The process is killed, and what it had not synced is gone.
    PowerLoss,
}

/// Until the node serves, or has ended and said why: it does not run any more.
fn start_into(fault: Fault, operation: i64, node: &mut Node, shim: &Shim) {
    let said = node.log().len();
    shim.fault_at(operation, fault == Fault::PowerLoss);
    node.start();
    let mut ended = false;
    eventually(
        START_MAX,
        || format!("operation {operation} met {fault:?}, and the node neither serves nor has it ended"),
        || {
            ended = node.has_ended();
            ended || node.is_ready()
        },
    );
    let log = node.log();
    let said = &log[said..];
    if ended && fault == Fault::Error {
        let last = said.lines().last().unwrap_or_default();
        let place = node.directory.display().to_string();
        assert!(last.contains("os error 5") && last.contains(&place), "operation {operation}: {said}");
    }
    assert!(!said.contains("panicked"), "operation {operation}: {said}");
    if !ended {
        node.kill();
    }
}

/// Calls `start` with each operation in turn, until one is not reached.
fn at_each_operation(shim: &Shim, fault: Fault, mut start: impl FnMut(i64)) {
    for operation in 1..OPERATIONS_MAX {
        start(operation);
        if !shim.is_fault_over() {
            shim.spare_operations();
            println!("{fault:?}: {operation} operations");
            assert!(operation > 10, "a start does more than {operation} operations");
            return;
        }
    }
    panic!("no start came to its end");
}

/// What the machine lost is gone, and this start meets no fault.
fn start_again(fault: Fault, node: &mut Node, shim: &Shim) {
    if fault == Fault::PowerLoss {
        shim.lose_power(&node.directory);
    }
    shim.spare_operations();
    node.start();
}

fn prepare(count: usize, flags: &[&str]) -> Option<(Cluster, Shim)> {
    let mut cluster = Cluster::prepare(count, flags);
    let shim = Shim::build(cluster.directory(), "control");
    if shim.is_none() {
        println!("skipped: no C compiler here");
    }
    let shim = shim?;
    shim.load_into(&mut cluster.nodes[0]);
    Some((cluster, shim))
}

#[test]
fn a_new_node_whose_first_start_fails_at_any_operation_starts_the_next_time() {
    let Some((mut cluster, shim)) = prepare(1, &["--groups", "1"]) else { return };
    for fault in [Fault::Error, Fault::PowerLoss] {
        at_each_operation(&shim, fault, |operation| {
            let node = &mut cluster.nodes[0];
            if node.directory.exists() {
                node.wipe();
            }
            start_into(fault, operation, node, &shim);
            if !shim.is_fault_over() {
                return;
            }
            start_again(fault, node, &shim);
            cluster.wait_ready();
            let node = &mut cluster.nodes[0];
            assert_eq!(node.ask(&["SET", "key", "value"]).text(), "OK", "operation {operation}: {}", node.log());
            node.kill();
        });
    }
}

/// Writes them, or compares what is there.
fn each_key(ports: &[u16], mut check: impl FnMut(&mut ClusterClient, &str, usize)) {
    let mut client = ClusterClient::new(ports);
    (0..KEYS).for_each(|number| check(&mut client, &format!("key:{number}"), number));
}

fn write_keys(cluster: &Cluster) {
    each_key(&cluster.ports(), |client, key, number| {
        assert_eq!(client.call(&["SET", key, &number.to_string()]).expect("answers").text(), "OK");
    });
}

fn check_keys(cluster: &Cluster, when: &str) {
    each_key(&cluster.ports(), |client, key, number| {
        let found = client.call(&["GET", key]).map(|reply| reply.text());
        assert!(found.as_ref().is_ok_and(|text| *text == number.to_string()), "{key} {when}: {found:?}");
    });
}

#[test]
fn a_node_whose_restart_fails_at_any_operation_has_everything_the_next_time() {
    let Some((mut cluster, shim)) = prepare(1, &["--groups", "1"]) else { return };
    cluster.nodes[0].start();
    cluster.wait_ready();
    write_keys(&cluster);
    cluster.nodes[0].kill();
    // Every start adds to the log, and would do more than the one before.
    let before = cluster.directory().join("before");
    std::fs::rename(&cluster.nodes[0].directory, &before).expect("moves");
    for fault in [Fault::Error, Fault::PowerLoss] {
        at_each_operation(&shim, fault, |operation| {
            let node = &mut cluster.nodes[0];
            if node.directory.exists() {
                node.wipe();
            }
            copy(&before, &node.directory);
            start_into(fault, operation, node, &shim);
            if !shim.is_fault_over() {
                return;
            }
            start_again(fault, node, &shim);
            cluster.wait_ready();
            check_keys(&cluster, &format!("after {fault:?} at operation {operation}"));
            cluster.nodes[0].kill();
        });
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.expect("cp runs").success());
}

/// It becomes a new member, which takes several files' replacement (`raft/power_loss.rs`).
#[test]
fn a_node_that_lost_power_and_whose_way_back_fails_at_any_operation_is_one_member_in_the_end() {
    let Some((mut cluster, shim)) = prepare(3, &["--groups", "1", "--appendfsync", "everysec"]) else { return };
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    write_keys(&cluster);
    cluster.nodes[0].kill();
    let mut boots = 0;
    for fault in [Fault::Error, Fault::PowerLoss] {
        at_each_operation(&shim, fault, |operation| {
            boots += 1;
            let node = &mut cluster.nodes[0];
            node.set_environment("KVORUM_TEST_BOOT_ID", &boots.to_string());
            start_into(fault, operation, node, &shim);
            if !shim.is_fault_over() {
                return;
            }
            start_again(fault, node, &shim);
            cluster.wait_ready();
            let when = format!("after {fault:?} at operation {operation}");
            check_keys(&cluster, &when);
            wait_for_voters(&cluster, &when);
            cluster.nodes[0].kill();
        });
    }
}

/// The next to lose power is a voter, and three nodes are all there are.
fn wait_for_voters(cluster: &Cluster, when: &str) {
    let said =
        || cluster.nodes.iter().map(|node| node.ask(&["CLUSTER", "KVORUM", "STATUS"]).text()).collect::<Vec<_>>();
    let are_voters = |status: &str| {
        let status: serde_json::Value = serde_json::from_str(status).unwrap_or_default();
        let nodes = status["nodes"].as_array().map_or(0, Vec::len);
        let replicas = status["groups"].as_array().into_iter().flatten().flat_map(|group| group["replicas"].as_array());
        nodes == 3 && replicas.flatten().all(|replica| replica["voter"] == true)
    };
    eventually(
        Duration::from_secs(60),
        || format!("three voters {when}: {:?}\n{}", said(), cluster.nodes[0].log()),
        || said().iter().all(|status| are_voters(status)),
    );
}
