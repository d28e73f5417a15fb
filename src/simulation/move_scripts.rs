//! Scripts of slots on their way: who carries a move out is lost or cut off at each of its moments.

use std::collections::BTreeSet;

use crate::cluster::GroupId;
use crate::raft::Held;
use crate::simulation::scenario::Scenario;
use crate::simulation::scripts::{FIRST, LEADER_WAIT_MS_MAX, PARK_MS_MAX, others};
use crate::simulation::world::{Later, World};
use crate::slot::{KeySlot, Slot};

/// Who leads a slot's move at its source, at its target and in the meta group is killed after each of its steps, each alone and together, while others
/// live on; steps of older moves come late.
pub const MOVE_CRASHES: Scenario =
    Scenario { name: "move-crashes", disturb: move_crashes, nodes: 5, ..Scenario::drawn() };

/// The meta group loses its majority while many slots wait to be moved, and both groups live.
pub const META_OUTAGE: Scenario =
    Scenario { name: "meta-outage", disturb: meta_outage, nodes: 5, replicas: 1, groups: Some(5), ..Scenario::drawn() };

/// The link between a move's two groups is cut as the slot is frozen.
pub const MOVE_CUT: Scenario = Scenario { name: "move-cut", disturb: move_cut, ..Scenario::drawn() };

const MOVE_WAIT_MS_MAX: u64 = 20_000;
const OUTAGE_SLOTS: usize = 60;
/// As many as are sent at once.
const FROZEN_MAX: usize = 4;

/// What a move has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Staged,
    Frozen,
    Adopted,
    Committed,
}

/// Who leads what, as bits: whose nodes are killed at once.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
const META: u8 = 4;
const VICTIMS: [(u8, &str); 5] = [
    (SOURCE, "source leader lost in a move"),
    (TARGET, "target leader lost in a move"),
    (META, "meta leader lost in a move"),
    (SOURCE | TARGET, "both leaders lost in a move"),
    (SOURCE | TARGET | META, "all three leaders lost in a move"),
];
/// Moves that were over before they could be disturbed.
const MISSED_MAX: usize = 4;

fn move_crashes(world: &mut World) -> Result<(), String> {
    world.network.repeat_requests();
    let moments = [Moment::Staged, Moment::Frozen, Moment::Adopted, Moment::Committed];
    let mut missed = 0;
    for (moment, (victims, name)) in moments.into_iter().flat_map(|moment| VICTIMS.map(|victims| (moment, victims))) {
        world.pass(200)?;
        let (slot, from, to) = await_move(world)?;
        world.pass_until(MOVE_WAIT_MS_MAX, |world| world.moves() > 0)?;
        if world.pass_until(MOVE_WAIT_MS_MAX, |world| is_at(world, slot, moment) || world.moves() == 0)?
            && world.moves() > 0
        {
            let parts = [(SOURCE, from), (TARGET, to), (META, GroupId::META)];
            let chosen = parts.into_iter().filter(|(part, _)| victims & part != 0);
            let nodes: BTreeSet<usize> = chosen.filter_map(|(_, group)| world.leader(group)).collect();
            for node in nodes {
                if world.chance.below(2) == 0 {
                    world.kill(node)
                } else {
                    world.lose_power(node)
                }
                world.later(50, 500, Later::Start(node));
            }
            world.count(name);
        } else {
            missed += 1;
        }
        let over = |world: &World| world.moves() == 0 && world.frozen() == 0 && world.is_served(slot);
        if !world.pass_until(MOVE_WAIT_MS_MAX, over)? {
            return Err(format!("the move of slot {slot} that was disturbed at {moment:?} is not over"));
        }
        for _ in 0..3 {
            world.repeat_step();
            world.pass(30)?;
        }
    }
    match missed {
        0..=MISSED_MAX => Ok(()),
        _ => Err(format!("{missed} moves were over before they could be disturbed")),
    }
}

/// Begins to move a slot that clients write to, between groups that are led by two nodes, while a third leads the meta group.
fn await_move(world: &mut World) -> Result<(Slot, GroupId, GroupId), String> {
    let until = world.now_ms + LEADER_WAIT_MS_MAX;
    while world.now_ms < until {
        let key = world.clients.recent_key(&mut world.chance);
        let slot = KeySlot::of_key(key.as_bytes()).slot();
        let groups = (1..=world.scenario.nodes as u32).map(GroupId);
        let leaders: Vec<(GroupId, usize)> = groups.filter_map(|id| Some((id, world.leader(id)?))).collect();
        let meta = world.leader(GroupId::META);
        let owner = world.owner(slot);
        if let Some(meta) = meta
            && let Some((from, source)) = leaders.iter().find(|(id, node)| Some(*id) == owner && *node != meta)
            && let Some((to, _)) = leaders.iter().find(|(_, node)| node != source && *node != meta)
        {
            world.begin_move(meta, slot, *to);
            return Ok((slot, *from, *to));
        }
        world.pass(20)?;
    }
    Err("three nodes do not lead the meta group and two others".to_owned())
}

fn is_at(world: &World, slot: Slot, moment: Moment) -> bool {
    let is_held = |held: &Held| match held {
        Held::Owned => false,
        Held::Staged { .. } => moment == Moment::Staged,
        Held::Frozen { .. } => moment == Moment::Frozen,
        Held::Adopted { .. } => moment == Moment::Adopted,
    };
    world.held(slot).iter().any(is_held) || (moment == Moment::Committed && world.is_committed(slot))
}

fn move_cut(world: &mut World) -> Result<(), String> {
    let groups = || (1..=3).map(GroupId);
    for _ in 0..6 {
        world.pass(500)?;
        world.pass_until(LEADER_WAIT_MS_MAX, |world| groups().all(|group| world.leader(group).is_some()))?;
        // The source's leader is to reach the meta group still.
        let meta = world.leader(GroupId::META);
        let Some(to) = groups().find(|group| world.leader(*group) != meta) else { continue };
        let Some(from) = groups().find(|group| world.leader(*group) != world.leader(to)) else { continue };
        let Some(slot) = Slot::all().find(|slot| world.owner(*slot) == Some(from)) else { continue };
        let (Some(source), Some(target)) = (world.leader(from), world.leader(to)) else { continue };
        world.begin_move(source, slot, to);
        let is_frozen = |world: &World| is_at(world, slot, Moment::Frozen);
        if !world.pass_until(MOVE_WAIT_MS_MAX, is_frozen)? {
            return Err(format!("slot {slot} is never frozen"));
        }
        world.cut_both_ways(source, target);
        world.count("cut in a move");
        if !world.pass_until(PARK_MS_MAX, |world| world.is_served(slot))? {
            return Err(format!("slot {slot} is served by nobody for longer than requests wait"));
        }
        world.network.mend();
        world.pass_until(MOVE_WAIT_MS_MAX, |world| world.moves() == 0)?;
    }
    Ok(())
}

fn meta_outage(world: &mut World) -> Result<(), String> {
    let (from, to) = (FIRST, GroupId(2));
    world.pass(1000)?;
    let ends: Vec<usize> = [from, to].into_iter().filter_map(|group| world.leader(group)).collect();
    let slots = Slot::all().filter(|slot| world.owner(*slot) == Some(from)).take(OUTAGE_SLOTS).collect();
    world.begin_moves(ends[0], slots, to);
    world.pass_until(MOVE_WAIT_MS_MAX, |world| world.frozen() > 0)?;
    let away = others(world, &ends);
    away.iter().for_each(|node| world.kill(*node));
    world.count("meta outage");
    for _ in 0..200 {
        world.pass(100)?;
        if world.frozen() > FROZEN_MAX {
            return Err(format!("{} slots are frozen, and nobody can serve them", world.frozen()));
        }
    }
    let waiting = world.moves();
    away.iter().for_each(|node| world.start(*node));
    match world.pass_until(MOVE_WAIT_MS_MAX, |world| world.moves() == 0)? {
        true if waiting > 2 * FROZEN_MAX => Ok(()),
        true => Err("the moves were over before the outage".to_owned()),
        false => Err(format!("{} moves are not over, with the meta group back", world.moves())),
    }
}
