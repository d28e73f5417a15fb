//! Clients that contend for a few hot keys over real sockets, and write down what they were told.
//!
//! The keys change from time to time (`Clients::rotate`), so that one key's history stays short.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvorum::slot::KeySlot;

use super::history::{Answer, Call, Op, Outcome};
use super::random::Random;
use crate::cluster::harness::{Connection, Reply};

pub const CLIENTS: usize = 20;
const ATTEMPTS: usize = 16;
/// Between two calls of a client, at random: the checker sees contention, and the machine is not saturated.
const PAUSE_MS: (usize, usize) = (4, 12);
/// Some clients give up early and make outcomes unknown; the others are there to be told, however late.
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(7_000)];
/// One call in this many asks any node, as a client with an old map of the slots does: that is who finds stale leaders.
const STRAY: usize = 12;
const MSET_ONE_IN: usize = 20;
/// A thousand million per client, ten thousand per SET: no two sums are the same.
const NUMBER_PER_CLIENT: u64 = 1_000_000_000;
const NUMBER_PER_SET: u64 = 10_000;

/// Keys in use. Those that are counters hold numbers only, so that INCR works on them.
#[derive(Clone, Default)]
pub struct HotKeys {
    pub texts: Vec<Arc<str>>,
    pub counters: Vec<Arc<str>>,
}

impl HotKeys {
    pub fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        self.texts.iter().chain(&self.counters)
    }
}

/// Of all slots, the one that moves with the key.
pub fn slot_of(key: &str) -> u16 {
    KeySlot::of_key(key.as_bytes()).slot().get()
}

struct Shared {
    nodes: Vec<SocketAddr>,
    started: Instant,
    stop: AtomicBool,
    /// With the number of this choice.
    keys: Mutex<(u64, HotKeys)>,
    /// Per client: the choice of keys that it works on, and its last success in microseconds.
    works_on: Vec<AtomicU64>,
    last_ok_us: Vec<AtomicU64>,
    calls: Mutex<Vec<(Arc<str>, Call)>>,
}

pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(nodes: Vec<SocketAddr>, seed: u64, keys: HotKeys) -> Self {
        let counts = || (0..CLIENTS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let shared = Arc::new(Shared {
            nodes,
            started: Instant::now(),
            stop: AtomicBool::new(false),
            keys: Mutex::new((0, keys)),
            works_on: counts(),
            last_ok_us: counts(),
            calls: Mutex::new(Vec::new()),
        });
        let thread = |number: usize| {
            let mut client = Client::new(number, shared.clone(), seed);
            std::thread::spawn(move || client.run())
        };
        Self { threads: (0..CLIENTS).map(thread).collect(), shared }
    }

    pub fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Turns all clients to other keys; the calls on those before, complete.
    pub fn rotate(&self, keys: HotKeys) -> Vec<(Arc<str>, Call)> {
        let number = {
            let mut current = self.shared.keys.lock().expect("no panic under the lock");
            *current = (current.0 + 1, keys);
            current.0
        };
        let late = || self.shared.works_on.iter().any(|works_on| works_on.load(Ordering::Acquire) < number);
        while late() && self.threads.iter().all(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Calls on the new keys may be among them already; they wait for the next time.
        let keys: Vec<Arc<str>> = self.shared.keys.lock().expect("no panic under the lock").1.all().cloned().collect();
        let mut calls = self.shared.calls.lock().expect("no panic under the lock");
        let (stay, out) = std::mem::take(&mut *calls).into_iter().partition(|(key, _)| keys.contains(key));
        *calls = stay;
        out
    }

    /// Clients without a success since then.
    pub fn unserved_since(&self, time: Duration) -> Vec<usize> {
        let last_ok = |client: &usize| self.shared.last_ok_us[*client].load(Ordering::Relaxed);
        (0..CLIENTS).filter(|client| Duration::from_micros(last_ok(client)) < time).collect()
    }

    /// Ends the clients, and reads, writes and reads each key once more, as a client of its own.
    pub fn finish(self, keys: impl Iterator<Item = Arc<str>>) -> Vec<(Arc<str>, Call)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no client panics"));
        let mut reader = Client::new(CLIENTS, self.shared.clone(), 0);
        keys.for_each(|key| {
            reader.values += 1;
            let value = reader.number().to_string().into_bytes().into();
            for op in [Op::Get, Op::Set(value), Op::Get] {
                let call = reader.call(&key, op);
                self.shared.calls.lock().expect("no panic under the lock").push((key.clone(), call));
            }
        });
        std::mem::take(&mut *self.shared.calls.lock().expect("no panic under the lock"))
    }
}

struct Client {
    number: usize,
    shared: Arc<Shared>,
    random: Random,
    connections: HashMap<usize, Connection>,
    /// The node that answered last for a key.
    leaders: HashMap<Arc<str>, usize>,
    values: u64,
}

impl Client {
    fn new(number: usize, shared: Arc<Shared>, seed: u64) -> Self {
        let random = Random::new(seed ^ (number as u64 + 1) << 32);
        Self { number, shared, random, connections: HashMap::new(), leaders: HashMap::new(), values: 0 }
    }

    fn run(&mut self) {
        let mut working_on = u64::MAX;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let (number, keys) = self.shared.keys.lock().expect("no panic under the lock").clone();
            if number != working_on {
                working_on = number;
                self.leaders.clear();
                self.shared.works_on[self.number].store(number, Ordering::Release);
            }
            let place = self.random.below(keys.texts.len() + keys.counters.len());
            let key = keys.all().nth(place).expect("below the count").clone();
            let is_counter = place >= keys.texts.len();
            let calls = if !is_counter && self.random.below(MSET_ONE_IN) == 0 {
                self.set_all(keys.texts.iter().filter(|other| slot_of(other) == slot_of(&key)).cloned().collect())
            } else {
                let op = self.choose(is_counter);
                let call = self.call(&key, op);
                vec![(key, call)]
            };
            let (_, call) = &calls[0];
            if matches!(call.outcome, Outcome::Ok(_)) {
                self.shared.last_ok_us[self.number].store(call.end.as_micros() as u64, Ordering::Relaxed);
            }
            self.shared.calls.lock().expect("no panic under the lock").extend(calls);
            let pause = PAUSE_MS.0 + self.random.below(PAUSE_MS.1 - PAUSE_MS.0);
            std::thread::sleep(Duration::from_millis(pause as u64));
        }
    }

    /// No two writes of a run write the same, so that a read tells which it saw.
    fn choose(&mut self, is_counter: bool) -> Op {
        let text = self.text();
        let value = if is_counter { self.number().to_string().into_bytes().into() } else { text.clone() };
        match self.random.below(20) {
            0..7 => Op::Get,
            7..10 => Op::Set(value),
            10 | 11 => Op::SetNx(value),
            12 => Op::Del,
            13 => Op::GetDel,
            14 => Op::GetSet(value),
            15 => Op::Expire,
            16 if is_counter => Op::IncrByFloat,
            16 => Op::SetRange(text),
            _ if is_counter => Op::Incr,
            _ => Op::Append(text),
        }
    }

    /// All at once; for each key a SET of its own.
    fn set_all(&mut self, keys: Vec<Arc<str>>) -> Vec<(Arc<str>, Call)> {
        let values: Vec<Arc<[u8]>> = keys.iter().map(|_| self.text()).collect();
        let pairs = keys.iter().zip(&values).flat_map(|(key, value)| [key.as_bytes().to_vec(), value.to_vec()]);
        let words: Vec<Vec<u8>> = std::iter::once(b"MSET".to_vec()).chain(pairs).collect();
        let call = self.call_with(&keys[0], Op::Set(values[0].clone()), &words);
        keys.into_iter().zip(values).map(|(key, value)| (key, Call { op: Op::Set(value), ..call.clone() })).collect()
    }

    fn text(&mut self) -> Arc<[u8]> {
        self.values += 1;
        format!("{}.{};", self.number, self.values).into_bytes().into()
    }

    fn number(&self) -> u64 {
        (self.number as u64 + 1) * NUMBER_PER_CLIENT + self.values * NUMBER_PER_SET
    }

    fn call(&mut self, key: &Arc<str>, op: Op) -> Call {
        let words = op.words(key);
        self.call_with(key, op, &words)
    }

    /// Follows redirects, and tries other nodes while nothing was sent.
    fn call_with(&mut self, key: &Arc<str>, op: Op, words: &[Vec<u8>]) -> Call {
        let asked = self.shared.started.elapsed();
        let any = self.random.below(self.shared.nodes.len());
        let is_stray = self.random.below(STRAY) == 0;
        let mut node = self.leaders.get(key).copied().filter(|_| !is_stray).unwrap_or(any);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let start = self.shared.started.elapsed();
            let outcome = match self.ask(node, words) {
                Ok(Reply::Error(text)) => Outcome::NotDone(text),
                Ok(reply) => Outcome::Ok(answer(&op, reply)),
                Err((WasSent::No, error)) => Outcome::NotDone(error.to_string()),
                Err((WasSent::Yes, error)) => Outcome::Unknown(error.kind()),
            };
            let next = match &outcome {
                Outcome::Ok(_) => {
                    self.leaders.insert(key.clone(), node);
                    None
                }
                Outcome::Unknown(_) => None,
                Outcome::NotDone(error) => self.elsewhere(error, node),
            };
            match next.filter(|_| attempt < ATTEMPTS) {
                Some(other) => node = other,
                None => {
                    let end = self.shared.started.elapsed();
                    if !matches!(outcome, Outcome::Ok(_)) {
                        self.leaders.remove(key);
                    }
                    return Call { client: self.number, op, asked, start, end, outcome, node };
                }
            }
        }
    }

    /// Where to go with a call that was not done; `None` if the error is the answer.
    fn elsewhere(&mut self, error: &str, node: usize) -> Option<usize> {
        if let Some(moved) = error.strip_prefix("MOVED ") {
            let address: SocketAddr =
                moved.split(' ').nth(1).and_then(|address| address.parse().ok()).expect("an address");
            return Some(self.shared.nodes.iter().position(|node| *node == address).expect("MOVED names a node"));
        }
        // A reply, not a failure to connect.
        if self.connections.contains_key(&node) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
        // As every library does; drawn from all, now and then one that is not there is asked ten times.
        let nodes = self.shared.nodes.len();
        Some((node + 1 + self.random.below(nodes - 1)) % nodes)
    }

    fn ask(&mut self, node: usize, words: &[Vec<u8>]) -> Result<Reply, (WasSent, std::io::Error)> {
        // What is sent to a connection that was closed meanwhile has an unknown outcome, for nothing.
        let mut connection = match self.connections.remove(&node).filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                let opened = Connection::open_at(self.shared.nodes[node]).map_err(|error| (WasSent::No, error))?;
                opened.set_timeout(TIMEOUTS[self.number % TIMEOUTS.len()]);
                opened
            }
        };
        let reply = connection.call(words).map_err(|error| (WasSent::Yes, error))?;
        self.connections.insert(node, connection);
        Ok(reply)
    }
}

/// Whether a node may have read the request.
enum WasSent {
    No,
    Yes,
}

fn answer(op: &Op, reply: Reply) -> Answer {
    match (op, reply) {
        (Op::Get | Op::GetSet(_) | Op::GetDel | Op::IncrByFloat, Reply::Bulk(value)) => {
            Answer::Value(Some(value.into()))
        }
        (Op::Get | Op::GetSet(_) | Op::GetDel, Reply::Null) => Answer::Value(None),
        (Op::Set(_) | Op::SetNx(_), Reply::Simple(text)) if text == "OK" => Answer::Done,
        (Op::SetNx(_), Reply::Null) => Answer::Refused,
        (Op::Del | Op::Incr | Op::Append(_) | Op::SetRange(_) | Op::Expire, Reply::Integer(number)) => {
            Answer::Number(number)
        }
        (op, reply) => panic!("{op:?} was answered {reply:?}"),
    }
}
