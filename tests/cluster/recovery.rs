//! What the log keeps, and a node whose directory has lost a part.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::harness::{Cluster, Node, Reply, eventually};

const SMALL_LOG: &[&str] = &["--groups", "1", "--log-bytes-max", "1mb", "--log-segment-bytes", "1mb"];
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the log of group 1 that a node keeps in memory.
fn log_bytes(node: &Node) -> u64 {
    let info = node.ask(&["INFO"]).text();
    let group = info.lines().find(|line| line.starts_with("group_1:")).expect("the group is listed");
    let bytes = group.split("log_bytes=").nth(1).expect("its log is counted");
    bytes.trim().parse().expect("a number")
}

fn write_large(node: &Node, count: usize, bytes: usize) {
    let (mut connection, value) = (node.connect(), "v".repeat(bytes));
    for index in 0..count {
        let reply = connection.call(&["SET", &format!("k{}", index % 10), &format!("{index}{value}")]);
        assert_eq!(reply.expect("answers"), Reply::Simple("OK".to_owned()));
    }
}

/// The snapshots' directory of group 1.
fn snapshots(node: &Node) -> std::path::PathBuf {
    let groups = fs::read_dir(node.directory.join("groups")).expect("reads").flatten();
    let mut groups = groups.map(|group| group.path()).filter(|path| !path.ends_with("0-1"));
    groups.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("1-"))).expect("is there")
}

fn has_snapshot(directory: &Path) -> bool {
    let files = fs::read_dir(directory).expect("reads").flatten();
    files.into_iter().any(|file| file.path().extension().is_some_and(|extension| extension == "kvs"))
}

#[test]
fn the_log_of_large_values_is_purged_by_bytes_not_by_count() {
    let cluster = Cluster::start(1, SMALL_LOG);
    let node = &cluster.nodes[0];
    write_large(node, 100, 200_000);
    eventually(
        Duration::from_secs(10),
        || format!("{} bytes of log are kept", log_bytes(node)),
        || log_bytes(node) <= 2 * LOG_BYTES_MAX,
    );
    let written = node.log().matches("wrote a snapshot").count();
    assert!((1..=20).contains(&written), "{written} snapshots for 20 MB");
    // The meta group, which writes nothing, does not hold the segments that it shares; they go as others are begun.
    let segments = || fs::read_dir(node.directory.join("log")).expect("reads").count() - 1;
    eventually(
        Duration::from_secs(20),
        || format!("{} segments are left", segments()),
        || {
            write_large(node, 1, 200_000);
            segments() <= 5
        },
    );
}

#[test]
fn a_node_that_lost_a_part_of_its_directory_is_refused_and_comes_back_with_it() {
    let mut cluster = Cluster::start(1, SMALL_LOG);
    let node = &mut cluster.nodes[0];
    write_large(node, 30, 200_000);
    let place = snapshots(node);
    eventually(
        Duration::from_secs(10),
        || "the log is purged behind a snapshot".to_owned(),
        || has_snapshot(&place) && log_bytes(node) <= 2 * LOG_BYTES_MAX,
    );
    node.kill();
    let away = node.directory.join("away");
    for (part, complaint) in [(place.clone(), "lacks the snapshot"), (node.directory.join("log"), "the log is missing")]
    {
        fs::rename(&part, &away).expect("moves");
        // The first refusal must not leave behind what makes the next start look whole.
        for _ in 0..2 {
            fs::create_dir_all(&part).expect("an emptied directory is as bad as none");
            node.start();
            assert_ne!(node.wait(Duration::from_secs(20)), Some(0));
            assert!(node.log().contains(complaint) && node.log().contains(&node.directory.display().to_string()));
        }
        fs::remove_dir_all(&part).expect("removes");
        fs::rename(&away, &part).expect("moves back");
    }
    let file = node.directory.join("node.kvn");
    fs::rename(&file, &away).expect("moves");
    for _ in 0..2 {
        node.start();
        assert_ne!(node.wait(Duration::from_secs(20)), Some(0));
        assert!(node.log().contains("node.kvn is missing"), "{}", node.log());
    }
    fs::rename(&away, &file).expect("moves back");
    // What a replica left behind that the topology took away while the node was down.
    let removed = node.directory.join("groups/1-999");
    fs::create_dir_all(removed.join("full")).expect("creates");
    node.start();
    let node = &cluster.nodes[0];
    cluster.wait_ready();
    assert!(node.ask(&["GET", "k9"]).text().starts_with("29v"));
    eventually(Duration::from_secs(5), || "the removed replica's directory goes".to_owned(), || !removed.exists());
}

#[test]
fn a_follower_that_stands_still_does_not_make_the_leader_keep_the_log() {
    let cluster = Cluster::start(3, SMALL_LOG);
    let leader = cluster.leader_of("k0");
    let (node, paused) = (&cluster.nodes[leader], &cluster.nodes[(leader + 1) % 3]);
    paused.signal("STOP");
    paused.wait_stopped();
    write_large(node, 100, 200_000);
    eventually(
        Duration::from_secs(10),
        || format!("{} bytes of log are kept", log_bytes(node)),
        || log_bytes(node) <= 2 * LOG_BYTES_MAX,
    );
    paused.signal("CONT");
    let applied = |node: &Node| {
        let info = node.ask(&["INFO"]).text();
        let group = info.lines().find(|line| line.starts_with("group_1:")).map(str::to_owned);
        group.and_then(|group| group.split("applied=").nth(1)?.split(',').next()?.parse::<u64>().ok())
    };
    eventually(
        Duration::from_secs(20),
        || format!("it is brought up to date: {:?}\n{}", applied(paused), paused.log()),
        || applied(paused).is_some_and(|index| Some(index) >= applied(node)),
    );
}
