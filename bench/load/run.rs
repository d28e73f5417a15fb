//! The loop: requests out when they are due, replies in, latencies counted. One thread; it shares its cores with the servers.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;

use crate::cluster::{Keys, append_key, owners};
use crate::connection::{Command, Connection, Outcome, Waiting};
use crate::histogram::Histogram;
use crate::options::Options;

/// Requests of an open loop that may be without a reply: beyond, the servers do not keep up, and memory is not to grow.
const OUTSTANDING_MAX: usize = 500_000;
/// After the last request, how long its reply may take.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Between two questions who serves what, while replies say MOVED.
const RELOAD_PAUSE: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 1 << 18;
/// Nanoseconds of one wait for sockets; then clocks are looked at.
const WAIT_MAX: u64 = 100_000_000;

/// One node's keys, and how many of them a fill has set.
#[derive(Default)]
struct Node {
    address: String,
    keys: Vec<u32>,
    filled: usize,
    /// The connections to it, and which of them has the next request of an open loop.
    connections: Vec<usize>,
    turn: usize,
}

pub struct Run {
    options: Options,
    keys: Keys,
    epoll: OwnedFd,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    value: Vec<u8>,
    random: u64,
    start: Instant,
    counts: Counts,
    /// What reads go into.
    buffer: Vec<u8>,
    moved_seen: u64,
    reloaded: Option<Instant>,
}

#[derive(Default)]
struct Counts {
    sets: Histogram,
    gets: Histogram,
    /// Open loop: how long after they were due requests were sent. It is the generator's own share of the latency.
    late: Histogram,
    /// Replies within the time of the run.
    in_time: u64,
    missing: u64,
    moved: u64,
    failed: u64,
    failure: String,
}

impl Run {
    pub fn new(options: Options) -> io::Result<Run> {
        let mut run = Run {
            value: format!("${}\r\n{}\r\n", options.value_bytes, "x".repeat(options.value_bytes)).into_bytes(),
            keys: Keys::new(&options),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            nodes: Vec::new(),
            connections: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            start: Instant::now(),
            counts: Counts::default(),
            buffer: vec![0; READ_BYTES],
            moved_seen: 0,
            reloaded: None,
            options,
        };
        run.load(&format!("{}:{}", run.options.host, run.options.port))?;
        for index in 0..run.options.clients.max(run.nodes.len()) {
            run.connect(index % run.nodes.len())?;
        }
        Ok(run)
    }

    /// Asks this node who serves what. A node that is new here has no connection yet.
    fn load(&mut self, address: &str) -> io::Result<()> {
        let owners = owners(address, &self.options, &self.keys)?;
        self.nodes.iter_mut().for_each(|node| node.keys.clear());
        for (address, keys) in owners {
            match self.nodes.iter_mut().find(|node| node.address == address) {
                Some(node) => node.keys = keys,
                None => self.nodes.push(Node { address, keys, ..Node::default() }),
            }
        }
        Ok(())
    }

    fn connect(&mut self, node: usize) -> io::Result<()> {
        let index = self.connections.len();
        let connection = Connection::open(&self.nodes[node].address, node)?;
        epoll::add(&self.epoll, &connection.stream, EventData::new_u64(index as u64), EventFlags::IN)?;
        self.nodes[node].connections.push(index);
        self.connections.push(connection);
        Ok(())
    }

    /// Does it, and gives its figures as JSON.
    ///
    /// # Errors
    /// A connection broke, a fill was told an error, or replies stayed out.
    pub fn go(mut self) -> io::Result<String> {
        self.start = Instant::now();
        if self.options.rate > 0.0 {
            self.open_loop()?
        } else {
            self.closed_loop()?
        }
        if self.options.is_fill && self.counts.failed + self.counts.moved > 0 {
            return Err(io::Error::other(format!("not every key was set: {}", self.counts.failure)));
        }
        Ok(self.report())
    }

    fn closed_loop(&mut self) -> io::Result<()> {
        (0..self.connections.len()).try_for_each(|index| self.send_batch(index))?;
        while self.is_sending() || self.is_waited_for() {
            let answered = self.wait(WAIT_MAX)?;
            for index in answered {
                if self.connections[index].waiting.is_empty() {
                    self.send_batch(index)?;
                }
            }
            self.check_drain()?;
        }
        Ok(())
    }

    /// Requests are due at equal distances. One that cannot be sent in time keeps the time that it was due at.
    fn open_loop(&mut self) -> io::Result<()> {
        let interval = 1e9 / self.options.rate;
        let count = (self.options.duration.as_secs_f64() * self.options.rate) as u64;
        let (mut sent, mut outstanding) = (0u64, 0);
        while sent < count || outstanding > 0 {
            let now = self.elapsed();
            let mut touched = Vec::new();
            while sent < count && sent as f64 * interval <= now as f64 {
                let due = (sent as f64 * interval) as u64;
                self.counts.late.add(now - due);
                touched.push(self.queue_due(due));
                sent += 1;
            }
            touched.sort_unstable();
            touched.dedup();
            touched.into_iter().try_for_each(|index| self.flush(index))?;
            let next = if sent < count { (sent as f64 * interval) as u64 } else { u64::MAX };
            self.wait(next.saturating_sub(self.elapsed()))?;
            outstanding = self.connections.iter().map(|connection| connection.waiting.len()).sum();
            if outstanding > OUTSTANDING_MAX {
                return Err(io::Error::other(format!("{outstanding} requests without a reply: the rate is too high")));
            }
            self.check_drain()?;
        }
        Ok(())
    }

    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn is_sending(&self) -> bool {
        if self.options.is_fill {
            return self.nodes.iter().any(|node| node.filled < node.keys.len());
        }
        self.start.elapsed() < self.options.duration
    }

    fn is_waited_for(&self) -> bool {
        self.connections.iter().any(|connection| !connection.waiting.is_empty())
    }

    fn check_drain(&self) -> io::Result<()> {
        if !self.options.is_fill && self.start.elapsed() > self.options.duration + DRAIN_MAX {
            return Err(io::Error::other(format!("requests without a reply {DRAIN_MAX:?} after the last was sent")));
        }
        Ok(())
    }

    fn send_batch(&mut self, index: usize) -> io::Result<()> {
        if self.options.is_fill || self.start.elapsed() < self.options.duration {
            let since = self.elapsed();
            for _ in 0..self.options.pipeline {
                self.queue(index, since);
            }
        }
        self.flush(index)
    }

    /// Queues one request for whichever node has its key, on an idle connection, as a pool of clients would, or behind others if none is idle. Gives
    /// the connection.
    fn queue_due(&mut self, due: u64) -> usize {
        let all: usize = self.nodes.iter().map(|node| node.keys.len()).sum();
        let mut at = (self.draw() % all as u64) as usize;
        let found = self.nodes.iter_mut().find(|node| {
            let is_there = at < node.keys.len();
            at = at.saturating_sub(node.keys.len());
            is_there
        });
        let node = found.expect("the number is below the count of all keys");
        node.turn += 1;
        let mut order =
            (0..node.connections.len()).map(|step| node.connections[(node.turn + step) % node.connections.len()]);
        let idle = order.clone().find(|index| self.connections[*index].waiting.is_empty());
        let index = idle.or_else(|| order.next()).expect("each node has a connection");
        self.queue(index, due);
        index
    }

    fn queue(&mut self, index: usize, since: u64) {
        let (draw, kind) = (self.draw(), self.draw());
        let (options, connection) = (&self.options, &mut self.connections[index]);
        let node = &mut self.nodes[connection.node];
        let number = if options.is_fill {
            let Some(number) = node.keys.get(node.filled) else { return };
            node.filled += 1;
            *number
        } else if node.keys.is_empty() {
            return;
        } else {
            node.keys[(draw % node.keys.len() as u64) as usize]
        };
        let is_set = options.is_fill || kind % (options.sets + options.gets) < options.sets;
        let out = &mut connection.out;
        out.extend_from_slice(if is_set { b"*3\r\n$3\r\nSET\r\n$" } else { b"*2\r\n$3\r\nGET\r\n$" });
        out.extend_from_slice(options.key_bytes.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        append_key(out, number, options.key_bytes);
        out.extend_from_slice(b"\r\n");
        if is_set {
            out.extend_from_slice(&self.value);
        }
        let command = if is_set { Command::Set } else { Command::Get };
        connection.waiting.push_back(Waiting { command, since });
    }

    /// xorshift64*, seeded alike in each run.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Writes, and hears of the socket when it can take more if it did not take all.
    fn flush(&mut self, index: usize) -> io::Result<()> {
        if !self.connections[index].flush()? {
            let both = EventFlags::IN | EventFlags::OUT;
            epoll::modify(&self.epoll, &self.connections[index].stream, EventData::new_u64(index as u64), both)?;
        }
        Ok(())
    }

    /// Waits for sockets, at most so many nanoseconds, reads, and gives the connections that had something.
    fn wait(&mut self, nanoseconds_max: u64) -> io::Result<Vec<usize>> {
        let limit = nanoseconds_max.min(WAIT_MAX);
        let limit = Timespec { tv_sec: 0, tv_nsec: limit as i64 };
        let mut events = Vec::with_capacity(256);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&limit)) {
            // Who pauses a process and lets it go on interrupts its wait.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut answered = Vec::with_capacity(events.len());
        for event in events {
            let (index, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) && self.connections[index].flush()? {
                let stream = &self.connections[index].stream;
                epoll::modify(&self.epoll, stream, EventData::new_u64(index as u64), EventFlags::IN)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(index, &mut buffer)?;
                answered.push(index);
            }
        }
        self.buffer = buffer;
        self.reload_after_moved()?;
        Ok(answered)
    }

    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<()> {
        let now = self.elapsed();
        let is_in_time = self.start.elapsed() <= self.options.duration;
        let counts = &mut self.counts;
        let received = self.connections[index].receive(buffer, |request, outcome| {
            match outcome {
                Outcome::Done => {}
                Outcome::Missing => counts.missing += 1,
                Outcome::Moved => return counts.moved += 1,
                Outcome::Failed(text) => {
                    (counts.failed, counts.failure) = (counts.failed + 1, text);
                    return;
                }
            }
            counts.in_time += u64::from(is_in_time);
            let latencies = if request.command == Command::Set { &mut counts.sets } else { &mut counts.gets };
            latencies.add(now.saturating_sub(request.since));
        });
        match received {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => self.part(index, error),
            received => received,
        }
    }

    /// A node that has left its cluster closes its connections; any other should not.
    fn part(&mut self, index: usize, closed: io::Error) -> io::Result<()> {
        let node = self.connections[index].node;
        if !self.nodes[node].keys.is_empty() {
            self.reload()?;
        }
        let connection = &self.connections[index];
        if !self.nodes[node].keys.is_empty() || !connection.waiting.is_empty() {
            return Err(closed);
        }
        epoll::delete(&self.epoll, &connection.stream)?;
        self.nodes[node].connections.retain(|one| *one != index);
        Ok(())
    }

    fn reload_after_moved(&mut self) -> io::Result<()> {
        if self.counts.moved == self.moved_seen || self.reloaded.is_some_and(|at| at.elapsed() < RELOAD_PAUSE) {
            return Ok(());
        }
        self.reload()
    }

    /// A node that is new gets as many connections as each had at the start. In a closed loop those that had nothing to ask for begin.
    fn reload(&mut self) -> io::Result<()> {
        (self.moved_seen, self.reloaded) = (self.counts.moved, Some(Instant::now()));
        let known = self.nodes.iter().filter(|node| !node.keys.is_empty()).map(|node| node.address.clone());
        // One of them may have left.
        let loaded = known.collect::<Vec<_>>().iter().fold(None, |loaded, address| match loaded {
            Some(Ok(())) => loaded,
            _ => Some(self.load(address)),
        });
        loaded.unwrap_or_else(|| Err(io::Error::other("none of the nodes serves any key now")))?;
        let serving = self.nodes.iter().filter(|node| !node.keys.is_empty()).count();
        for node in 0..self.nodes.len() {
            while !self.nodes[node].keys.is_empty()
                && self.nodes[node].connections.len() < self.options.clients / serving
            {
                self.connect(node)?;
            }
        }
        if self.options.rate == 0.0 {
            let idle = |index: &usize| self.connections[*index].waiting.is_empty();
            (0..self.connections.len())
                .filter(idle)
                .collect::<Vec<_>>()
                .into_iter()
                .try_for_each(|index| self.send_batch(index))?;
        }
        Ok(())
    }

    fn report(&self) -> String {
        let Counts { sets, gets, late, in_time, missing, moved, failed, failure } = &self.counts;
        let seconds = if self.options.is_fill { self.start.elapsed() } else { self.options.duration }.as_secs_f64();
        let replies = if self.options.is_fill { sets.total() } else { *in_time };
        let mut all = Histogram::default();
        [sets, gets].into_iter().for_each(|histogram| all.merge(histogram));
        format!(
            r#"{{"seconds":{seconds:.3},"requests":{},"rps":{:.1},"missing":{missing},"moved":{moved},"failed":{failed},"failure":{:?},"all":{},"set":{},"get":{},"late":{}}}"#,
            all.total(),
            replies as f64 / seconds,
            failure.replace(|letter: char| !letter.is_ascii_graphic(), " "),
            all.json(),
            sets.json(),
            gets.json(),
            late.json()
        )
    }
}
