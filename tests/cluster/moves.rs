//! Slots move between groups while clients write, and while leaders are killed: clients see MOVED and nothing else, no key is lost, none is there twice.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::failures::{Written, check_nothing_lost, write_until};
use super::harness::{Cluster, Reply, eventually};

const MOVES_WAIT: Duration = Duration::from_secs(60);
/// Of the first client's keys; see `write_until`.
const MOVING_KEYS: [&str; 6] = ["c0:1", "c0:2", "c0:3", "c0:4", "c0:5", "c0:6"];

/// (slot, group) of a key as a node sees it; none if it does not answer.
fn place(cluster: &Cluster, node: usize, key: &str) -> Option<(String, String)> {
    match cluster.nodes[node].ask(&["CLUSTER", "HASHSLOT", key]) {
        Reply::Array(fields) => Some((fields[1].text(), fields[3].text())),
        _ => None,
    }
}

fn slots_of(cluster: &Cluster, keys: &[&str]) -> String {
    let slots: BTreeSet<String> = keys.iter().map(|key| place(cluster, 0, key).expect("the node answers").0).collect();
    slots.into_iter().collect::<Vec<_>>().join(",")
}

fn start_move(cluster: &Cluster, slots: &str, group: &str) {
    let mut node = 0;
    eventually(
        MOVES_WAIT,
        || format!("a move of {slots} to {group} starts"),
        || {
            node = (node + 1) % 3;
            cluster.nodes[node].ask(&["CLUSTER", "KVORUM", "MOVE", slots, group]) == Reply::Simple("OK".to_owned())
        },
    );
}

/// Every node names `group` for the keys, and no move is left.
fn wait_moved(cluster: &Cluster, keys: &[&str], group: &str) {
    let moved = |node: usize| {
        let named = |key: &&str| place(cluster, node, key).is_some_and(|(_, owner)| owner == group);
        keys.iter().all(named)
            && cluster.nodes[node].ask(&["CLUSTER", "KVORUM", "STATUS"]).text().contains("\"moves\":[]")
    };
    eventually(MOVES_WAIT, || format!("{keys:?} are in group {group}"), || (0..3).all(moved));
}

fn finish(cluster: &Cluster, stop: &AtomicBool, clients: Vec<std::thread::JoinHandle<Written>>) -> Vec<Written> {
    stop.store(true, Ordering::Relaxed);
    let written: Vec<Written> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    check_nothing_lost(cluster, &written);
    let errors: Vec<&String> = written.iter().flat_map(|written| &written.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    written
}

/// Every key is in one group's keyspace, and in no other's.
fn check_each_once(cluster: &Cluster, count: usize) {
    let sizes = || cluster.nodes.iter().map(|node| node.ask(&["DBSIZE"]).text().parse::<usize>().unwrap_or(0));
    let all = sizes().sum::<usize>();
    assert_eq!(all, count, "{:?}", sizes().collect::<Vec<_>>());
}

#[test]
fn slots_move_back_and_forth_under_load_with_all_they_hold_and_clients_see_moved_at_most() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client();
    let large = "x".repeat(3_000_000);
    assert_eq!(client.call(&["SET", "{c0:1}large", &large]).unwrap().text(), "OK");
    client.call(&["APPEND", "{c0:1}large", "end"]).unwrap();
    let long_key = format!("{{c0:1}}{}", "k".repeat(1_000_000));
    assert_eq!(client.call(&["SET", &long_key, &large]).unwrap().text(), "OK");
    client.call(&["SET", "{c0:1}ttl", "v", "PX", "9000000"]).unwrap();
    for number in 0..500 {
        client.call(&["SET", &format!("{{c0:1}}{number}"), &number.to_string()]).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clients = write_until(&stop, &cluster.ports());
    let slots = slots_of(&cluster, &MOVING_KEYS);
    for group in ["1", "2", "3"] {
        start_move(&cluster, &slots, group);
        wait_moved(&cluster, &MOVING_KEYS, group);
    }
    let node = format!("127.0.0.1:{}", cluster.nodes[1].port);
    let program = Command::new(env!("CARGO_BIN_EXE_kvorum"))
        .args(["cluster", "move-slots", "--slots", &slots, "--to", "1", "--node", &node])
        .output()
        .expect("runs");
    let told = String::from_utf8_lossy(&program.stdout).into_owned();
    assert!(program.status.success() && told.contains("to group 1"), "{told}{program:?}");
    wait_moved(&cluster, &MOVING_KEYS, "1");
    let written = finish(&cluster, &stop, clients);
    let unknown: usize = written.iter().map(|written| written.unknown).sum();
    assert_eq!(unknown, 0, "no connection was closed");

    assert_eq!(client.call(&["GET", &long_key]).unwrap().text(), large);
    assert_eq!(client.call(&["GET", "{c0:1}large"]).unwrap().text(), large + "end");
    let left: i64 = client.call(&["PTTL", "{c0:1}ttl"]).unwrap().text().parse().unwrap();
    assert!((8_800_000..=9_000_000).contains(&left), "{left} ms to live");
    let keys: usize = written.iter().map(|written| written.keys.len()).sum();
    check_each_once(&cluster, keys + 503);
    let refused = cluster.nodes[0].ask(&["CLUSTER", "KVORUM", "MOVE", "1024", "1"]).text();
    assert!(refused.starts_with("ERR slots are given as"), "{refused}");
    let refused = cluster.nodes[0].ask(&["CLUSTER", "KVORUM", "MOVE", "7", "9"]).text();
    assert_eq!(refused, "ERR there is no group 9");
}

#[test]
fn leaders_killed_while_slots_move_cost_no_key_and_no_error() {
    let mut cluster = Cluster::start(3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = write_until(&stop, &cluster.ports());
    let slots = slots_of(&cluster, &MOVING_KEYS);
    for group in ["2", "3", "1"] {
        let first = place(&cluster, 0, MOVING_KEYS[0]).expect("the node answers").1;
        start_move(&cluster, &slots, group);
        // One slot has moved, or is about to: the source's leader, or the target's.
        let moved = || (0..3).any(|node| place(&cluster, node, MOVING_KEYS[0]).is_some_and(|(_, now)| now != first));
        if group != first {
            eventually(MOVES_WAIT, || "the first slot moves".to_owned(), moved);
        }
        let victim = cluster.leader_of(MOVING_KEYS[if group == "3" { 0 } else { 5 }]);
        cluster.nodes[victim].kill();
        cluster.nodes[victim].start();
        cluster.wait_ready();
        wait_moved(&cluster, &MOVING_KEYS, group);
    }
    let written = finish(&cluster, &stop, clients);
    check_each_once(&cluster, written.iter().map(|written| written.keys.len()).sum());
}

/// Slots that wait to be moved, and the groups they are to go to, oldest first.
fn waiting(cluster: &Cluster) -> Vec<(String, String)> {
    let status = cluster.nodes[0].ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    let moves = status.split("\"slot\":").skip(1).filter_map(|text| {
        let (slot, text) = text.split_once(",\"from\":")?;
        let (to, rest) = text.split_once(",\"to\":")?.1.split_once(',')?;
        rest.starts_with("\"state\":\"waiting\"").then(|| (slot.to_owned(), to.to_owned()))
    });
    moves.collect()
}

#[test]
fn an_operators_move_overtakes_the_schedulers_and_no_other_operators() {
    let cluster = Cluster::start(3, &["--move-rate-max", "1mb"]);
    let keys: Vec<String> = (0..80).map(|number| format!("k:{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    start_move(&cluster, &slots_of(&cluster, &keys), "2");
    wait_moved(&cluster, &keys, "2");
    let (mut client, large) = (cluster.client(), "x".repeat(250_000));
    for key in &keys {
        assert_eq!(client.call(&["SET", key, &large]).unwrap().text(), "OK");
    }
    let slots: Vec<String> = keys.iter().map(|key| slots_of(&cluster, &[*key])).collect();
    // The others get slots of group 2 now, which takes a while; and of a batch the last comes last.
    assert_eq!(cluster.nodes[0].ask(&["CLUSTER", "KVORUM", "EVEN"]).text(), "OK");
    let mut found = None;
    let seek = || {
        let last = waiting(&cluster).into_iter().rev().find(|(slot, _)| slots.contains(slot));
        found =
            last.map(|(slot, to)| (keys[slots.iter().position(|known| *known == slot).expect("it is one")], slot, to));
        found.is_some()
    };
    eventually(MOVES_WAIT, || "the scheduler moves slots".to_owned(), seek);
    let (key, slot, to) = found.expect("it was found");
    let other = if to == "1" { "3" } else { "1" };
    let asked = |to: &str| cluster.nodes[1].ask(&["CLUSTER", "KVORUM", "MOVE", &slot, to]).text();
    assert_eq!(asked(other), "OK", "at once");
    let refused = asked(&to);
    assert!(refused.contains("is moving already"), "{refused}");
    let there = || (0..3).all(|node| place(&cluster, node, key).is_some_and(|(_, owner)| owner == other));
    eventually(MOVES_WAIT, || format!("slot {slot} is in group {other}"), there);
    assert_eq!(client.call(&["GET", key]).unwrap().text(), large);
}

/// What the node sends until it holds `text`.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    let mut bytes = [0; 4096];
    while !read.contains(text) {
        let count = stream.read(&mut bytes).unwrap_or_else(|error| panic!("{error}; until now {read}"));
        assert!(count > 0, "closed after {read}");
        read.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    read
}

#[test]
fn clients_that_asked_for_it_are_told_of_slots_that_move() {
    let cluster = Cluster::start(3, &[]);
    let key = MOVING_KEYS[0];
    let (slot, from) = place(&cluster, 0, key).expect("the node answers");
    let to = if from == "1" { "2" } else { "1" };
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.nodes[2].port)).expect("it listens");
    stream.set_read_timeout(Some(MOVES_WAIT)).expect("a time-out");
    stream.write_all(b"CLIENT MAINT_NOTIFICATIONS ON\r\n").expect("written");
    read_until(&mut stream, "-ERR CLIENT MAINT_NOTIFICATIONS ON needs RESP3: send HELLO 3 first\r\n");
    stream.write_all(b"HELLO 3\r\nCLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type none\r\n").expect("written");
    read_until(&mut stream, "+OK\r\n");
    start_move(&cluster, &slot, to);
    let told = read_until(&mut stream, "+SMIGRATED\r\n");
    assert!(told.contains(">3\r\n+SMIGRATING\r\n:"), "{told}");
    // The connection goes on as ever.
    stream.write_all(b"PING\r\n").expect("written");
    let told = told + &read_until(&mut stream, "+PONG\r\n");
    let ports = cluster.ports().iter().filter(|port| told.contains(&format!("127.0.0.1:{port}\r\n"))).count();
    assert_eq!(ports, 2, "where it was and where it is: {told}");
}
