//! Nodes in network namespaces, so that links between them can be cut while clients reach every node.
//!
//! ```text
//!   node 0 ── \
//!   node 1 ──  router ── this namespace, where the clients are
//!   node 2 ── /
//! ```
//!
//! Each node's namespace hangs on the router's by a link of its own, and the router forwards. A cut from A to B is a policy rule of the
//! router that drops what A sends to B without an answer, so one direction can be cut alone, and connections made before feel it as
//! those made after do. A bad link is a token bucket at both of its ends. Only `ip`, `tc` and root are needed. Everything made is removed on drop; names carry the pid, and what a killed run
//! left behind is removed by the next.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "kvf";
/// Two blocks of 256 networks that are set aside for measurements, so nobody's own.
const NETWORKS: u32 = 512;

#[derive(Debug, Clone, Copy)]
pub enum BadLink {
    Slow,
    Lossy,
}

pub struct Net {
    name: String,
    network: u32,
    nodes: usize,
}

impl Net {
    /// `None` where namespaces cannot be made: not root, no `ip`, or a kernel without them.
    pub fn build(nodes: usize) -> Option<Self> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() || !ip("", &["netns", "list"]) {
            return None;
        }
        remove_leftovers();
        let built = BUILT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{built}", std::process::id());
        let net = Self { name, network: (std::process::id() + built * 7) % NETWORKS, nodes };
        // Dropped, and so taken down again, if it fails half-way.
        net.connect().then_some(net)
    }

    fn connect(&self) -> bool {
        let router = self.router();
        let mut works = ip("", &["netns", "add", &router]) && self.link(&router, self.host(253), None);
        for node in 0..self.nodes {
            let namespace = self.namespace(node);
            works = works && ip("", &["netns", "add", &namespace]);
            works = works && self.link(&router, self.node(node), Some(&namespace));
        }
        works
            && Command::new("ip")
                .args(["netns", "exec", &router, "sh", "-c"])
                .arg("echo 1 > /proc/sys/net/ipv4/ip_forward")
                .status()
                .is_ok_and(|status| status.success())
    }

    /// A pair of interfaces between the router and a namespace, or this one, and the routes over it.
    fn link(&self, router: &str, address: Ipv4Addr, namespace: Option<&str>) -> bool {
        let [_, _, third, last] = address.octets();
        let (near, far) = (format!("{PREFIX}r{third}-{last}"), format!("{PREFIX}n{third}-{last}"));
        let (address, gateway) = (address.to_string(), self.host(254).to_string());
        let own = namespace.unwrap_or_default();
        let whole = format!("{}/24", self.host(0));
        let destination = if namespace.is_some() { "default" } else { &whole };
        let pair = ["link", "add", &near, "netns", router, "type", "veth", "peer", "name", &far];
        let made = match namespace {
            Some(namespace) => ip("", &[&pair[..], &["netns", namespace]].concat()),
            None => ip("", &pair),
        };
        made && ip(router, &["addr", "replace", &gateway, "dev", "lo"])
            && ip(router, &["link", "set", &near, "up"])
            && ip(router, &["route", "add", &address, "dev", &near])
            && ip(own, &["addr", "add", &address, "dev", &far])
            && ip(own, &["link", "set", &far, "up"])
            && (namespace.is_none() || ip(own, &["link", "set", "lo", "up"]))
            && ip(own, &["route", "add", &gateway, "dev", &far, "src", &address])
            && ip(own, &["route", "add", destination, "via", &gateway, "src", &address])
    }

    /// From now on the node's link carries little, with a long queue, or drops what comes in bursts. False where the kernel cannot do that.
    pub fn spoil(&self, node: usize, link: BadLink) -> bool {
        let (rate, queue) = match link {
            BadLink::Slow => ("1mbit", "100kb"),
            BadLink::Lossy => ("700kbit", "3kb"),
        };
        let bucket = ["root", "tbf", "rate", rate, "burst", "6kb", "limit", queue];
        let ends = self.ends(node).map(|(namespace, device)| {
            tc(&[&["-n", &namespace, "qdisc", "replace", "dev", &device], &bucket[..]].concat())
        });
        ends == [true, true]
    }

    pub fn repair(&self, node: usize) {
        for (namespace, device) in self.ends(node) {
            tc(&["-n", &namespace, "qdisc", "del", "dev", &device, "root"]);
        }
    }

    /// What its bad link has done so far, at both ends: packets dropped, and times that one had to wait.
    pub fn spoilt(&self, node: usize) -> (u64, u64) {
        let counts = self.ends(node).map(|(namespace, device)| {
            let output = Command::new("tc").args(["-n", &namespace, "-s", "qdisc", "show", "dev", &device]).output();
            let text = String::from_utf8_lossy(&output.expect("tc starts, as before").stdout).into_owned();
            let behind = |word: &str| {
                let rest = text.split_once(word).unwrap_or_else(|| panic!("tc tells {word}: {text}")).1;
                rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().expect("a count")
            };
            (behind("dropped "), behind("overlimits "))
        });
        (counts[0].0 + counts[1].0, counts[0].1 + counts[1].1)
    }

    fn ends(&self, node: usize) -> [(String, String); 2] {
        let [_, _, third, last] = self.node(node).octets();
        [
            (self.router(), format!("{PREFIX}r{third}-{last}")),
            (self.namespace(node), format!("{PREFIX}n{third}-{last}")),
        ]
    }

    fn router(&self) -> String {
        format!("{}r", self.name)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    fn host(&self, last: u8) -> Ipv4Addr {
        let [high, low] = ((198 << 8 | 18) + (self.network >> 8)).to_be_bytes()[2..] else { unreachable!("two bytes") };
        Ipv4Addr::new(high, low, self.network as u8, last)
    }

    pub fn node(&self, node: usize) -> Ipv4Addr {
        self.host(node as u8 + 1)
    }

    /// What runs a program in the place of a node; it keeps the process id.
    pub fn enter(&self, node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(node)].map(str::to_owned).to_vec()
    }

    /// From now on nothing passes from the first to the second of each pair.
    pub fn cut(&self, links: &[(usize, usize)]) {
        self.change("add", links);
    }

    pub fn mend(&self, links: &[(usize, usize)]) {
        self.change("del", links);
    }

    fn change(&self, verb: &str, links: &[(usize, usize)]) {
        let rule = |(from, to): &(usize, usize)| {
            format!("rule {verb} from {} to {} priority 100 blackhole\n", self.node(*from), self.node(*to))
        };
        let rules: String = links.iter().map(rule).collect();
        let mut child = Command::new("ip")
            .args(["-n", &self.router(), "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip starts, as before");
        child.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("ip reads its batch");
        assert!(child.wait().expect("ip ends").success(), "the router refused:\n{rules}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            ip("", &["netns", "del", &self.namespace(node)]);
        }
        // The links go with it, also the one to this namespace.
        ip("", &["netns", "del", &self.router()]);
    }
}

/// Runs `ip` on a namespace, this one if empty. What it says when it fails is the caller's to judge.
fn ip(namespace: &str, words: &[&str]) -> bool {
    let mut command = Command::new("ip");
    if !namespace.is_empty() {
        command.args(["-n", namespace]);
    }
    command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// As `ip`.
fn tc(words: &[&str]) -> bool {
    Command::new("tc")
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Namespaces of runs whose process is gone.
fn remove_leftovers() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            ip("", &["netns", "del", &name]);
        }
    }
}

/// Whether a closed port's refusal comes back, and not silence.
fn is_refused(net: &Net, from: usize, to: usize) -> bool {
    let words =
        [net.enter(from), vec!["timeout".to_owned(), "0.5".to_owned(), "bash".to_owned(), "-c".to_owned()]].concat();
    let script = format!("exec 3<>/dev/tcp/{}/9", net.node(to));
    let output = Command::new(&words[0]).args(&words[1..]).arg(script).output().expect("ip starts");
    String::from_utf8_lossy(&output.stderr).contains("refused")
}

#[test]
fn a_cut_stops_one_direction_alone_and_clients_reach_every_node() {
    let Some(net) = Net::build(2) else {
        println!("skipped: no network namespaces here");
        return;
    };
    let forwards = |from: usize, to: usize| {
        let (from, to, link) = (net.node(from), net.node(to), format!("{PREFIX}r{}-{}", net.network as u8, from + 1));
        ip(&net.router(), &["route", "get", &to.to_string(), "from", &from.to_string(), "iif", &link])
    };
    assert!(forwards(0, 1) && forwards(1, 0) && is_refused(&net, 0, 1));
    net.cut(&[(0, 1)]);
    assert!(!forwards(0, 1) && forwards(1, 0));
    assert!(!is_refused(&net, 0, 1) && !is_refused(&net, 1, 0), "what is lost is not answered");
    for node in 0..2 {
        let refused = std::net::TcpStream::connect((net.node(node), 9)).expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "node {node}");
    }
    net.mend(&[(0, 1)]);
    assert!(forwards(0, 1) && forwards(1, 0) && is_refused(&net, 0, 1));
}
