//! What Jepsen found in early builds of RedisRaft (jepsen.io/analyses/redis-raft-1b3fbf6), one test each. A stale read after a pause
//! is in `failures.rs`, a snapshot that is missing or does not meet the log in `recovery.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::harness::{Cluster, ClusterClient, Connection, Node, Reply, eventually};
use crate::host::VIOLATION;

const CLIENTS: usize = 6;

/// What one client was told of the tokens that it appended to its key.
#[derive(Default)]
struct Told {
    key: String,
    acknowledged: Vec<u64>,
    refused: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    errors: BTreeSet<String>,
}

impl Told {
    /// One token after the other until told to stop. Every reply counts, MOVED too.
    fn append_until(key: String, ports: &[u16], stop: &AtomicBool) -> Self {
        let mut told = Self { key, ..Self::default() };
        let (mut port, mut connection) = (ports[0], None);
        for token in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Some(open) = connection.take().or_else(|| Connection::open(port).ok()) else {
                port = ports[token as usize % ports.len()];
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let mut open: Connection = open;
            match open.call(&["APPEND", &told.key, &format!("{token},")]) {
                Ok(Reply::Integer(_)) => told.acknowledged.push(token),
                Ok(Reply::Error(text)) => {
                    told.refused.insert(token);
                    match text.strip_prefix("MOVED ").and_then(|rest| rest.rsplit(':').next()?.parse().ok()) {
                        Some(leader) if leader != port => {
                            port = leader;
                            continue;
                        }
                        _ => drop(told.errors.insert(text)),
                    }
                }
                Ok(other) => panic!("APPEND answers {other:?}"),
                Err(_) => {
                    told.unknown.insert(token);
                    port = ports[token as usize % ports.len()];
                    continue;
                }
            }
            connection = Some(open);
        }
        told
    }

    fn check(&self, client: &mut ClusterClient) {
        let text = client.call(&["GET", &self.key]).expect("answers").text();
        let found: Vec<u64> = text.split_terminator(',').map(|token| token.parse().expect("a token")).collect();
        assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] < pair[1]), "{VIOLATION}{}: {text}", self.key);
        let found: BTreeSet<u64> = found.into_iter().collect();
        let lost: Vec<_> = self.acknowledged.iter().filter(|token| !found.contains(token)).collect();
        assert!(lost.is_empty(), "{VIOLATION}{}: acknowledged and lost: {lost:?}", self.key);
        let undead: Vec<_> = self.refused.intersection(&found).collect();
        assert!(undead.is_empty(), "{VIOLATION}{}: refused and done: {undead:?}", self.key);
    }
}

fn append_until(stop: &Arc<AtomicBool>, ports: &[u16]) -> Vec<JoinHandle<Told>> {
    let client = |number: usize| {
        let (stop, ports) = (stop.clone(), ports.to_vec());
        std::thread::spawn(move || Told::append_until(format!("c{number}"), &ports, &stop))
    };
    (0..CLIENTS).map(client).collect()
}

fn end(stop: &AtomicBool, clients: Vec<JoinHandle<Told>>) -> Vec<Told> {
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().map(|client| client.join().expect("no panic")).collect()
}

/// Issues "infinite RPUSH" and "NOLEADER from a healthy leader": without any fault a command took effect again and again, or was refused.
#[test]
fn a_healthy_cluster_does_every_command_once_and_refuses_none() {
    let cluster = Cluster::start(3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = append_until(&stop, &cluster.ports());
    std::thread::sleep(Duration::from_secs(2));
    let told = end(&stop, clients);
    let mut client = cluster.client();
    for one in &told {
        one.check(&mut client);
        assert!(one.acknowledged.len() > 10, "{} only", one.acknowledged.len());
        assert!(one.errors.is_empty() && one.unknown.is_empty(), "{:?} {:?}", one.errors, one.unknown);
    }
}

/// "Total data loss on failover": the new leader began with nothing.
#[test]
fn after_every_failover_all_data_is_there() {
    let mut cluster = Cluster::start(3, &[]);
    let mut client = cluster.client();
    let check = |client: &mut ClusterClient, count: usize| {
        for index in 0..count {
            let key = format!("k{index}");
            let mut reply = Reply::Null;
            eventually(
                Duration::from_secs(10),
                || format!("{key} is served"),
                || match client.call(&["GET", &key]) {
                    Ok(answer @ (Reply::Bulk(_) | Reply::Null)) => {
                        reply = answer;
                        true
                    }
                    Ok(_) | Err(_) => false,
                },
            );
            assert_eq!(reply, Reply::Bulk(index.to_string().into_bytes()), "{key}");
        }
    };
    for round in 0..3 {
        for index in round * 50..(round + 1) * 50 {
            client.call(&["SET", &format!("k{index}"), &index.to_string()]).expect("answers");
        }
        cluster.nodes[round].kill();
        let others: Vec<u16> = cluster.ports().into_iter().filter(|port| *port != cluster.nodes[round].port).collect();
        check(&mut ClusterClient::new(&others), (round + 1) * 50);
        cluster.nodes[round].start();
        cluster.wait_ready();
        client = cluster.client();
        check(&mut client, (round + 1) * 50);
    }
}

/// Asks for `k` from the moment the port opens; everything that was answered before `stop`.
fn read_from_start(node: &Node, stop: &Arc<AtomicBool>, reads: &Arc<AtomicUsize>) -> JoinHandle<Vec<Reply>> {
    let (port, stop, reads) = (node.port, stop.clone(), reads.clone());
    std::thread::spawn(move || {
        let mut replies = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let answered = Connection::open(port).and_then(|mut connection| connection.call(&["GET", "k"]));
            match answered {
                Ok(reply @ (Reply::Bulk(_) | Reply::Null)) => {
                    replies.push(reply);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => (),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        replies
    })
}

/// "Stale and empty reads": a leader that had not applied an entry of its own term yet answered from what it had.
#[test]
fn nodes_that_restart_together_serve_no_empty_or_stale_read() {
    let mut cluster = Cluster::start(3, &[]);
    for round in 0..3 {
        let newest = format!("round {round}");
        assert_eq!(cluster.client().call(&["SET", "k", &newest]).expect("answers"), Reply::Simple("OK".to_owned()));
        cluster.nodes.iter_mut().for_each(Node::kill);
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let readers: Vec<_> = cluster.nodes.iter().map(|node| read_from_start(node, &stop, &reads)).collect();
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        let read = || reads.load(Ordering::Relaxed) > 0;
        eventually(Duration::from_secs(20), || "somebody has read".to_owned(), read);
        stop.store(true, Ordering::Relaxed);
        let replies: Vec<Reply> = readers.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect();
        assert!(replies.iter().all(|reply| *reply == Reply::Bulk(newest.clone().into_bytes())), "{replies:?}");
    }
}

/// The same of a group with one voter: the snapshot ends with an entry of the leadership before, and nobody has to be asked for a lease.
#[test]
fn a_node_alone_that_restarts_serves_no_state_of_its_snapshot() {
    let mut cluster = Cluster::start(1, &["--log-bytes-max", "16mb", "--log-segment-bytes", "4mb"]);
    let filler = "x".repeat(64 << 10);
    let mut number = 0;
    let mut client = cluster.client();
    let mut set_more = |count: usize| {
        for _ in 0..count {
            number += 1;
            let reply = client.call(&["SET", "k", &format!("{number:08}{filler}")]).expect("answers");
            assert_eq!(reply, Reply::Simple("OK".to_owned()));
        }
        format!("{number:08}")
    };
    eventually(
        Duration::from_secs(20),
        || "a snapshot".to_owned(),
        || {
            set_more(40);
            cluster.nodes[0].log().contains("wrote a snapshot")
        },
    );
    let newest = set_more(60);
    cluster.nodes[0].kill();
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let reader = read_from_start(&cluster.nodes[0], &stop, &reads);
    cluster.nodes[0].start();
    cluster.wait_ready();
    let read = || reads.load(Ordering::Relaxed) > 3;
    eventually(Duration::from_secs(20), || "somebody has read".to_owned(), read);
    stop.store(true, Ordering::Relaxed);
    for reply in reader.join().expect("no panic") {
        let Reply::Bulk(value) = reply else { panic!("{reply:?}") };
        assert_eq!(String::from_utf8_lossy(&value[..8]), newest);
    }
}

/// "Aborted writes that took effect": an error was answered for what then was committed.
#[test]
fn an_error_never_belongs_to_a_write_that_took_effect() {
    let cluster = Cluster::start(3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = append_until(&stop, &cluster.ports());
    // Leaders go round: by transfer, and past a node that stands still.
    for round in 0..12 {
        std::thread::sleep(Duration::from_millis(200));
        cluster.nodes[round % 3].ask(&["CLUSTER", "FAILOVER"]);
        if round % 4 == 3 {
            let paused = &cluster.nodes[(round + 1) % 3];
            paused.signal("STOP");
            std::thread::sleep(Duration::from_millis(1500));
            paused.signal("CONT");
        }
    }
    cluster.wait_ready();
    let told = end(&stop, clients);
    assert!(told.iter().any(|one| !one.refused.is_empty()), "nobody was ever redirected");
    let mut client = cluster.client();
    told.iter().for_each(|one| one.check(&mut client));
}

/// "Split brain": a membership change while nodes could not reach each other left two leaders.
#[test]
fn a_node_that_joins_while_the_leader_stands_still_splits_nothing() {
    let mut cluster = Cluster::start(3, &["--groups", "1"]);
    let leader = cluster.leader_of("c0");
    let wiped = (leader + 1) % 3;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = append_until(&stop, &cluster.ports());
    std::thread::sleep(Duration::from_millis(300));
    cluster.nodes[leader].signal("STOP");
    cluster.nodes[wiped].kill();
    cluster.nodes[wiped].wipe();
    cluster.nodes[wiped].start();
    // One voter is left: it can neither take writes nor change the membership.
    std::thread::sleep(Duration::from_secs(2));
    cluster.nodes[leader].signal("CONT");
    cluster.wait_ready();
    std::thread::sleep(Duration::from_millis(500));
    let told = end(&stop, clients);
    let mut client = cluster.client();
    told.iter().for_each(|one| one.check(&mut client));
    assert!(told.iter().all(|one| !one.acknowledged.is_empty()));
    let ids: BTreeSet<String> = cluster
        .nodes
        .iter()
        .map(|node| {
            let nodes = node.ask(&["CLUSTER", "NODES"]).text();
            let mut ids: Vec<&str> = nodes.lines().filter_map(|line| line.split(' ').next()).collect();
            ids.sort_unstable();
            ids.join(" ")
        })
        .collect();
    assert_eq!(ids.len(), 1, "the nodes agree on who belongs: {ids:?}");
}

/// "Unreadable snapshots" and "log and snapshot that do not meet": a crash while a snapshot was written, or between it and the purge.
#[test]
fn a_node_killed_while_it_writes_snapshots_comes_back_with_everything() {
    let flags = ["--groups", "1", "--log-bytes-max", "1mb", "--log-segment-bytes", "1mb"];
    let mut cluster = Cluster::start(1, &flags);
    let stop = Arc::new(AtomicBool::new(false));
    let (port, stopped) = (cluster.ports()[0], stop.clone());
    let writer = std::thread::spawn(move || {
        let (mut client, mut acknowledged, padding) = (ClusterClient::new(&[port]), Vec::new(), "x".repeat(20_000));
        for number in 0_u64.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("k{}", number % 50);
            if let Ok(Reply::Simple(_)) = client.call(&["SET", &key, &format!("{number} {padding}")]) {
                acknowledged.push((key, number));
            }
        }
        acknowledged
    });
    let snapshots = |node: &Node| node.log().matches("wrote a snapshot").count();
    for round in 0..5_u32 {
        let before = snapshots(&cluster.nodes[0]);
        let node = &cluster.nodes[0];
        eventually(Duration::from_secs(20), || "snapshots are written".to_owned(), || snapshots(node) > before);
        std::thread::sleep(Duration::from_millis(u64::from(round) * 7));
        cluster.nodes[0].kill();
        cluster.nodes[0].start();
        cluster.wait_ready();
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().expect("no panic");
    let mut client = cluster.client();
    for (key, number) in acknowledged.iter().rev().take(50) {
        let newest = acknowledged.iter().rev().find(|(other, _)| other == key).map_or(0, |(_, newest)| *newest);
        let text = client.call(&["GET", key]).expect("answers").text();
        let found: u64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        // What came last may have been in the air at a kill.
        assert!(found >= newest, "{key} is {found}, acknowledged was {newest} ({number})");
    }
}
