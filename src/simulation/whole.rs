//! Commands over all keys of one node, at any moment of a slot's way from one of its groups to the other.

use crate::cluster::GroupId;
use crate::config::ReadMode;
use crate::simulation::scenario::Scenario;
use crate::simulation::world::{World, run};
use crate::slot::KeySlot;

const ROUNDS: u64 = 20;
/// About what a move takes.
const MOVE_MS: u64 = 40;
const WAIT_MS_MAX: u64 = 10_000;

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
