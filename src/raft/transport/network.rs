//! Hot path. openraft's side of the transport: a client per replica and purpose.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};

use super::codec::{self, AppendRequest, AppendResult};
use super::endpoint::Shared;
use super::errors::CallError;
use super::frame::{Header, Kind};
use super::lanes::Body;
use super::{pace, send_snapshot};
use crate::clock::Boottime;
use crate::cluster::{GroupId, NodeId, ReplicaId};
use crate::planted::{self, Bug};
use crate::raft::acks::Acks;
use crate::raft::log::Disk;
use crate::raft::{Member, SnapshotFile, TypeConfig, Vote};

/// Appends in flight to one replica; openraft's receiving side pipelines as many.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes in flight to one replica, in KiB, unless one append alone is larger: a slow peer must not pull the log into the
/// queue. The replication task waits here, the core does not.
const WINDOW_KIB: u32 = 32 * 1024;
const BACKOFF_MS: [u64; 5] = [20, 50, 100, 200, 500];

/// Makes the clients of one group.
#[derive(Clone)]
pub struct GroupNetwork {
    pub(super) shared: Arc<Shared>,
    pub(super) group: GroupId,
    pub(super) floor: watch::Receiver<u64>,
    pub(super) acks: Arc<Acks>,
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerNetwork {
        self.client(target, node, Kind::Append)
    }

    /// § Heartbeats take the control lane: behind a large batch or a snapshot they would come too late, and followers
    /// would elect another leader.
    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> PeerNetwork {
        self.client(target, node, Kind::Heartbeat)
    }
}

impl GroupNetwork {
    fn client(&self, target: u64, node: &Member, append_kind: Kind) -> PeerNetwork {
        PeerNetwork {
            shared: Arc::clone(&self.shared),
            node: node.node,
            group: self.group,
            acks: Arc::clone(&self.acks),
            target: ReplicaId(target),
            append_kind,
            window: Arc::new(Semaphore::new(WINDOW_KIB as usize)),
            floor: self.floor.clone(),
        }
    }
}

/// Sends to one replica. Where its node is, and whether it is connected, is looked up at each request.
#[derive(Clone)]
pub struct PeerNetwork {
    shared: Arc<Shared>,
    node: NodeId,
    group: GroupId,
    acks: Arc<Acks>,
    target: ReplicaId,
    append_kind: Kind,
    window: Arc<Semaphore>,
    /// Entries before this index must go: the log has grown too long, and openraft keeps what a replica is being sent, however slow or
    /// stuck it is. Such a replica's appends fail, upon which openraft purges and sends it the snapshot.
    floor: watch::Receiver<u64>,
}

impl PeerNetwork {
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.shared.disk
    }

    fn header(&self, kind: Kind) -> Header {
        Header { kind, group: self.group, target: self.target, request: 0 }
    }

    /// Queues a request; the answer comes by the returned future.
    pub fn request(
        &self,
        kind: Kind,
        body: Body,
    ) -> Result<impl Future<Output = Result<Bytes, CallError>> + Send + use<>, CallError> {
        self.shared.link(self.node).ok_or(CallError::NotConnected)?.request(self.header(kind), body)
    }

    /// Queues an append, after waiting for its place in the window; the answer comes by the inner future. Called for one
    /// append after the other, so the order of the log is the order on the wire.
    async fn enqueue_append(
        self,
        request: AppendRequest,
    ) -> impl Future<Output = Result<AppendResult, RPCError<TypeConfig>>> + Send + use<> {
        let body = codec::encode_append(&request);
        // Entries are bulk, whoever sends them: control frames are never cut.
        let kind = if request.entries.is_empty() { self.append_kind } else { Kind::Append };
        let size_kib = u32::try_from(body.len() / 1024 + 1).unwrap_or(u32::MAX).min(WINDOW_KIB);
        let begins = request.entries.first().map_or(u64::MAX, |entry| entry.log_id.index);
        let place = tokio::select! {
            biased;
            () = is_below(self.floor.clone(), begins) => Err(CallError::Behind),
            place = Arc::clone(&self.window).acquire_many_owned(size_kib) => Ok(place),
        };
        let (leader, sent) = (request.vote.leader_id, Boottime::now());
        let last = request.entries.last().map(|entry| entry.log_id);
        let queued = place.and_then(|place| match self.shared.link(self.node) {
            Some(link) => Ok((place, link.request_append(self.header(kind), body)?)),
            None => Err(CallError::NotConnected),
        });
        async move {
            let (_place, reply) = queued.map_err(unreachable)?;
            if planted::is(Bug::AcknowledgeBeforeQuorum) && last.is_some() {
                return Ok(Ok(last));
            }
            let result = tokio::select! {
                biased;
                answer = reply => answer.map_err(unreachable)?,
                () = is_below(self.floor, begins) => return Err(unreachable(CallError::Behind)),
            };
            if let Ok(acked) = &result {
                self.acks.record(self.target, leader, sent, last.and(*acked).map(|acked| acked.index));
            }
            Ok(result)
        }
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: Kind,
        question: &Q,
        wait_max: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let reply = self.request(kind, codec::encode_rare(question).into()).map_err(unreachable)?;
        let answer = tokio::time::timeout(wait_max, reply).await.unwrap_or(Err(CallError::TimedOut));
        codec::decode_rare(&answer.map_err(unreachable)?).map_err(|error| Unreachable::new(&error).into())
    }
}

/// Returns when entries that begin at `index` are below the floor.
async fn is_below(mut floor: watch::Receiver<u64>, index: u64) {
    if floor.wait_for(|floor| index < *floor).await.is_err() {
        // Nobody will raise it: the group has none, or is being stopped and openraft with it.
        std::future::pending::<()>().await;
    }
}

fn unreachable(error: CallError) -> RPCError<TypeConfig> {
    Unreachable::new(&error).into()
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let exchange = async { self.clone().enqueue_append(request).await.await };
        let answer = tokio::time::timeout(option.soft_ttl(), exchange).await;
        Ok(answer.unwrap_or(Err(unreachable(CallError::TimedOut)))?.into())
    }

    /// `option`'s time is for one exchange and not used here: entries may take longer to reach the follower's disk than a
    /// heartbeat may take, and a dead peer is noticed by its link (see `link.rs`).
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RPCError<TypeConfig>>>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let network = self.clone();
        let answers = pace::paced(input, Arc::clone(&self.acks), self.target)
            .then(move |request| network.clone().enqueue_append(request))
            .buffered(APPENDS_IN_FLIGHT_MAX)
            .boxed();
        Box::pin(async move { Ok(answers) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::Vote, &request, option.soft_ttl()).await
    }

    /// § Forwarded: openraft's default grants without asking, which would make every isolated node raise its term.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::PreVote, &request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        send_snapshot::send(self, vote, snapshot, cancel).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(Kind::TransferLeader, &request, option.soft_ttl()).await
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let delays = BACKOFF_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(delays.map(Duration::from_millis)))
    }
}
