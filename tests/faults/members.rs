//! A fourth node that comes and goes while faults go on: it joins empty, shares what the others share, is told to leave, and has left when its process ends.

use std::time::Duration;

use super::moves::status;
use super::nodes::Nodes;
use super::run::from_environment;
use crate::cluster::harness::{Node, Reply};
use crate::host::Stopwatch;

/// Faults before it comes, and before it is told to go.
const ROUNDS: usize = 4;
/// For its replicas to be there, and to be gone: in between nodes are down most of the time.
const CHANGE_WAIT: Duration = Duration::from_secs(240);
const ASK_WAIT: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const FAREWELL: &str = "this node was removed from its cluster and stops";

enum State {
    Away {
        rounds: usize,
    },
    /// From here until it is told to leave it is one of those that faults strike.
    Joining {
        since: Stopwatch,
    },
    Member {
        rounds: usize,
    },
    /// It ends at an instant of its own.
    Leaving {
        node: Node,
        since: Stopwatch,
    },
}

pub struct Members {
    state: State,
    pub joined: usize,
    pub left: usize,
}

/// Only long runs have the time.
pub fn wanted() -> bool {
    from_environment("KVORUM_FAULT_SECONDS").is_some()
}

impl Default for Members {
    fn default() -> Self {
        Self { state: State::Away { rounds: 0 }, joined: 0, left: 0 }
    }
}

impl Members {
    /// Takes the next step, if its time has come. An error is a change that has not come to its end.
    pub fn step(&mut self, nodes: &mut Nodes) -> Result<(), String> {
        let state = std::mem::replace(&mut self.state, State::Away { rounds: 0 });
        self.state = match state {
            State::Away { rounds } if rounds < ROUNDS || nodes.spare.is_none() => State::Away { rounds: rounds + 1 },
            State::Away { .. } => invite(nodes),
            State::Joining { since } if has_its_share(nodes) => {
                self.joined += 1;
                println!("          the fourth node has its share after {:.1} s", since.elapsed().as_secs_f64());
                State::Member { rounds: 0 }
            }
            State::Joining { since } => {
                check_time(&since, "has no share yet", nodes)?;
                State::Joining { since }
            }
            State::Member { rounds } if rounds < ROUNDS => State::Member { rounds: rounds + 1 },
            State::Member { .. } => dismiss(nodes),
            State::Leaving { mut node, since } => {
                if node.has_ended() {
                    let log = node.log();
                    assert!(log.contains(FAREWELL) && !log.contains("panicked at"), "{log}");
                    self.left += 1;
                    println!("          the fourth node has left after {:.1} s", since.elapsed().as_secs_f64());
                    nodes.spare = Some(node);
                    State::Away { rounds: 0 }
                } else {
                    check_time(&since, "has not left yet", nodes)?;
                    State::Leaving { node, since }
                }
            }
        };
        Ok(())
    }

    /// Until the founders are alone again.
    pub fn finish(&mut self, nodes: &mut Nodes) -> Result<(), String> {
        while !matches!(self.state, State::Away { .. }) {
            if let State::Member { rounds } = &mut self.state {
                *rounds = ROUNDS;
            }
            self.step(nodes)?;
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }
}

fn check_time(since: &Stopwatch, what: &str, nodes: &Nodes) -> Result<(), String> {
    let status = || nodes.nodes[0].ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    if since.is_over(CHANGE_WAIT) { Err(format!("the fourth node {what}\n{}", status())) } else { Ok(()) }
}

/// As a new node: what a former member had is of no use.
fn invite(nodes: &mut Nodes) -> State {
    let mut node = nodes.spare.take().expect("there is one");
    for entry in std::fs::read_dir(&node.directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        removed.expect("the node does not run");
    }
    println!("          a fourth node joins");
    node.start();
    nodes.nodes.push(node);
    State::Joining { since: Stopwatch::start() }
}

/// Asks founders until one says that it is decided.
fn dismiss(nodes: &mut Nodes) -> State {
    let node = nodes.nodes.pop().expect("it came last");
    let mut founders = nodes.nodes.iter().cycle();
    let mut said = String::new();
    let asked = Stopwatch::start();
    while said != "OK" {
        assert!(!asked.is_over(ASK_WAIT), "the fourth node is not told to leave: {said}");
        std::thread::sleep(LOOK_PAUSE);
        if let Reply::Bulk(id) = node.ask(&["CLUSTER", "MYID"]) {
            let id = String::from_utf8(id).expect("hex digits");
            said = founders.next().expect("an endless ring").ask(&["CLUSTER", "FORGET", &id]).text();
        }
    }
    println!("          the fourth node is told to leave");
    State::Leaving { node, since: Stopwatch::start() }
}

/// It has taken its share: a voter of some group, and nothing is on its way to it.
fn has_its_share(nodes: &Nodes) -> bool {
    let Some(status) = status(nodes.nodes[0].address()) else { return false };
    let address = nodes.nodes[nodes.nodes.len() - 1].address().to_string();
    let Some(own) = status.nodes.iter().find(|node| node.address == address) else { return false };
    let data = status.groups.iter().filter(|group| group.id != 0);
    let mut here = data.flat_map(|group| &group.replicas).filter(|replica| replica.node == own.id).peekable();
    here.peek().is_some() && here.all(|replica| replica.voter && !replica.leaving)
}
