//! Connections, frames and misbehaving peers, with replicas that only note what reaches them.

use futures_util::StreamExt;
use openraft::EntryPayload;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::Fatal;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::nodes::*;
use crate::cluster::{GroupId, ReplicaId};
use crate::raft::log::Room;
use crate::raft::transport::codec::{AppendRequest, AppendResult, SnapshotBegin, SnapshotChunk, SnapshotEnd};
use crate::raft::transport::frame::Kind;
use crate::raft::transport::handshake::{self, Hello, PROTOCOL_OLDEST, PROTOCOL_VERSION};
use crate::raft::transport::network::PeerNetwork;
use crate::raft::transport::registry::RaftPort;
use crate::raft::transport::wire::{Listener, Stream, Tcp, Wire};
use crate::raft::transport::{CallError, Refusal};
use crate::raft::{Batch, Entry, LogId, Member, SnapshotFile, SnapshotMeta, TypeConfig, Vote};

const GROUP: GroupId = GroupId(1);
const REPLICA: ReplicaId = ReplicaId(11);

/// Notes what it is asked. Appends are answered when `gate` lets them.
#[derive(Clone)]
struct FakeReplica {
    calls: Arc<Mutex<Vec<&'static str>>>,
    gate: Arc<Semaphore>,
}

impl FakeReplica {
    fn register(node: &Node) -> Self {
        let fake = Self { calls: Arc::default(), gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)) };
        node.transport.register_port(GROUP, REPLICA, Arc::new(fake.clone()), place(&std::env::temp_dir()));
        fake
    }

    fn count(&self) -> usize {
        self.calls.lock().len()
    }
}

impl RaftPort for FakeReplica {
    fn stream_append(
        &self,
        input: BoxStream<'static, AppendRequest>,
    ) -> BoxStream<'static, Result<AppendResult, Fatal<TypeConfig>>> {
        let fake = self.clone();
        input
            .map(move |request| {
                fake.calls.lock().push(if request.entries.is_empty() { "heartbeat" } else { "append" });
                let gate = Arc::clone(&fake.gate);
                async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(Ok(request.entries.last().map(|entry| entry.log_id)))
                }
            })
            .buffered(64)
            .boxed()
    }

    fn vote(&self, request: VoteRequest<TypeConfig>) -> BoxFuture<'static, Option<VoteResponse<TypeConfig>>> {
        self.calls.lock().push("vote");
        Box::pin(async move { Some(VoteResponse::new(request.vote, None, true)) })
    }

    fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> BoxFuture<'static, Option<VoteResponse<TypeConfig>>> {
        self.calls.lock().push("pre-vote");
        Box::pin(async move { Some(VoteResponse::new(request.vote, None, false)) })
    }

    fn transfer_leader(
        &self,
        _: TransferLeaderRequest<TypeConfig>,
    ) -> BoxFuture<'static, Option<TransferLeaderResponse<TypeConfig>>> {
        Box::pin(async { None })
    }

    fn install_snapshot(
        &self,
        _: Vote,
        _: SnapshotMeta,
        _: SnapshotFile,
    ) -> BoxFuture<'static, Option<SnapshotResponse<TypeConfig>>> {
        self.calls.lock().push("install");
        Box::pin(async { None })
    }
}

fn vote() -> Vote {
    Vote { leader_id: LeaderId { term: 4, node_id: 1 }, committed: true }
}

fn append(index: u64, size: usize) -> AppendRequest {
    let log_id = LogId { leader_id: LeaderId { term: 4, node_id: 1 }, index };
    let entries = vec![Entry { log_id, payload: EntryPayload::Normal(Batch(vec![1; size].into())) }];
    AppendRequest { vote: vote(), prev_log_id: None, entries, leader_commit: None }
}

fn option() -> RPCOption {
    RPCOption::new(DEADLINE)
}

async fn client(from: &Node, to: &Node, target: u64) -> PeerNetwork {
    from.transport.network(GROUP, Arc::default(), watch::channel(0).1).new_client(target, &Member { node: to.id }).await
}

/// A raw connection to `node` that has shaken hands as node 0.
async fn raw(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.transport.local_addresses()[0]).await.unwrap();
    let config = config(0);
    let hello = Hello {
        version: PROTOCOL_VERSION,
        oldest: PROTOCOL_OLDEST,
        cluster: config.cluster,
        node: config.node,
        hash_vector: config.hash_vector,
        settings_fingerprint: config.settings_fingerprint,
        election_timeout: 400,
        password_check: 0,
    };
    handshake::dial(&mut stream, &hello, node.id).await.unwrap();
    stream
}

fn knowing_node_0() -> Seen {
    Seen { known: vec![node_id(0)], ..Seen::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused_and_the_right_one_accepted() {
    let right = start(2);
    let wrong = start_with(TransportConfig { cluster: ClusterId([8; 16]), ..config(1) }, Seen::default());
    introduce(&right, &wrong);
    introduce(&wrong, &right);
    let other = start(3);
    introduce(&right, &other);
    introduce(&other, &right);
    until("the right cluster's node is connected", || right.transport.is_connected(other.id)).await;
    let asked = wrong.transport.ask(right.id, 1, b"", DEADLINE).await;
    assert_eq!(asked, Err(CallError::NotConnected));
    assert_eq!(right.seen.changes.lock().as_slice(), [(other.id, true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_node_of_the_cluster_is_asked_of_the_receiver() {
    let (stranger, known) = (start(1), start(2));
    let judge = start_with(config(3), Seen { known: vec![known.id], ..Seen::default() });
    introduce(&stranger, &judge);
    introduce(&known, &judge);
    until("the known node is connected", || judge.transport.is_connected(known.id)).await;
    assert!(!judge.transport.is_connected(stranger.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_for_another_replica_id_never_arrives() {
    let nodes = connected_nodes(2).await;
    let fake = FakeReplica::register(&nodes[1]);
    let mut wrong = client(&nodes[0], &nodes[1], REPLICA.0 - 1).await;
    let error = wrong.vote(VoteRequest::new(vote(), None), option()).await.unwrap_err();
    assert!(error.to_string().contains("no such replica"), "{error}");
    assert!(wrong.append_entries(append(1, 10), option()).await.is_err());
    assert_eq!(fake.count(), 0);

    let mut right = client(&nodes[0], &nodes[1], REPLICA.0).await;
    assert!(right.vote(VoteRequest::new(vote(), None), option()).await.unwrap().vote_granted);
    assert!(!right.pre_vote(VoteRequest::new(vote(), None), option()).await.unwrap().vote_granted);
    nodes[1].transport.deregister(GROUP, REPLICA);
    assert!(right.vote(VoteRequest::new(vote(), None), option()).await.is_err());
    assert_eq!(fake.calls.lock().as_slice(), ["vote", "pre-vote"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_overtakes_a_bulk_of_50_mb() {
    let nodes = connected_nodes(2).await;
    let fake = FakeReplica::register(&nodes[1]);
    let mut bulk = client(&nodes[0], &nodes[1], REPLICA.0).await;
    let mut control = bulk.clone();
    let (appended, voted) = tokio::join!(bulk.append_entries(append(1, 50 << 20), option()), async {
        until("the bulk is queued", || nodes[0].transport.peers()[0].requests_pending > 0).await;
        control.vote(VoteRequest::new(vote(), None), option()).await
    });
    appended.unwrap();
    voted.unwrap();
    assert_eq!(fake.calls.lock().as_slice(), ["vote", "append"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_appends_are_in_flight_and_answers_keep_their_order() {
    let nodes = connected_nodes(2).await;
    let fake = FakeReplica::register(&nodes[1]);
    fake.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut network = client(&nodes[0], &nodes[1], REPLICA.0).await;
    let input = futures_util::stream::iter((1..=200).map(|index| append(index, 100)));
    let mut answers = network.stream_append(input, option()).await.unwrap();
    let gate = async {
        until("64 have arrived without an answer", || fake.count() == 64).await;
        fake.gate.add_permits(200);
    };
    let (first, ()) = tokio::join!(answers.next(), gate);
    let rest: Vec<_> = answers.collect().await;
    let indexes = first.into_iter().chain(rest).map(|answer| answer.unwrap().unwrap().unwrap().index);
    assert_eq!(indexes.collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_stuck_below_the_floor_is_given_up_and_one_above_it_is_not() {
    let nodes = connected_nodes(2).await;
    let fake = FakeReplica::register(&nodes[1]);
    fake.gate.forget_permits(Semaphore::MAX_PERMITS);
    let (floor, floor_seen) = watch::channel(0);
    let mut factory = nodes[0].transport.network(GROUP, Arc::default(), floor_seen);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(factory.new_client(REPLICA.0, &Member { node: nodes[1].id }).await);
    }
    let [waiting, full, above] = &mut clients[..] else { panic!("three") };
    let mut waiting = waiting.stream_append(futures_util::stream::iter([append(5, 100)]), option()).await.unwrap();
    // The second of these finds the window full.
    let large = futures_util::stream::iter([append(4, 40 << 20), append(5, 100)]);
    let mut full = full.stream_append(large, option()).await.unwrap();
    let give_up = async {
        until("the replica has the small one and gives no answer", || fake.count() >= 1).await;
        floor.send_replace(6);
    };
    let (waiting, full, ()) = tokio::join!(waiting.next(), full.next(), give_up);
    assert!(waiting.unwrap().is_err() && full.unwrap().is_err());
    fake.gate.add_permits(10);
    let mut above = above.stream_append(futures_util::stream::iter([append(6, 100)]), option()).await.unwrap();
    assert_eq!(above.next().await.unwrap().unwrap().unwrap().map(|log_id| log_id.index), Some(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_are_answered_or_refused() {
    let nodes = connected_nodes(2).await;
    for (from, to) in [(0, 1), (1, 0)] {
        let answer = nodes[from].transport.ask(nodes[to].id, 5, b"body", DEADLINE).await.unwrap();
        assert_eq!(answer.as_ref(), b"\x05body");
        let refused = nodes[from].transport.ask(nodes[to].id, 0, b"", DEADLINE).await;
        assert_eq!(refused, Err(CallError::Refused(Refusal::Stopped)));
    }
    let large = vec![0; crate::raft::ASK_BYTES_MAX + 1];
    assert_eq!(nodes[0].transport.ask(nodes[1].id, 5, &large, DEADLINE).await, Err(CallError::TooLarge));
    assert_eq!(nodes[0].transport.ask(node_id(9), 5, b"", DEADLINE).await, Err(CallError::NotConnected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_connected_peers_and_those_that_come_later() {
    let early = connected_nodes(2).await;
    assert!(early[0].transport.broadcast_hint(Bytes::from_static(b"first")));
    let got = |node: &Node, hint: &'static str| {
        let seen = Arc::clone(&node.seen);
        let from = early[0].id;
        move || seen.hints.lock().last().is_some_and(|(sender, last)| *sender == from && last == hint)
    };
    until("the hint arrives", got(&early[1], "first")).await;
    let late = start(9);
    introduce(&early[0], &late);
    introduce(&late, &early[0]);
    until("the late one gets it too", got(&late, "first")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_of_a_frame_is_forgotten_and_made_again() {
    let node = start_with(config(1), knowing_node_0());
    for _ in 0..3 {
        let mut stream = raw(&node).await;
        until("connected", || node.transport.is_connected(node_id(0))).await;
        let mut wire = bytes::BytesMut::new();
        super::super::frame::Header::of_node(Kind::Ask, 1).encode_whole(1000, &mut wire);
        stream.write_all(&wire).await.unwrap();
        stream.write_all(b"only this").await.unwrap();
        drop(stream);
        until("disconnected", || !node.transport.is_connected(node_id(0))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_fail_when_the_connection_breaks() {
    let nodes = connected_nodes(2).await;
    let fake = FakeReplica::register(&nodes[1]);
    fake.gate.forget_permits(Semaphore::MAX_PERMITS);
    let mut network = client(&nodes[0], &nodes[1], REPLICA.0).await;
    let (answer, ()) = tokio::join!(network.append_entries(append(1, 10), option()), async {
        until("the append arrived", || fake.count() == 1).await;
        nodes[1].transport.shutdown().await;
    });
    assert!(answer.unwrap_err().to_string().contains("connection broke"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_space_takes_no_ops_but_heartbeats_votes_and_what_elects_a_leader() {
    let nodes = [config(1), TransportConfig { room: Arc::new(Room::spent()), ..config(2) }]
        .map(|config| start_with(config, Seen::default()));
    introduce(&nodes[0], &nodes[1]);
    introduce(&nodes[1], &nodes[0]);
    until("they are connected", || nodes[0].transport.is_connected(nodes[1].id)).await;
    let fake = FakeReplica::register(&nodes[1]);
    let mut network = client(&nodes[0], &nodes[1], REPLICA.0).await;
    let error = network.append_entries(append(1, 10), option()).await.unwrap_err();
    assert!(error.to_string().contains("no space"), "{error}");
    assert_eq!(fake.count(), 0);
    let mut elects = append(1, 0);
    elects.entries[0].payload = EntryPayload::Blank;
    network.append_entries(elects, option()).await.unwrap();
    network.append_entries(AppendRequest { entries: Vec::new(), ..append(1, 0) }, option()).await.unwrap();
    network.vote(VoteRequest::new(vote(), None), option()).await.unwrap();
    assert_eq!(fake.calls.lock().as_slice(), ["append", "heartbeat", "vote"]);
}

/// Nobody is there; notes when it was asked.
struct Nobody(Arc<Mutex<Vec<tokio::time::Instant>>>);

impl Wire for Nobody {
    fn connect(&self, _: String, _: u16) -> BoxFuture<'static, std::io::Result<Stream>> {
        self.0.lock().push(tokio::time::Instant::now());
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }

    fn listen(&self, address: std::net::SocketAddr) -> std::io::Result<Arc<dyn Listener>> {
        Tcp.listen(address)
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_after_a_while_is_dialled_within_a_tenth_of_a_second() {
    let dialled = Arc::new(Mutex::new(Vec::new()));
    let wire = Arc::new(Nobody(dialled.clone()));
    let transport = Transport::start(wire, config(1), Arc::new(Seen::default())).unwrap();
    transport.set_peer(node_id(2), "127.0.0.1", 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dialled = dialled.lock();
    let longest = dialled.windows(2).map(|pair| pair[1] - pair[0]).max().expect("more than one");
    assert!(longest <= Duration::from_millis(101), "{longest:?}");
    assert!(dialled.len() < 700, "and not in a hurry: {}", dialled.len());
}

#[tokio::test]
async fn a_peer_is_dialled_where_it_was_named_to_be_and_where_it_says_that_it_is() {
    for named_is_right in [false, true] {
        let (node, peer) = (start(1), start(2));
        introduce(&peer, &node);
        let right = peer.transport.local_addresses()[0].port();
        let (named, told) = if named_is_right { (right, 1) } else { (1, right) };
        node.transport.hear_address(peer.id, "127.0.0.1", told);
        assert!(node.transport.peers().is_empty(), "only of nodes that were named");
        // Nothing runs between these two.
        node.transport.set_peer(peer.id, "127.0.0.1", named);
        node.transport.hear_address(peer.id, "127.0.0.1", told);
        until("they are connected", || node.transport.is_connected(peer.id)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_do_no_harm() {
    let node = start_with(config(1), knowing_node_0());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |len: usize| {
        let next = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        });
        next.take(len).collect::<Vec<u8>>()
    };
    for round in 0..60 {
        let mut stream = match round % 2 {
            0 => TcpStream::connect(node.transport.local_addresses()[0]).await.unwrap(),
            _ => raw(&node).await,
        };
        let mut bytes = random(50_000);
        if round % 4 == 3 {
            // A plausible length and kind, so that bodies are reached.
            bytes[..5].copy_from_slice(&[200, 0, 0, 0, 1 + round / 4 % 13]);
        }
        stream.write_all(&bytes).await.ok();
        stream.shutdown().await.ok();
        let mut rest = Vec::new();
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the node closes it").ok();
    }
    let _stream = raw(&node).await;
    until("still accepting", || node.transport.is_connected(node_id(0))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_dropped() {
    let node = start_with(TransportConfig { silent_max: Duration::from_millis(200), ..config(1) }, knowing_node_0());
    let _silent = raw(&node).await;
    until("connected", || node.transport.is_connected(node_id(0))).await;
    until("dropped", || !node.transport.is_connected(node_id(0))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_live_on_pings() {
    let silent_max = Duration::from_millis(200);
    let nodes = [1, 2].map(|number| start_with(TransportConfig { silent_max, ..config(number) }, Seen::default()));
    introduce(&nodes[0], &nodes[1]);
    introduce(&nodes[1], &nodes[0]);
    until("connected", || nodes.iter().all(|node| node.transport.peers()[0].connected_for.is_some())).await;
    until("idle for long", || nodes[0].transport.peers()[0].connected_for > Some(4 * silent_max)).await;
    assert!(nodes.iter().all(|node| node.transport.peers()[0].connects == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_fills_its_queue_and_requests_fail_at_once() {
    let node = start_with(config(1), knowing_node_0());
    let _stuck = raw(&node).await;
    until("connected", || node.transport.is_connected(node_id(0))).await;
    let network = node
        .transport
        .network(GROUP, Arc::default(), watch::channel(0).1)
        .new_client(1, &Member { node: node_id(0) })
        .await;
    let body = Bytes::from(vec![0; 32 << 20]);
    let mut waiting = Vec::new();
    let error = loop {
        match network.request(Kind::Append, body.clone().into()) {
            Ok(reply) => waiting.push(reply),
            Err(error) => break error,
        }
    };
    assert_eq!(error, CallError::QueueFull);
    assert!(node.transport.peers()[0].queue_bytes <= super::super::lanes::BULK_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_broken_off_snapshot_is_not_installed_and_leaves_no_file() {
    let nodes = connected_nodes(2).await;
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeReplica { calls: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
    nodes[1].transport.register_port(GROUP, REPLICA, Arc::new(fake.clone()), place(directory.path()));
    let network = client(&nodes[0], &nodes[1], REPLICA.0).await;
    let call = |kind, body| {
        let reply = network.request(kind, body).unwrap();
        async { reply.await.map(|_| ()) }
    };
    let begin = |transfer| SnapshotBegin { transfer, len: 4, vote: vote(), meta: SnapshotMeta::default() }.encode();
    let chunk = |transfer, offset, bytes| SnapshotChunk { transfer, offset, bytes: Bytes::from_static(bytes) }.encode();
    let end = |transfer, crc32| SnapshotEnd { transfer, crc32 }.encode();
    let damaged = Err(CallError::Refused(Refusal::SnapshotDamaged));
    let files = || std::fs::read_dir(directory.path()).unwrap().count();

    call(Kind::SnapshotBegin, begin(1).into()).await.unwrap();
    assert_eq!(files(), 1);
    call(Kind::SnapshotChunk, chunk(1, 0, b"abcd")).await.unwrap();
    assert_eq!(call(Kind::SnapshotEnd, end(1, 77).into()).await, damaged, "checksum");

    call(Kind::SnapshotBegin, begin(2).into()).await.unwrap();
    assert_eq!(call(Kind::SnapshotChunk, chunk(2, 1, b"a")).await, damaged, "a gap");
    call(Kind::SnapshotBegin, begin(3).into()).await.unwrap();
    assert_eq!(call(Kind::SnapshotChunk, chunk(3, 0, b"abcde")).await, damaged, "more than announced");
    call(Kind::SnapshotBegin, begin(4).into()).await.unwrap();
    assert_eq!(call(Kind::SnapshotEnd, end(4, 0).into()).await, damaged, "less than announced");
    let unknown = call(Kind::SnapshotChunk, chunk(4, 0, b"abcd")).await;
    assert_eq!(unknown, Err(CallError::Refused(Refusal::NoTransfer)));

    call(Kind::SnapshotBegin, begin(5).into()).await.unwrap();
    nodes[0].transport.shutdown().await;
    until("no file is left", || files() == 0).await;
    assert_eq!(fake.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_fit_is_refused_and_the_node_is_full_until_one_does() {
    let nodes = connected_nodes(2).await;
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeReplica { calls: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
    let snapshots = place(directory.path());
    let space = snapshots.space.clone();
    nodes[1].transport.register_port(GROUP, REPLICA, Arc::new(fake), snapshots);
    let network = client(&nodes[0], &nodes[1], REPLICA.0).await;
    let begin = |transfer, len| {
        let begin = SnapshotBegin { transfer, len, vote: vote(), meta: SnapshotMeta::default() };
        network.request(Kind::SnapshotBegin, begin.encode().into()).unwrap()
    };
    assert!(!space.is_crammed());
    assert_eq!(begin(1, u64::MAX).await.unwrap_err(), CallError::Refused(Refusal::NoSpace));
    assert!(space.is_crammed() && !space.is_short());
    begin(2, 4).await.unwrap();
    assert!(space.is_crammed(), "it has not arrived yet");
    let chunk = SnapshotChunk { transfer: 2, offset: 0, bytes: Bytes::from_static(b"abcd") }.encode();
    network.request(Kind::SnapshotChunk, chunk).unwrap().await.unwrap();
    let end = SnapshotEnd { transfer: 2, crc32: crc32fast::hash(b"abcd") }.encode();
    let _installed = network.request(Kind::SnapshotEnd, end.into()).unwrap();
    until("there is space after all", || !space.is_crammed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_peer_is_disconnected_and_not_dialled_again() {
    let nodes = connected_nodes(2).await;
    nodes[0].transport.remove_peer(nodes[1].id);
    until("both sides see it", || nodes[1].seen.changes.lock().last() == Some(&(nodes[0].id, false))).await;
    assert!(nodes[0].transport.peers().is_empty());
}
