//! Hot path. What comes in on one link, frame by frame, to where it belongs. Nothing here waits: work goes to tasks of the
//! replica it is for, behind bounded queues, and a full queue is an answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use openraft::EntryPayload;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncRead;

use super::appends::AppendStream;
use super::codec::{self, SnapshotBegin, SnapshotChunk, SnapshotEnd};
use super::endpoint::Shared;
use super::errors::{LinkError, Refusal};
use super::frame::{Frame, FrameReader, Header, Kind};
use super::lanes::Body;
use super::link::Link;
use super::peer::Peer;
use super::receive_snapshot::{Step, Transfer};
use super::registry::Registered;
use crate::cluster::{GroupId, NodeId, ReplicaId};
use crate::raft::Entry;

/// Votes, transfers and asks of one peer being served at once.
const CALLS_MAX: usize = 256;

/// What the node layer gets from its peers. Called on the connection's own task: must not block.
pub trait Receiver: Send + Sync + 'static {
    /// Whether a node that dials us, but was not named by `set_peer`, belongs to the cluster.
    fn knows(&self, node: NodeId) -> bool;
    /// The newest hint of `from`.
    fn hint(&self, from: NodeId, hint: Bytes);
    /// A request of `from`; answered through `reply`, now or later, from any task.
    fn ask(&self, from: NodeId, kind: u8, body: Bytes, reply: AskReply);
    /// A connection to `node` was made (true) or lost (false).
    fn connection_changed(&self, node: NodeId, connected: bool);
}

/// Answers one `ask`. Dropped unused, it tells the asker that there will be no answer.
pub struct AskReply {
    link: Arc<Link>,
    request: u64,
    answered: bool,
    _call: Call,
}

impl AskReply {
    /// `body` above `ASK_BYTES_MAX` is refused as `Busy`.
    pub fn send(mut self, body: &[u8]) {
        self.answered = true;
        if body.len() > super::endpoint::ASK_BYTES_MAX {
            self.link.refuse(self.request, Refusal::Busy);
        } else {
            self.link.answer(self.request, codec::encode_answer(body));
        }
    }
}

impl Drop for AskReply {
    fn drop(&mut self) {
        if !self.answered {
            self.link.refuse(self.request, Refusal::Stopped);
        }
    }
}

fn holds_ops(entry: &Entry) -> bool {
    match entry.payload {
        EntryPayload::Normal(_) => true,
        EntryPayload::Blank | EntryPayload::Membership(_) => false,
    }
}

/// Holds one of the link's `CALLS_MAX` places.
struct Call(Arc<AtomicUsize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub struct Inbound<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    link: &'a Arc<Link>,
    appends: BTreeMap<(GroupId, ReplicaId, Kind), AppendStream>,
    transfers: BTreeMap<(GroupId, ReplicaId), Transfer>,
    calls: Arc<AtomicUsize>,
}

impl<'a> Inbound<'a> {
    pub fn new(shared: &'a Shared, peer: &'a Peer, link: &'a Arc<Link>) -> Self {
        Self { shared, peer, link, appends: BTreeMap::new(), transfers: BTreeMap::new(), calls: Arc::default() }
    }

    /// Reads and dispatches until the connection fails.
    pub async fn read_loop(mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), LinkError> {
        let mut reader = FrameReader::default();
        loop {
            let bytes = reader.fill(stream).await?;
            if bytes == 0 {
                return Err(LinkError::Closed);
            }
            self.link.heard();
            self.peer.stats.received(bytes);
            while let Some(frame) = reader.next_message()? {
                self.peer.stats.message_received();
                self.dispatch(frame)?;
            }
        }
    }

    fn dispatch(&mut self, Frame { header, body }: Frame) -> Result<(), LinkError> {
        match header.kind {
            Kind::Reply => return self.link.complete(header.request, body),
            Kind::Ping => self.link.send(Header::of_node(Kind::Pong, 0), Body::default()),
            Kind::Pong => {}
            Kind::Hint => self.shared.receiver.hint(self.peer.node, body),
            Kind::Ask => return self.ask(header.request, body),
            Kind::Append
            | Kind::Heartbeat
            | Kind::Vote
            | Kind::PreVote
            | Kind::TransferLeader
            | Kind::SnapshotBegin
            | Kind::SnapshotChunk
            | Kind::SnapshotEnd => {
                let Some(registered) = self.shared.registry.find(header.group, header.target) else {
                    // § Meant for a replica that is not, or no more, here. The sender is told, so that it backs off.
                    self.peer.stats.frame_dropped();
                    self.appends.retain(|(group, replica, _), _| (*group, *replica) != (header.group, header.target));
                    self.link.refuse(header.request, Refusal::NoSuchReplica);
                    return Ok(());
                };
                return self.dispatch_to(registered, header, body);
            }
        }
        Ok(())
    }

    fn dispatch_to(&mut self, registered: Arc<Registered>, header: Header, body: Bytes) -> Result<(), LinkError> {
        let request = header.request;
        match header.kind {
            Kind::Append | Kind::Heartbeat => {
                let append = codec::decode_append(body)?;
                // § On a full disk they could only wait for space, and whatever this replica is to write behind them, its vote above all,
                // would wait with them. Refused, the leader tries again; what elects a leader passes.
                if self.shared.room.is_spent() && append.entries.iter().any(holds_ops) {
                    self.link.refuse(request, Refusal::NoSpace);
                } else {
                    self.append(registered, header, append);
                }
            }
            Kind::Vote => self.call(&registered, request, &body, |port, vote| port.vote(vote))?,
            Kind::PreVote => self.call(&registered, request, &body, |port, vote| port.pre_vote(vote))?,
            Kind::TransferLeader => self.call(&registered, request, &body, |port, to| port.transfer_leader(to))?,
            Kind::SnapshotBegin => {
                let begin = SnapshotBegin::decode(body)?;
                let transfer = Transfer::begin(registered, begin, request, Arc::clone(self.link), &self.shared.tasks);
                // An earlier transfer to the same replica ends here, as its sender is dropped.
                self.transfers.insert((header.group, header.target), transfer);
            }
            Kind::SnapshotChunk => {
                let chunk = SnapshotChunk::decode(body)?;
                self.snapshot_step(header, chunk.transfer, Step::Chunk(request, chunk));
            }
            Kind::SnapshotEnd => {
                let end = SnapshotEnd::decode(body)?;
                self.snapshot_step(header, end.transfer, Step::End(request, end));
                self.transfers.remove(&(header.group, header.target));
            }
            Kind::Reply | Kind::Hint | Kind::Ask | Kind::Ping | Kind::Pong => {
                unreachable!("dispatch passes on frames for replicas only")
            }
        }
        Ok(())
    }

    fn append(&mut self, registered: Arc<Registered>, header: Header, mut append: codec::AppendRequest) {
        let key = (header.group, header.target, header.kind);
        if let Some(stream) = self.appends.get(&key)
            && Arc::ptr_eq(&stream.registered, &registered)
        {
            match stream.push(header.request, append, self.link) {
                Ok(()) => return,
                Err(unsent) => append = unsent,
            }
        }
        let stream = AppendStream::open(registered, Arc::clone(self.link), &self.shared.tasks);
        if stream.push(header.request, append, self.link).is_err() {
            self.link.refuse(header.request, Refusal::Stopped);
        }
        self.appends.insert(key, stream);
    }

    fn snapshot_step(&self, header: Header, transfer: u64, step: Step) {
        match self.transfers.get(&(header.group, header.target)) {
            Some(running) if running.id == transfer => running.push(step, self.link),
            Some(_) | None => self.link.refuse(header.request, Refusal::NoTransfer),
        }
    }

    /// Serves a rare request in a task on the replica's runtime.
    fn call<Q, A, F>(
        &self,
        registered: &Arc<Registered>,
        request: u64,
        body: &[u8],
        serve: impl FnOnce(&dyn super::registry::RaftPort, Q) -> F,
    ) -> Result<(), LinkError>
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Future<Output = Option<A>> + Send + 'static,
    {
        let question = codec::decode_rare(body)?;
        let Some(place) = self.place() else {
            self.link.refuse(request, Refusal::Busy);
            return Ok(());
        };
        let answer = serve(registered.port.as_ref(), question);
        let link = Arc::clone(self.link);
        self.shared.tasks.spawn_on(&registered.runtime, async move {
            match answer.await {
                Some(answer) => link.answer(request, codec::encode_answer(&codec::encode_rare(&answer))),
                None => link.refuse(request, Refusal::Stopped),
            }
            drop(place);
        });
        Ok(())
    }

    fn ask(&self, request: u64, mut body: Bytes) -> Result<(), LinkError> {
        let kind = body.try_get_u8().map_err(|_| LinkError::Damaged("ask without its kind"))?;
        let Some(place) = self.place() else {
            self.link.refuse(request, Refusal::Busy);
            return Ok(());
        };
        let reply = AskReply { link: Arc::clone(self.link), request, answered: false, _call: place };
        self.shared.receiver.ask(self.peer.node, kind, body, reply);
        Ok(())
    }

    fn place(&self) -> Option<Call> {
        let taken = self.calls.fetch_add(1, Ordering::AcqRel);
        let call = Call(Arc::clone(&self.calls));
        (taken < CALLS_MAX).then_some(call)
    }
}
