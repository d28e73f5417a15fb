//! What goes wrong, when, and for how long: drawn from the seed.

use crate::raft::Fsync;
use crate::simulation::world::{Later, World};

/// Between the starts of two faults.
const GAP_MS_MAX: u64 = 2500;
/// Half of what lies between the starts of two moves of slots, on average.
const MOVE_GAP_MS: u64 = 150;
/// Without tokio's seed, as in a plain `cargo test`, a short run has to do.
const MS: u64 = if cfg!(tokio_unstable) { 20_000 } else { 5_000 };

/// One fault after the other, and some beside each other.
pub fn drawn(world: &mut World) -> Result<(), String> {
    let mut next_ms = 0;
    if world.chance.below(3) > 0 {
        world.network.repeat_requests();
    }
    while world.now_ms < MS {
        if next_ms <= world.now_ms {
            next_ms = world.now_ms + 300 + world.chance.below(GAP_MS_MAX);
            begin(world);
        }
        match world.chance.below(2 * MOVE_GAP_MS) {
            0 => world.move_slot(),
            1 if world.chance.below(4) == 0 => world.cancel_moves(),
            2 => world.repeat_step(),
            _ => (),
        }
        world.step(true)?;
    }
    Ok(())
}

fn begin(world: &mut World) {
    let nodes = world.machines.len();
    let node = world.chance.below(nodes as u64) as usize;
    let other = (node + 1 + world.chance.below(nodes as u64 - 1) as usize) % nodes;
    let name = match world.chance.below(18) {
        kind @ 0..5 => crash(world, node, kind),
        kind @ 5..10 => disturb_network(world, node, other, kind - 5),
        10 | 11 => restart_beside_cut(world, node, other),
        12 | 13 => {
            world.pause(node);
            world.later(100, 6000, Later::Resume(node));
            "pause"
        }
        14 | 15 => {
            world.transfer(node);
            "transfer"
        }
        16 => {
            world.fill_disk(node, 300, 6000);
            "full disk"
        }
        _ => {
            // § One clock at a time is wrong, and ahead: where the third node is cut off, the earlier of two is believed, and what is written by one that is
            // behind expires early once it is put right. (With all three connected the middle one counts: `tests/cluster/clocks.rs`.)
            let offset_ms = world.chance.below(7_200_000) as i64 - 3_600_000;
            let offset_ms = if world.scenario.late_clocks { offset_ms } else { offset_ms.abs() };
            world.machines.iter_mut().for_each(|machine| machine.wall_offset_ms = 0);
            world.machines[node].wall_offset_ms = offset_ms;
            "clock step"
        }
    };
    world.count(name);
}

fn crash(world: &mut World, node: usize, kind: u64) -> &'static str {
    let synced = world.scenario.fsync == Fsync::Always;
    // What is promised of a node that lost what it had assumes that the others have everything.
    let spare = world.can_spare_one();
    match kind {
        0 if synced || spare => {
            world.lose_power(node);
            world.later(50, 3000, Later::Start(node));
            "power loss"
        }
        1 => {
            let back = world.now_ms + 50 + world.chance.below(3000);
            for node in 0..world.machines.len() {
                if synced {
                    world.lose_power(node)
                } else {
                    world.kill(node)
                }
                world.at(back, Later::Start(node));
            }
            if synced { "power loss of all" } else { "kill of all" }
        }
        2 if spare => {
            world.wipe(node);
            world.later(50, 3000, Later::Start(node));
            "wiped node"
        }
        3 => {
            world.fail_disk(node);
            "disk error"
        }
        _ => {
            world.kill(node);
            world.later(50, 3000, Later::Start(node));
            "kill"
        }
    }
}

fn disturb_network(world: &mut World, node: usize, other: usize, kind: u64) -> &'static str {
    world.later(100, 6000, Later::Mend);
    match kind {
        0 => {
            world.network.cut(node, other);
            "cut of one way"
        }
        1 => {
            world.cut_both_ways(node, other);
            "cut of both ways"
        }
        2 => {
            world.isolate(node);
            "isolation"
        }
        3 => {
            world.network.reset(node, other);
            "reset connection"
        }
        _ => {
            let delay = 5 + world.chance.below(300);
            world.network.set_delay_max(delay);
            "slow network"
        }
    }
}

/// One that no longer hears a leader asks for votes again and again; the third, which does hear it, is restarted, and the leader is
/// alone from then on.
fn restart_beside_cut(world: &mut World, node: usize, other: usize) -> &'static str {
    world.cut_both_ways(node, other);
    let third = world.machines.len() - node - other;
    let at = world.now_ms + 2500 + world.chance.below(1500);
    let back = at + 1 + world.chance.below(15);
    world.at(at, Later::Kill(third));
    world.at(back, Later::Start(third));
    world.at(at, Later::Cut(node, third));
    world.at(at + 3000, Later::Mend);
    "restart beside a cut"
}
