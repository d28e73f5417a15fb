//! Accepts clients: one loop per bound address, one task per client, spread over the runtimes in turn.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol as SocketProtocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::command::WireError;
use crate::metrics::NodeMetrics;
use crate::server::clients::Signal;
use crate::server::connection;
use crate::server::node_questions::{self, PROTECTED_MODE_TEXT, QUESTIONERS_MAX};
use crate::server::shared::Shared;

/// Connections the kernel may complete before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after accept failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Listener {
    sockets: Vec<std::net::TcpListener>,
    shared: Arc<Shared>,
    runtimes: Vec<Handle>,
}

impl Listener {
    /// Binds all addresses of the configuration; clients can connect from here on and are served once `run` is.
    pub fn bind(shared: Arc<Shared>, runtimes: Vec<Handle>) -> io::Result<Self> {
        assert!(!runtimes.is_empty(), "connections need a runtime");
        let sockets = shared.config.bind.iter().map(|host| bind_one(*host, shared.config.port));
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        Ok(Self { sockets, shared, runtimes })
    }

    /// The addresses bound; of use when port 0 was asked for.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(std::net::TcpListener::local_addr).collect()
    }

    /// Serves until `stop` turns true (or its sender is gone), then drains: replies under way are sent, at most
    /// `drain_max` long, and all connections are closed when this returns.
    pub async fn run(self, mut stop: watch::Receiver<bool>, drain_max: Duration) -> io::Result<()> {
        let connections = Arc::new(AcceptedBy {
            next_runtime: AtomicUsize::new(0),
            runtimes: self.runtimes,
            questioners: Arc::new(Semaphore::new(QUESTIONERS_MAX)),
        });
        let mut loops = JoinSet::new();
        for socket in self.sockets {
            let listener = TcpListener::from_std(socket)?;
            loops.spawn(accept(listener, self.shared.clone(), connections.clone(), stop.clone()));
        }
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                _ = sweep.tick() => {
                    let timeout_s = self.shared.parameters.tunables().timeout_s;
                    self.shared.clients.sweep(u64::from(timeout_s) * 1000);
                    self.shared.sample_rates();
                }
            }
        }
        // The loops hand back their connections' tasks once they have stopped accepting.
        let mut tasks = JoinSet::new();
        while let Some(accepted) = loops.join_next().await {
            if let Ok(mut accepted) = accepted {
                tasks.spawn(async move { while accepted.join_next().await.is_some() {} });
            }
        }
        let all_closed = async { while tasks.join_next().await.is_some() {} };
        tokio::pin!(all_closed);
        self.shared.clients.send_all(Signal::Drain);
        if tokio::time::timeout(drain_max, &mut all_closed).await.is_err() {
            self.shared.clients.send_all(Signal::Kill);
            all_closed.await;
        }
        Ok(())
    }
}

/// Ends when the node stops, or whoever could say so is gone. Cancel-safe.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn bind_one(host: IpAddr, port: u16) -> io::Result<std::net::TcpListener> {
    let address = SocketAddr::new(host, port);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP)).map_err(named)?;
    socket.set_reuse_address(true).map_err(named)?;
    if address.is_ipv6() {
        // 0.0.0.0 may be bound beside it.
        socket.set_only_v6(true).map_err(named)?;
    }
    socket.set_nonblocking(true).map_err(named)?;
    socket.bind(&address.into()).map_err(named)?;
    socket.listen(BACKLOG).map_err(named)?;
    Ok(socket.into())
}

/// Which runtime the next connection goes to.
struct AcceptedBy {
    next_runtime: AtomicUsize,
    runtimes: Vec<Handle>,
    /// Places for `node_questions.rs`.
    questioners: Arc<Semaphore>,
}

/// Accepts until `stop`; returns the tasks of the connections that are still open.
async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    accepted_by: Arc<AcceptedBy>,
    mut stop: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = tasks.join_next() => (),
            accepted = listener.accept() => match accepted {
                Ok((stream, addr)) => accepted_by.welcome(stream, addr, &shared, &stop, &mut tasks),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // The kernel has told these that they are connected, so they may have sent something.
    for _ in 0..BACKLOG {
        let Some(Ok((stream, addr))) = listener.accept().now_or_never() else { break };
        accepted_by.welcome(stream, addr, &shared, &stop, &mut tasks);
    }
    tasks
}

impl AcceptedBy {
    /// Starts a connection's task, or says why not.
    fn welcome(
        &self,
        stream: TcpStream,
        addr: SocketAddr,
        shared: &Arc<Shared>,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        let Ok(stream) = stream.into_std() else { return };
        let next = self.next_runtime.fetch_add(1, Ordering::Relaxed);
        let runtime = &self.runtimes[next % self.runtimes.len()];
        match self.admit(&stream, addr, shared) {
            Admission::Client(client) => {
                tasks.spawn_on(connection::serve(stream, client, shared.clone()), runtime);
            }
            Admission::PerhapsNode(place) => {
                tasks.spawn_on(node_questions::serve(stream, shared.clone(), stop.clone(), place), runtime);
            }
            Admission::Refused(text) => {
                NodeMetrics::limit_reached("maxclients").increment(u64::from(text != PROTECTED_MODE_TEXT));
                // Courtesy only: the socket's buffer is empty, so this fits or the peer is gone.
                let _ = (&stream).write(format!("-{text}\r\n").as_bytes());
            }
        }
    }

    fn admit(&self, stream: &std::net::TcpStream, addr: SocketAddr, shared: &Shared) -> Admission {
        let tunables = shared.parameters.tunables();
        let exposed = shared.config.bind.iter().any(|host| !host.is_loopback());
        let protected = tunables.protected_mode && tunables.requirepass.is_none() && exposed;
        if protected && !addr.ip().to_canonical().is_loopback() {
            return match self.questioners.clone().try_acquire_owned() {
                Ok(place) => Admission::PerhapsNode(place),
                Err(_) => {
                    node_questions::count_refused(shared);
                    Admission::Refused(PROTECTED_MODE_TEXT.to_owned())
                }
            };
        }
        admit_client(stream, addr, shared)
    }
}

enum Admission {
    Client(Arc<crate::server::clients::Client>),
    /// Protected mode lets in none but other nodes.
    PerhapsNode(OwnedSemaphorePermit),
    /// The text to send before closing.
    Refused(String),
}

fn admit_client(stream: &std::net::TcpStream, addr: SocketAddr, shared: &Shared) -> Admission {
    let tunables = shared.parameters.tunables();
    // A socket that is gone already is noticed by its first read.
    let _ = stream.set_nodelay(true);
    if tunables.tcp_keepalive_s > 0 {
        let time = Duration::from_secs(u64::from(tunables.tcp_keepalive_s));
        let interval = (time / 3).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(3);
        let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
    let laddr = stream.local_addr().unwrap_or(addr);
    match shared.clients.register(addr, laddr, stream.as_raw_fd(), tunables.maxclients) {
        Some(client) => {
            shared.stats.node.connections.increment(1.0);
            shared.stats.node.connections_total.increment(1);
            Admission::Client(client)
        }
        None => {
            shared.stats.node.connections_rejected.increment(1);
            Admission::Refused(WireError::MaxClients.to_string())
        }
    }
}
