//! A disk that cannot sync stops its node, cleanly: what it was told is there may be gone, and only a new start finds out.

use std::time::Duration;

use super::harness::{Cluster, Node, eventually};
use super::shim::Shim;
use crate::host::Stopwatch;

/// Error lines a human has to read: what is wrong and what to do, and that the node stops.
const ERRORS_MAX: usize = 3;
/// Less than a planned stop would wait for leaderships to be taken over.
const STOP_MAX: Duration = Duration::from_secs(2);

#[test]
fn a_sync_that_fails_stops_the_node_which_says_why_once_and_comes_back_with_everything() {
    let mut cluster = Cluster::prepare(3, &[]);
    let Some(shim) = Shim::build(cluster.directory(), "control") else {
        println!("skipped: no C compiler here");
        return;
    };
    shim.load_into(&mut cluster.nodes[0]);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    let mut client = cluster.client();
    let keys: Vec<String> = (0..50).map(|number| format!("key:{number}")).collect();
    keys.iter().for_each(|key| assert_eq!(client.call(&["SET", key, key]).expect("answers").text(), "OK"));
    let lines_before = cluster.nodes[0].log().lines().count();

    shim.fail_syncs(true);
    // Node 0 follows in the group of one of these, if not in all; what becomes of them is not known.
    let mut asked: Vec<_> = cluster.nodes.iter().map(Node::connect).collect();
    asked.iter_mut().for_each(|asked| keys.iter().for_each(|key| drop(asked.send(&["SET", key, key]))));
    let said = || cluster.nodes[0].log().contains("this node cannot go on");
    eventually(Duration::from_secs(10), || cluster.nodes[0].log(), said);
    let failing = Stopwatch::start();
    let code = cluster.nodes[0].wait(Duration::from_secs(20));
    assert!(code.is_some_and(|code| code != 0), "it stopped by itself, and not for good: {code:?}");
    assert!(!failing.is_over(STOP_MAX), "it was of no use for {:?}", failing.elapsed());
    let log = cluster.nodes[0].log();
    let lines: Vec<&str> = log.lines().skip(lines_before).collect();
    let errors = lines.iter().filter(|line| line.contains("ERROR")).count();
    let last = lines.last().expect("it said something");
    assert!((1..=ERRORS_MAX).contains(&errors), "{errors} errors:\n{}", lines.join("\n"));
    assert!(last.contains("cannot sync") && last.contains("Check the disk"), "the last line says what to do: {last}");

    shim.fail_syncs(false);
    cluster.nodes[0].start();
    cluster.wait_ready();
    let mut survivors = super::harness::ClusterClient::new(&cluster.ports()[..2]);
    keys.iter().for_each(|key| assert_eq!(survivors.call(&["GET", key]).expect("answers").text(), *key));
}
