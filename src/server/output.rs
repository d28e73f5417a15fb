//! What a connection has to send, and how much of it may wait. Hot path.
//!
//! Most replies leave with one `try_write` right after their turn. What the socket does not take waits here while the
//! connection goes on reading, since a client may well send its whole pipeline before it reads the first reply. Beyond
//! the limits the connection stops reading until the client does.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::tcp::WriteHalf;

use crate::protocol::{Protocol, Reply};

/// Reply bytes that wait on this node, all connections together, before each is held to [`SMALL_BYTES`].
const NODE_BYTES_MAX: usize = 1 << 30;
const SMALL_BYTES: usize = 1 << 20;
/// A reply buffer larger than this is given back after use.
const KEPT_BYTES_MAX: usize = 64 << 10;
const HANG_UP_LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Output<'a> {
    stream: WriteHalf<'a>,
    /// Replies of the turn under way.
    pub reply: Reply,
    /// Replies of earlier turns that the socket has not taken yet.
    waiting: BytesMut,
    /// `waiting`'s share of the node's total.
    counted: usize,
    node_bytes: &'a AtomicUsize,
    pub written_bytes: u64,
}

impl<'a> Output<'a> {
    pub fn new(stream: WriteHalf<'a>, node_bytes: &'a AtomicUsize) -> Self {
        let reply = Reply::new(Protocol::Resp2);
        Self { stream, reply, waiting: BytesMut::new(), counted: 0, node_bytes, written_bytes: 0 }
    }

    /// For a command that writes its reply while something else watches the socket.
    pub fn reply_and_stream(&mut self) -> (&mut Reply, &WriteHalf<'a>) {
        (&mut self.reply, &self.stream)
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len()
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
                if sent > KEPT_BYTES_MAX {
                    *self.reply.buffer_mut() = BytesMut::new();
                } else {
                    self.reply.truncate(0);
                }
                return Ok(());
            }
            self.waiting = self.reply.take();
            self.waiting.advance(sent);
        } else {
            if !self.reply.is_empty() {
                self.waiting.extend_from_slice(self.reply.buffer());
                self.reply.truncate(0);
            }
            let sent = try_write(&self.stream, &self.waiting)?;
            self.written_bytes += sent as u64;
            self.waiting.advance(sent);
        }
        if self.waiting.is_empty() {
            self.waiting = BytesMut::new();
        }
        self.recount();
        Ok(())
    }

    fn recount(&mut self) {
        let bytes = self.waiting.len();
        if bytes > self.counted {
            self.node_bytes.fetch_add(bytes - self.counted, Ordering::Relaxed);
        } else {
            self.node_bytes.fetch_sub(self.counted - bytes, Ordering::Relaxed);
        }
        self.counted = bytes;
    }

    /// True if more replies may be made before the client has read some.
    pub fn has_room(&self, bytes_max: usize) -> bool {
        let small = self.waiting.len() < SMALL_BYTES;
        small || (self.waiting.len() < bytes_max && self.node_bytes.load(Ordering::Relaxed) < NODE_BYTES_MAX)
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

    /// Sends until there is room again. Cancel-safe.
    pub async fn make_room(&mut self, bytes_max: usize) -> io::Result<()> {
        self.send()?;
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

    #[tokio::test]
    async fn replies_the_socket_does_not_take_wait_and_leave_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut server, client) = tokio::join!(
            async { listener.accept().await.unwrap().0 },
            TcpStream::connect(listener.local_addr().unwrap())
        );
        let mut client = client.unwrap();
        let node_bytes = AtomicUsize::new(0);
        let mut output = Output::new(server.split().1, &node_bytes);
        let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for _ in 0..64 {
            output.reply.append_raw(&block);
            output.send().unwrap();
        }
        assert!(output.waiting_bytes() > SMALL_BYTES && !output.has_room(SMALL_BYTES));
        assert_eq!(node_bytes.load(Ordering::Relaxed), output.waiting_bytes());
        let read = async {
            let mut received = vec![0; 64 << 20];
            client.read_exact(&mut received).await.unwrap();
            received
        };
        let (drained, received) = tokio::join!(output.drain(), read);
        drained.unwrap();
        assert!(received.chunks(1 << 20).all(|chunk| chunk == block));
        assert_eq!((output.waiting_bytes(), node_bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
