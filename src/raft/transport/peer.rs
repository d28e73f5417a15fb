//! One peer over the life of its connections: dialling, accepting, running a link until it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::endpoint::Shared;
use super::errors::LinkError;
use super::handshake::{self, Hello};
use super::inbound::Inbound;
use super::link::Link;
use super::stats::PeerStats;
use super::wire::{Listener, Stream};
use crate::cluster::NodeId;

const DIAL_WAIT_MAX: Duration = Duration::from_secs(2);
const REDIAL_MS_MIN: u64 = 20;
/// A node that is back may have to wait for this long until it knows who leads, and its clients with it.
const REDIAL_MS_MAX: u64 = 100;
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// A peer that cannot be reached for so long is worth a warning.
const ABSENT_AFTER: Duration = Duration::from_secs(5);
const STEADY_AFTER: Duration = Duration::from_secs(1);

pub struct Peer {
    pub node: NodeId,
    pub stats: Arc<PeerStats>,
    /// Port 0: not known.
    pub address: Mutex<Option<(String, u16)>>,
    /// Where it says that it is. Nobody vouches for it, so `address` is dialled as well.
    pub told_address: Mutex<Option<(String, u16)>>,
    pub link: ArcSwapOption<Link>,
    /// When the last connection ended; until there was one, when the peer was first named.
    pub lost_at: Mutex<Instant>,
    /// Set when the peer is removed or the node stops.
    pub gone: watch::Sender<bool>,
}

impl Peer {
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            stats: Arc::new(PeerStats::new(node)),
            address: Mutex::default(),
            told_address: Mutex::default(),
            link: ArcSwapOption::empty(),
            lost_at: Mutex::new(Instant::now()),
            gone: watch::Sender::new(false),
        }
    }

    /// Ends its connection and its dialling, for good.
    pub fn end(&self, reason: LinkError) {
        self.gone.send_replace(true);
        if let Some(link) = self.link.load_full() {
            link.close(reason);
        }
    }

    /// The addresses take turns.
    fn address_of(&self, attempt: usize) -> Option<(String, u16)> {
        let named = self.address.lock().clone().filter(|(_, port)| *port != 0);
        let told = self.told_address.lock().clone();
        let (first, second) = if attempt.is_multiple_of(2) { (named, told) } else { (told, named) };
        first.or(second)
    }

    /// It is where it is registered: what was told otherwise would only delay the next connection.
    fn forget_told(&self, attempt: usize) {
        let is_named = self.address.lock().as_ref().is_some_and(|(_, port)| *port != 0);
        if is_named && attempt.is_multiple_of(2) {
            *self.told_address.lock() = None;
        }
    }

    pub async fn gone(&self) {
        // The sender is in `self`, so waiting cannot fail.
        self.gone.subscribe().wait_for(|gone| *gone).await.ok();
    }
}

/// Keeps one connection to `peer` until it is removed. Of two nodes the one with the smaller id runs this.
pub async fn dial_loop(shared: Arc<Shared>, peer: Arc<Peer>) {
    let mut wait_ms = REDIAL_MS_MIN;
    // Of each of its addresses.
    let mut last_errors = [String::new(), String::new()];
    for turn in 0.. {
        let attempt = tokio::select! {
            biased;
            () = peer.gone() => return,
            attempt = dial(&shared, &peer, peer.address_of(turn)) => attempt,
        };
        match attempt {
            Ok(stream) => {
                last_errors.iter_mut().for_each(String::clear);
                peer.forget_told(turn);
                let start = Instant::now();
                run(&shared, &peer, stream).await;
                // A connection that breaks at once is not a success.
                if start.elapsed() > STEADY_AFTER {
                    wait_ms = REDIAL_MS_MIN;
                }
            }
            // Starting or stopping, like this node itself.
            Err(LinkError::Io(_)) if peer.lost_at.lock().elapsed() < ABSENT_AFTER => (),
            Err(error) => {
                // Each cause once, not at each attempt.
                let error = error.to_string();
                let last = &mut last_errors[turn % 2];
                if error != *last {
                    tracing::warn!(peer = %peer.node, error, "cannot connect to peer");
                    *last = error;
                }
            }
        }
        tokio::select! {
            biased;
            () = peer.gone() => return,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
        }
        wait_ms = (wait_ms * 2).min(REDIAL_MS_MAX);
    }
}

async fn dial(shared: &Shared, peer: &Peer, address: Option<(String, u16)>) -> Result<Stream, LinkError> {
    let Some((host, port)) = address else {
        return Err(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "address not known").into());
    };
    let connect = shared.wire.connect(host, port);
    let mut stream = tokio::time::timeout(DIAL_WAIT_MAX, connect)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    let mine = shared.hello();
    let theirs = handshake::dial(&mut stream, &mine, peer.node).await?;
    warn_of_other_password(&mine, &theirs);
    Ok(stream)
}

/// Not refused: while an operator changes it node by node, old and new have to live together.
fn warn_of_other_password(mine: &Hello, theirs: &Hello) {
    if mine.password_check != theirs.password_check {
        tracing::warn!(
            peer = %theirs.node,
            "the peer's requirepass differs from this node's: a client that has one password is refused by the other node"
        );
    }
}

/// Accepts connections until the node stops.
pub async fn accept_loop(shared: Arc<Shared>, listener: Arc<dyn Listener>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => match Arc::clone(&shared.handshakes).try_acquire_owned() {
                Ok(place) => {
                    let serving = Arc::clone(&shared);
                    shared.tasks.spawn_on(&shared.runtime, async move { serve(&serving, stream, from, place).await });
                }
                Err(_) => {
                    const CROWDED: &str = "too many peers are shaking hands: connection closed";
                    if shared.refusals.lock().admits(CROWDED, Instant::now()) {
                        tracing::warn!(%from, "{CROWDED}");
                    }
                }
            },
            Err(error) => {
                // Out of file descriptors, most likely: let others free some.
                tracing::warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(shared: &Arc<Shared>, mut stream: Stream, from: SocketAddr, place: tokio::sync::OwnedSemaphorePermit) {
    let mine = shared.hello();
    let greeting = handshake::accept(&mut stream, &mine, |node| shared.objection(node));
    let greeted = tokio::select! {
        biased;
        () = shared.stopping() => return,
        greeted = greeting => greeted,
    };
    drop(place);
    match greeted {
        Ok(theirs) => {
            warn_of_other_password(&mine, &theirs);
            let Some(peer) = shared.peer_or_new(theirs.node) else { return };
            run(shared, &peer, stream).await;
        }
        Err(error) => {
            let text = error.to_string();
            if shared.refusals.lock().admits(&text, Instant::now()) {
                match error {
                    // A peer that stops, or nobody's: a port scan, a health check.
                    LinkError::Io(_) | LinkError::HandshakeTimedOut(_) => {
                        tracing::info!(%from, error = text, "a connection to the peer port came to nothing");
                    }
                    _ => tracing::warn!(%from, error = text, "a peer's connection was not accepted"),
                }
            }
        }
    }
}

/// Runs one connection to its end.
async fn run(shared: &Shared, peer: &Arc<Peer>, stream: Stream) {
    let link = Arc::new(Link::new(Arc::clone(&peer.stats)));
    // The newest connection counts: the old one may be half dead without either side knowing.
    if let Some(old) = peer.link.swap(Some(Arc::clone(&link))) {
        old.close(LinkError::Replaced);
    }
    // Whoever sets `gone` closes the link after that, so that it is closed by one of the two.
    if *peer.gone.borrow() {
        link.close(LinkError::Removed);
    }
    peer.stats.connected();
    tracing::info!(peer = %peer.node, "peer connected");
    if let Some(hint) = shared.hint.lock().clone() {
        link.send_hint(hint);
    }
    shared.receiver.connection_changed(peer.node, true);

    let (mut read, mut write) = tokio::io::split(stream);
    let inbound = Inbound::new(shared, peer, &link);
    let ended = tokio::select! {
        biased;
        reason = link.closed() => Err(reason),
        ended = link.watch_loop(shared.silent_max) => ended,
        // Before reading, which a peer that never pauses could keep at for ever; writing ends when the peer takes no more.
        ended = link.write_loop(&mut write) => ended,
        ended = inbound.read_loop(&mut read) => ended,
    };
    // Requests fail now; those sent from here on see a closed link.
    link.close(LinkError::Closed);
    *peer.lost_at.lock() = Instant::now();
    let current = peer.link.compare_and_swap(&link, None);
    let was_current = current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &link));
    if let Err(reason) = ended {
        tracing::info!(peer = %peer.node, %reason, "peer disconnected");
    }
    if was_current {
        shared.receiver.connection_changed(peer.node, false);
    }
}
