//! Wall clocks that are wrong. What a leader does with its own is in `src/clock.rs`; here, that one among three decides nothing.

use super::harness::{Cluster, Node, Reply};
use super::shim::Shim;

const KEYS: usize = 60;
const TTL_SECONDS: &str = "1800";

/// § Written by a clock that is behind, they would expire at the first start of all nodes after it is put right. Which clocks a leader hears first is chance:
/// where it does not wait for all, this fails two times of three.
#[test]
fn keys_outlive_a_clock_that_was_an_hour_behind_and_is_put_right() {
    let mut cluster = Cluster::prepare(3, &[]);
    let Some(shim) = Shim::build(cluster.directory(), "control") else {
        println!("skipped: no C compiler here");
        return;
    };
    shim.load_into(&mut cluster.nodes[0]);
    shim.shift_wall_clock(-3600);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    let mut client = cluster.client();
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        assert_eq!(client.call(&["SET", key, "kept", "EX", TTL_SECONDS]).expect("answers"), Reply::Simple("OK".into()));
    }
    shim.shift_wall_clock(0);
    for node in &mut cluster.nodes {
        assert_eq!(node.stop(), Some(0));
    }
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    let mut client = cluster.client();
    let left = keys.iter().filter(|key| client.call(&["GET", key]).expect("answers").text() == "kept").count();
    assert_eq!(left, KEYS, "keys that are there, half an hour before they are due");
}
