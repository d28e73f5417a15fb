//! What goes wrong, when, and for how long: drawn from the seed.

use std::collections::BTreeMap;

use crate::simulation::world::World;

/// Between the starts of two faults.
const GAP_MS_MAX: u64 = 2500;

enum Undo {
    Start(usize),
    Resume(usize),
    Mend,
}

#[derive(Default)]
pub struct Faults {
    next_ms: u64,
    undo: Vec<(u64, Undo)>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Faults {
    pub fn step(&mut self, world: &mut World) {
        let due: Vec<usize> = (0..self.undo.len()).rev().filter(|at| self.undo[*at].0 <= world.now_ms).collect();
        for at in due {
            let (_, undo) = self.undo.remove(at);
            undo.run(world);
        }
        if self.next_ms <= world.now_ms {
            self.next_ms = world.now_ms + 300 + world.chance.below(GAP_MS_MAX);
            self.begin(world);
        }
    }

    /// Everything works again.
    pub fn end(&mut self, world: &mut World) {
        self.undo.drain(..).for_each(|(_, undo)| undo.run(world));
    }

    fn begin(&mut self, world: &mut World) {
        let nodes = world.machines.len();
        let node = world.chance.below(nodes as u64) as usize;
        let other = (node + 1 + world.chance.below(nodes as u64 - 1) as usize) % nodes;
        let short = world.now_ms + 50 + world.chance.below(3000);
        let long = world.now_ms + 100 + world.chance.below(6000);
        let name = match world.chance.below(12) {
            0 => {
                world.kill(node);
                self.undo.push((short, Undo::Start(node)));
                "kill"
            }
            1 => {
                world.lose_power(node);
                self.undo.push((short, Undo::Start(node)));
                "power loss"
            }
            2 => {
                for node in 0..nodes {
                    world.lose_power(node);
                    self.undo.push((short, Undo::Start(node)));
                }
                "power loss of all"
            }
            3 | 4 => {
                if let Some(process) = &mut world.machines[node].process {
                    process.paused = true;
                }
                self.undo.push((long, Undo::Resume(node)));
                "pause"
            }
            5 => {
                world.network.cut(node, other);
                self.undo.push((long, Undo::Mend));
                "cut of one way"
            }
            6 => {
                world.network.cut(node, other);
                world.network.cut(other, node);
                self.undo.push((long, Undo::Mend));
                "cut of both ways"
            }
            7 => {
                for other in (0..nodes).filter(|other| *other != node) {
                    world.network.cut(node, other);
                    world.network.cut(other, node);
                }
                self.undo.push((long, Undo::Mend));
                "isolation"
            }
            8 => {
                world.network.set_delay_max(5 + world.chance.below(300));
                self.undo.push((long, Undo::Mend));
                "slow network"
            }
            9 | 10 => {
                world.transfer(node);
                "transfer"
            }
            _ => {
                let offset = world.chance.below(7_200_000) as i64 - 3_600_000;
                world.machines[node].wall_offset_ms = offset;
                "clock step"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }
}

impl Undo {
    fn run(self, world: &mut World) {
        match self {
            Self::Start(node) => world.start(node),
            Self::Resume(node) => {
                if let Some(process) = &mut world.machines[node].process {
                    process.paused = false;
                }
            }
            Self::Mend => world.network.mend(),
        }
    }
}
