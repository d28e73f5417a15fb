//! Clients: one call at a time each, over a connection that dies with its node.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;

use crate::random::simulated::Chance;
use crate::server::SimulatedConnection;
use crate::simulation::history::{Call, History, Outcome};
use crate::simulation::network::node_of;
use crate::simulation::node::Machine;

/// A call that takes longer is given up: its outcome is unknown, and it may happen yet.
const PATIENCE_MS: u64 = 15_000;
/// Keys in use at a time, and calls until another one takes a key's place.
const KEYS: u64 = 6;
const KEY_CALLS: u64 = 150;

type Answer = Arc<Mutex<Option<Option<BytesMut>>>>;
/// Opened by the first call on it.
type Connection = Arc<tokio::sync::Mutex<Option<SimulatedConnection>>>;

/// A value with a long time to live that one client alone writes: as the clocks go, it must not expire in a run.
#[derive(Default)]
struct Owned {
    number: u64,
    value: Option<String>,
}

enum OwnedCall {
    Set(String),
    Get,
}

struct Waiting {
    owned: Option<OwnedCall>,
    call: Call,
    with_read: bool,
    answer: Answer,
}

pub struct Client {
    index: usize,
    node: usize,
    connection: Option<Connection>,
    waiting: Option<Waiting>,
    calls: u64,
    owned: Owned,
}

pub struct Clients {
    clients: Vec<Client>,
    calls: u64,
    /// How often all was given up.
    era: u64,
    pub history: History,
    /// An owned value that was not there any more.
    pub expired: Option<String>,
}

impl Clients {
    pub fn new(count: usize, nodes: usize) -> Self {
        let client = |index| Client {
            index,
            node: index % nodes,
            connection: None,
            waiting: None,
            calls: 0,
            owned: Owned::default(),
        };
        Self { clients: (0..count).map(client).collect(), calls: 0, era: 0, history: History::default(), expired: None }
    }

    /// What was acknowledged may be gone: other keys from here on. No call is under way, since no node is up.
    pub fn forget(&mut self) {
        self.era += 1;
        self.history = History::default();
        self.clients.iter_mut().for_each(|client| client.owned.renew());
    }

    /// One that is in use.
    pub fn recent_key(&self, chance: &mut Chance) -> String {
        key_of(self.era, self.calls, chance)
    }

    /// Each in its turn.
    pub fn key_in_use(&self, turn: u64) -> String {
        format!("{}k{}", self.era, self.calls / KEY_CALLS + turn % KEYS)
    }

    pub fn are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.waiting.is_none())
    }

    /// The node's connections are gone.
    pub fn disconnect(&mut self, node: usize, now_ms: u64) {
        for client in self.clients.iter_mut().filter(|client| client.node == node) {
            client.connection = None;
            if let Some(waiting) = client.waiting.take() {
                if waiting.owned.is_some() {
                    client.owned.renew();
                    continue;
                }
                self.history.record(Call { end_ms: now_ms, outcome: Outcome::Unknown, ..waiting.call });
            }
        }
    }

    /// `begin`: whether new calls are made.
    pub fn step(&mut self, machines: &[Machine], now_ms: u64, chance: &mut Chance, begin: bool) {
        for client in &mut self.clients {
            match client.finish(now_ms, machines.len()) {
                Some(Finished::Call(call)) => self.history.record(call),
                Some(Finished::Expired(text)) => self.expired = Some(text),
                Some(Finished::Owned) | None => (),
            }
            if begin && client.waiting.is_none() && chance.below(4) == 0 {
                self.calls += 1;
                let key = key_of(self.era, self.calls, chance);
                client.begin(key, machines, now_ms, chance);
            }
        }
    }
}

fn key_of(era: u64, calls: u64, chance: &mut Chance) -> String {
    format!("{era}k{}", calls / KEY_CALLS + chance.below(KEYS))
}

enum Finished {
    Call(Call),
    Owned,
    Expired(String),
}

impl Owned {
    /// What became of a write is not known, and it may happen yet: another key.
    fn renew(&mut self) {
        self.number += 1;
        self.value = None;
    }
}

impl Client {
    fn begin(&mut self, key: String, machines: &[Machine], now_ms: u64, chance: &mut Chance) {
        if chance.below(20) == 0 {
            self.node = chance.below(machines.len() as u64) as usize;
            self.connection = None;
        }
        let machine = &machines[self.node];
        let Some(shared) = machine.shared() else {
            self.node = (self.node + 1) % machines.len();
            self.connection = None;
            return;
        };
        self.calls += 1;
        let kind = chance.below(5);
        let owned = (kind == 4).then(|| match &self.owned.value {
            Some(_) if chance.below(3) > 0 => OwnedCall::Get,
            _ => OwnedCall::Set(format!("{}", self.calls)),
        });
        let token = (kind < 3).then(|| format!("{}.{};", self.index, self.calls));
        let with_read = kind == 2 || kind == 3;
        let own_key = format!("t{}.{}", self.index, self.owned.number);
        let mut bytes = Vec::new();
        match &owned {
            Some(OwnedCall::Set(value)) => {
                put(&mut bytes, &[b"SET", own_key.as_bytes(), value.as_bytes(), b"PX", b"600000"]);
            }
            Some(OwnedCall::Get) => put(&mut bytes, &[b"GET", own_key.as_bytes()]),
            None => (),
        }
        if let Some(token) = &token {
            put(&mut bytes, &[b"APPEND", key.as_bytes(), token.as_bytes()]);
        }
        if with_read {
            put(&mut bytes, &[b"GET", key.as_bytes()]);
        }
        let answer = Answer::default();
        let call = Call { key, token, read: None, start_ms: now_ms, end_ms: 0, outcome: Outcome::Unknown };
        let (slot, connection) = (answer.clone(), self.connection.get_or_insert_default().clone());
        machine.spawn(async move {
            let mut connection = connection.lock().await;
            let connection = connection.get_or_insert_with(|| SimulatedConnection::open(shared));
            let replies = connection.turn(&bytes).await;
            *slot.lock() = Some(replies);
        });
        self.waiting = Some(Waiting { owned, call, with_read, answer });
    }

    fn finish(&mut self, now_ms: u64, nodes: usize) -> Option<Finished> {
        let waiting = self.waiting.as_ref()?;
        let answer = waiting.answer.lock().take();
        if answer.is_none() && now_ms - waiting.call.start_ms < PATIENCE_MS {
            return None;
        }
        let Waiting { mut call, with_read, owned, .. } = self.waiting.take()?;
        if let Some(owned) = owned {
            return Some(self.finish_owned(&owned, answer.flatten(), now_ms, nodes));
        }
        call.end_ms = now_ms;
        let Some(replies) = answer.flatten() else {
            self.connection = None;
            return Some(Finished::Call(call));
        };
        let mut replies = &replies[..];
        call.outcome = Outcome::Done;
        if call.token.is_some()
            && let Err(error) = take(&mut replies)
        {
            self.follow(&error, nodes);
            call.outcome = Outcome::Refused;
        }
        if with_read {
            match take(&mut replies) {
                Ok(value) => call.read = Some(value),
                Err(error) => {
                    self.follow(&error, nodes);
                    if call.token.is_none() {
                        call.outcome = Outcome::Refused;
                    }
                }
            }
        }
        Some(Finished::Call(call))
    }

    fn finish_owned(&mut self, owned: &OwnedCall, replies: Option<BytesMut>, now_ms: u64, nodes: usize) -> Finished {
        let reply = replies.map(|replies| take(&mut &replies[..]));
        match (owned, reply) {
            (OwnedCall::Set(value), Some(Ok(_))) => self.owned.value = Some(value.clone()),
            (OwnedCall::Get, Some(Ok(value))) if self.owned.value.as_ref() != Some(&value) => {
                let expected = self.owned.value.take();
                return Finished::Expired(format!(
                    "at {now_ms} ms: {value:?} was read for {expected:?} of client {}, which has minutes to live",
                    self.index
                ));
            }
            (OwnedCall::Get, Some(Ok(_))) => (),
            (_, Some(Err(error))) => self.follow(&error, nodes),
            (_, None) => {
                self.connection = None;
                self.owned.renew();
            }
        }
        Finished::Owned
    }

    fn follow(&mut self, error: &str, nodes: usize) {
        let host = error.strip_prefix("MOVED ").and_then(|moved| moved.split_whitespace().nth(1));
        let named = host.and_then(|address| node_of(address.split(':').next().unwrap_or_default()));
        self.node = named.unwrap_or((self.node + 1) % nodes);
        self.connection = None;
    }
}

pub fn put(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// One reply: an integer's or string's text, or an error's.
pub fn take(replies: &mut &[u8]) -> Result<String, String> {
    let end = replies.windows(2).position(|pair| pair == b"\r\n").expect("a whole reply");
    let line = String::from_utf8_lossy(&replies[..end]).into_owned();
    *replies = &replies[end + 2..];
    let (kind, text) = line.split_at(1);
    match kind {
        "-" => Err(text.to_owned()),
        "$" if text != "-1" => {
            let length: usize = text.parse().expect("a length");
            let value = String::from_utf8_lossy(&replies[..length]).into_owned();
            *replies = &replies[length + 2..];
            Ok(value)
        }
        "$" | "_" => Ok(String::new()),
        _ => Ok(text.to_owned()),
    }
}
