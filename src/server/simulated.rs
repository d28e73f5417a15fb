//! A connection without a socket, for the simulation: a turn's bytes in, its replies out.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use bytes::BytesMut;

use crate::protocol::{ReadLimits, RequestReader, Requests};
use crate::server::output::Output;
use crate::server::session::{Flow, Session};
use crate::server::shared::Shared;
use crate::server::stretch::Stretch;
use crate::server::turn::Turn;

pub struct SimulatedConnection {
    shared: Arc<Shared>,
    session: Session,
    stretch: Stretch,
    /// A turn may send its first replies while it works on the rest.
    socket: tokio::net::TcpStream,
    peer: TcpStream,
}

impl SimulatedConnection {
    /// On the node's runtime.
    pub fn open(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (socket, _) = listener.accept().expect("accepts");
        socket.set_nonblocking(true).expect("sockets can");
        peer.set_nonblocking(true).expect("sockets can");
        // Closed without a trace: a simulation opens more connections than there are ports.
        for end in [socket2::SockRef::from(&socket), socket2::SockRef::from(&peer)] {
            end.set_linger(Some(std::time::Duration::ZERO)).expect("sockets can");
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let client = shared.clients.register(address, address, 0, usize::MAX).expect("there is no limit");
        let session = Session::new(client, false);
        let socket = tokio::net::TcpStream::from_std(socket).expect("on a runtime");
        Self { shared, session, stretch: Stretch::default(), socket, peer }
    }

    /// The replies to one turn of complete requests, or `None` if the connection would be closed.
    pub async fn turn(&mut self, bytes: &[u8]) -> Option<BytesMut> {
        let mut requests = Requests::default();
        let limits = ReadLimits { requests_max: 1024, ..ReadLimits::default() };
        RequestReader::new(limits).decode(bytes, &mut requests).expect("the simulation sends what it should");
        let (_, write_half) = self.socket.split();
        let client = self.session.client.clone();
        let mut output = Output::new(write_half, &self.shared.output_bytes, &client.memory.output_bytes);
        let turn = Turn {
            shared: &self.shared,
            session: &mut self.session,
            output: &mut output,
            requests: &requests,
            bytes,
            stretch: &mut self.stretch,
        };
        if !matches!(turn.run().await, Ok(Flow::Continue)) {
            return None;
        }
        let (mut replies, mut read) = (BytesMut::new(), [0; 4096]);
        while let Ok(count @ 1..) = self.peer.read(&mut read) {
            replies.extend_from_slice(&read[..count]);
        }
        replies.extend_from_slice(output.reply.buffer());
        Some(replies)
    }
}
