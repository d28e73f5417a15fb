//! What goes wrong, when, and for how long: drawn from the seed.

use std::collections::BTreeMap;

use crate::simulation::world::World;

/// Between the starts of two faults.
const GAP_MS_MAX: u64 = 2500;

enum Later {
    Kill(usize),
    Start(usize),
    Resume(usize),
    Cut(usize, usize),
    Mend,
}

#[derive(Default)]
pub struct Faults {
    next_ms: u64,
    later: Vec<(u64, Later)>,
    pub counts: BTreeMap<&'static str, u64>,
}

impl Faults {
    pub fn step(&mut self, world: &mut World) {
        let due: Vec<usize> = (0..self.later.len()).rev().filter(|at| self.later[*at].0 <= world.now_ms).collect();
        for at in due {
            let (_, event) = self.later.remove(at);
            event.run(world);
        }
        if self.next_ms <= world.now_ms {
            self.next_ms = world.now_ms + 300 + world.chance.below(GAP_MS_MAX);
            self.begin(world);
        }
    }

    /// Everything works again.
    pub fn end(&mut self, world: &mut World) {
        self.later.drain(..).for_each(|(_, event)| event.run(world));
    }

    fn begin(&mut self, world: &mut World) {
        let nodes = world.machines.len();
        let node = world.chance.below(nodes as u64) as usize;
        let other = (node + 1 + world.chance.below(nodes as u64 - 1) as usize) % nodes;
        let name = match world.chance.below(13) {
            kind @ 0..3 => self.crash(world, node, kind),
            kind @ 3..7 => self.disturb_network(world, node, other, kind - 3),
            7 => self.restart_beside_cut(world, node, other),
            8 | 9 => {
                if let Some(process) = &mut world.machines[node].process {
                    process.paused = true;
                }
                self.later.push((world.now_ms + 100 + world.chance.below(6000), Later::Resume(node)));
                "pause"
            }
            10 | 11 => {
                world.transfer(node);
                "transfer"
            }
            _ => {
                world.machines[node].wall_offset_ms = world.chance.below(7_200_000) as i64 - 3_600_000;
                "clock step"
            }
        };
        *self.counts.entry(name).or_default() += 1;
    }

    fn crash(&mut self, world: &mut World, node: usize, kind: u64) -> &'static str {
        let back = world.now_ms + 50 + world.chance.below(3000);
        match kind {
            0 => {
                world.kill(node);
                self.later.push((back, Later::Start(node)));
                "kill"
            }
            1 => {
                world.lose_power(node);
                self.later.push((back, Later::Start(node)));
                "power loss"
            }
            _ => {
                for node in 0..world.machines.len() {
                    world.lose_power(node);
                    self.later.push((back, Later::Start(node)));
                }
                "power loss of all"
            }
        }
    }

    fn disturb_network(&mut self, world: &mut World, node: usize, other: usize, kind: u64) -> &'static str {
        self.later.push((world.now_ms + 100 + world.chance.below(6000), Later::Mend));
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
                let others = (0..world.machines.len()).filter(|other| *other != node);
                others.for_each(|other| world.cut_both_ways(node, other));
                "isolation"
            }
            _ => {
                world.network.set_delay_max(5 + world.chance.below(300));
                "slow network"
            }
        }
    }

    /// One that no longer hears a leader asks for votes again and again; the third, which does hear it, is restarted, and the leader is
    /// alone from then on.
    fn restart_beside_cut(&mut self, world: &mut World, node: usize, other: usize) -> &'static str {
        world.cut_both_ways(node, other);
        let third = world.machines.len() - node - other;
        let at = world.now_ms + 2500 + world.chance.below(1500);
        let back = at + 1 + world.chance.below(15);
        self.later.extend([(at, Later::Kill(third)), (back, Later::Start(third)), (at, Later::Cut(node, third))]);
        self.later.push((at + 3000, Later::Mend));
        "restart beside a cut"
    }
}

impl Later {
    fn run(self, world: &mut World) {
        match self {
            Self::Kill(node) => world.kill(node),
            Self::Start(node) => world.start(node),
            Self::Resume(node) => {
                if let Some(process) = &mut world.machines[node].process {
                    process.paused = false;
                }
            }
            Self::Cut(node, other) => world.cut_both_ways(node, other),
            Self::Mend => world.network.mend(),
        }
    }
}
