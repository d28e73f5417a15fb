//! Who is connected: the registry behind CLIENT LIST, CLIENT KILL, maxclients and the idle sweep.
//!
//! A connection's own task owns its state ([`Session`](crate::server::Session)); what others may see of it is copied here
//! into relaxed atomics. Bounded: at most maxclients entries, and every string in one has a length limit.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Boottime;

/// A client that was silent for this long gives its buffers back.
const TRIM_AFTER_MS: u64 = 2_000;
/// How often a node that stops looks whether its clients have left.
const LEFT_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Longest connection name, library name or version kept.
pub const CLIENT_TEXT_BYTES_MAX: usize = 4096;

/// What a connection's task is asked to do by others. Ordered: a later signal overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    None,
    /// Idle: release buffers.
    Trim,
    /// The node stops: close once the client is quiet.
    Leave,
    /// Close once the replies under way are out.
    Drain,
    /// Close at once.
    Kill,
}

/// How a client that waits is woken before what it waits for has come; CLIENT UNBLOCK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblocked {
    /// As if its time were over.
    TimedOut,
    /// With an error.
    Refused,
}

const NOT_BLOCKED: u8 = 0;
const BLOCKED: u8 = 1;
const BLOCKED_TIMED_OUT: u8 = 2;
const BLOCKED_REFUSED: u8 = 3;
/// By CLIENT PAUSE, which no CLIENT UNBLOCK ends.
const POSTPONED: u8 = 4;

/// A client counts as blocked while it holds this.
#[derive(Debug)]
pub struct Blocked<'a>(&'a Client);

impl Blocked<'_> {
    /// Whether somebody has ended the wait, and how.
    pub fn unblocked(&self) -> Option<Unblocked> {
        match self.0.blocked.load(Ordering::Relaxed) {
            BLOCKED_TIMED_OUT => Some(Unblocked::TimedOut),
            BLOCKED_REFUSED => Some(Unblocked::Refused),
            _ => None,
        }
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.blocked.store(NOT_BLOCKED, Ordering::Relaxed);
    }
}

/// Switches a client set for itself.
#[derive(Debug, Default)]
pub struct ClientSwitches {
    pub no_evict: AtomicBool,
    pub no_touch: AtomicBool,
    pub readonly: AtomicBool,
    pub resp3: AtomicBool,
}

/// Bytes a connection holds, as of its last turn.
#[derive(Debug, Default)]
pub struct ClientMemory {
    pub query_bytes: AtomicUsize,
    pub query_free_bytes: AtomicUsize,
    pub output_bytes: AtomicUsize,
}

/// What a client calls itself and the library it uses.
#[derive(Debug, Clone, Default)]
pub struct ClientNames {
    pub name: Box<[u8]>,
    pub library_name: Box<[u8]>,
    pub library_version: Box<[u8]>,
}

#[derive(Debug)]
pub struct Client {
    pub id: u64,
    pub addr: SocketAddr,
    pub laddr: SocketAddr,
    pub fd: i32,
    pub switches: ClientSwitches,
    pub memory: ClientMemory,
    created_ms: u64,
    active_ms: AtomicU64,
    /// Number of the last command in the statistics; see `stats.rs`.
    last_command: AtomicU32,
    names: Mutex<ClientNames>,
    signal: AtomicU8,
    blocked: AtomicU8,
    wake: Notify,
}

/// Which clients CLIENT KILL and CLIENT LIST mean; every condition given must hold.
#[derive(Debug, Default)]
pub struct ClientFilter {
    pub ids: Option<Vec<u64>>,
    pub addr: Option<Box<[u8]>>,
    pub laddr: Option<Box<[u8]>>,
    /// A user other than `default`, or a client type that this server does not have.
    pub nobody: bool,
    pub except: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<HashMap<u64, Arc<Client>>>,
    /// Those who connect now are asked to leave, too.
    leaving: AtomicBool,
    next_id: AtomicU64,
    pub accepted: AtomicU64,
    pub rejected: AtomicU64,
}

fn now_ms() -> u64 {
    Boottime::now().0 / 1_000_000
}

impl Client {
    /// Called once per turn.
    pub fn mark_active(&self, now: Boottime, last_command: u32) {
        self.active_ms.store(now.0 / 1_000_000, Ordering::Relaxed);
        self.last_command.store(last_command, Ordering::Relaxed);
    }

    pub fn last_command(&self) -> u32 {
        self.last_command.load(Ordering::Relaxed)
    }

    pub fn block(&self) -> Blocked<'_> {
        self.blocked.store(BLOCKED, Ordering::Relaxed);
        Blocked(self)
    }

    pub fn postpone(&self) -> Blocked<'_> {
        self.blocked.store(POSTPONED, Ordering::Relaxed);
        Blocked(self)
    }

    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) != NOT_BLOCKED
    }

    /// False if the client does not wait, or was woken already.
    pub fn unblock(&self, how: Unblocked) -> bool {
        let woken = match how {
            Unblocked::TimedOut => BLOCKED_TIMED_OUT,
            Unblocked::Refused => BLOCKED_REFUSED,
        };
        self.blocked.compare_exchange(BLOCKED, woken, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub fn names(&self) -> ClientNames {
        self.names.lock().clone()
    }

    pub fn rename(&self, change: impl FnOnce(&mut ClientNames)) {
        change(&mut self.names.lock());
    }

    pub fn send(&self, signal: Signal) {
        self.signal.fetch_max(signal as u8, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// The strongest signal sent. A trim is forgotten by asking.
    pub fn signal(&self) -> Signal {
        let trim = Signal::Trim as u8;
        let _ = self.signal.compare_exchange(trim, Signal::None as u8, Ordering::AcqRel, Ordering::Acquire);
        match self.signal.load(Ordering::Acquire) {
            leave if leave == Signal::Leave as u8 => Signal::Leave,
            drain if drain == Signal::Drain as u8 => Signal::Drain,
            kill if kill == Signal::Kill as u8 => Signal::Kill,
            _ => Signal::None,
        }
    }

    /// Ends when a signal was sent since the last call. Cancel-safe.
    pub async fn signalled(&self) {
        self.wake.notified().await;
    }

    /// Ends when this client was killed. Cancel-safe.
    pub async fn killed(&self) {
        while self.signal.load(Ordering::Acquire) != Signal::Kill as u8 {
            self.wake.notified().await;
        }
    }

    /// One line of CLIENT LIST, as Redis 7.2 prints it. `command` is the full name of the last command.
    pub fn describe(&self, command: &str) -> Vec<u8> {
        let now = now_ms();
        let names = self.names.lock();
        let mut flags = String::new();
        for (set, flag) in
            [(&self.switches.readonly, 'r'), (&self.switches.no_evict, 'e'), (&self.switches.no_touch, 'T')]
        {
            if set.load(Ordering::Relaxed) {
                flags.push(flag);
            }
        }
        if self.is_blocked() {
            flags.push('b');
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let query = self.memory.query_bytes.load(Ordering::Relaxed);
        let query_free = self.memory.query_free_bytes.load(Ordering::Relaxed);
        let output = self.memory.output_bytes.load(Ordering::Relaxed);
        let age = now.saturating_sub(self.created_ms) / 1000;
        let idle = now.saturating_sub(self.active_ms.load(Ordering::Relaxed)) / 1000;
        let mut line = Vec::with_capacity(320);
        line.extend_from_slice(
            format!("id={} addr={} laddr={} fd={} name=", self.id, self.addr, self.laddr, self.fd).as_bytes(),
        );
        line.extend_from_slice(&names.name);
        let mut rest = String::new();
        let resp = if self.switches.resp3.load(Ordering::Relaxed) { 3 } else { 2 };
        let total = query + query_free + output + std::mem::size_of::<Self>();
        write!(
            rest,
            " age={age} idle={idle} flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf={query} qbuf-free={query_free} \
             argv-mem=0 multi-mem=0 rbs={output} rbp=0 obl=0 oll=0 omem={output} tot-mem={total} events=r cmd={command} \
             user=default redir=-1 resp={resp} lib-name=",
        )
        .expect("writing to a String cannot fail");
        line.extend_from_slice(rest.as_bytes());
        line.extend_from_slice(&names.library_name);
        line.extend_from_slice(b" lib-ver=");
        line.extend_from_slice(&names.library_version);
        line
    }
}

impl ClientFilter {
    fn covers(&self, client: &Client) -> bool {
        let is = |wanted: &Option<Box<[u8]>>, addr: SocketAddr| {
            wanted.as_ref().is_none_or(|wanted| wanted[..] == *addr.to_string().as_bytes())
        };
        !self.nobody
            && self.except != Some(client.id)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && is(&self.addr, client.addr)
            && is(&self.laddr, client.laddr)
    }
}

impl Clients {
    /// `None` when `clients_max` are connected already.
    pub fn register(&self, addr: SocketAddr, laddr: SocketAddr, fd: i32, clients_max: usize) -> Option<Arc<Client>> {
        let mut connected = self.connected.lock();
        if connected.len() >= clients_max {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let now = now_ms();
        // Under the lock of `leave`, so that nobody is forgotten.
        let signal = if self.leaving.load(Ordering::Relaxed) { Signal::Leave } else { Signal::None };
        let client = Arc::new(Client {
            id: self.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            addr,
            laddr,
            fd,
            switches: ClientSwitches::default(),
            memory: ClientMemory::default(),
            created_ms: now,
            active_ms: AtomicU64::new(now),
            last_command: AtomicU32::new(u32::MAX),
            names: Mutex::default(),
            signal: AtomicU8::new(signal as u8),
            blocked: AtomicU8::new(NOT_BLOCKED),
            wake: Notify::new(),
        });
        connected.insert(client.id, client.clone());
        Some(client)
    }

    pub fn remove(&self, id: u64) {
        self.connected.lock().remove(&id);
    }

    pub fn count(&self) -> usize {
        self.connected.lock().len()
    }

    /// The clients the filter covers, oldest first.
    pub fn select(&self, filter: &ClientFilter) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> =
            self.connected.lock().values().filter(|client| filter.covers(client)).cloned().collect();
        clients.sort_unstable_by_key(|client| client.id);
        clients
    }

    /// Sends the signal to everyone; used when the node stops.
    pub fn send_all(&self, signal: Signal) {
        self.connected.lock().values().for_each(|client| client.send(signal));
    }

    /// Asks all clients to leave, also those that connect meanwhile; returns when nobody is left, or at `deadline`.
    pub async fn leave(&self, deadline: Instant) {
        {
            let connected = self.connected.lock();
            self.leaving.store(true, Ordering::Relaxed);
            connected.values().for_each(|client| client.send(Signal::Leave));
        }
        while self.count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(LEFT_LOOK_INTERVAL).await;
        }
    }

    /// Called every second: kills clients that idled longer than `timeout_ms` (0: never), trims the quiet ones.
    pub fn sweep(&self, timeout_ms: u64) {
        let now = now_ms();
        for client in self.connected.lock().values() {
            let idle_ms = now.saturating_sub(client.active_ms.load(Ordering::Relaxed));
            if timeout_ms > 0 && idle_ms > timeout_ms {
                client.send(Signal::Kill);
            } else if (TRIM_AFTER_MS..TRIM_AFTER_MS + 1_500).contains(&idle_ms) {
                client.send(Signal::Trim);
            }
        }
    }

    /// (largest query buffer, largest output buffer), for INFO.
    pub fn largest_buffers(&self) -> (usize, usize) {
        self.connected.lock().values().fold((0, 0), |(query, output), client| {
            (
                query.max(client.memory.query_bytes.load(Ordering::Relaxed)),
                output.max(client.memory.output_bytes.load(Ordering::Relaxed)),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_client_past_the_limit_is_refused_and_counted() {
        let clients = Clients::default();
        let first = clients.register(addr(1), addr(6379), 3, 1).expect("one fits");
        assert!(clients.register(addr(2), addr(6379), 4, 1).is_none());
        assert_eq!(clients.rejected.load(Ordering::Relaxed), 1);
        clients.remove(first.id);
        assert!(clients.register(addr(2), addr(6379), 4, 1).is_some());
    }

    #[test]
    fn a_filter_covers_the_clients_that_meet_all_its_conditions() {
        let clients = Clients::default();
        for port in 1..=3 {
            clients.register(addr(port), addr(6379), 3, 10).expect("fits");
        }
        let ids =
            |filter: ClientFilter| -> Vec<u64> { clients.select(&filter).iter().map(|client| client.id).collect() };
        assert_eq!(ids(ClientFilter::default()), [1, 2, 3]);
        assert_eq!(ids(ClientFilter { except: Some(2), ..ClientFilter::default() }), [1, 3]);
        assert_eq!(ids(ClientFilter { ids: Some(vec![2, 9]), ..ClientFilter::default() }), [2]);
        assert_eq!(ids(ClientFilter { addr: Some((*b"127.0.0.1:3").into()), ..ClientFilter::default() }), [3]);
        assert_eq!(ids(ClientFilter { nobody: true, ..ClientFilter::default() }), [0; 0]);
    }

    #[test]
    fn a_kill_overrides_a_drain_and_a_trim_is_forgotten_once_seen() {
        let clients = Clients::default();
        let client = clients.register(addr(1), addr(6379), 3, 1).expect("fits");
        client.send(Signal::Trim);
        assert_eq!(client.signal(), Signal::None);
        client.send(Signal::Kill);
        client.send(Signal::Drain);
        assert_eq!(client.signal(), Signal::Kill);
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_while_the_others_leave_is_asked_to_leave_too() {
        let clients = Clients::default();
        let early = clients.register(addr(1), addr(6379), 3, 9).expect("fits");
        let start = Instant::now();
        clients.leave(start + Duration::from_secs(3)).await;
        assert_eq!((start.elapsed(), early.signal()), (Duration::from_secs(3), Signal::Leave));
        let late = clients.register(addr(2), addr(6379), 4, 9).expect("fits");
        assert_eq!(late.signal(), Signal::Leave);
        clients.remove(early.id);
        clients.remove(late.id);
        clients.leave(Instant::now() + Duration::from_secs(3)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3), "nobody is waited for");
    }

    #[test]
    fn a_client_that_waits_is_woken_once_and_one_that_does_not_never() {
        let clients = Clients::default();
        let client = clients.register(addr(1), addr(6379), 3, 1).expect("fits");
        assert!(!client.unblock(Unblocked::TimedOut));
        let blocked = client.block();
        assert_eq!((blocked.unblocked(), client.is_blocked()), (None, true));
        assert!(client.unblock(Unblocked::Refused) && !client.unblock(Unblocked::TimedOut));
        assert_eq!(blocked.unblocked(), Some(Unblocked::Refused));
        drop(blocked);
        assert!(!client.is_blocked());
        let postponed = client.postpone();
        assert!(client.is_blocked() && !client.unblock(Unblocked::TimedOut), "by a pause");
        drop(postponed);
        assert!(!client.is_blocked());
    }

    #[test]
    fn a_line_of_the_client_list_has_the_fields_of_redis() {
        let clients = Clients::default();
        let client = clients.register(addr(7), addr(6379), 9, 1).expect("fits");
        client.rename(|names| names.name = (*b"worker").into());
        let line = String::from_utf8(client.describe("client|list")).expect("text");
        assert!(line.starts_with(
            "id=1 addr=127.0.0.1:7 laddr=127.0.0.1:6379 fd=9 name=worker age=0 idle=0 flags=N db=0 sub=0"
        ));
        assert!(line.ends_with(" events=r cmd=client|list user=default redir=-1 resp=2 lib-name= lib-ver="), "{line}");
    }
}
