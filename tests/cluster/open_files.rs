//! A low limit of open files: clients are refused before the log, snapshots and peers lack descriptors.

use std::time::Duration;

use super::harness::{Cluster, Connection, Reply, eventually};

const LIMIT: usize = 300;
/// What is left beside the 256 of the node's own.
const CLIENTS_MAX: usize = LIMIT - 256;

#[test]
fn clients_are_refused_before_the_node_itself_can_open_no_more_files() {
    let mut cluster = Cluster::prepare(1, &["--log-segment-bytes", "1mb", "--log-bytes-max", "4mb"]);
    let node = &mut cluster.nodes[0];
    let limited = format!("ulimit -n {LIMIT} && exec \"$0\" \"$@\"");
    node.program = ["sh", "-c", &limited].into_iter().map(str::to_owned).chain(node.program.clone()).collect();
    node.start();
    cluster.wait_ready();
    let node = &cluster.nodes[0];
    assert!(node.log().contains("too low for maxclients") && node.log().contains("10000"), "{}", node.log());
    let mut first = node.connect();
    let told = first.call(&["CONFIG", "GET", "maxclients"]).expect("answers");
    assert!(matches!(&told, Reply::Array(words) if words[1].text() == CLIENTS_MAX.to_string()), "{told:?}");
    let refused = first.call(&["CONFIG", "SET", "maxclients", "10000"]).expect("answers").text();
    assert!(refused.ends_with(&format!("specified number of clients, try with {CLIENTS_MAX}")), "{refused}");

    // Those who asked whether it is ready are gone.
    let mut alone =
        || first.call(&["INFO", "clients"]).is_ok_and(|info| info.text().contains("connected_clients:1\r\n"));
    eventually(Duration::from_secs(10), || "one client is left".to_owned(), &mut alone);
    let mut crowd: Vec<Connection> = (0..LIMIT).filter_map(|_| Connection::open(node.port).ok()).collect();
    let served = crowd.iter_mut().filter_map(|client| client.call(&["PING"]).ok());
    assert_eq!(served.filter(|reply| reply.text() == "PONG").count(), CLIENTS_MAX - 1);
    // Several segments and snapshots.
    let value = "v".repeat(100_000);
    for index in 0..100 {
        let reply = first.call(&["SET", &format!("key:{}", index % 10), &value]).expect("answers");
        assert_eq!(reply.text(), "OK", "{index}: {}", node.log());
    }
    let segments = std::fs::read_dir(node.directory.join("log")).expect("a directory").flatten();
    let newest = segments.map(|file| file.file_name()).max().expect("segments");
    assert!(newest.to_str() > Some("wal-00000000000000000001.log"), "more than the first segment");
    assert!(!node.log().contains("too many files"), "{}", node.log());
}
