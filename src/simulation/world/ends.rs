//! What is looked at after each step, and what must come to be when everything works again.

use std::sync::Arc;

use crate::cluster::Topology;
use crate::simulation::invariants::{Owners, Seen, acknowledged, compare, copies, fronts_are_formed, owned_as_named};
use crate::simulation::world::{HEAL_MS_MAX, World};

/// Between two looks at what takes longer to look at.
const SLOW_LOOK_MS: u64 = 5;
impl World {
    pub(super) fn look(&mut self) -> Result<(), String> {
        self.invariants.begin_step();
        let all = self.seen();
        let newest = all.iter().map(|seen| seen.replication.newest_topology()).max_by_key(|topology| topology.epoch());
        for seen in &all {
            self.machines[seen.node].set_clocks(self.now_ms);
            self.invariants.look(seen)?;
            if let Some(newest) = newest.as_ref().filter(|_| self.now_ms.is_multiple_of(SLOW_LOOK_MS)) {
                copies::look(seen, self.scenario.nodes.min(self.scenario.replicas as usize), newest)?;
            }
        }
        if self.now_ms.is_multiple_of(SLOW_LOOK_MS) {
            self.look_at_owners(&all)?;
            self.look_at_acknowledged(&all)?;
            all.iter().for_each(|seen| self.old_moves.note(&seen.replication.newest_topology()));
        }
        self.invariants.end_step(&all)
    }

    fn look_at_owners(&self, all: &[Seen]) -> Result<(), String> {
        let mut owners = Owners::default();
        for seen in all {
            self.machines[seen.node].set_clocks(self.now_ms);
            owners.look(seen)?;
        }
        Ok(())
    }

    /// One key at a time, of those in use.
    fn look_at_acknowledged(&self, all: &[Seen]) -> Result<(), String> {
        let key = self.clients.key_in_use(self.now_ms / SLOW_LOOK_MS);
        let tokens = self.clients.history.acknowledged(&key);
        for seen in all {
            self.machines[seen.node].set_clocks(self.now_ms);
            acknowledged::look(seen, &key, &tokens)?;
        }
        Ok(())
    }

    /// § Every move is over, and both groups have cleaned up: nothing stays frozen.
    pub(super) fn until_moves_are_over(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let mut left = None;
        while self.now_ms < until {
            let topologies = self.topologies();
            let is_over = are_level(&topologies) && topologies[0].moves().next().is_none();
            left = topologies.into_iter().max_by_key(|topology| topology.epoch());
            if is_over && self.frozen() == 0 {
                return Ok(());
            }
            self.step(false)?;
        }
        let left: Vec<_> = left.iter().flat_map(|topology| topology.moves()).map(|(_, left)| left.clone()).collect();
        let frozen = self.frozen();
        Err(format!("moves are not over, {HEAL_MS_MAX} ms after the last fault: {left:?}, {frozen} slots are frozen"))
    }

    fn topologies(&self) -> Vec<Arc<Topology>> {
        self.seen().into_iter().map(|seen| seen.replication.newest_topology()).collect()
    }

    /// Until every node knows a leader for every group.
    pub(super) fn until_well(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        while self.now_ms < until {
            self.step(false)?;
            if self.members().into_iter().all(|node| self.machines[node].readiness().is_ok()) {
                return Ok(());
            }
        }
        let missing: Vec<_> = self.members().into_iter().map(|node| self.machines[node].readiness()).collect();
        let now_ms = self.now_ms;
        Err(format!("at {now_ms} ms: the cluster does not serve, {HEAL_MS_MAX} ms after the last fault: {missing:?}"))
    }

    pub(super) fn replicas_agree(&mut self) -> Result<(), String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let replicas = self.scenario.nodes.min(self.scenario.replicas as usize);
        let mut missing = String::from("the replicas of a group are not at one entry");
        while self.now_ms < until {
            let seen = self.seen();
            if let Some(agree) = compare(&seen, replicas) {
                agree?;
                // A move that was asked for may have begun late.
                let topologies = self.topologies();
                if are_level(&topologies) && topologies[0].moves().next().is_none() {
                    // A leader forms its front anew at its next tick after the membership has changed.
                    match seen.iter().try_for_each(fronts_are_formed) {
                        Ok(()) => return seen.iter().try_for_each(owned_as_named),
                        Err(unformed) => missing = unformed,
                    }
                }
            }
            self.step(false)?;
        }
        Err(format!("{missing}, {HEAL_MS_MAX} ms after the last fault"))
    }
}

/// A node whose replica of the meta group is behind may not know of a move that others have forgotten.
fn are_level(topologies: &[Arc<Topology>]) -> bool {
    topologies.windows(2).all(|pair| pair[0].epoch() == pair[1].epoch()) && !topologies.is_empty()
}
