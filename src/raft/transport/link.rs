//! Hot path. One live connection: what waits to be written, what waits for a reply, and the write loop.
//!
//! A link ends once (`close`), whatever the cause; every waiting request then fails and the peer is dialled again. Senders
//! never block: they queue under a short lock and wake the writer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::future::Future;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::codec::{AppendResult, decode_append_answer, decode_reply};
use super::errors::{CallError, LinkError, Refusal};
use super::frame::{Header, Kind};
use super::lanes::{Body, Lanes, Outgoing};
use super::stats::PeerStats;

/// Slices per vectored write; the kernel's limit is 1024.
const WRITE_SLICES_MAX: usize = 64;
/// A request without a reply for so long fails although the connection lives: its replica is stuck. Callers that want an
/// answer sooner bring their own time-out.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(600);
/// The same for appends, which have no other time-out.
const APPEND_REPLY_WAIT_MAX: Duration = Duration::from_secs(30);

enum ReplyTo {
    /// Decoded by the reader: an allocation less per acknowledged append.
    Append(oneshot::Sender<Result<AppendResult, CallError>>),
    Other(oneshot::Sender<Result<Bytes, CallError>>),
}

struct Pending {
    since: Instant,
    reply: ReplyTo,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    pending: BTreeMap<u64, Pending>,
    closed: Option<LinkError>,
    is_closed: bool,
}

pub struct Link {
    state: Mutex<State>,
    /// Something to write.
    wake: Notify,
    /// `close` was called.
    closing: Notify,
    next_request: AtomicU64,
    /// Milliseconds since `start` at which the last bytes came.
    heard_ms: AtomicU64,
    start: Instant,
    stats: Arc<PeerStats>,
}

impl Link {
    pub fn new(stats: Arc<PeerStats>) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            closing: Notify::new(),
            next_request: AtomicU64::new(1),
            heard_ms: AtomicU64::new(0),
            start: Instant::now(),
            stats,
        }
    }

    /// Queues an append or heartbeat; the reply comes by the returned future, which may be dropped.
    pub fn request_append(
        self: &Arc<Self>,
        header: Header,
        body: Body,
    ) -> Result<impl Future<Output = Result<AppendResult, CallError>> + Send + use<>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let request = self.enqueue(header, body, ReplyTo::Append(sender))?;
        Ok(self.reply(request, receiver))
    }

    /// Queues any other request.
    pub fn request(
        self: &Arc<Self>,
        header: Header,
        body: Body,
    ) -> Result<impl Future<Output = Result<Bytes, CallError>> + Send + use<>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let request = self.enqueue(header, body, ReplyTo::Other(sender))?;
        Ok(self.reply(request, receiver))
    }

    fn enqueue(&self, mut header: Header, body: Body, reply: ReplyTo) -> Result<u64, CallError> {
        header.request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(CallError::NotConnected);
        }
        if state.lanes.push(header, body).is_err() {
            self.stats.queue_full();
            return Err(CallError::QueueFull);
        }
        state.pending.insert(header.request, Pending { since: Instant::now(), reply });
        drop(state);
        self.wake.notify_one();
        Ok(header.request)
    }

    fn reply<T>(
        self: &Arc<Self>,
        request: u64,
        receiver: oneshot::Receiver<Result<T, CallError>>,
    ) -> impl Future<Output = Result<T, CallError>> + Send + use<T>
    where
        T: Send,
    {
        let forget = ForgetOnDrop { link: Some(Arc::clone(self)), request };
        async move {
            let mut forget = forget;
            let reply = receiver.await.unwrap_or(Err(CallError::Lost));
            forget.link = None;
            reply
        }
    }

    /// Queues a frame that has no reply. A peer that lets its replies pile up loses the connection.
    pub fn send(&self, header: Header, body: Body) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        if state.lanes.push(header, body).is_err() {
            drop(state);
            self.stats.queue_full();
            self.close(LinkError::QueueFull);
            return;
        }
        drop(state);
        self.wake.notify_one();
    }

    pub fn answer(&self, request: u64, body: Bytes) {
        self.send(Header::of_node(Kind::Reply, request), body.into());
    }

    pub fn refuse(&self, request: u64, refusal: Refusal) {
        self.answer(request, super::codec::encode_refusal(refusal));
    }

    pub fn send_hint(&self, hint: Bytes) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.lanes.set_hint(hint);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Hands a reply frame to the request that waits for it; nobody waiting is fine, it may have timed out.
    pub fn complete(&self, request: u64, body: Bytes) -> Result<(), LinkError> {
        let pending = self.state.lock().pending.remove(&request);
        let Some(Pending { reply, .. }) = pending else { return Ok(()) };
        let answer = decode_reply(body)?.map_err(CallError::Refused);
        match reply {
            ReplyTo::Append(sender) => {
                let answer = match answer {
                    Ok(answer) => Ok(decode_append_answer(answer)?),
                    Err(refused) => Err(refused),
                };
                sender.send(answer).ok();
            }
            ReplyTo::Other(sender) => {
                sender.send(answer).ok();
            }
        }
        Ok(())
    }

    /// Ends the link. The first reason given stays.
    pub fn close(&self, reason: LinkError) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        state.is_closed = true;
        state.closed = Some(reason);
        state.lanes = Lanes::default();
        // Dropped senders tell the waiting requests that their reply is lost.
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        drop(pending);
        self.closing.notify_one();
    }

    /// Resolves with the reason when `close` is called; for the link's one task.
    pub async fn closed(&self) -> LinkError {
        loop {
            if let Some(reason) = self.state.lock().closed.take() {
                return reason;
            }
            self.closing.notified().await;
        }
    }

    pub fn heard(&self) {
        self.heard_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub fn silent_for(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    pub fn connected_for(&self) -> Duration {
        self.start.elapsed()
    }

    /// Bytes and frames queued, and requests that wait for a reply.
    pub fn load(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.lanes.bytes(), state.lanes.frames(), state.pending.len())
    }

    /// Writes what is queued, for ever.
    pub async fn write_loop(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), LinkError> {
        let mut out = Outgoing::default();
        loop {
            let frames = self.state.lock().lanes.gather(&mut out);
            if frames == 0 {
                self.wake.notified().await;
                continue;
            }
            out.seal();
            let bytes = out.len();
            write_all(stream, &mut out).await?;
            out.clear();
            self.stats.sent(bytes, frames);
        }
    }

    /// § A dead peer is noticed by silence: pings go out when nothing was heard for a third of `silent_max`, and the
    /// connection is dropped when even they bring nothing. Waiting for TCP would take minutes.
    pub async fn watch_loop(&self, silent_max: Duration) -> Result<(), LinkError> {
        let mut tick = tokio::time::interval(silent_max / 8);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unheard_ticks = 0;
        loop {
            tick.tick().await;
            let silent = self.silent_for();
            // Ticks are counted too: a process that was itself stopped must not blame its peer at the first look.
            unheard_ticks = if silent > silent_max / 3 { unheard_ticks + 1 } else { 0 };
            if silent > silent_max && unheard_ticks > 5 {
                return Err(LinkError::Silent(silent.as_millis()));
            }
            if unheard_ticks > 0 {
                self.send(Header::of_node(Kind::Ping, 0), Body::default());
            }
            self.expire();
            self.stats.set_queue_bytes(self.load().0);
        }
    }

    fn expire(&self) {
        let mut state = self.state.lock();
        let overdue: Vec<u64> = state
            .pending
            .iter()
            .filter(|(_, pending)| {
                let wait_max = match pending.reply {
                    ReplyTo::Append(_) => APPEND_REPLY_WAIT_MAX,
                    ReplyTo::Other(_) => REPLY_WAIT_MAX,
                };
                pending.since.elapsed() > wait_max
            })
            .map(|(request, _)| *request)
            .collect();
        for request in overdue {
            if let MapEntry::Occupied(entry) = state.pending.entry(request) {
                match entry.remove().reply {
                    ReplyTo::Append(sender) => drop(sender.send(Err(CallError::TimedOut))),
                    ReplyTo::Other(sender) => drop(sender.send(Err(CallError::TimedOut))),
                }
            }
        }
    }
}

/// Takes a request that nobody waits for any more out of the pending ones.
struct ForgetOnDrop {
    link: Option<Arc<Link>>,
    request: u64,
}

impl Drop for ForgetOnDrop {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.state.lock().pending.remove(&self.request);
        }
    }
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), out: &mut Outgoing) -> io::Result<()> {
    while let Some(first) = out.chunks.front() {
        let mut written = if out.chunks.len() == 1 {
            stream.write(first).await?
        } else {
            let slices: Vec<IoSlice<'_>> =
                out.chunks.iter().take(WRITE_SLICES_MAX).map(|chunk| IoSlice::new(chunk)).collect();
            stream.write_vectored(&slices).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = out.chunks.front_mut() {
            if first.len() > written {
                first.advance(written);
                break;
            }
            written -= first.len();
            out.chunks.pop_front();
        }
    }
    Ok(())
}
