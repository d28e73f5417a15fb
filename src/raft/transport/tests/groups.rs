//! Real Raft groups over the transport.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use openraft::{Config, Raft, SnapshotPolicy};
use tokio::sync::watch;

use super::nodes::*;
use super::store::{MemoryLog, MemoryMachine};
use crate::cluster::{GroupId, ReplicaId};
use crate::raft::{Batch, Member, TypeConfig};

const GROUP: GroupId = GroupId(3);

struct Replica {
    id: u64,
    raft: Raft<TypeConfig, MemoryMachine>,
    machine: MemoryMachine,
    directory: tempfile::TempDir,
}

async fn replica(node: &Node, id: u64) -> Replica {
    let config = Config {
        heartbeat_interval: 60,
        election_timeout_min: 300,
        election_timeout_max: 600,
        heartbeat_min_interval: Some(60),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..Config::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let machine = MemoryMachine::default();
    machine.0.lock().directory = directory.path().to_owned();
    let network = node.transport.network(GROUP, Arc::default(), watch::channel(0).1);
    let config = Arc::new(config.validate().unwrap());
    let raft = Raft::new(id, config, network, MemoryLog::default(), machine.clone()).await.unwrap();
    node.transport.register(GROUP, ReplicaId(id), raft.clone(), place(directory.path()));
    Replica { id, raft, machine, directory }
}

async fn group(nodes: &[Node], voters: usize) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        replicas.push(replica(node, 101 + index as u64).await);
    }
    let members: BTreeMap<u64, Member> =
        replicas.iter().zip(nodes).take(voters).map(|(replica, node)| (replica.id, Member { node: node.id })).collect();
    replicas[0].raft.initialize(members).await.unwrap();
    replicas
}

/// Elected is not enough: openraft refuses writes until a quorum has acknowledged the leader.
fn leads(replica: &Replica) -> bool {
    replica.raft.as_leader().is_ok_and(|leader| leader.last_quorum_acked().is_some())
}

async fn leader(replicas: &[Replica]) -> &Replica {
    until("a leader is elected", || replicas.iter().any(leads)).await;
    replicas.iter().find(|replica| leads(replica)).unwrap()
}

async fn stop(nodes: Vec<Node>, replicas: Vec<Replica>) {
    for replica in replicas {
        replica.raft.shutdown().await.unwrap();
    }
    for node in nodes {
        node.transport.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_elect_replicate_and_transfer_leadership() {
    let nodes = connected_nodes(3).await;
    let replicas = group(&nodes, 3).await;
    let first = leader(&replicas).await;

    // Many writers at once, so that appends are pipelined; sizes on all sides of the codec's and frames' limits.
    let sizes = [1, 100, 5_000, 20_000, 300_000, 3_000_000];
    let writes = (0..300).map(|number| {
        let (raft, size) = (first.raft.clone(), if number < 12 { sizes[number % 6] } else { 64 });
        tokio::spawn(async move { raft.client_write(Batch(vec![number as u8; size].into())).await.unwrap() })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let expected = first.machine.0.lock().text.clone();
    for replica in &replicas {
        until("all replicas applied the same", || replica.machine.0.lock().text == expected).await;
    }

    let next = replicas.iter().find(|replica| replica.id != first.id).unwrap();
    let start = Instant::now();
    first.raft.trigger().transfer_leader(next.id).await.unwrap();
    until("the other leads", || leads(next)).await;
    assert!(start.elapsed() < Duration::from_millis(250), "transferred, not elected: {:?}", start.elapsed());
    next.raft.client_write(Batch(Bytes::from_static(b"after"))).await.unwrap();
    stop(nodes, replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_fell_behind_gets_the_snapshot() {
    let nodes = connected_nodes(2).await;
    let replicas = group(&nodes, 1).await;
    let leader = leader(&replicas).await;
    // 5 MB: more chunks than may be in flight.
    for number in 0..50 {
        leader.raft.client_write(Batch(vec![number; 100_000].into())).await.unwrap();
    }
    let last = leader.machine.0.lock().applied.unwrap().index;
    leader.raft.trigger().snapshot().await.unwrap();
    leader.raft.wait(Some(DEADLINE)).metrics(|m| m.snapshot.is_some_and(|s| s.index >= last), "built").await.unwrap();
    leader.raft.trigger().purge_log(last).await.unwrap();
    leader.raft.wait(Some(DEADLINE)).metrics(|m| m.purged.is_some_and(|p| p.index >= last), "purged").await.unwrap();

    let learner = &replicas[1];
    leader.raft.add_learner(learner.id, Member { node: nodes[1].id }, true).await.unwrap();
    let expected = leader.machine.0.lock().text.clone();
    until("the learner has it all", || learner.machine.0.lock().text == expected).await;
    let left: Vec<_> =
        std::fs::read_dir(learner.directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["snapshot"], "no temporary file stays");

    leader.raft.change_membership(BTreeSet::from([leader.id, learner.id]), false).await.unwrap();
    leader.raft.client_write(Batch(Bytes::from_static(b"both"))).await.unwrap();
    stop(nodes, replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_value_does_not_cost_the_leader_its_place() {
    let nodes = connected_nodes(3).await;
    let replicas = group(&nodes, 3).await;
    let first = leader(&replicas).await;
    let term = first.raft.as_leader().unwrap().leader_id().term;
    let large = Batch(vec![5; 24 * 1024 * 1024].into());
    first.raft.client_write(large).await.unwrap();
    first.raft.client_write(Batch(Bytes::from_static(b"small"))).await.unwrap();
    assert_eq!(first.raft.as_leader().unwrap().leader_id().term, term);
    stop(nodes, replicas).await;
}
