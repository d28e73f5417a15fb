//! Where connections between nodes come from: TCP, or the simulated network of the tests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

const LISTEN_BACKLOG: i32 = 256;
/// Unsent bytes the kernel holds per connection: what a control frame can have to wait behind besides one write.
const UNSENT_BYTES_MAX: u32 = 256 * 1024;

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub type Stream = Box<dyn Duplex>;

pub trait Wire: Send + Sync + 'static {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Stream>>;
    fn listen(&self, address: SocketAddr) -> io::Result<Arc<dyn Listener>>;
}

pub trait Listener: Send + Sync + 'static {
    /// Port 0 in the configuration has become a real one.
    fn local_address(&self) -> io::Result<SocketAddr>;
    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
}

pub struct Tcp;

impl Wire for Tcp {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        Box::pin(async move { boxed(TcpStream::connect((host.as_str(), port)).await?) })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Arc<dyn Listener>> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // So that a configuration may name 0.0.0.0 and [::] side by side.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Arc::new(TcpListener::from_std(socket.into())?))
    }
}

impl Listener for TcpListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = Self::accept(self).await?;
            Ok((boxed(stream)?, from))
        })
    }
}

fn boxed(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(Box::new(stream))
}
