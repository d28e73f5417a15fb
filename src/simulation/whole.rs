//! Commands over all keys of one node, at any moment of a slot's way from one of its groups to the other.

use crate::cluster::GroupId;
use crate::config::ReadMode;
use crate::raft::Held;
use crate::simulation::client::take;
use crate::simulation::scenario::Scenario;
use crate::simulation::scripts::PARK_MS_MAX;
use crate::simulation::world::{Answer, World, run};
use crate::slot::{KeySlot, Slot};

const ROUNDS: u64 = 20;
/// About what a move takes.
const MOVE_MS: u64 = 40;
/// What a leader may still answer by when it has lost its followers.
const LEASE_MS: u64 = 200;
const WAIT_MS_MAX: u64 = 10_000;
/// From when a slot's data has begun to come to when the slot is frozen, about.
const STAGED_MS: u64 = 10;
/// Of 20 moves each.
const FLUSH_SEEDS: u64 = 5;
/// Longer than a client waits for an outcome.
const OUTCOME_MS_MAX: u64 = 5_500;

/// Reads by ReadIndex, so that something may happen between that of one group and that of the next.
const fn one_node(disturb: fn(&mut World) -> Result<(), String>) -> Scenario {
    Scenario { disturb, nodes: 1, replicas: 1, groups: Some(2), read_mode: ReadMode::ReadIndex, ..Scenario::drawn() }
}

#[test]
fn no_key_of_a_slot_on_its_way_is_missed_by_flushall_dbsize_or_scan() {
    run(1, one_node(|world| during_moves(world, flush))).unwrap();
    run(1, one_node(|world| during_moves(world, count))).unwrap();
    run(1, one_node(|world| during_moves(world, scan))).unwrap();
}

/// Each round writes a key that has not been there, and `check` gets its number.
fn during_moves(world: &mut World, check: fn(&mut World, u64) -> Result<(), String>) -> Result<(), String> {
    for round in 0..ROUNDS {
        let key = key_of(round);
        world.call(0, &[b"SET", key.as_bytes(), b"v"], WAIT_MS_MAX)?;
        let slot = KeySlot::of_key(key.as_bytes()).slot();
        // Each group is the first to be read, and the last.
        let to = GroupId(world.owner(slot).map_or(1, |owner| owner.0 % 2 + 1));
        world.begin_move(0, slot, to);
        world.idle_until(WAIT_MS_MAX, |world| world.moves() > 0)?;
        check(world, round)?;
        if !world.idle_until(WAIT_MS_MAX, |world| world.moves() == 0)? {
            return Err(format!("the move of slot {slot} is not over"));
        }
    }
    Ok(())
}

fn key_of(round: u64) -> String {
    format!("whole{round}")
}

/// Again until it is done; a refusal says that nothing happened, a closed connection nothing.
fn flush(world: &mut World, round: u64) -> Result<(), String> {
    let (key, ms) = (key_of(round), world.chance.below(MOVE_MS));
    world.idle(ms)?;
    loop {
        let reply = world.call(0, &[b"FLUSHALL"], WAIT_MS_MAX)?;
        if reply.is_some_and(|reply| reply.starts_with(b"+OK")) {
            break;
        }
    }
    match world.read(&key)?.as_str() {
        "" => Ok(()),
        _ => Err(format!("{key} is there after FLUSHALL")),
    }
}

/// Whoever counts on meanwhile, in either group and in the slot on its way, finds one moment at which the keys went, and none if nothing happened.
#[test]
fn no_key_is_emptied_twice_by_one_flushall() {
    for seed in 1..=FLUSH_SEEDS {
        run(seed, one_node(|world| during_moves(world, flush_once))).unwrap();
    }
}

/// A client that increments one key, again and again.
struct Counter {
    key: String,
    last: i64,
    /// How often the key was found to be gone.
    emptied: usize,
    call: Option<Answer>,
}

impl Counter {
    fn new(key: String) -> Self {
        Self { key, last: 0, emptied: 0, call: None }
    }

    /// `begin`: whether it makes a new call once it has its answer.
    fn step(&mut self, world: &mut World, begin: bool) {
        if let Some(replies) = self.call.as_ref().and_then(|call| call.lock().take()) {
            self.call = None;
            if let Some(Ok(count)) = replies.map(|replies| take(&mut &replies[..])) {
                let count = count.parse().expect("a number");
                self.emptied += usize::from(count <= self.last);
                self.last = count;
            }
        }
        if begin && self.call.is_none() {
            self.call = Some(world.send(0, &[b"INCR", self.key.as_bytes()]));
        }
    }
}

fn flush_once(world: &mut World, round: u64) -> Result<(), String> {
    let moving = KeySlot::of_key(key_of(round).as_bytes()).slot();
    let keys = [key_at_rest(world, GroupId(1), moving), key_at_rest(world, GroupId(2), moving)];
    let mut counters =
        keys.into_iter().chain([format!("{{{}}}n", key_of(round))]).map(Counter::new).collect::<Vec<_>>();
    let mut flush_at = None;
    let mut flushed: Option<Answer> = None;
    loop {
        let is_over = flushed.as_ref().is_some_and(|flushed| flushed.lock().is_some());
        counters.iter_mut().for_each(|counter| counter.step(world, !is_over));
        if is_over && counters.iter().all(|counter| counter.call.is_none()) {
            break;
        }
        let have_counted = counters.iter().all(|counter| counter.last > 0);
        if have_counted
            && flush_at.is_none()
            && (world.held(moving).iter().any(|held| *held != Held::Owned) || world.moves() == 0)
        {
            flush_at = Some(world.now_ms + world.chance.below(STAGED_MS));
        }
        if flush_at.is_some_and(|at| world.now_ms >= at) && flushed.is_none() {
            flushed = Some(world.send(0, &[b"FLUSHALL"]));
        }
        world.step(false)?;
    }
    let reply = flushed.and_then(|flushed| flushed.lock().take()).flatten();
    let times = match reply.as_ref().map(|reply| reply.starts_with(b"+OK")) {
        Some(true) => 1..=1,
        Some(false) => 0..=0,
        None => 0..=1,
    };
    for counter in &mut counters {
        // It may not have counted since.
        counter.step(world, true);
        world.idle_until(WAIT_MS_MAX, |_| counter.call.as_ref().is_none_or(|call| call.lock().is_some()))?;
        counter.step(world, false);
        if !times.contains(&counter.emptied) {
            return Err(format!("one FLUSHALL, {reply:?}, has emptied {} {} times", counter.key, counter.emptied));
        }
    }
    Ok(())
}

fn key_at_rest(world: &World, group: GroupId, moving: Slot) -> String {
    let is_found = |key: &String| {
        let slot = KeySlot::of_key(key.as_bytes()).slot();
        slot != moving && world.owner(slot) == Some(group)
    };
    (0..).map(|number| format!("count{number}")).find(is_found).expect("each group has slots")
}

fn count(world: &mut World, round: u64) -> Result<(), String> {
    let keys = round + 1;
    while world.moves() > 0 {
        let reply = world.call(0, &[b"DBSIZE"], WAIT_MS_MAX)?.unwrap_or_default();
        if !reply.starts_with(b"-") && *reply != *format!(":{keys}\r\n").as_bytes() {
            return Err(format!("DBSIZE of {keys} keys: {reply:?}"));
        }
    }
    Ok(())
}

fn scan(world: &mut World, round: u64) -> Result<(), String> {
    let key = key_of(round);
    while world.moves() > 0 {
        let reply = world.call(0, &[b"SCAN", b"0", b"COUNT", b"1000"], WAIT_MS_MAX)?.unwrap_or_default();
        if !reply.starts_with(b"-") && !reply.windows(key.len()).any(|part| part == key.as_bytes()) {
            return Err(format!("SCAN without {key}: {reply:?}"));
        }
    }
    Ok(())
}

/// What is asked of a node that has just started is answered when its replicas have, and their keys are there.
#[test]
fn no_key_is_missed_while_a_node_starts() {
    run(1, one_node(while_starting)).unwrap();
}

fn while_starting(world: &mut World) -> Result<(), String> {
    let commands: [&[&[u8]]; 5] =
        [&[b"DBSIZE"], &[b"KEYS", b"*"], &[b"SCAN", b"0", b"COUNT", b"1000"], &[b"RANDOMKEY"], &[b"FLUSHALL"]];
    for (words, expected) in commands.into_iter().zip([":1\r\n", "one", "one", "one", "+OK\r\n"]) {
        world.call(0, &[b"SET", b"one", b"v"], WAIT_MS_MAX)?;
        world.kill(0);
        world.start(0);
        world.idle_until(WAIT_MS_MAX, |world| world.is_open(0))?;
        let reply = world.call(0, words, WAIT_MS_MAX)?.unwrap_or_default();
        if !String::from_utf8_lossy(&reply).contains(expected) {
            return Err(format!("{} of a node that starts: {reply:?}", String::from_utf8_lossy(words[0])));
        }
    }
    match world.read("one")?.as_str() {
        "" => Ok(()),
        _ => Err("FLUSHALL of a node that starts has left a key".to_owned()),
    }
}

/// Nobody leads any more what it led before, and nobody is said to.
#[test]
fn no_key_is_missed_while_all_nodes_start() {
    let scenario = Scenario { disturb: while_all_start, nodes: 3, ..Scenario::drawn() };
    for seed in 1..=5 {
        run(seed, scenario).unwrap();
    }
}

fn while_all_start(world: &mut World) -> Result<(), String> {
    for (round, node) in (0..ROUNDS).flat_map(|round| (0..3).map(move |node| (round, node))) {
        // MOVED from those that do not lead it.
        world.call(node, &[b"SET", key_of(round).as_bytes(), b"v"], WAIT_MS_MAX)?;
    }
    (0..3).for_each(|node| world.kill(node));
    (0..3).for_each(|node| world.start(node));
    for node in 0..3 {
        world.idle_until(WAIT_MS_MAX, |world| world.is_open(node))?;
        let reply = world.call(node, &[b"FLUSHALL"], WAIT_MS_MAX)?;
        if !reply.as_ref().is_some_and(|reply| reply.starts_with(b"+OK")) {
            return Err(format!("FLUSHALL of node {node}, which starts: {reply:?}"));
        }
    }
    for round in 0..ROUNDS {
        if !world.read(&key_of(round))?.is_empty() {
            return Err(format!("{} is there after FLUSHALL of all nodes", key_of(round)));
        }
    }
    Ok(())
}

/// Groups that have lost their majority are said to have no leader, and not to be led elsewhere.
#[test]
fn commands_over_all_keys_tell_that_a_group_has_no_leader() {
    run(1, without_majority(count_keys)).unwrap();
}

/// The ReadIndex that is tried first is a part of the wait.
#[test]
fn a_read_waits_no_longer_than_requests_wait() {
    run(1, without_majority(get_key)).unwrap();
}

const fn without_majority(disturb: fn(&mut World) -> Result<(), String>) -> Scenario {
    Scenario { disturb, nodes: 3, ..Scenario::drawn() }
}

/// A node that leads the first group, and does not know yet that it has lost the others.
fn isolated_leader(world: &mut World) -> Result<usize, String> {
    world.idle_until(WAIT_MS_MAX, |world| world.leader(GroupId(1)).is_some())?;
    let leader = world.leader(GroupId(1)).unwrap_or(0);
    world.isolate(leader);
    world.idle(LEASE_MS)?;
    Ok(leader)
}

fn count_keys(world: &mut World) -> Result<(), String> {
    let leader = isolated_leader(world)?;
    let reply = world.call(leader, &[b"DBSIZE"], WAIT_MS_MAX)?;
    if !reply.as_ref().is_some_and(|reply| reply.starts_with(b"-CLUSTERDOWN")) {
        return Err(format!("DBSIZE without a majority: {reply:?}"));
    }
    Ok(())
}

fn get_key(world: &mut World) -> Result<(), String> {
    let leader = isolated_leader(world)?;
    let key = keys_of_first(world).next().unwrap_or_default();
    let reply = world.call(leader, &[b"GET", key.as_bytes()], PARK_MS_MAX + PARK_MS_MAX / 10)?;
    if !reply.as_ref().is_some_and(|reply| reply.starts_with(b"-CLUSTERDOWN")) {
        return Err(format!("GET without a majority: {reply:?}"));
    }
    Ok(())
}

fn keys_of_first(world: &World) -> impl Iterator<Item = String> {
    (0..ROUNDS).map(key_of).filter(|key| world.owner(KeySlot::of_key(key.as_bytes()).slot()) == Some(GroupId(1)))
}

/// § Rule (e) of `raft/pending.rs`: neither OK nor an error would be true.
#[test]
fn a_write_whose_outcome_is_unknown_ends_in_time_with_its_connection_and_is_there_once_or_not_at_all() {
    for seed in 1..=3 {
        run(seed, without_majority(write_cut_off)).unwrap();
    }
}

fn write_cut_off(world: &mut World) -> Result<(), String> {
    world.idle_until(WAIT_MS_MAX, |world| world.leader(GroupId(1)).is_some())?;
    let leader = world.leader(GroupId(1)).unwrap_or(0);
    let keys: Vec<String> = keys_of_first(world).take(2).collect();
    let [set, counted] = &keys[..] else { return Err("two keys of the first group are wanted".to_owned()) };
    world.isolate(leader);
    // While its lease lasts it has no reason to refuse them.
    let calls =
        [world.send(leader, &[b"SET", set.as_bytes(), b"v"]), world.send(leader, &[b"INCR", counted.as_bytes()])];
    if !world.idle_until(OUTCOME_MS_MAX, |_| calls.iter().all(|call| call.lock().is_some()))? {
        return Err(format!("a write has no end after {OUTCOME_MS_MAX} ms"));
    }
    if let Some(reply) = calls.iter().find_map(|call| call.lock().take().flatten()) {
        return Err(format!("a write whose outcome is unknown is answered: {reply:?}"));
    }
    world.network.mend();
    let found = [world.read(set)?, world.read(counted)?];
    for (found, once) in found.iter().zip(["v", "1"]) {
        if !found.is_empty() && found != once {
            return Err(format!("a write whose outcome was unknown has left {found}"));
        }
    }
    Ok(())
}
