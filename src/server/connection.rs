//! One client's connection: read, decode, answer one turn, write. Hot path.
//!
//! One task per connection, which owns all of this; others reach it through `clients.rs`. What a client can make it hold is
//! bounded: the read buffer by `client-query-buffer-limit`, and grown as bytes arrive or have arrived before, never by an announced length alone;
//! replies by `output.rs`; requests per turn by `REQUEST_COUNT_MAX`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::protocol::{ProtocolError, ReadLimits, RequestReader, Requests};
use crate::server::clients::{Client, Signal};
use crate::server::output::Output;
use crate::server::session::{Flow, ReplyMode, Session};
use crate::server::shared::Shared;
use crate::server::stretch::Stretch;
use crate::server::turn::Turn;

/// Requests of one turn; the rest of what has arrived makes the next.
const REQUEST_COUNT_MAX: usize = 1024;
/// Bytes read at a time; more once a client has filled this.
const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// A read buffer larger than this is given back when it is empty.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Beyond this, doubling costs little.
const BROUGHT_BYTES_MAX: usize = 8 << 20;
/// How long a client that has sent MULTI may stop between two requests of what follows.
const TRANSACTION_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Offsets of words are 32 bits wide.
const QUERY_BYTES_MAX: usize = 4 << 30;
/// § A connection that a stopping node closes must have been silent for so long: a client never learns what became of a request that is on
/// its way then. Clients with a slot map notice by their next requests that this node leads nothing any more, and leave by
/// themselves; one that was not told in time fails at the closed port (redis-rs's synchronous one does not ask for a new map there).
const QUIET: Duration = Duration::from_secs(1);
/// For what has already arrived at a connection that is closed in spite of its client.
const LAST_LOOK: Duration = Duration::from_millis(5);
/// How long a connection that is being closed may take to read its last replies.
const FAREWELL_WAIT_MAX: Duration = Duration::from_secs(5);

/// Serves one client until either side ends it.
pub async fn serve(stream: std::net::TcpStream, client: Arc<Client>, shared: Arc<Shared>) {
    let registered = Registered { client: client.clone(), shared: shared.clone() };
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let (read_half, write_half) = stream.split();
    let output = Output::new(write_half, &shared.output_bytes, &registered.client.memory.output_bytes);
    let session = Session::new(client, shared.password_needed());
    let mut connection = Connection {
        shared: &shared,
        session,
        read_half,
        output,
        buffer: BytesMut::new(),
        read_bytes: READ_BYTES_MIN,
        brought: 0,
        reader: RequestReader::new(ReadLimits::default()),
        requests: Requests::default(),
        stretch: Stretch::default(),
    };
    // A broken connection is the client's affair; nobody is left to tell.
    let _ = connection.run().await;
}

/// Keeps a client in the registry for as long as its task lives, however that ends.
struct Registered {
    client: Arc<Client>,
    shared: Arc<Shared>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.clients.remove(self.client.id);
        self.shared.stats.node.connections.decrement(1.0);
    }
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    session: Session,
    read_half: ReadHalf<'a>,
    output: Output<'a>,
    buffer: BytesMut,
    /// How much the next read asks for at least.
    read_bytes: usize,
    /// Bytes of the largest turn so far: another of the kind may be given its memory at once.
    brought: usize,
    reader: RequestReader,
    requests: Requests,
    stretch: Stretch,
}

/// What woke an idle connection.
enum Event {
    Read(io::Result<usize>),
    Writable(io::Result<()>),
    /// A push for a client that asked for them.
    Notified(Bytes),
    Signalled,
}

impl Connection<'_> {
    async fn run(&mut self) -> io::Result<()> {
        let mut answered = tokio::time::Instant::now();
        loop {
            let event = match self.session.client.signal() {
                Signal::Kill => return Ok(()),
                Signal::Drain => {
                    self.answer_arrived().await?;
                    return self.farewell().await;
                }
                Signal::Leave => match tokio::time::timeout(QUIET, self.wait()).await {
                    Ok(event) => event,
                    Err(_) => return self.farewell().await,
                },
                Signal::None | Signal::Trim if self.refuses_transaction() => {
                    // § What is there to be read was sent before the node stood still: that is no silence of the client.
                    match tokio::time::timeout_at(answered + TRANSACTION_SILENCE_MAX, self.wait()).await {
                        Ok(event) => event,
                        Err(_) => {
                            let unread = rustix::io::ioctl_fionread(self.read_half.as_ref());
                            if unread.is_ok_and(|bytes| bytes == 0) {
                                self.session.refused = None;
                            }
                            answered = tokio::time::Instant::now();
                            continue;
                        }
                    }
                }
                Signal::None | Signal::Trim => self.wait().await,
            };
            match event {
                // A peer that has shut down its sending side may still read.
                Event::Read(Ok(0)) => return self.farewell().await,
                Event::Read(Ok(count)) => {
                    self.shared.stats.count_read(count as u64);
                    if self.answer().await? == Flow::Close {
                        return self.farewell().await;
                    }
                    if self.session.refused.is_some() {
                        answered = tokio::time::Instant::now();
                    }
                }
                Event::Read(Err(error)) => return Err(error),
                Event::Writable(writable) => {
                    writable?;
                    self.send()?;
                }
                Event::Notified(push) => {
                    self.output.reply.append_raw(&push);
                    self.send()?;
                }
                Event::Signalled => self.trim(),
            }
        }
    }

    /// Between two requests of a client whose transaction is refused.
    fn refuses_transaction(&self) -> bool {
        self.session.refused.is_some() && self.buffer.is_empty()
    }

    async fn wait(&mut self) -> Event {
        let output_bytes_max = self.shared.parameters.tunables().client_output_limit;
        let may_read = self.output.has_room(output_bytes_max);
        let wanted = self.next_read_bytes();
        let Session { client, notifications, .. } = &mut self.session;
        tokio::select! {
            biased;
            () = client.signalled() => Event::Signalled,
            writable = self.output.writable() => Event::Writable(writable),
            read = fill(&mut self.read_half, &mut self.buffer, wanted), if may_read => Event::Read(read),
            push = notified(notifications), if may_read => Event::Notified(push),
        }
    }

    /// Answers all requests that are complete.
    async fn answer(&mut self) -> io::Result<Flow> {
        self.read_bytes = if self.buffer.len() >= READ_BYTES_MIN { READ_BYTES_MAX } else { READ_BYTES_MIN };
        loop {
            let requests_max = self.turn_requests_max();
            let (consumed, malformed) = self.decode(requests_max);
            if !self.requests.is_empty() && self.answer_turn().await? == Flow::Close {
                return Ok(Flow::Close);
            }
            let last = self.requests.len() < requests_max;
            if let Some(error) = malformed {
                self.refuse(&error);
                return Ok(Flow::Close);
            }
            self.consume(consumed);
            self.send()?;
            if last {
                break;
            }
            let (client, bytes_max) = (&self.session.client, self.shared.parameters.tunables().client_output_limit);
            tokio::select! {
                biased;
                made = self.output.make_room(bytes_max) => made?,
                // One that reads nothing must not hold up a stop for as long as it likes.
                () = client.killed() => return Ok(Flow::Close),
            }
        }
        self.publish_memory();
        let query_bytes_max = self.shared.parameters.tunables().client_query_buffer_limit;
        if self.buffer.len() > query_bytes_max.min(QUERY_BYTES_MAX) {
            tracing::debug!(client = self.session.client.id, "closing a connection over its query buffer limit");
            return Ok(Flow::Close);
        }
        Ok(Flow::Continue)
    }

    fn next_read_bytes(&self) -> usize {
        next_read_bytes(self.reader.wanted(), self.buffer.len(), self.brought).max(self.read_bytes)
    }

    /// § What is unread when a socket is closed makes the kernel reset it, and replies on their way may be lost with it.
    async fn answer_arrived(&mut self) -> io::Result<()> {
        let wanted = self.next_read_bytes();
        let arrived = fill(&mut self.read_half, &mut self.buffer, wanted);
        match tokio::time::timeout(LAST_LOOK, arrived).await {
            // The connection is closed either way.
            Ok(Ok(1..)) => self.answer().await.map(drop),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Before AUTH requests are taken one by one, since AUTH itself lifts the limits for what follows it.
    fn turn_requests_max(&self) -> usize {
        if self.session.authenticated { REQUEST_COUNT_MAX } else { 1 }
    }

    fn decode(&mut self, requests_max: usize) -> (usize, Option<ProtocolError>) {
        let word_bytes_max = self.shared.parameters.tunables().proto_max_bulk_len as u64;
        self.reader.set_limits(ReadLimits { word_bytes_max, requests_max });
        self.reader.set_authenticated(self.session.authenticated);
        self.requests.clear();
        match self.reader.decode(&self.buffer, &mut self.requests) {
            Ok(consumed) => (consumed, None),
            Err(error) => (0, Some(error)),
        }
    }

    async fn answer_turn(&mut self) -> io::Result<Flow> {
        let client = self.session.client.clone();
        let turn = Turn {
            shared: self.shared,
            session: &mut self.session,
            output: &mut self.output,
            requests: &self.requests,
            bytes: &self.buffer,
            stretch: &mut self.stretch,
        };
        // The turn first: one that never waits does not even look whether it was killed. Dropping it abandons replies, and of the ops only those
        // that are not proposed yet.
        tokio::select! {
            biased;
            flow = turn.run() => flow,
            () = client.killed() => Ok(Flow::Close),
        }
    }

    fn refuse(&mut self, error: &ProtocolError) {
        let mark = self.output.reply.len();
        self.output.reply.error(&format!("ERR {error}"));
        self.shared.stats.count_error(&self.output.reply.buffer()[mark..]);
        if self.session.reply_mode != ReplyMode::On {
            self.output.reply.truncate(mark);
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.brought = self.brought.max(bytes);
        if bytes < self.buffer.len() {
            self.buffer.advance(bytes);
        } else if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        } else {
            self.buffer.clear();
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let before = self.output.written_bytes;
        self.output.send()?;
        self.shared.stats.count_write(self.output.written_bytes - before);
        Ok(())
    }

    fn publish_memory(&self) {
        let memory = &self.session.client.memory;
        memory.query_bytes.store(self.buffer.len(), Ordering::Relaxed);
        memory.query_free_bytes.store(self.buffer.capacity() - self.buffer.len(), Ordering::Relaxed);
    }

    /// Idle: gives back what it does not need.
    fn trim(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.brought = 0;
            self.requests = Requests::default();
            self.stretch = Stretch::default();
        }
        self.output.trim();
        self.publish_memory();
    }

    /// Sends what is left, within bounds, and ends.
    async fn farewell(&mut self) -> io::Result<()> {
        let client = self.session.client.clone();
        if client.signal() == Signal::Kill {
            return Ok(());
        }
        tokio::select! {
            drained = tokio::time::timeout(FAREWELL_WAIT_MAX, self.output.drain()) => drained.unwrap_or(Ok(())),
            () = client.killed() => Ok(()),
        }
    }
}

/// How much to read towards a buffer of `announced` bytes, of which `arrived` are there.
///
/// § Memory follows what has arrived: a large word at most doubles the buffer each time, whatever length it announced; to begin with it may get as much as
/// the connection has brought before, within bounds.
fn next_read_bytes(announced: usize, arrived: usize, brought: usize) -> usize {
    announced.saturating_sub(arrived).min(arrived.max(brought.min(BROUGHT_BYTES_MAX)))
}

/// Ends with the next push; never for a client that wants none. Cancel-safe.
async fn notified(notifications: &mut Option<broadcast::Receiver<Bytes>>) -> Bytes {
    while let Some(receiver) = notifications {
        match receiver.recv().await {
            Ok(push) => return push,
            // What a slow client has missed it learns by MOVED.
            Err(RecvError::Lagged(_)) => (),
            Err(RecvError::Closed) => *notifications = None,
        }
    }
    std::future::pending().await
}

/// Reads what has arrived. The buffer is empty-handed until there is something to read, so that idle connections that were
/// trimmed stay small. Cancel-safe.
async fn fill(read_half: &mut ReadHalf<'_>, buffer: &mut BytesMut, wanted: usize) -> io::Result<usize> {
    if buffer.capacity() == 0 {
        read_half.readable().await?;
    }
    if buffer.capacity() - buffer.len() < READ_BYTES_MIN / 2 {
        buffer.reserve(wanted);
    }
    read_half.read_buf(buffer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_at_once_than_has_arrived_or_came_before() {
        const MB: usize = 1 << 20;
        for (announced, arrived, brought, expected) in [
            (MB, 1000, 0, 1000),
            (MB, MB - 10, 0, 10),
            (MB, 1000, MB, MB - 1000),
            (500 * MB, 1000, MB, MB),
            (500 * MB, 3 * MB, MB, 3 * MB),
            (0, 1000, MB, 0),
        ] {
            assert_eq!(next_read_bytes(announced, arrived, brought), expected, "{announced} {arrived} {brought}");
        }
    }
}
