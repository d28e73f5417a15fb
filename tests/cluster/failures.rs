//! Killed, paused, stopped and wiped nodes: nothing acknowledged is lost, nobody reads what is stale.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::harness::{Cluster, ClusterClient, Connection, Reply, eventually};
use crate::host::{Stopwatch, VIOLATION};

const CLIENTS: usize = 8;

/// What one client's writes came to.
#[derive(Default)]
pub struct Written {
    /// Last value acknowledged per key, and values of unknown outcome after it.
    pub keys: HashMap<String, (u64, Vec<u64>)>,
    pub longest_gap: Duration,
    pub errors: Vec<String>,
    /// Connections that ended with a request on them.
    pub unknown: usize,
}

/// Each client counts up its own keys until told to stop.
pub fn write_until(stop: &Arc<AtomicBool>, ports: &[u16]) -> Vec<std::thread::JoinHandle<Written>> {
    write_at_ease(stop, ports, Duration::ZERO)
}

/// The same with a pause after each call.
pub fn write_at_ease(stop: &Arc<AtomicBool>, ports: &[u16], pause: Duration) -> Vec<std::thread::JoinHandle<Written>> {
    let client = |number: usize| {
        let (stop, ports) = (stop.clone(), ports.to_vec());
        std::thread::spawn(move || {
            let (mut client, mut written) = (ClusterClient::new(&ports), Written::default());
            let mut last_answer = Instant::now();
            let mut value = 0;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                let key = format!("c{number}:{}", value % 20);
                let entry = written.keys.entry(key.clone()).or_default();
                match client.call(&["SET", &key, &value.to_string()]) {
                    Ok(Reply::Simple(_)) => *entry = (value, Vec::new()),
                    Ok(Reply::Error(text)) => written.errors.push(text),
                    Ok(other) => written.errors.push(format!("{other:?}")),
                    Err(_) => {
                        entry.1.push(value);
                        written.unknown += 1;
                    }
                }
                written.longest_gap = written.longest_gap.max(last_answer.elapsed());
                std::thread::sleep(pause);
                last_answer = Instant::now();
            }
            written
        })
    };
    (0..CLIENTS).map(client).collect()
}

pub fn check_nothing_lost(cluster: &Cluster, all: &[Written]) {
    let mut client = cluster.client();
    for written in all {
        for (key, (acknowledged, unknown)) in &written.keys {
            let found: u64 = match client.call(&["GET", key]).expect("answers") {
                Reply::Bulk(value) => String::from_utf8_lossy(&value).parse().expect("a number was written"),
                Reply::Null => 0,
                other => panic!("{key} cannot be read: {other:?}"),
            };
            assert!(
                found == *acknowledged || unknown.contains(&found),
                "{VIOLATION}{key} is {found}, acknowledged was {acknowledged}, unknown {unknown:?}"
            );
        }
    }
}

#[test]
fn a_killed_leader_is_replaced_in_time_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = write_until(&stop, &cluster.ports());
    std::thread::sleep(Duration::from_millis(500));
    let victim = cluster.leader_of("c0:1");
    let killed = Stopwatch::start();
    cluster.nodes[victim].kill();
    std::thread::sleep(Duration::from_secs(3));
    cluster.nodes[victim].start();
    cluster.wait_ready();
    stop.store(true, Ordering::Relaxed);
    let written: Vec<Written> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    check_nothing_lost(&cluster, &written);
    let errors: Vec<&String> = written.iter().flat_map(|written| &written.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let gap = written.iter().map(|written| written.longest_gap).max().expect("clients");
    println!("longest gap after kill -9: {gap:?}");
    assert!(gap < killed.stretched(Duration::from_millis(1500)), "service was away for {gap:?}");

    // All three at once, without a chance to flush.
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_ready();
    check_nothing_lost(&cluster, &written);
}

#[test]
fn a_killed_leader_is_replaced_when_its_lease_is_over_and_not_a_random_time_later() {
    let mut cluster = Cluster::start(3, &["--election-timeout-min-ms", "4000", "--election-timeout-max-ms", "4001"]);
    let victim = cluster.leader_of("k");
    let mut other = cluster.nodes[(victim + 1) % 3].connect();
    other.set_timeout(Duration::from_secs(20));
    cluster.nodes[victim].kill();
    let killed = Stopwatch::start();
    loop {
        assert!(!killed.is_over(Duration::from_secs(20)), "nobody serves the key");
        let reply = other.call(&["GET", "k"]).expect("answered");
        let moved = reply.text().strip_prefix("MOVED ").and_then(|moved| Some(moved.split_once(' ')?.1.to_owned()));
        let Some(address) = moved else {
            assert_eq!(reply, Reply::Null);
            break;
        };
        // Refused by the killed one, as long as this node has not noticed.
        if let Ok(mut successor) = Connection::open_at(address.parse().expect("an address")) {
            successor.set_timeout(Duration::from_secs(20));
            assert_eq!(successor.call(&["GET", "k"]).expect("answered"), Reply::Null);
            break;
        }
    }
    let took = killed.elapsed();
    assert!(took > Duration::from_secs(2), "the lease is half of the time-out: {took:?}");
    assert!(took < killed.stretched(Duration::from_secs(7)), "by its timers alone openraft takes 8 s: {took:?}");
}

#[test]
fn a_stopped_leader_hands_over_and_exits_with_0() {
    let mut cluster = Cluster::start(3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = write_until(&stop, &cluster.ports());
    std::thread::sleep(Duration::from_millis(500));
    let victim = cluster.leader_of("c0:1");
    let stopped = Stopwatch::start();
    assert_eq!(cluster.nodes[victim].stop(), Some(0), "{}", cluster.nodes[victim].log());
    assert!(!stopped.is_over(Duration::from_secs(10)));
    // SHUTDOWN is the same, and on the way back nothing is refused either.
    cluster.nodes[victim].start();
    cluster.wait_ready();
    let victim = cluster.leader_of("c0:1");
    let shutdown = cluster.nodes[victim].connect().call(&["SHUTDOWN"]);
    assert!(shutdown.is_err(), "it answers nothing: {shutdown:?}");
    assert_eq!(cluster.nodes[victim].wait(Duration::from_secs(10)), Some(0));
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let written: Vec<Written> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    let gap = written.iter().map(|written| written.longest_gap).max().expect("clients");
    println!("longest gap during planned stops: {gap:?}");
    let errors: Vec<&String> = written.iter().flat_map(|written| &written.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(written.iter().map(|written| written.unknown).sum::<usize>(), 0, "requests without an answer");
    check_nothing_lost(&cluster, &written);
}

#[test]
fn a_stopping_leader_redirects_its_clients_and_closes_quiet_connections() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of("k");
    let mut connection = cluster.nodes[leader].connect();
    let mut idle = cluster.nodes[leader].connect();
    cluster.nodes[leader].signal("TERM");
    let until = Instant::now() + Duration::from_millis(1_200);
    let mut replies = Vec::new();
    while Instant::now() < until {
        replies.push(connection.call(&["SET", "k", "v"]).expect("answered for as long as it is used").text());
        std::thread::sleep(Duration::from_millis(20));
    }
    let moved = replies.iter().position(|reply| reply.starts_with("MOVED ")).expect("leadership was handed over");
    assert!(replies[..moved].iter().all(|reply| reply == "OK"), "{replies:?}");
    assert!(replies[moved..].iter().all(|reply| reply.starts_with("MOVED ")), "{replies:?}");
    // Those who come late are told, too.
    let late = cluster.nodes[leader].ask(&["GET", "k"]).text();
    assert!(late.starts_with("MOVED "), "{late}");
    let ready = cluster.nodes[leader].ask_http("/readyz");
    assert!(ready.contains(" 503 ") && ready.ends_with("stopping\n"), "load balancers are told: {ready}");
    for quiet in [&mut connection, &mut idle] {
        let end = quiet.receive().expect_err("closed");
        assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "closed, not reset");
    }
    assert_eq!(cluster.nodes[leader].wait(Duration::from_secs(5)), Some(0));
}

#[test]
fn a_client_that_reads_nothing_does_not_hold_a_stop_up() {
    let mut cluster = Cluster::start(1, &["--client-output-limit", "1mb"]);
    let node = &mut cluster.nodes[0];
    let mut client = node.connect();
    assert_eq!(client.call(&["SET", "k", &"v".repeat(200)]).expect("answers").text(), "OK");
    let processed = |node: &super::harness::Node| {
        let info = node.ask(&["INFO", "commandstats"]).text();
        let line = info.lines().find(|line| line.starts_with("cmdstat_get:")).unwrap_or_default().to_owned();
        line.split([':', ',']).nth(1).and_then(|calls| calls.strip_prefix("calls=")?.parse::<u64>().ok())
    };
    // 20 MB of replies: more than the kernel holds for it.
    client.send_raw("GET k\r\n".repeat(100_000).as_bytes()).expect("sends");
    let mut before = None;
    let waits = || {
        std::thread::sleep(Duration::from_millis(100));
        let now = processed(node);
        let still = now.is_some() && now == before;
        before = now;
        still
    };
    eventually(Duration::from_secs(20), || "no more is answered before it reads".to_owned(), waits);
    assert!(before.expect("some") < 100_000);
    assert_eq!(node.stop(), Some(0));
    assert!(!node.log().contains("the time for an orderly stop is over"), "{}", node.log());
    drop(client);
}

#[test]
fn a_leader_paused_past_its_lease_serves_no_stale_read_when_it_wakes() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client();
    client.call(&["SET", "k", "old"]).expect("answers");
    let paused = cluster.leader_of("k");
    let mut before = cluster.nodes[paused].connect();
    before.set_timeout(Duration::from_secs(20));
    cluster.nodes[paused].signal("STOP");
    cluster.nodes[paused].wait_stopped();
    // Waits in the paused node's socket and is read by it first thing when it wakes.
    before.send(&["GET", "k"]).expect("sends");
    let others: Vec<u16> = cluster.ports().into_iter().filter(|port| *port != cluster.nodes[paused].port).collect();
    eventually(
        Duration::from_secs(15),
        || "a new leader takes a write".to_owned(),
        || {
            // Not through a client that follows MOVED: until the election it would wait for the paused node.
            others.iter().any(|port| {
                let direct = Connection::open(*port).and_then(|mut connection| {
                    connection.set_timeout(Duration::from_millis(2500));
                    connection.call(&["SET", "k", "new"])
                });
                matches!(direct, Ok(Reply::Simple(_)))
            })
        },
    );
    cluster.nodes[paused].signal("CONT");
    // An error or a closed connection is fine, the old value is not.
    if let Ok(reply) = before.receive() {
        assert_ne!(reply, Reply::Bulk(b"old".to_vec()), "{VIOLATION}a stale read");
    }
}

#[test]
fn a_wiped_node_joins_as_a_new_replica_and_never_founds_a_second_cluster() {
    let mut cluster = Cluster::start(3, &[]);
    let mut client = cluster.client();
    for index in 0..300 {
        client.call(&["SET", &format!("k{index}"), "v"]).expect("answers");
    }
    let id_before = cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text();

    // With the others up.
    cluster.nodes[0].kill();
    cluster.nodes[0].wipe();
    cluster.nodes[0].start();
    cluster.wait_ready();
    let id = cluster.nodes[0].ask(&["CLUSTER", "MYID"]).text();
    assert_ne!(id, id_before, "a wiped node is a new node");
    eventually(
        Duration::from_secs(30),
        || "the new replicas vote".to_owned(),
        || {
            cluster.nodes.iter().all(|node| {
                let status = node.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
                !status.contains("\"voter\":false") && !status.contains(&id_before) && status.contains(&id)
            })
        },
    );
    // The new replica counts: the cluster survives the loss of another node.
    cluster.nodes[2].kill();
    let mut client = ClusterClient::new(&cluster.ports()[..2]);
    for key in ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"] {
        eventually(
            Duration::from_secs(10),
            || format!("{key} is served again"),
            || client.call(&["GET", key]).is_ok_and(|reply| reply == Reply::Bulk(b"v".to_vec())),
        );
    }
    for index in 0..300 {
        let reply = client.call(&["GET", &format!("k{index}")]).expect("answers");
        assert_eq!(
            reply,
            Reply::Bulk(b"v".to_vec()),
            "k{index}\n{}\n{}",
            cluster.nodes[0].log(),
            cluster.nodes[1].log()
        );
    }
    cluster.nodes[2].start();
    cluster.wait_ready();

    // With the others down: it waits, and joins when they come back.
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    cluster.nodes[0].wipe();
    cluster.nodes[0].start();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!cluster.nodes[0].is_ready(), "it must not found a cluster of its own");
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.wait_ready();
    let mut client = cluster.client();
    assert_eq!(client.call(&["GET", "k7"]).expect("answers"), Reply::Bulk(b"v".to_vec()));
}

#[test]
fn snapshots_bring_back_restarted_and_new_replicas_after_the_log_was_purged() {
    let mut cluster = Cluster::start(3, &["--log-bytes-max", "1mb", "--log-segment-bytes", "1mb"]);
    let leader = cluster.leader_of("{s}");
    let value = "v".repeat(500);
    let write = |cluster: &Cluster, leader: usize, keys: std::ops::Range<usize>| {
        let mut connection = cluster.nodes[leader].connect();
        for first in keys.step_by(500) {
            for index in first..first + 500 {
                connection.send(&["SET", &format!("{{s}}{index}"), &format!("{index}{value}")]).expect("sends");
            }
            for _ in 0..500 {
                assert_eq!(connection.receive().expect("answers"), Reply::Simple("OK".to_owned()));
            }
        }
    };
    let check = |cluster: &Cluster| {
        let mut client = cluster.client();
        for index in (0..12_000).step_by(17) {
            let reply = client.call(&["GET", &format!("{{s}}{index}")]).expect("answers");
            assert_eq!(reply, Reply::Bulk(format!("{index}{value}").into_bytes()), "key {index}");
        }
    };
    write(&cluster, leader, 0..6_000);
    eventually(
        Duration::from_secs(30),
        || "every node has written a snapshot".to_owned(),
        || cluster.nodes.iter().all(|node| snapshot_count(node) > 0),
    );
    // More, so that the log goes on behind the snapshot.
    write(&cluster, leader, 6_000..12_000);
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_ready();
    check(&cluster);

    // The log no longer reaches back to the beginning: a new replica needs the snapshot.
    let other = (cluster.leader_of("{s}") + 1) % 3;
    let id_before = cluster.nodes[other].ask(&["CLUSTER", "MYID"]).text();
    cluster.nodes[other].kill();
    cluster.nodes[other].wipe();
    cluster.nodes[other].start();
    cluster.wait_ready();
    let watcher = (other + 1) % 3;
    eventually(
        Duration::from_secs(60),
        || format!("the new replicas vote\n{}", cluster.nodes[other].log()),
        || {
            let status = cluster.nodes[watcher].ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
            !status.contains("\"voter\":false") && !status.contains(&id_before)
        },
    );
    eventually(
        Duration::from_secs(30),
        || "leadership moves to the new node".to_owned(),
        || cluster.nodes[other].ask(&["CLUSTER", "FAILOVER"]) == Reply::Simple("OK".to_owned()),
    );
    check(&cluster);
}

/// Published snapshots of data groups in a node's directory.
fn snapshot_count(node: &super::harness::Node) -> usize {
    let groups = std::fs::read_dir(node.directory.join("groups")).into_iter().flatten().flatten();
    let data = groups.filter(|group| !group.file_name().to_string_lossy().starts_with("0-"));
    let files = data.flat_map(|group| std::fs::read_dir(group.path()).into_iter().flatten().flatten());
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "kvs")).count()
}
