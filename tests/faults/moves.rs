//! Moves the slots of the hot keys between groups, again and again, whatever happens to the nodes meanwhile. Now and then one is cancelled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvorum::cluster::{ClusterStatus, MoveProgress, NodeState};

use super::clients::{HotKeys, slot_of};
use super::nodes::{FOUNDERS, Nodes};
use super::random::Random;
use crate::cluster::harness::{Connection, Reply, eventually};

const META_GROUP: u32 = 0;
/// A move of a slot that holds little takes a few times as long.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A node that is paused, or has no quorum, is not waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
const MOVE_WAIT: Duration = Duration::from_secs(60);
const CANCELLED_ONE_IN: usize = 8;

/// Slots that came to another group, and tries that were given up, by an operator or by the nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moves {
    pub done: usize,
    pub undone: usize,
}

impl Moves {
    pub fn add(&mut self, other: Self) {
        self.done += other.done;
        self.undone += other.undone;
    }
}

/// One slot's, while its keys are hot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Life {
    /// That has the slot.
    group: Option<u32>,
    has_moved: bool,
    /// An election was won in the group that had the slot, before it and after.
    has_changed_leader: bool,
}

/// What was seen of the slots that matter.
#[derive(Default)]
struct Watched {
    slots: BTreeMap<u16, Life>,
    /// Of each group's last leader that was seen.
    terms: BTreeMap<u32, u64>,
    /// Of the newest topology seen: a node that lags behind is not believed.
    epoch: u64,
    undone: BTreeSet<u64>,
    moves: Moves,
}

struct Shared {
    nodes: Vec<SocketAddr>,
    stop: AtomicBool,
    watched: Mutex<Watched>,
}

pub struct Mover {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Mover {
    pub fn start(nodes: Vec<SocketAddr>, seed: u64, keys: &HotKeys) -> Self {
        let shared = Arc::new(Shared { nodes, stop: AtomicBool::new(false), watched: Mutex::default() });
        shared.watch(|watched| watched.turn_to(keys));
        let (own, mut random) = (shared.clone(), Random::new(!seed));
        let thread = std::thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_PAUSE);
                own.step(&mut random);
            }
        });
        Self { shared, thread }
    }

    /// Turns to other keys; what was moved since the last time.
    pub fn turn_to(&self, keys: &HotKeys) -> Moves {
        self.shared.watch(|watched| watched.turn_to(keys))
    }

    /// Slots that have not come to another group since their keys are hot.
    pub fn unmoved(&self) -> usize {
        self.shared.watch(|watched| watched.slots.values().filter(|life| !life.has_moved).count())
    }

    /// Slots whose group has had one leader only since their keys are hot.
    pub fn unchanged(&self) -> BTreeSet<u16> {
        self.shared.watch(|watched| watched.unchanged())
    }

    pub fn finish(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the mover does not panic");
    }
}

impl Shared {
    fn watch<T>(&self, look: impl FnOnce(&mut Watched) -> T) -> T {
        look(&mut self.watched.lock().expect("no panic under the lock"))
    }

    /// Starts moves of some slots that do not move, if the node that happens to be asked answers.
    fn step(&self, random: &mut Random) {
        let Some(status) = status(self.any(random)) else { return };
        let still = self.watch(|watched| {
            watched.see(&status);
            let moves = |slot: &&u16| status.moves.iter().any(|moved| moved.slot == **slot);
            watched.slots.keys().filter(|slot| !moves(slot)).copied().collect::<Vec<_>>()
        });
        let chosen: Vec<String> = still.iter().filter(|_| random.below(2) == 0).map(u16::to_string).collect();
        let mut groups: Vec<u32> = status.groups.iter().map(|group| group.id).filter(|id| *id != META_GROUP).collect();
        // No operator gives slots to a group that is being emptied, and it would not become empty.
        if status.nodes.iter().any(|node| node.state == NodeState::Leaving) {
            groups.truncate(FOUNDERS);
        }
        if chosen.is_empty() || groups.is_empty() {
            return;
        }
        let (slots, to) = (chosen.join(","), groups[random.below(groups.len())].to_string());
        // What came of it, a later look shows.
        let _ = ask(self.any(random), &["CLUSTER", "KVORUM", "MOVE", &slots, &to]);
        if random.below(CANCELLED_ONE_IN) == 0 {
            let _ = ask(self.any(random), &["CLUSTER", "KVORUM", "MOVE", &slots]);
        }
    }

    fn any(&self, random: &mut Random) -> SocketAddr {
        self.nodes[random.below(self.nodes.len())]
    }
}

impl Watched {
    fn turn_to(&mut self, keys: &HotKeys) -> Moves {
        self.slots = keys.all().map(|key| (slot_of(key), Life::default())).collect();
        std::mem::take(&mut self.moves)
    }

    fn unchanged(&self) -> BTreeSet<u16> {
        self.slots.iter().filter(|(_, life)| !life.has_changed_leader).map(|(slot, _)| *slot).collect()
    }

    fn see(&mut self, status: &ClusterStatus) {
        if status.epoch < self.epoch {
            return;
        }
        self.epoch = status.epoch;
        let mut elected = BTreeSet::new();
        for group in status.groups.iter().filter(|group| group.leader.is_some()) {
            let before = self.terms.insert(group.id, group.term.max(self.terms.get(&group.id).copied().unwrap_or(0)));
            elected.extend(before.filter(|before| group.term > *before).map(|_| group.id));
        }
        for (slot, life) in &mut self.slots {
            let owner = owner_of(*slot, status);
            if life.group.is_some() && owner != life.group {
                life.has_moved = true;
                self.moves.done += 1;
            } else {
                life.has_changed_leader |= life.group.is_some_and(|group| elected.contains(&group));
            }
            life.group = owner;
        }
        let is_given_up = |state| matches!(state, MoveProgress::Repeating | MoveProgress::Cancelled);
        for moved in status.moves.iter().filter(|moved| is_given_up(moved.state)) {
            self.moves.undone += usize::from(self.undone.insert(moved.id));
        }
    }
}

fn owner_of(slot: u16, status: &ClusterStatus) -> Option<u32> {
    let has = |(first, last): &(u16, u16)| (*first..=*last).contains(&slot);
    status.groups.iter().find(|group| group.slot_ranges.iter().any(has)).map(|group| group.id)
}

fn ask(node: SocketAddr, words: &[&str]) -> Option<Reply> {
    let mut connection = Connection::open_at(node).ok()?;
    connection.set_timeout(ANSWER_WAIT);
    connection.call(words).ok()
}

/// `None` if the node does not answer, or does not know its cluster yet.
pub fn status(node: SocketAddr) -> Option<ClusterStatus> {
    serde_json::from_str(&ask(node, &["CLUSTER", "KVORUM", "STATUS"])?.text()).ok()
}

/// The nodes that lead what a move is made of.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    pub source: usize,
    pub target: usize,
    pub meta: usize,
}

impl Roles {
    const COUNT: usize = 3;

    pub fn nodes(&self) -> BTreeSet<usize> {
        BTreeSet::from([self.source, self.target, self.meta])
    }
}

/// Of a move that is under way; for `spread_wait`, of one whose roles are three nodes'. Leaders that were all brought to one node spread again by themselves.
pub fn roles(nodes: &Nodes, spread_wait: Duration) -> Roles {
    let until = Instant::now() + spread_wait;
    let mut found = None;
    eventually(
        MOVE_WAIT,
        || "a slot moves".to_owned(),
        || {
            let all = nodes.addresses().into_iter().filter_map(status).find_map(|status| roles_in(nodes, &status));
            found = all.filter(|roles| roles.nodes().len() == Roles::COUNT || Instant::now() > until);
            found.is_some()
        },
    );
    found.expect("found")
}

fn roles_in(nodes: &Nodes, status: &ClusterStatus) -> Option<Roles> {
    let leader = |group: u32| {
        let id = status.groups.iter().find(|known| known.id == group)?.leader.as_ref()?;
        let address = &status.nodes.iter().find(|node| node.id == *id)?.address;
        nodes.addresses().iter().position(|known| known.to_string() == *address)
    };
    let roles = |from, to| Some(Roles { source: leader(from)?, target: leader(to)?, meta: leader(META_GROUP)? });
    let under_way = status.moves.iter().filter(|moved| moved.state == MoveProgress::Waiting);
    under_way.filter_map(|moved| roles(moved.from, moved.to)).max_by_key(|roles| roles.nodes().len())
}

fn seen(epoch: u64, owner: u32, state: &str, leader: &str, term: u64) -> ClusterStatus {
    let group = |id: u32| {
        let ranges = if id == owner { "[[0,1023]]" } else { "[]" };
        format!(
            r#"{{"id":{id},"leader":{leader},"term":{term},"replicas":[],"slot_count":0,"slot_ranges":{ranges},"keys":null}}"#
        )
    };
    let groups = [0, 1, 2].map(group).join(",");
    let moves = format!(r#"{{"id":7,"slot":3,"from":1,"to":2,"state":"{state}"}}"#);
    let text =
        format!(r#"{{"cluster_id":"","epoch":{epoch},"asked":"","nodes":[],"groups":[{groups}],"moves":[{moves}]}}"#);
    serde_json::from_str(&text).expect("a status")
}

fn watch_one_key() -> (Watched, HotKeys) {
    let keys = HotKeys { texts: vec!["key".into()], counters: Vec::new() };
    let mut watched = Watched::default();
    watched.turn_to(&keys);
    (watched, keys)
}

#[test]
fn a_slot_has_moved_when_another_group_has_it_and_a_try_is_undone_once() {
    let (mut watched, keys) = watch_one_key();
    let has_moved = |watched: &Watched| watched.slots.values().all(|life| life.has_moved);
    for (epoch, owner, state, moved) in
        [(5, 1, "waiting", false), (6, 1, "repeating", false), (7, 1, "repeating", false), (4, 2, "done", false)]
    {
        watched.see(&seen(epoch, owner, state, "null", 1));
        assert_eq!(has_moved(&watched), moved, "{epoch}");
    }
    watched.see(&seen(8, 2, "done", "null", 1));
    assert!(has_moved(&watched));
    assert_eq!(watched.turn_to(&keys), Moves { done: 1, undone: 1 });
    assert!(!has_moved(&watched));
}

#[test]
fn an_election_counts_for_a_slot_that_its_group_had_before_and_after() {
    let (mut watched, _) = watch_one_key();
    for (epoch, owner, leader, term, is_unchanged) in [
        (5, 1, "\"a\"", 3, true),
        // Nobody has won it.
        (5, 1, "null", 4, true),
        // Of a node that lags behind.
        (5, 1, "\"a\"", 2, true),
        (5, 1, "\"a\"", 3, true),
        // It moved.
        (6, 2, "\"b\"", 5, true),
        (6, 2, "\"a\"", 6, false),
    ] {
        watched.see(&seen(epoch, owner, "done", leader, term));
        assert_eq!(!watched.unchanged().is_empty(), is_unchanged, "{epoch}, {term}");
    }
}
