//! Nodes that join and leave while the meta leader, the groups' leaders, the node itself or anybody else is killed or cut off; and nodes that stay away
//! until they are given up. Groups and slots come and go with them.

use crate::cluster::GroupId;
use crate::simulation::scenario::Scenario;
use crate::simulation::world::{Later, World};

/// Three nodes, two more to come and go.
pub const GROWTH: Scenario =
    Scenario { name: "growth", disturb: growth, spares: 2, node_down_after: 4, ..Scenario::drawn() };

/// Without tokio's seed, as in a plain `cargo test`, a short run has to do.
const ROUNDS: u64 = if cfg!(tokio_unstable) { 5 } else { 2 };
const SETTLE_MS_MAX: u64 = 60_000;

fn growth(world: &mut World) -> Result<(), String> {
    world.network.repeat_requests();
    for round in 0..ROUNDS {
        world.pass(500)?;
        change(world, round);
        let faults = world.chance.below(3);
        for _ in 0..faults {
            let ms = world.chance.below(1500);
            world.pass(ms)?;
            disturb(world);
        }
        if !world.pass_until(SETTLE_MS_MAX, World::is_at_rest)? {
            return Err(format!(
                "nodes, replicas, groups and slots are not where they should be, {SETTLE_MS_MAX} ms after the last change"
            ));
        }
    }
    Ok(())
}

/// Comes first what was never there: the first two rounds are a join and a removal.
fn change(world: &mut World, round: u64) {
    let members = world.members();
    let outside: Vec<usize> = (0..world.machines.len()).filter(|node| world.machines[*node].outside).collect();
    let joins =
        round == 0 || outside.len() == world.scenario.spares || (!outside.is_empty() && world.chance.below(2) == 0);
    if joins {
        let node = outside[world.chance.below(outside.len() as u64) as usize];
        world.join(node);
        return world.count("node joins");
    }
    let node = members[world.chance.below(members.len() as u64) as usize];
    if world.chance.below(4) == 0 {
        // Longer than the others wait.
        world.kill(node);
        world.later(8000, 4000, Later::Start(node));
        return world.count("node stays away");
    }
    world.remove(node);
    world.count("node is removed");
}

fn disturb(world: &mut World) {
    let members = world.members();
    let any = members[world.chance.below(members.len() as u64) as usize];
    let group = GroupId(1 + world.chance.below(4) as u32);
    let (name, node) = match world.chance.below(5) {
        0 | 1 => ("kill of the meta leader", world.meta_leader()),
        2 => ("kill of a group leader", world.leader(group)),
        3 => ("kill", Some(any)),
        _ => {
            world.isolate(any);
            world.later(100, 2000, Later::Mend);
            return world.count("isolation");
        }
    };
    let Some(node) = node else { return };
    world.kill(node);
    world.later(50, 2000, Later::Start(node));
    world.count(name);
}
