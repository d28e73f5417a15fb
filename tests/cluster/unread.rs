//! Clients that ask for much and read nothing.

use std::time::{Duration, Instant};

use super::harness::{Cluster, Reply};

const VALUE_BYTES: usize = 20 << 20;
/// What a request of another client may wait meanwhile.
const WAIT_MAX: Duration = Duration::from_millis(1500);

/// § What waits for them is made in parts, between which the others and the groups' heartbeats get their turn: no leader changes on a node that is well.
#[test]
fn clients_that_read_nothing_hold_up_nobody_else() {
    let cluster = Cluster::start(3, &[]);
    let node = &cluster.nodes[cluster.leader_of("{big}")];
    let value = "v".repeat(VALUE_BYTES);
    assert_eq!(node.ask(&["SET", "{big}", &value]), Reply::Simple("OK".into()));
    drop(value);
    let mut writer = node.connect();
    let unread: Vec<_> = (0..3)
        .map(|_| {
            let mut connection = node.connect();
            for _ in 0..200 {
                connection.send(&["GET", "{big}"]).expect("sends");
            }
            connection
        })
        .collect();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        let reply = writer.call(&["INCR", "{big}count"]).expect("answers");
        assert!(matches!(reply, Reply::Integer(_)), "another leads now: {reply:?}");
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("the longest request took {longest:?}");
    assert!(longest < WAIT_MAX, "{longest:?}");
    drop(unread);
}
