//! The network between simulated nodes: byte streams whose bytes take time, and do not arrive while a direction is cut.
//!
//! A cut holds bytes back as TCP does, until the direction is mended or an end gives up. What a machine without power had sent may still
//! arrive; its peers hear nothing of its end until it is back. TCP delivers nothing twice, but senders ask again: some requests come once or twice
//! more, late, on whichever connection there is then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::raft::{Copied, Listener, Stream, Wire, WrittenFrames};
use crate::random::simulated::Chance;

/// Bytes under way in one direction before the writer waits.
const WINDOW_BYTES: usize = 256 << 10;
/// A request that comes again does so within this time. Longer than a move takes, than questions wait for their answer and than an election.
const LATE_MS_MAX: u64 = 5000;

type Node = usize;
type PipeId = u64;

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    from: Node,
    to: Node,
    /// (arrival in ms, bytes); no bytes: the end.
    under_way: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<u8>,
    ended: bool,
    /// The reader, or its machine, is gone.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    frames: WrittenFrames,
}

/// A request that is to come again.
struct Late {
    due_ms: u64,
    from: Node,
    to: Node,
    copied: Copied,
    frame: Vec<u8>,
}

#[derive(Default)]
struct Port {
    waiting: VecDeque<SimulatedStream>,
    waker: Option<Waker>,
}

struct State {
    now_ms: u64,
    chance: Chance,
    delay_ms_max: u64,
    cuts: BTreeSet<(Node, Node)>,
    pipes: BTreeMap<PipeId, Pipe>,
    ports: BTreeMap<Node, Port>,
    next_pipe: PipeId,
    sent: crc32fast::Hasher,
    /// Whether requests come again.
    repeats: bool,
    late: Vec<Late>,
    repeated: BTreeMap<Copied, u64>,
}

/// Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

struct SimulatedStream {
    network: Network,
    reads: PipeId,
    writes: PipeId,
}

/// One node's access.
pub struct SimulatedWire {
    pub network: Network,
    pub node: Node,
}

struct SimulatedListener {
    network: Network,
    node: Node,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            now_ms: 0,
            chance: Chance(seed),
            delay_ms_max: 2,
            cuts: BTreeSet::new(),
            pipes: BTreeMap::new(),
            ports: BTreeMap::new(),
            next_pipe: 0,
            sent: crc32fast::Hasher::new(),
            repeats: false,
            late: Vec::new(),
            repeated: BTreeMap::new(),
        })))
    }

    /// From now on some requests come again.
    pub fn repeat_requests(&self) {
        self.0.lock().repeats = true;
    }

    pub fn repeat_no_more(&self) {
        let mut state = self.0.lock();
        state.repeats = false;
        state.late.clear();
    }

    /// Requests that came again.
    pub fn repeated(&self) -> BTreeMap<Copied, u64> {
        self.0.lock().repeated.clone()
    }

    pub fn sent_crc32(&self) -> u32 {
        self.0.lock().sent.clone().finalize()
    }

    pub fn cut(&self, from: Node, to: Node) {
        self.0.lock().cuts.insert((from, to));
    }

    pub fn is_cut(&self, node: Node, other: Node) -> bool {
        let state = self.0.lock();
        state.cuts.contains(&(node, other)) || state.cuts.contains(&(other, node))
    }

    pub fn heal(&self, from: Node, to: Node) {
        self.0.lock().cuts.remove(&(from, to));
    }

    /// Both ends of every connection between the two find it closed; of what was under way any part has come.
    pub fn reset(&self, node: Node, other: Node) {
        let mut state = self.0.lock();
        let State { now_ms, chance, pipes, .. } = &mut *state;
        for pipe in pipes.values_mut().filter(|pipe| [(node, other), (other, node)].contains(&(pipe.from, pipe.to))) {
            pipe.under_way.truncate(chance.below(pipe.under_way.len() as u64 + 1) as usize);
            pipe.under_way.push_back((*now_ms + 1, Vec::new()));
            pipe.broken = true;
        }
    }

    pub fn mend(&self) {
        let mut state = self.0.lock();
        state.cuts.clear();
        state.delay_ms_max = 2;
    }

    pub fn set_delay_max(&self, ms: u64) {
        self.0.lock().delay_ms_max = ms;
    }

    /// Brings what is due.
    pub fn advance(&self, now_ms: u64) {
        let mut state = self.0.lock();
        state.now_ms = now_ms;
        state.repeat_late();
        let State { cuts, pipes, .. } = &mut *state;
        let mut wakers = Vec::new();
        for pipe in pipes.values_mut().filter(|pipe| !cuts.contains(&(pipe.from, pipe.to))) {
            while pipe.under_way.front().is_some_and(|(due, _)| *due <= now_ms) {
                let Some((_, bytes)) = pipe.under_way.pop_front() else { break };
                pipe.ended |= bytes.is_empty();
                pipe.arrived.extend(bytes);
                wakers.extend(pipe.reader.take());
                wakers.extend(pipe.writer.take());
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The node's process is gone. Without power its peers are not told.
    pub fn stop(&self, node: Node, power: bool) {
        let mut state = self.0.lock();
        state.ports.remove(&node);
        if power {
            return;
        }
        for pipe in state.pipes.values_mut().filter(|pipe| pipe.from == node) {
            pipe.under_way.retain(|(_, bytes)| !bytes.is_empty());
        }
    }

    /// The node's machine is up again, and knows nothing of its old connections.
    pub fn start(&self, node: Node) {
        let mut state = self.0.lock();
        let due = state.now_ms + 1;
        for pipe in state.pipes.values_mut() {
            if pipe.from == node {
                pipe.under_way.push_back((due, Vec::new()));
            }
            pipe.broken |= pipe.to == node;
        }
    }

    fn connect(&self, from: Node, to: Node) -> io::Result<Option<SimulatedStream>> {
        let mut state = self.0.lock();
        if state.cuts.contains(&(from, to)) || state.cuts.contains(&(to, from)) {
            return Ok(None);
        }
        if !state.ports.contains_key(&to) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let id = state.next_pipe;
        state.next_pipe += 2;
        state.pipes.insert(id, Pipe { from, to, ..Pipe::default() });
        state.pipes.insert(id + 1, Pipe { from: to, to: from, ..Pipe::default() });
        let accepted = SimulatedStream { network: self.clone(), reads: id, writes: id + 1 };
        let waker = state.ports.get_mut(&to).and_then(|port| {
            port.waiting.push_back(accepted);
            port.waker.take()
        });
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(Some(SimulatedStream { network: self.clone(), reads: id + 1, writes: id }))
    }
}

impl State {
    fn send(&mut self, id: PipeId, bytes: Vec<u8>) {
        let delay = 1 + self.chance.below(self.delay_ms_max);
        let due = self.now_ms + delay;
        if let Some(pipe) = self.pipes.get_mut(&id) {
            let copies = pipe.frames.write(&bytes);
            let (from, to) = (pipe.from, pipe.to);
            pipe.push(due, bytes);
            copies.into_iter().for_each(|(copied, frame)| self.draw_late(from, to, copied, &frame));
        }
    }

    fn draw_late(&mut self, from: Node, to: Node, copied: Copied, frame: &[u8]) {
        let one_in = match copied {
            Copied::Question => 3,
            Copied::Append | Copied::Election => 30,
        };
        if !self.repeats || self.chance.below(one_in) > 0 {
            return;
        }
        for _ in 0..1 + self.chance.below(2) {
            let due_ms = self.now_ms + 1 + self.chance.below(LATE_MS_MAX);
            self.late.push(Late { due_ms, from, to, copied, frame: frame.to_vec() });
        }
    }

    /// Between two frames of the newest connection, if there is one.
    fn repeat_late(&mut self) {
        let State { now_ms, pipes, late, repeated, .. } = self;
        for Late { due_ms, from, to, copied, frame } in late.extract_if(.., |late| late.due_ms <= *now_ms) {
            let pipe = pipes.values_mut().rev().find(|pipe| (pipe.from, pipe.to) == (from, to));
            if let Some(pipe) = pipe.filter(|pipe| pipe.is_open() && pipe.frames.are_whole()) {
                pipe.push(due_ms, frame);
                *repeated.entry(copied).or_default() += 1;
            }
        }
    }
}

impl Pipe {
    fn push(&mut self, due_ms: u64, bytes: Vec<u8>) {
        let due_ms = self.under_way.back().map_or(due_ms, |(last_ms, _)| due_ms.max(*last_ms));
        self.under_way.push_back((due_ms, bytes));
    }

    fn is_open(&self) -> bool {
        !self.broken && !self.ended && self.under_way.iter().all(|(_, bytes)| !bytes.is_empty())
    }
}

impl AsyncRead for SimulatedStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.network.0.lock();
        let Some(pipe) = state.pipes.get_mut(&self.reads) else { return Poll::Ready(Ok(())) };
        if pipe.arrived.is_empty() && !pipe.ended {
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.arrived.len().min(buffer.remaining());
        let bytes: Vec<u8> = pipe.arrived.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimulatedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.network.0.lock();
        let Some(pipe) = state.pipes.get_mut(&self.writes).filter(|pipe| !pipe.broken) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.under_way.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= WINDOW_BYTES {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.sent.update(bytes);
        state.send(self.writes, bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        // Dropped by a port that went, under its lock: nobody had accepted it.
        let Some(mut state) = self.network.0.try_lock() else { return };
        state.send(self.writes, Vec::new());
        if let Some(pipe) = state.pipes.get_mut(&self.reads) {
            pipe.broken = true;
        }
    }
}

impl Wire for SimulatedWire {
    fn connect(&self, host: String, _port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let (network, from) = (self.network.clone(), self.node);
        Box::pin(async move {
            let to = node_of(&host).ok_or(io::ErrorKind::NotFound)?;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if let Some(stream) = network.connect(from, to)? {
                    return Ok(Box::new(stream) as Stream);
                }
            }
        })
    }

    fn listen(&self, _address: SocketAddr) -> io::Result<Arc<dyn Listener>> {
        self.network.0.lock().ports.insert(self.node, Port::default());
        Ok(Arc::new(SimulatedListener { network: self.network.clone(), node: self.node }))
    }
}

impl Listener for SimulatedListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut state = self.network.0.lock();
            let Some(port) = state.ports.get_mut(&self.node) else { return Poll::Pending };
            match port.waiting.pop_front() {
                Some(stream) => Poll::Ready(Ok((Box::new(stream) as Stream, SocketAddr::from(([127, 0, 0, 1], 1))))),
                None => {
                    port.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

/// Node 3 is at the host `n3`.
pub fn host_of(node: Node) -> String {
    format!("n{node}")
}

pub fn node_of(host: &str) -> Option<Node> {
    host.strip_prefix('n')?.parse().ok()
}
