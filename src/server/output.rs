//! What a connection has to send, and how much of it may wait. Hot path.
//!
//! Most replies leave with one `try_write` right after their turn. What the socket does not take waits here while the
//! connection goes on reading, since a client may well send its whole pipeline before it reads the first reply. Beyond
//! the limits the connection stops reading until the client does.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::tcp::WriteHalf;

use crate::protocol::{Protocol, Reply};
use crate::server::places::Rest;

/// Reply bytes that wait on this node, all connections together, before each is held to [`SMALL_BYTES`].
const NODE_BYTES_MAX: usize = 1 << 30;
const SMALL_BYTES: usize = 1 << 20;
/// Of the replies of one stretch, what is made before some of it is sent.
const PART_BYTES: usize = 256 << 10;
/// Parts that wait are at least that large.
const SMALL_PART_BYTES: usize = 16 << 10;
/// A reply buffer larger than this is given back after use.
const KEPT_BYTES_MAX: usize = 64 << 10;
const HANG_UP_LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Output<'a> {
    stream: WriteHalf<'a>,
    /// Replies of the turn under way.
    pub reply: Reply,
    /// Replies of earlier turns that the socket has not taken yet, in parts: one buffer would be copied each time that it grows.
    waiting: VecDeque<BytesMut>,
    waiting_bytes: usize,
    /// `waiting_bytes`' share of the node's total.
    counted: usize,
    node_bytes: &'a AtomicUsize,
    /// What others see of `waiting`.
    client_bytes: &'a AtomicUsize,
    pub written_bytes: u64,
}

impl<'a> Output<'a> {
    pub fn new(stream: WriteHalf<'a>, node_bytes: &'a AtomicUsize, client_bytes: &'a AtomicUsize) -> Self {
        let reply = Reply::new(Protocol::Resp2);
        Self {
            stream,
            reply,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            counted: 0,
            node_bytes,
            client_bytes,
            written_bytes: 0,
        }
    }

    /// For a command that writes its reply while something else watches the socket.
    pub fn reply_and_stream(&mut self) -> (&mut Reply, &WriteHalf<'a>) {
        (&mut self.reply, &self.stream)
    }

    /// Sends what the socket takes without waiting; keeps the rest.
    pub fn send(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            if self.reply.is_empty() {
                return Ok(());
            }
            let sent = try_write(&self.stream, self.reply.buffer())?;
            self.written_bytes += sent as u64;
            if sent == self.reply.len() {
                self.reply.truncate(0);
                if sent > KEPT_BYTES_MAX {
                    *self.reply.buffer_mut() = BytesMut::new();
                }
                return Ok(());
            }
            let mut part = self.reply.take();
            part.advance(sent);
            self.keep(part);
        } else {
            if !self.reply.is_empty() {
                let part = self.reply.take();
                self.keep(part);
            }
            while let Some(part) = self.waiting.front_mut() {
                let sent = try_write(&self.stream, part)?;
                self.written_bytes += sent as u64;
                self.waiting_bytes -= sent;
                if sent < part.len() {
                    part.advance(sent);
                    break;
                }
                self.waiting.pop_front();
            }
            if self.waiting.is_empty() {
                self.waiting = VecDeque::new();
            }
        }
        self.recount();
        Ok(())
    }

    fn keep(&mut self, part: BytesMut) {
        self.waiting_bytes += part.len();
        match self.waiting.back_mut() {
            Some(last) if last.capacity() - last.len() >= part.len() => last.extend_from_slice(&part),
            // With room for what comes next, or a pipeline's small replies would each have their own.
            _ if part.len() < SMALL_PART_BYTES => {
                let mut roomy = BytesMut::with_capacity(SMALL_PART_BYTES);
                roomy.extend_from_slice(&part);
                self.waiting.push_back(roomy);
            }
            _ => self.waiting.push_back(part),
        }
    }

    fn recount(&mut self) {
        let bytes = self.waiting_bytes;
        if bytes > self.counted {
            self.node_bytes.fetch_add(bytes - self.counted, Ordering::Relaxed);
        } else {
            self.node_bytes.fetch_sub(self.counted - bytes, Ordering::Relaxed);
        }
        self.counted = bytes;
        self.client_bytes.store(bytes, Ordering::Relaxed);
    }

    /// True if more replies may be made before the client has read some.
    pub fn has_room(&self, bytes_max: usize) -> bool {
        let small = self.waiting_bytes < SMALL_BYTES;
        small || (self.waiting_bytes < bytes_max && self.node_bytes.load(Ordering::Relaxed) < NODE_BYTES_MAX)
    }

    /// Ends when the socket takes bytes again; never if nothing waits. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return std::future::pending().await;
        }
        self.stream.writable().await
    }

    /// Gives unused memory back.
    pub fn trim(&mut self) {
        if self.reply.is_empty() {
            *self.reply.buffer_mut() = BytesMut::new();
        }
    }

    /// Appends as much of a stretch's replies as is made at a time; mostly all.
    pub fn append(&mut self, rest: &mut Rest<'_>) {
        while !rest.is_empty() && self.reply.len() < PART_BYTES {
            rest.append_next(self.reply.buffer_mut(), PART_BYTES);
        }
    }

    /// Appends all, and sends it on the way: no more is made than there is room for, a part aside. What is left is large values by reference count.
    pub async fn append_all(&mut self, mut rest: Rest<'_>, bytes_max: usize) -> io::Result<()> {
        while !rest.is_empty() {
            self.make_room(bytes_max).await?;
            self.append(&mut rest);
        }
        Ok(())
    }

    /// Sends until there is room again. Cancel-safe.
    ///
    /// § What a client does not read may come to as much as the limit, and making a gigabyte takes seconds: others get their turn after each part, the
    /// groups' heartbeats and the peers among them.
    pub async fn make_room(&mut self, bytes_max: usize) -> io::Result<()> {
        self.send()?;
        if !self.waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        while !self.has_room(bytes_max) {
            self.stream.writable().await?;
            self.send()?;
        }
        Ok(())
    }

    /// Sends everything. Cancel-safe.
    pub async fn drain(&mut self) -> io::Result<()> {
        self.send()?;
        while !self.waiting.is_empty() {
            self.stream.writable().await?;
            self.send()?;
        }
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        self.node_bytes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Ends when the client has closed its side. Requests that were not read yet keep a socket readable, so it is looked at now and then.
pub async fn hung_up(stream: &WriteHalf<'_>) {
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        tokio::time::sleep(HANG_UP_LOOK_INTERVAL).await;
    }
}

fn try_write(stream: &WriteHalf<'_>, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.try_write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::server::places::{Place, assemble};

    async fn connect() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepted = async { listener.accept().await.unwrap().0 };
        let (server, client) = tokio::join!(accepted, TcpStream::connect(listener.local_addr().unwrap()));
        (server, client.unwrap())
    }

    #[tokio::test]
    async fn large_replies_of_a_stretch_are_made_as_the_client_reads_them() {
        const VALUE_BYTES: usize = 4 << 20;
        const READS: usize = 60;
        let (mut server, mut client) = connect().await;
        let (node_bytes, client_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut output = Output::new(server.split().1, &node_bytes, &client_bytes);
        let (mut replies, mut places) = (Reply::new(Protocol::Resp2), Vec::new());
        let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
        for _ in 0..READS {
            let start = replies.len() as u32;
            replies.bulk_pieces(value.len(), [value.clone()]);
            places.push(Place::Foreign { buffer: 0, start, end: replies.len() as u32 });
        }
        let mut buffers = [replies.take_replies()];
        let (_, rest) = assemble(&mut output.reply, 0, &places, &mut buffers);
        let reply_bytes = VALUE_BYTES + format!("${VALUE_BYTES}\r\n\r\n").len();
        let send = async {
            output.append_all(rest, SMALL_BYTES).await?;
            output.drain().await
        };
        let read = async {
            // A client that reads from the start may leave nothing to wait.
            while node_bytes.load(Ordering::Relaxed) <= SMALL_BYTES {
                tokio::task::yield_now().await;
            }
            let (mut left, mut most, mut bytes) = (READS * reply_bytes, 0, vec![0; 1 << 20]);
            while left > 0 {
                most = most.max(node_bytes.load(Ordering::Relaxed));
                left -= client.read(&mut bytes).await.unwrap();
            }
            most
        };
        let (sent, most) = tokio::join!(send, read);
        sent.unwrap();
        assert!(most <= SMALL_BYTES + 2 * PART_BYTES, "{most} bytes waited");
        assert_eq!((client_bytes.load(Ordering::Relaxed), node_bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn replies_the_socket_does_not_take_wait_and_leave_in_order() {
        let (mut server, mut client) = connect().await;
        let (node_bytes, client_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut output = Output::new(server.split().1, &node_bytes, &client_bytes);
        let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for _ in 0..64 {
            output.reply.append_raw(&block);
            output.send().unwrap();
        }
        assert!(client_bytes.load(Ordering::Relaxed) > SMALL_BYTES && !output.has_room(SMALL_BYTES));
        assert_eq!(node_bytes.load(Ordering::Relaxed), client_bytes.load(Ordering::Relaxed));
        let read = async {
            let mut received = vec![0; 64 << 20];
            client.read_exact(&mut received).await.unwrap();
            received
        };
        let (drained, received) = tokio::join!(output.drain(), read);
        drained.unwrap();
        assert!(received.chunks(1 << 20).all(|chunk| chunk == block));
        assert_eq!((client_bytes.load(Ordering::Relaxed), node_bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
