//! What clients see of a healthy cluster.

use std::io::BufRead as _;
use std::time::Duration;

use super::harness::{Cluster, Connection, Node, Reply, encode, eventually};
use crate::host::Stopwatch;

#[test]
fn one_node_without_flags_owns_all_slots_and_keeps_its_data() {
    let mut cluster = Cluster::start(1, &[]);
    let node = &mut cluster.nodes[0];
    let mut connection = node.connect();
    for index in 0..100 {
        let reply = connection.call(&["SET", &format!("key:{index}"), &index.to_string()]).expect("answers");
        assert_eq!(reply, Reply::Simple("OK".to_owned()));
    }
    assert_eq!(node.stop(), Some(0));
    node.start();
    eventually(Duration::from_secs(20), || "ready again".to_owned(), || node.is_ready());
    let mut connection = node.connect();
    for index in 0..100 {
        let reply = connection.call(&["GET", &format!("key:{index}")]).expect("answers");
        assert_eq!(reply, Reply::Bulk(index.to_string().into_bytes()));
    }
    connection.call(&["GET", "none"]).expect("answers");
    let stats = connection.call(&["INFO", "stats"]).expect("answers").text();
    assert!(stats.contains("keyspace_hits:100\r\nkeyspace_misses:1\r\n"), "{stats}");
}

#[test]
fn access_marks_are_read_by_the_policy_and_left_by_who_wants_to() {
    let cluster = Cluster::start(1, &[]);
    let mut connection = cluster.nodes[0].connect();
    let mut say = |line: &str| connection.call(&line.split(' ').collect::<Vec<_>>()).expect("answers").text();
    say("CONFIG SET maxmemory-policy allkeys-lfu");
    assert_eq!((say("SET k v").as_str(), say("OBJECT FREQ k").as_str()), ("OK", "5"));
    say("CLIENT NO-TOUCH on");
    assert_eq!((say("GET k").as_str(), say("OBJECT FREQ k").as_str()), ("v", "5"));
    assert_eq!((say("TOUCH k").as_str(), say("OBJECT FREQ k").as_str()), ("1", "6"));
    say("CLIENT NO-TOUCH off");
    say("SET l v");
    assert_eq!((say("GET l").as_str(), say("OBJECT FREQ l").as_str()), ("v", "6"));
    assert!(say("OBJECT IDLETIME k").starts_with("ERR An LFU maxmemory policy is selected, idle time not tracked."));
    say("CONFIG SET maxmemory-policy noeviction");
    assert!(say("OBJECT IDLETIME k").parse::<u64>().is_ok());
    assert!(say("OBJECT FREQ k").starts_with("ERR An LFU maxmemory policy is not selected"));
    // Behind a write of the same turn, reads are answered from the log.
    say("CONFIG SET maxmemory-policy allkeys-lfu");
    say("CLIENT NO-TOUCH on");
    let words: [&[&str]; 3] = [&["SET", "m", "v"], &["GET", "m"], &["OBJECT", "FREQ", "m"]];
    let turn: Vec<u8> = words.iter().flat_map(|words| encode(words)).collect();
    connection.send_raw(&turn).expect("sends");
    let replies = [(); 3].map(|()| connection.receive().expect("answers").text());
    assert_eq!(replies, ["OK", "v", "5"]);
}

#[test]
fn a_key_of_another_node_answers_moved_with_three_words_and_a_reachable_address() {
    let cluster = Cluster::start(3, &[]);
    let replies: Vec<Reply> = cluster.nodes.iter().map(|node| node.ask(&["GET", "foo"])).collect();
    let leader = cluster.leader_of("foo");
    for (index, reply) in replies.iter().enumerate() {
        if index == leader {
            assert_eq!(*reply, Reply::Null);
            continue;
        }
        assert_eq!(*reply, Reply::Error(format!("MOVED 12182 127.0.0.1:{}", cluster.nodes[leader].port)));
    }
}

#[test]
fn pipelines_of_reads_and_writes_are_answered_in_order() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of("{p}");
    let mut connection = cluster.nodes[leader].connect();
    let mut expected = Vec::new();
    for index in 0..500 {
        let key = format!("{{p}}{}", index % 7);
        connection.send(&["SET", &key, &index.to_string()]).expect("sends");
        connection.send(&["GET", &key]).expect("sends");
        connection.send(&["PING"]).expect("sends");
        connection.send(&["GET", "foo{other tag}"]).expect("sends");
        expected.extend([Some("OK".to_owned()), Some(index.to_string()), Some("PONG".to_owned()), None]);
    }
    for (number, expected) in expected.into_iter().enumerate() {
        let reply = connection.receive().expect("answers");
        match expected {
            Some(text) => assert_eq!(reply.text(), text, "reply {number}"),
            // Another tag: nil here, or MOVED.
            None => assert!(matches!(reply, Reply::Null | Reply::Error(_)), "reply {number}: {reply:?}"),
        }
    }
}

#[test]
fn of_a_transaction_that_is_refused_nothing_happens() {
    let cluster = Cluster::start(1, &[]);
    let mut connection = cluster.nodes[0].connect();
    let all = |connection: &mut Connection, requests: &[&[&str]]| -> Vec<String> {
        requests.iter().for_each(|request| connection.send(request).expect("sends"));
        requests.iter().map(|_| connection.receive().expect("answers").text()).collect()
    };
    let replies = all(&mut connection, &[&["MULTI"], &["INCR", "n"], &["GET", "n"], &["exec"], &["GET", "n"]]);
    let begins = |reply: &str, text: &str| assert!(reply.starts_with(text), "{reply}");
    begins(&replies[0], "ERR unknown command 'MULTI'");
    begins(&replies[1], "ERR not run");
    begins(&replies[2], "ERR not run");
    begins(&replies[3], "ERR unknown command 'exec'");
    assert_eq!(replies[4], "(nil)");
    begins(&all(&mut connection, &[&["multi"]])[0], "ERR unknown command 'multi'");
    begins(&all(&mut connection, &[&["INCR", "n"]])[0], "ERR not run");
    begins(&all(&mut connection, &[&["RESET"]])[0], "RESET");
    assert_eq!(all(&mut connection, &[&["INCR", "n"]]), ["1"]);
    begins(&all(&mut connection, &[&["MULTI"]])[0], "ERR unknown command 'MULTI'");
    // Silent in the middle of a request.
    connection.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$3\r\n10").expect("sends");
    std::thread::sleep(Duration::from_millis(1200));
    connection.send_raw(b"0\r\n").expect("sends");
    begins(&connection.receive().expect("answers").text(), "ERR not run");
    // The node stands still, not the client.
    begins(&all(&mut connection, &[&["MULTI"]])[0], "ERR unknown command 'MULTI'");
    cluster.nodes[0].signal("STOP");
    cluster.nodes[0].wait_stopped();
    connection.send(&["INCR", "n"]).expect("sends");
    std::thread::sleep(Duration::from_millis(1200));
    cluster.nodes[0].signal("CONT");
    begins(&connection.receive().expect("answers").text(), "ERR not run");
    // It has seen the error, and does not end what has not begun.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(all(&mut connection, &[&["INCR", "n"]]), ["2"]);
}

#[test]
fn what_follows_multi_is_refused_only_where_redis_would_begin_a_transaction() {
    let cluster = Cluster::start(1, &[]);
    let say = |connection: &mut Connection, line: &str| -> String {
        connection.call(&line.split(' ').collect::<Vec<_>>()).expect("answers").text()
    };
    let mut first = cluster.nodes[0].connect();
    assert!(say(&mut first, "MULTI x").starts_with("ERR unknown command 'MULTI'"));
    assert_eq!(say(&mut first, "PING"), "PONG");
    assert_eq!(say(&mut first, "CONFIG SET requirepass pw"), "OK");
    for login in ["AUTH pw", "HELLO 2 AUTH default pw"] {
        let mut stranger = cluster.nodes[0].connect();
        assert_eq!(say(&mut stranger, "MULTI"), "NOAUTH Authentication required.");
        assert!(!say(&mut stranger, login).starts_with("ERR"), "{login}");
        assert_eq!(say(&mut stranger, "PING"), "PONG");
        assert!(say(&mut stranger, "MULTI").starts_with("ERR unknown command 'MULTI'"));
        assert!(say(&mut stranger, "MULTI x").starts_with("ERR not run"));
        assert!(!say(&mut stranger, login).starts_with("ERR"), "{login}");
        assert!(say(&mut stranger, "PING").starts_with("ERR not run"), "{login} does not end it");
        assert!(say(&mut stranger, "DISCARD").starts_with("ERR unknown command 'DISCARD'"));
    }
    assert!(say(&mut first, "AUTH wrong").starts_with("WRONGPASS"));
    assert!(say(&mut first, "INFO stats").contains("acl_access_denied_auth:1\r\n"));
}

#[test]
fn replies_are_skipped_one_by_one() {
    let cluster = Cluster::start(1, &[]);
    let mut connection = cluster.nodes[0].connect();
    for (lines, expected) in [
        (&["CLIENT REPLY SKIP", "ECHO 1", "ECHO 2"][..], "2"),
        (&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "ECHO 1", "ECHO 3"], "3"),
        (&["CLIENT REPLY SKIP", "RESET", "ECHO 4"], "4"),
        (&["CLIENT REPLY SKIP", "CLIENT REPLY ON", "ECHO 5"], "OK"),
        (&[], "5"),
        (&["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "ECHO 6", "RESET", "ECHO 7"], "RESET"),
        (&[], "7"),
    ] {
        for line in lines {
            connection.send(&line.split(' ').collect::<Vec<_>>()).expect("sends");
        }
        assert_eq!(connection.receive().expect("answers").text(), expected, "{lines:?}");
    }
}

#[test]
fn who_waits_for_a_pause_to_end_counts_as_blocked() {
    let cluster = Cluster::start(1, &[]);
    let node = &cluster.nodes[0];
    let mut paused = node.connect();
    let id = paused.call(&["CLIENT", "ID"]).expect("answers").text();
    assert_eq!(node.ask(&["CLIENT", "PAUSE", "60000", "WRITE"]).text(), "OK");
    paused.send(&["SET", "k", "v"]).expect("sends");
    let blocked = || node.ask(&["INFO", "clients"]).text().contains("blocked_clients:1\r\n");
    eventually(Duration::from_secs(5), || "the client is blocked".to_owned(), blocked);
    let line = node.ask(&["CLIENT", "LIST", "ID", &id]).text();
    assert!(line.contains(" flags=b ") && line.contains(" cmd=set "), "{line}");
    assert_eq!(node.ask(&["CLIENT", "UNBLOCK", &id]), Reply::Integer(0));
    assert_eq!(node.ask(&["CLIENT", "UNPAUSE"]).text(), "OK");
    assert_eq!(paused.receive().expect("answers").text(), "OK");
    assert!(node.ask(&["INFO", "clients"]).text().contains("blocked_clients:0\r\n"));
}

#[test]
fn what_was_not_run_is_in_no_slow_log_and_counts_for_what_was_named() {
    let cluster = Cluster::start(1, &[]);
    let mut connection = cluster.nodes[0].connect();
    let mut say = |line: &str| connection.call(&line.split(' ').collect::<Vec<_>>()).expect("answers").text();
    say("CONFIG SET slowlog-log-slower-than 0");
    say("SLOWLOG RESET");
    for refused in ["foo", "get", "client foo", "config get", "auth"] {
        assert!(say(refused).starts_with("ERR "), "{refused}");
    }
    say("ECHO run");
    assert!(say("DEBUG HELP").starts_with("DEBUG <subcommand>"));
    let slow = say("SLOWLOG GET -1");
    assert!(slow.contains("ECHO run") && !slow.contains("foo") && !slow.contains("get"), "{slow}");
    let counted = say("INFO commandstats");
    assert!(counted.contains("cmdstat_config|get:calls=0,"), "{counted}");
    assert!(!counted.contains("cmdstat_client:") && !counted.contains("cmdstat_config:"), "{counted}");
    say("CONFIG SET maxclients 1");
    let refused = cluster.nodes[0].connect().receive().expect("answers").text();
    assert_eq!(refused, "ERR max number of clients + cluster connections reached");
}

#[test]
fn a_node_of_several_refuses_a_wrong_reset_at_once_and_counts_its_peers_bytes_anew() {
    let cluster = Cluster::start(3, &[]);
    let node = &cluster.nodes[0];
    let asked = Stopwatch::start();
    assert_eq!(node.ask(&["CLUSTER", "RESET", "foo"]), Reply::Error("ERR syntax error".to_owned()));
    assert!(!asked.is_over(Duration::from_millis(900)), "{:?}", asked.elapsed());
    let read = || {
        let stats = node.ask(&["INFO", "stats"]).text();
        let bytes =
            stats.lines().find_map(|line| line.strip_prefix("total_net_repl_input_bytes:")?.parse::<u64>().ok());
        bytes.expect("the field is there")
    };
    let before = read();
    assert_eq!(node.ask(&["CONFIG", "RESETSTAT"]).text(), "OK");
    assert!(read() < before, "less than the {before} bytes since the start");
}

/// CLUSTER SLOTS, NODES and SHARDS of one node, without what a node says of itself alone.
fn views(connection: &mut Connection) -> [Reply; 3] {
    let mut view = |name| connection.call(&["CLUSTER", name]).expect("answers");
    let nodes = view("NODES").text();
    let mut lines: Vec<String> = nodes.lines().map(|line| line.replace("myself,", "")).collect();
    lines.sort();
    [view("SLOTS"), Reply::Simple(lines.join("\n")), view("SHARDS")]
}

/// Looks at all nodes until they agree and name `leader` for key slot 12182, never seeing a hole. From `since`, the change of leader.
fn check_views_agree(connections: &mut [Connection], leader: u16, since: &Stopwatch) {
    loop {
        let seen: Vec<[Reply; 3]> = connections.iter_mut().map(views).collect();
        assert!(seen.iter().all(|[slots, ..]| covered(slots) == 16384), "no hole at any time");
        if seen.windows(2).all(|pair| pair[0] == pair[1]) && leader_of(&seen[0][0], 12182) == leader {
            println!("all nodes agree {:?} after the change", since.elapsed());
            return;
        }
        assert!(!since.is_over(Duration::from_secs(1)), "within a second of the change: {seen:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn leader_of(slots: &Reply, key_slot: i64) -> u16 {
    let range = slots.items().iter().find_map(|range| match range.items() {
        [Reply::Integer(first), Reply::Integer(last), leader, ..] if (*first..=*last).contains(&key_slot) => {
            Some(leader.items()[1].text())
        }
        _ => None,
    });
    range.and_then(|port| port.parse().ok()).expect("every key slot has a node")
}

#[test]
fn every_node_shows_the_same_topology_within_a_second_of_a_change_and_never_a_hole() {
    let mut cluster = Cluster::start(3, &[]);
    let mut connections: Vec<Connection> = cluster.nodes.iter().map(Node::connect).collect();
    // Planned changes: to each node in turn.
    for _ in 0..3 {
        let leader = cluster.leader_of("foo");
        let next = (leader + 1) % 3;
        eventually(
            Duration::from_secs(10),
            || "a failover".to_owned(),
            || cluster.nodes[next].ask(&["CLUSTER", "FAILOVER"]) == Reply::Simple("OK".to_owned()),
        );
        check_views_agree(&mut connections, cluster.nodes[next].port, &Stopwatch::start());
    }
    // An election.
    let victim = cluster.leader_of("foo");
    connections.remove(victim);
    cluster.nodes[victim].kill();
    let survivors: Vec<usize> = (0..3).filter(|node| *node != victim).collect();
    let mut leader = None;
    eventually(
        Duration::from_secs(5),
        || "a new leader".to_owned(),
        || {
            assert!(connections.iter_mut().all(|connection| covered(&views(connection)[0]) == 16384), "no hole");
            // A command would wait for the election on the server; who leads is known from CLUSTER HASHSLOT.
            leader = survivors.iter().copied().find(|node| {
                let answer = cluster.nodes[*node].ask(&["CLUSTER", "HASHSLOT", "foo"]).text();
                answer.contains(&cluster.nodes[*node].port.to_string())
            });
            leader.is_some()
        },
    );
    let leader = cluster.nodes[leader.expect("found")].port;
    check_views_agree(&mut connections, leader, &Stopwatch::start());
    // The dead node is shown as such, and no longer than it is dead.
    check_views_say(&mut connections, "is shown as failed", |nodes, shards| {
        nodes.matches(" master,fail - 0 0 ").count() == 1
            && nodes.matches(" disconnected").count() == 1
            && shards.matches("health fail").count() == 1
    });
    cluster.nodes[victim].start();
    check_views_say(&mut connections, "is back", |nodes, shards| !nodes.contains("fail") && !shards.contains("fail"));
}

/// Waits until CLUSTER NODES and SHARDS of every node are as expected.
fn check_views_say(connections: &mut [Connection], what: &str, expected: impl Fn(&str, &str) -> bool) {
    eventually(
        Duration::from_secs(15),
        || format!("the killed node {what}"),
        || connections.iter_mut().map(views).all(|[_, nodes, shards]| expected(&nodes.text(), &shards.text())),
    );
}

fn covered(slots: &Reply) -> i64 {
    let range = |entry: &Reply| match entry.items() {
        [Reply::Integer(first), Reply::Integer(last), ..] => last - first + 1,
        other => panic!("not a range: {other:?}"),
    };
    slots.items().iter().map(range).sum()
}

#[test]
fn a_key_seen_expired_stays_so_and_ttl_counts_down() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client();
    client.call(&["SET", "short", "v", "PX", "300"]).expect("answers");
    let ttl = client.call(&["PTTL", "short"]).expect("answers");
    assert!(matches!(ttl, Reply::Integer(1..=300)), "{ttl:?}");
    eventually(
        Duration::from_secs(3),
        || "the key expires".to_owned(),
        || client.call(&["GET", "short"]).expect("answers") == Reply::Null,
    );
    let leader = cluster.leader_of("short");
    let next = (leader + 1) % 3;
    // Leadership moves; the key stays gone.
    eventually(
        Duration::from_secs(10),
        || "a failover".to_owned(),
        || cluster.nodes[next].ask(&["CLUSTER", "FAILOVER"]) == Reply::Simple("OK".to_owned()),
    );
    assert_eq!(client.call(&["EXISTS", "short"]).expect("answers"), Reply::Integer(0));
}

#[test]
fn malformed_requests_get_redis_errors_and_then_the_connection_closes() {
    let cluster = Cluster::start(1, &[]);
    for (bytes, expected) in [
        (&b"*1\r\n:3\r\n"[..], "ERR Protocol error: expected '$', got ':'"),
        (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n$-5\r\n", "ERR Protocol error: invalid bulk length"),
        (b"SET \"unbalanced\r\n", "ERR Protocol error: unbalanced quotes in request"),
    ] {
        let mut connection = cluster.nodes[0].connect();
        connection.send_raw(bytes).expect("sends");
        assert_eq!(connection.receive().expect("answers"), Reply::Error(expected.to_owned()));
        assert!(connection.receive().is_err(), "the connection is closed after {expected}");
    }
    // What a web page makes a browser send, and what a client that wants no replies does.
    for bytes in [
        &b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSET a b\r\n"[..],
        b"host: localhost\r\nSET a b\r\n",
        b"*2\r\n$4\r\npost\r\n$1\r\na\r\nSET a b\r\n",
        b"CLIENT REPLY OFF\r\n*a\r\n",
    ] {
        let mut connection = cluster.nodes[0].connect();
        connection.send_raw(bytes).expect("sends");
        let closed = connection.receive().expect_err("nothing is answered").kind();
        assert_eq!(closed, std::io::ErrorKind::UnexpectedEof, "{bytes:?}");
    }
    assert_eq!(cluster.nodes[0].ask(&["EXISTS", "a"]), Reply::Integer(0));
    assert_eq!(cluster.nodes[0].ask(&["PING"]), Reply::Simple("PONG".to_owned()));
}

#[test]
fn large_values_travel_and_survive_a_restart() {
    let mut cluster = Cluster::start(3, &[]);
    let value: Vec<u8> = (0..20_000_000u32).map(|byte| (byte % 251) as u8).collect();
    let mut client = cluster.client();
    assert_eq!(client.call(&[&b"SET"[..], b"large", &value]).expect("answers").text(), "OK");
    assert!(client.call(&["GET", "large"]).expect("answers") == Reply::Bulk(value.clone()));
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_ready();
    let mut client = cluster.client();
    assert!(client.call(&["GET", "large"]).expect("answers") == Reply::Bulk(value));
}

#[test]
fn pipelines_of_large_values_are_answered_in_order_in_both_read_modes() {
    for mode in ["lease", "read-index"] {
        let cluster = Cluster::start(1, &["--read-mode", mode]);
        let mut connection = cluster.nodes[0].connect();
        let value = |index: usize| format!("{index}").repeat(100_000 + index);
        let started = Stopwatch::start();
        // Reads behind writes, of far more than one stretch may hold, and reads that come back with another value in between.
        for index in 0..300 {
            let key = format!("{{l}}{}", index % 3);
            connection.send(&["SET", &key, &value(index)]).expect("sends");
            connection.send(&["GET", &key]).expect("sends");
            connection.send(&["MGET", &key, "{l}none", &key]).expect("sends");
            connection.send(&["GETRANGE", &key, "0", "-2"]).expect("sends");
            connection.send(&["PING"]).expect("sends");
            if index % 50 == 49 {
                for index in index - 49..=index {
                    let value = value(index);
                    assert_eq!(connection.receive().expect("answers").text(), "OK");
                    assert!(connection.receive().expect("answers").text() == value, "GET {index}");
                    let mget = connection.receive().expect("answers");
                    let [first, second, third] = mget.items() else { panic!("{mget:?}") };
                    assert!(first.text() == value && *second == Reply::Null && third.text() == value, "MGET {index}");
                    assert!(connection.receive().expect("answers").text() == value[..value.len() - 1]);
                    assert_eq!(connection.receive().expect("answers").text(), "PONG");
                }
            }
        }
        assert!(!started.is_over(Duration::from_secs(20)), "{mode}: nothing waits for a back-off");
    }
}

#[test]
fn many_reads_of_large_values_need_no_more_memory_than_one_reply_and_lcs_rides_behind_a_write() {
    let cluster = Cluster::start(1, &[]);
    let mut connection = cluster.nodes[0].connect();
    let large = "x".repeat(8 << 20);
    connection.call(&["SET", "{l}large", &large]).expect("answers");
    let many: Vec<&str> = std::iter::once("MGET").chain(std::iter::repeat_n("{l}large", 200)).collect();
    let refused = connection.call(&many).expect("answers").text();
    assert!(refused.starts_with("ERR reply exceeds maximum allowed size"), "{refused:.100}");
    connection.send(&["SET", "{l}small", "xxyx"]).expect("sends");
    connection.send(&many).expect("sends");
    connection.send(&["LCS", "{l}small", "{l}small", "LEN"]).expect("sends");
    connection.send(&["GET", "{l}small"]).expect("sends");
    assert_eq!(connection.receive().expect("answers").text(), "OK");
    let refused = connection.receive().expect("answers").text();
    assert!(refused.starts_with("ERR reply exceeds maximum allowed size"), "{refused:.100}");
    assert_eq!(connection.receive().expect("answers"), Reply::Integer(4));
    assert_eq!(connection.receive().expect("answers").text(), "xxyx");
}

/// Megabytes.
fn resident(node: &Node) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number") / 1024
}

#[test]
fn clients_that_do_not_read_a_large_value_hold_no_copy_of_it_beyond_their_limit() {
    let cluster = Cluster::start(1, &["--client-output-limit", "1mb"]);
    let node = &cluster.nodes[0];
    node.connect().call(&["SET", "large", &"x".repeat(40 << 20)]).expect("answers");
    let before = resident(node);
    let mut clients: Vec<Connection> = (0..20).map(|_| node.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(&["GET", "large"]).expect("sends"));
    // Each has got a part, and what the sockets hold.
    clients.iter_mut().for_each(|client| {
        client.reader().fill_buf().expect("reads");
    });
    assert!(resident(node) < before + 200, "{} MB, {before} before", resident(node));
    for client in &mut clients {
        assert_eq!(client.receive().expect("answers").text().len(), 40 << 20);
    }
    assert_eq!(node.connect().call(&["PING"]).expect("answers").text(), "PONG");
}

#[test]
fn keys_and_commands_that_no_entry_could_hold_are_refused() {
    let cluster = Cluster::start(1, &[]);
    let mut connection = cluster.nodes[0].connect();
    let key = vec![b'k'; (16 << 20) + 1];
    for words in [vec![&b"SET"[..], &key, b"v"], vec![b"GET", &key]] {
        let refused = connection.call(&words).expect("answers").text();
        assert_eq!(refused, "ERR key exceeds maximum allowed size (16777216 bytes)");
    }
    assert_eq!(connection.call(&[&b"SET"[..], &key[1..], b"v"]).expect("answers").text(), "OK");
    let half = vec![b'v'; 300 << 20];
    let refused = connection.call(&[&b"MSET"[..], b"{a}1", &half, b"{a}2", &half]).expect("answers").text();
    assert!(refused.starts_with("ERR command exceeds maximum allowed size"), "{refused}");
    assert_eq!(connection.call(&["PING"]).expect("answers").text(), "PONG");
}

#[test]
fn wait_tells_of_the_groups_written_to_and_ends_with_its_client() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of("{w}");
    let mut connection = cluster.nodes[leader].connect();
    assert_eq!(connection.call(&["SET", "{w}", "v"]).expect("answers").text(), "OK");
    assert_eq!(connection.call(&["WAIT", "2", "5000"]).expect("answers"), Reply::Integer(2));
    // Nobody waits for a third replica for ever.
    connection.send(&["WAIT", "3", "0"]).expect("sends");
    connection.close_sending();
    assert_eq!(connection.receive().expect("answers"), Reply::Integer(2));
    // CLIENT UNBLOCK ends it either way. Waiting is not work: it enters no slow log.
    let mut waiting = cluster.nodes[leader].connect();
    assert_eq!(waiting.call(&["SET", "{w}", "v"]).expect("answers").text(), "OK");
    // The one that was not waited for may be some milliseconds behind.
    assert_eq!(waiting.call(&["WAIT", "2", "5000"]).expect("answers"), Reply::Integer(2));
    let id = waiting.call(&["CLIENT", "ID"]).expect("answers").text();
    assert_eq!(cluster.nodes[leader].ask(&["CLIENT", "UNBLOCK", &id]), Reply::Integer(0));
    waiting.call(&["CONFIG", "SET", "slowlog-log-slower-than", "1"]).expect("answers");
    for (reason, expected) in [
        ("TIMEOUT", Reply::Integer(2)),
        ("ERROR", Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned())),
    ] {
        waiting.send(&["WAIT", "3", "0"]).expect("sends");
        let blocked = || cluster.nodes[leader].ask(&["INFO", "clients"]).text().contains("blocked_clients:1\r\n");
        eventually(Duration::from_secs(5), || "the client is blocked".to_owned(), blocked);
        assert_eq!(cluster.nodes[leader].ask(&["CLIENT", "UNBLOCK", &id, reason]), Reply::Integer(1));
        assert_eq!(waiting.receive().expect("answers"), expected);
    }
    assert!(!cluster.nodes[leader].ask(&["SLOWLOG", "GET", "-1"]).text().contains("WAIT"));
    let mut moved = cluster.nodes[leader].connect();
    assert_eq!(moved.call(&["SET", "{w}", "w"]).expect("answers").text(), "OK");
    eventually(
        Duration::from_secs(10),
        || "a failover".to_owned(),
        || cluster.nodes[(leader + 1) % 3].ask(&["CLUSTER", "FAILOVER"]) == Reply::Simple("OK".to_owned()),
    );
    assert_eq!(moved.call(&["WAIT", "1", "100"]).expect("answers"), Reply::Integer(0), "another node knows");
}

#[test]
fn every_node_tells_the_lag_and_the_keys_of_all_groups() {
    // Each of four nodes lacks a replica of one group.
    let cluster = Cluster::start(4, &["--replicas", "3"]);
    cluster.client().call(&["SET", "k", "v"]).expect("answers");
    for node in &cluster.nodes {
        let status = || node.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
        eventually(
            Duration::from_secs(10),
            || format!("node {} knows all: {}", node.port, status()),
            || {
                let status = status();
                // The meta group has no keys, and an odd number of voters.
                !status.contains("\"lag_entries\":null")
                    && status.matches("\"voter\":false").count() == 1
                    && status.matches("\"keys\":null").count() == 1
                    && status.matches("\"keys\":1").count() == 1
            },
        );
    }
}
