//! Real nodes as child processes, and a small blocking client that follows redirects.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::host::Stopwatch;

/// Distance between a node's client port and its peer and HTTP ports.
const PEER_OFFSET: u16 = 10_000;
const HTTP_OFFSET: u16 = 1_000;
const BLOCK_PORTS: u16 = 500;
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const READY_WAIT: Duration = Duration::from_secs(60);
const CONNECT_WAIT: Duration = Duration::from_secs(10);

/// One reply of the wire protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Null => "(nil)".to_owned(),
            Self::Array(items) => items.iter().map(Self::text).collect::<Vec<_>>().join(" "),
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) => items,
            other => panic!("not an array: {other:?}"),
        }
    }
}

/// One connection to one node.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(port: u16) -> std::io::Result<Self> {
        Self::open_at((LOOPBACK, port).into())
    }

    pub fn open_at(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn set_timeout(&self, timeout: Duration) {
        self.stream.get_ref().set_read_timeout(Some(timeout)).expect("a timeout above zero");
    }

    /// Whether the other side has closed it, as far as is known here.
    pub fn is_closed(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).expect("an open socket");
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("an open socket");
        !matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Half-closes: replies can still be read.
    pub fn close_sending(&mut self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).expect("an open socket");
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> std::io::Result<()> {
        self.send_raw(&encode(words))
    }

    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> std::io::Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    /// For those who read replies themselves.
    pub fn reader(&mut self) -> &mut impl BufRead {
        &mut self.stream
    }

    pub fn receive(&mut self) -> std::io::Result<Reply> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.len() < 3 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
        let count = || text.parse::<i64>().map_err(std::io::Error::other);
        Ok(match line[0] {
            b'+' => Reply::Simple(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Integer(count()?),
            b'$' => match count()? {
                -1 => Reply::Null,
                length => {
                    let mut bytes = vec![0; length as usize + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length as usize);
                    Reply::Bulk(bytes)
                }
            },
            b'*' => match count()? {
                -1 => Reply::Null,
                length => Reply::Array((0..length).map(|_| self.receive()).collect::<Result<_, _>>()?),
            },
            other => return Err(std::io::Error::other(format!("a reply starts with {other}"))),
        })
    }
}

pub fn encode<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.as_ref().len()).as_bytes());
        bytes.extend(word.as_ref());
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Follows MOVED, and reconnects; what a cluster client does.
pub struct ClusterClient {
    ports: Vec<u16>,
    connections: HashMap<u16, Connection>,
    /// Last port that answered for a first argument.
    leaders: HashMap<Vec<u8>, u16>,
}

impl ClusterClient {
    pub fn new(ports: &[u16]) -> Self {
        Self { ports: ports.to_vec(), connections: HashMap::new(), leaders: HashMap::new() }
    }

    /// One attempt chain: `Err` means the outcome is unknown, or no node could be reached.
    pub fn call<A: AsRef<[u8]>>(&mut self, words: &[A]) -> std::io::Result<Reply> {
        let key = words.get(1).map(|key| key.as_ref().to_vec()).unwrap_or_default();
        let mut port = self.leaders.get(&key).copied().unwrap_or(self.ports[0]);
        for attempt in 0..16 {
            let reply = match self.call_node(port, words) {
                Ok(reply) => reply,
                Err((sent, error)) => {
                    self.connections.remove(&port);
                    self.leaders.remove(&key);
                    if sent {
                        return Err(error);
                    }
                    // Never reached a node, so another may be asked.
                    std::thread::sleep(Duration::from_millis(20));
                    port = self.ports[attempt % self.ports.len()];
                    continue;
                }
            };
            match &reply {
                Reply::Error(text) if text.starts_with("MOVED ") => {
                    let address = text.split(' ').nth(2).expect("MOVED has three words");
                    port = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("MOVED names a port");
                }
                _ => {
                    self.leaders.insert(key, port);
                    return Ok(reply);
                }
            }
        }
        Err(std::io::Error::other("too many redirects"))
    }

    fn call_node<A: AsRef<[u8]>>(&mut self, port: u16, words: &[A]) -> Result<Reply, (bool, std::io::Error)> {
        // What is sent to a connection that was closed meanwhile has an unknown outcome, for nothing.
        if self.connections.get(&port).is_some_and(Connection::is_closed) {
            self.connections.remove(&port);
        }
        let connection = match self.connections.entry(port) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Connection::open(port).map_err(|error| (false, error))?),
        };
        connection.call(words).map_err(|error| (true, error))
    }
}

/// One node: its ports, its directory and its process.
pub struct Node {
    pub host: Ipv4Addr,
    pub port: u16,
    pub directory: PathBuf,
    /// What is started, up to the flags.
    pub program: Vec<String>,
    pub flags: Vec<String>,
    environment: HashMap<String, String>,
    child: Option<Child>,
}

impl Node {
    /// On this machine's own address.
    pub fn new(port: u16, directory: PathBuf, flags: Vec<String>) -> Self {
        let program = vec![env!("CARGO_BIN_EXE_kvorum").to_owned(), "server".to_owned()];
        Self { host: LOOPBACK, port, directory, program, flags, environment: HashMap::new(), child: None }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(&self.flags)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        self.child = Some(child);
    }

    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    pub fn replace_flag(&mut self, flag: &str, value: &str) {
        let position = self.flags.iter().position(|word| word == flag).expect("the flag is set");
        self.flags[position + 1] = value.to_owned();
    }

    pub fn remove_flag(&mut self, flag: &str) {
        let position = self.flags.iter().position(|word| word == flag).expect("the flag is set");
        self.flags.drain(position..position + 2);
    }

    fn log_path(&self) -> PathBuf {
        self.directory.with_extension("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child").is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Until every thread of a node that was sent SIGSTOP stands still.
    pub fn wait_stopped(&self) {
        let tasks = format!("/proc/{}/task", self.pid());
        eventually(
            Duration::from_secs(5),
            || "the process stands still".to_owned(),
            || {
                let threads = std::fs::read_dir(&tasks).expect("the process is there");
                threads.flatten().all(|thread| {
                    let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                    stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('T'))
                })
            },
        );
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("kills");
        child.wait().expect("ends");
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.take().expect("the node runs").wait().expect("ends").code()
    }

    /// Waits for the process to end by itself; the exit code.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let waited = Stopwatch::start();
        let child = self.child.as_mut().expect("the node runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                self.child = None;
                return status.code();
            }
            assert!(!waited.is_over(limit), "the node did not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes everything the node knew.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "the node still runs");
        std::fs::remove_dir_all(&self.directory).expect("wipes");
    }

    pub fn address(&self) -> SocketAddr {
        (self.host, self.port).into()
    }

    pub fn connect(&self) -> Connection {
        let mut connection = None;
        eventually(
            READY_WAIT,
            || format!("node {} accepts\n{}", self.port, self.log()),
            || {
                connection = Connection::open_at(self.address()).ok();
                connection.is_some()
            },
        );
        connection.expect("connected")
    }

    /// One call on a connection of its own; an error text if it could not be made.
    pub fn ask(&self, words: &[&str]) -> Reply {
        match Connection::open_at(self.address()).and_then(|mut connection| connection.call(words)) {
            Ok(reply) => reply,
            Err(error) => Reply::Error(error.to_string()),
        }
    }

    /// The whole answer of a page of the HTTP port; an error text if there is none.
    pub fn ask_http(&self, path: &str) -> String {
        let asked = || {
            let mut connection = Connection::open_at((self.host, self.port + HTTP_OFFSET).into())?;
            connection.send_raw(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            connection.reader().read_to_string(&mut answer)?;
            Ok(answer)
        };
        asked().unwrap_or_else(|error: std::io::Error| error.to_string())
    }

    pub fn is_ready(&self) -> bool {
        self.ask(&["CLUSTER", "INFO"]).text().contains("cluster_state:ok")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A paused process takes the kill as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Removed with the cluster.
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts `count` founding nodes and waits until each answers for all slots.
    pub fn start(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(count, flags);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_ready();
        cluster
    }

    /// Ports and directories, with nothing started.
    pub fn prepare(count: usize, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ports = free_ports(count);
        let list = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",");
        let node = |port: u16| Self::node(directory.path(), port, count, &list, flags);
        let nodes = ports.iter().map(|port| node(*port)).collect();
        Self { nodes, directory }
    }

    fn node(directory: &Path, port: u16, count: usize, list: &str, flags: &[&str]) -> Node {
        let data = directory.join(format!("node-{port}"));
        let mut words =
            vec!["--port".to_owned(), port.to_string(), "--data-dir".to_owned(), data.display().to_string()];
        if count > 1 {
            words.extend(["--initial-cluster".to_owned(), list.to_owned()]);
        }
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Node::new(port, data, words)
    }

    /// A node that is not part of the cluster yet, with these flags beside its port and directory; not started.
    pub fn add(&mut self, flags: &[&str]) -> usize {
        let node = Self::node(self.directory.path(), free_ports(1)[0], 1, "", flags);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// For what a test needs beside the nodes' own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    pub fn client(&self) -> ClusterClient {
        ClusterClient::new(&self.ports())
    }

    pub fn wait_ready(&self) {
        for node in &self.nodes {
            // What it waits for is with the others.
            let logs = || self.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n----\n");
            eventually(READY_WAIT, || format!("node {} is ready\n{}", node.port, logs()), || node.is_ready());
        }
    }

    /// The node that leads the group of `key`.
    pub fn leader_of(&self, key: &str) -> usize {
        let mut leader = None;
        eventually(
            READY_WAIT,
            || format!("{key} has a leader"),
            || {
                leader = self.nodes.iter().position(|node| {
                    node.child.is_some() && matches!(node.ask(&["GET", key]), Reply::Bulk(_) | Reply::Null)
                });
                leader.is_some()
            },
        );
        leader.expect("found")
    }
}

/// Waits for a condition with a deadline, to which what the host takes of the processor is added.
pub fn eventually(limit: Duration, what: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    let waited = Stopwatch::start();
    while !condition() {
        assert!(!waited.is_over(limit), "within {limit:?}: {}", what());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tests run side by side: each takes the next ports, below the ephemeral range, and skips those in use. A port can be free only because its node
/// is stopped at the moment, so a run of all tests has ports enough to come by none twice.
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = block_of_ports();
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCK_PORTS;
        let free = [port, port + PEER_OFFSET, port + HTTP_OFFSET]
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        if free {
            ports.push(port);
        }
    }
    ports
}

/// The first of this process's own client ports: a listener that it keeps says to other processes that they are taken. Client ports begin at 11, 13, 15,
/// 17 and 19 thousand, with the HTTP ports behind each and the peer ports from 21 thousand on.
fn block_of_ports() -> u16 {
    static BLOCK: OnceLock<(u16, TcpListener)> = OnceLock::new();
    let claim = || (0..10).find_map(|block| Some((block, TcpListener::bind(("127.0.0.1", 22_000 + block)).ok()?)));
    let (block, _claim) = BLOCK.get_or_init(|| claim().expect("fewer than ten runs of the tests side by side"));
    11_000 + block / 2 * 2_000 + block % 2 * BLOCK_PORTS
}
