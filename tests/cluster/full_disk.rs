//! Full disks: reads go on, writes are done or refused, nothing acknowledged is lost, and no node has to be restarted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::disks::Disk;
use super::harness::{Cluster, ClusterClient, Node, Reply, eventually};

const WAIT: Duration = Duration::from_secs(30);
/// For a replica to move, on any machine.
const MOVE_WAIT: Duration = Duration::from_secs(240);
const SIZE: &str = "48m";
const FLAGS: &[&str] = &["--log-segment-bytes", "1mb", "--log-bytes-max", "2mb"];
const REFUSED: &str = "MISCONF Errors writing to the AOF file: No space left on device";

/// `None` where mounting is not allowed.
fn start(nodes: usize, disk_free_min: &str) -> Option<(Cluster, Vec<Disk>)> {
    let mut cluster = Cluster::prepare(nodes, &[FLAGS, &["--disk-free-min", disk_free_min]].concat());
    let disks: Option<Vec<Disk>> = cluster.nodes.iter().map(|node| Disk::mount(&node.directory, SIZE)).collect();
    let Some(disks) = disks else {
        println!("skipped: mounting is not allowed here");
        return None;
    };
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    Some((cluster, disks))
}

/// A client that remembers what it was told.
struct Writer {
    client: ClusterClient,
    acknowledged: BTreeMap<String, String>,
    written: usize,
}

impl Writer {
    fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.client(), acknowledged: BTreeMap::new(), written: 0 }
    }

    /// A large value under one of 20 keys; false if it was refused.
    fn write(&mut self) -> bool {
        self.written += 1;
        let (key, value) = (format!("key:{}", self.written % 20), format!("{}-{}", self.written, "x".repeat(60_000)));
        match self.client.call(&["SET", &key, &value]) {
            Ok(Reply::Simple(_)) => {
                self.acknowledged.insert(key, value);
                true
            }
            Ok(Reply::Error(text)) => {
                assert!(text == REFUSED || text.starts_with("CLUSTERDOWN"), "{text}");
                false
            }
            Ok(other) => panic!("{other:?}"),
            // It may have been done.
            Err(_) => {
                self.acknowledged.remove(&key);
                false
            }
        }
    }

    fn read_all(&mut self) {
        for (key, value) in &self.acknowledged {
            let found = self.client.call(&["GET", key]).expect("answers").text();
            assert!(found == *value, "{key} is {:.20} of {} bytes and not {value:.20}", found, found.len());
        }
    }
}

fn states(node: &Node) -> Vec<String> {
    let status = node.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    status.split("\"state\":\"").skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
}

fn leads_something(node: &Node) -> bool {
    (0..20).any(|key| matches!(node.ask(&["GET", &format!("key:{key}")]), Reply::Bulk(_) | Reply::Null))
}

#[test]
fn a_node_with_a_full_disk_leaves_its_groups_to_the_others_and_catches_up_by_itself() {
    let Some((mut cluster, disks)) = start(3, "8mb") else { return };
    let mut writer = Writer::new(&cluster);
    (0..20).for_each(|_| assert!(writer.write()));
    disks[0].fill();
    let full = || format!("the others lead: {:?}\n{}", states(&cluster.nodes[1]), cluster.nodes[0].log());
    eventually(WAIT, full, || {
        writer.write();
        !leads_something(&cluster.nodes[0]) && states(&cluster.nodes[1]).contains(&"full".to_owned())
    });
    // Several times what the node's log has in reserve, and more than the others keep for it.
    (0..300).for_each(|_| assert!(writer.write(), "a majority has space"));
    writer.read_all();
    assert!(!leads_something(&cluster.nodes[0]), "it is not handed back what it cannot write");

    disks[0].free();
    let caught_up = || {
        let status = cluster.nodes[1].ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
        !status.contains("\"full\"") && !status.replace("\"lag_entries\":0", "").contains("\"lag_entries\"")
    };
    eventually(WAIT, || format!("the node has caught up\n{}", cluster.nodes[0].log()), caught_up);
    cluster.nodes[1].kill();
    let mut survivors = ClusterClient::new(&[cluster.nodes[0].port, cluster.nodes[2].port]);
    eventually(
        WAIT,
        || "two nodes serve".to_owned(),
        || (0..20).all(|key| matches!(survivors.call(&["GET", &format!("key:{key}")]), Ok(Reply::Bulk(_)))),
    );
    writer.client = survivors;
    writer.read_all();
    let log = cluster.nodes[0].log();
    assert_eq!(log.matches("the disk is full").count(), 1, "said once: {log}");
    assert!(!cluster.nodes[0].has_ended() && !cluster.nodes[2].has_ended());
}

#[test]
fn with_every_disk_full_reads_go_on_and_writes_are_refused_until_there_is_space() {
    let Some((mut cluster, disks)) = start(3, "8mb") else { return };
    let mut writer = Writer::new(&cluster);
    (0..40).for_each(|_| assert!(writer.write()));
    disks.iter().for_each(Disk::fill);
    let mut refused_in_a_row = 0;
    eventually(
        WAIT,
        || format!("writes are refused\n{}", cluster.nodes[0].log()),
        || {
            refused_in_a_row = if writer.write() { 0 } else { refused_in_a_row + 1 };
            refused_in_a_row == 60
        },
    );
    let leader = &cluster.nodes[cluster.leader_of("key:1")];
    assert_eq!(leader.ask(&["FLUSHALL"]), Reply::Error(REFUSED.to_owned()));
    writer.read_all();
    let infos = || -> Vec<String> { cluster.nodes.iter().map(|node| node.ask(&["INFO"]).text()).collect() };
    assert!(infos().iter().any(|info| info.contains("errorstat_MISCONF")), "{:?}", infos());
    // Two of three without space refuse; the third looks at its own disk once a second.
    eventually(
        WAIT,
        || format!("every node says that its disk is full {:?}", infos()),
        || infos().iter().all(|info| info.contains("aof_last_write_status:err")),
    );
    // An election needs votes and an entry to be written: there is the reserve.
    for taker in [1, 2] {
        let told = cluster.nodes[taker].ask(&["CLUSTER", "FAILOVER"]).text();
        assert_eq!(told, "OK");
        let follows =
            || (0..20).all(|key| matches!(writer.client.call(&["GET", &format!("key:{key}")]), Ok(Reply::Bulk(_))));
        eventually(WAIT, || format!("node {taker} leads\n{}", cluster.nodes[taker].log()), follows);
    }
    writer.read_all();
    assert!(!writer.write(), "still full");

    disks.iter().for_each(Disk::free);
    let mut done_in_a_row = 0;
    eventually(
        WAIT,
        || format!("writes are done again\n{}", cluster.nodes[0].log()),
        || {
            done_in_a_row = if writer.write() { done_in_a_row + 1 } else { 0 };
            done_in_a_row == 60
        },
    );
    writer.read_all();
    assert!(!cluster.nodes.iter_mut().any(Node::has_ended), "nothing was restarted");
}

/// The bytes of the node's snapshot of group 1.
fn snapshot_bytes(node: &Node) -> u64 {
    let below = |place: &Path| std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    let replicas = below(&node.directory.join("groups"));
    let own = replicas.filter(|place| place.file_name().is_some_and(|name| name.to_string_lossy().starts_with("1-")));
    let files = own.flat_map(|place| below(&place).collect::<Vec<_>>());
    let published = files.filter(|path| path.extension().is_some_and(|extension| extension == "kvs"));
    published.filter_map(|path| Some(path.metadata().ok()?.len())).max().unwrap_or(0)
}

#[test]
fn a_replica_that_does_not_fit_its_new_disk_stays_where_it_was_until_it_does() {
    let flags = [FLAGS, &["--disk-free-min", "1mb", "--groups", "1"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let (member, leaving) = (cluster.nodes[0].address().to_string(), cluster.nodes[2].address().to_string());
    let added = cluster.add(&[&flags[..], &["--join", &member]].concat());
    let Some(disk) = Disk::mount(&cluster.nodes[added].directory, "120m") else {
        println!("skipped: mounting is not allowed here");
        return;
    };
    disk.fill_with(95 << 20);
    let mut client = cluster.client();
    for key in 0..80 {
        let value = "x".repeat(500_000);
        assert_eq!(client.call(&["SET", &format!("key:{key}"), &value]).expect("answers").text(), "OK");
    }
    // Whoever leads sends its snapshot, and an old one would fit.
    let sizes = || cluster.nodes.iter().take(3).map(snapshot_bytes).collect::<Vec<_>>();
    eventually(
        MOVE_WAIT,
        || format!("snapshots are made: {:?}", sizes()),
        || sizes().iter().all(|bytes| *bytes > 30 << 20),
    );
    cluster.nodes[added].start();
    let status = || cluster.nodes[0].ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    let told = || format!("{}\n{}", status(), cluster.nodes[added].log());
    let has_joined = || states(&cluster.nodes[0]).iter().filter(|state| *state == "up").count() == 4;
    eventually(MOVE_WAIT, || format!("the node joins: {}", told()), has_joined);
    assert_eq!(cluster.nodes[0].ask(&["CLUSTER", "KVORUM", "REMOVE", &leaving]).text(), "OK");
    // Its replica is not on its way any more, nor is it anywhere else.
    let stays = || states(&cluster.nodes[0]).contains(&"full".to_owned()) && !status().contains("\"leaving\":true");
    eventually(MOVE_WAIT, || format!("the replica stays: {}", told()), stays);
    assert_eq!(cluster.nodes[added].log().matches("does not fit the disk").count(), 1, "{}", told());
    assert_eq!(states(&cluster.nodes[0]).len(), 4);
    disk.free();
    eventually(MOVE_WAIT, || format!("the replica moves: {}", told()), || states(&cluster.nodes[0]).len() == 3);
}

/// § Its removal would have to be logged: where nothing can be, a client is told so, and the reserve is kept for votes.
#[test]
fn on_a_full_disk_a_read_that_finds_a_key_past_due_is_refused() {
    // Until its log has ended, the disk does not count as full.
    let Some((cluster, disks)) = start(1, "0") else { return };
    let mut writer = Writer::new(&cluster);
    disks[0].fill();
    let refused = Reply::Error(REFUSED.to_owned());
    let mut is_refused = || {
        writer.write();
        writer.client.call(&["SET", "due", "v", "PX", "3000"]).is_ok_and(|reply| reply == refused)
    };
    eventually(WAIT, || format!("writes are refused\n{}", cluster.nodes[0].log()), &mut is_refused);
    let mut found = Reply::Null;
    let mut is_due = || {
        found = cluster.nodes[0].ask(&["GET", "due"]);
        found != Reply::Bulk(b"v".to_vec())
    };
    eventually(WAIT, || "the key is past due".to_owned(), &mut is_due);
    assert_eq!(found, refused);
    disks[0].free();
    eventually(WAIT, || "the key is gone".to_owned(), || cluster.nodes[0].ask(&["GET", "due"]) == Reply::Null);
}
