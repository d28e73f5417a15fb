//! All invariants together.

use std::sync::Arc;

use crate::raft::{Group, Replication};
use crate::simulation::invariants::equal_replicas::EqualReplicas;
use crate::simulation::invariants::installs::Installs;
use crate::simulation::invariants::leases::Leases;
use crate::simulation::invariants::one_leader::OneLeader;
use crate::simulation::invariants::prefixes::Prefixes;
use crate::simulation::invariants::time::Time;
use crate::simulation::invariants::topologies::Topologies;

/// One node as the invariants see it; its clocks are set while it is looked at.
pub struct Seen {
    pub node: usize,
    pub replication: Arc<Replication>,
    pub groups: Vec<Arc<Group>>,
}

#[derive(Default)]
pub struct Invariants {
    equal_replicas: EqualReplicas,
    installs: Installs,
    leases: Leases,
    one_leader: OneLeader,
    prefixes: Prefixes,
    time: Time,
    topologies: Topologies,
}

impl Invariants {
    /// All state was lost and given up.
    pub fn forget(&mut self) {
        let installs = std::mem::take(&mut self.installs);
        *self = Self { installs, ..Self::default() };
    }

    pub fn begin_step(&mut self) {
        self.leases.begin_step();
    }

    /// Err says what does not hold.
    pub fn look(&mut self, seen: &Seen) -> Result<(), String> {
        self.topologies.look(seen)?;
        for group in &seen.groups {
            self.leases.look(seen.node, group)?;
            let applied = group.take_witnessed();
            self.one_leader.look(seen.node, group, &applied)?;
            if self.installs.look(seen.node, group, &applied) {
                self.equal_replicas.note_loaded(seen.node, group);
            }
            self.prefixes.look(seen.node, group, &applied)?;
            self.time.look(seen.node, group, &applied)?;
        }
        Ok(())
    }

    /// After each of `all` was looked at.
    pub fn end_step(&mut self, all: &[Seen]) -> Result<(), String> {
        self.equal_replicas.look(all)
    }

    /// Replicas with a snapshot's state that were found to be equal to another one.
    pub fn compared(&self) -> u64 {
        self.equal_replicas.compared
    }

    /// Entries applied on all replicas together, and compared.
    pub fn applied(&self) -> u64 {
        self.prefixes.applied
    }

    /// Made here, and received.
    pub fn snapshots(&self) -> u64 {
        self.installs.snapshots
    }

    pub fn installs(&self) -> u64 {
        self.installs.installs
    }

    pub fn leaderships(&self) -> usize {
        self.one_leader.leaderships()
    }
}
