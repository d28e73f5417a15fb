//! What is done to the cluster: nodes start, end, join and leave, links are cut, operators and clients ask for something.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{Address, GroupId, Probe};
use crate::server::SimulatedConnection;
use crate::simulation::client::{put, take};
use crate::simulation::forming::Round;
use crate::simulation::invariants::Seen;
use crate::simulation::node::Machine;
use crate::simulation::world::{HEAL_MS_MAX, Later, SETTLING_MS, World};
use crate::slot::{KeySlot, SLOT_COUNT, Slot};

const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Empty until the call has ended; then the replies, or `None` of a connection that was closed.
pub type Answer = Arc<Mutex<Option<Option<BytesMut>>>>;

impl World {
    /// An empty machine is told to join.
    pub fn join(&mut self, node: usize) {
        self.machines[node].wipe();
        self.machines[node].outside = false;
        self.start(node);
    }

    /// An operator tells any member that the node is to leave.
    pub fn remove(&mut self, node: usize) {
        let Some(id) = self.machines[node].shared().map(|shared| shared.replication.node()) else { return };
        let others = self.seen().into_iter().filter(|seen| seen.node != node);
        for Seen { node, replication, .. } in others {
            self.machines[node].spawn(async move {
                // Refused, or to a leader that is away: as an operator would see it.
                let _ = replication.drain(id, None, false).await;
            });
        }
    }

    /// Its process has ended with 0.
    pub(super) fn leave(&mut self, node: usize) {
        self.kill(node);
        self.machines[node].outside = true;
        self.count("node left");
    }

    /// What a node does by the others' client ports (`raft/members.rs`): one that missed its removal hears of it.
    pub(super) fn ask_standing(&mut self, node: usize) {
        let Some(id) = self.machines[node].shared().map(|shared| shared.replication.node()) else { return };
        let knows = |seen: &Seen| seen.replication.newest_topology().was_forgotten(id);
        let reached = |seen: &Seen| seen.node != node && !self.network.is_cut(seen.node, node);
        if !self.machines[node].is_paused() && self.seen().iter().any(|seen| reached(seen) && knows(seen)) {
            self.leave(node);
        }
    }

    pub fn kill(&mut self, node: usize) {
        self.machines[node].kill();
        self.clients.disconnect(node, self.now_ms);
    }

    /// Its clock goes on.
    pub fn pause(&mut self, node: usize) {
        if let Some(process) = &mut self.machines[node].process {
            process.paused = true;
        }
    }

    pub fn resume(&mut self, node: usize) {
        if let Some(process) = &mut self.machines[node].process {
            process.paused = false;
        }
    }

    pub fn lose_power(&mut self, node: usize) {
        self.machines[node].lose_power(&mut self.chance);
        self.clients.disconnect(node, self.now_ms);
    }

    pub fn wipe(&mut self, node: usize) {
        self.machines[node].wipe();
        self.clients.disconnect(node, self.now_ms);
        self.joined_ms = u64::MAX - SETTLING_MS;
    }

    pub fn fail_disk(&mut self, node: usize) {
        self.machines[node].fail_disk(&mut self.chance);
    }

    /// Its disk has hardly any space left.
    pub fn fill_disk(&mut self, node: usize, ms_min: u64, more_max: u64) {
        self.machines[node].fill_disk(&mut self.chance);
        self.later(ms_min, more_max, Later::EmptyDisk(node));
    }

    pub fn start(&mut self, node: usize) {
        if self.machines[node].process.is_none()
            && self.machines[node].forming.is_none()
            && self.machines[node].start(self.now_ms).is_err()
        {
            self.machines[node].kill();
            self.later(50, 1000, Later::Start(node));
        }
        if self.machines[node].forming.is_some() {
            self.joined_ms = u64::MAX - SETTLING_MS;
        }
    }

    pub(super) fn form(&mut self, node: usize) {
        let Some(mut forming) = self.machines[node].forming.take() else { return };
        self.machines[node].set_clocks(self.now_ms);
        let reached = |machine: &&Machine| {
            machine.index != node && !self.network.is_cut(machine.index, node) && !machine.is_paused()
        };
        let probe = |machine: &Machine| {
            let probe = match (&machine.forming, machine.shared()) {
                (Some(forming), _) => forming.answer(),
                (None, Some(shared)) => Probe::Member { cluster: shared.replication.topology().cluster_id() },
                (None, None) => Probe::Unreachable,
            };
            (machine.address(), probe)
        };
        let probes: BTreeMap<Address, Probe> = self.machines.iter().filter(reached).map(probe).collect();
        let leads = |machine: &&Machine| machine.shared().is_some_and(|shared| shared.replication.leads_meta());
        let leader = self.machines.iter().filter(reached).find(leads);
        match forming.step(self.now_ms, &probes, leader) {
            Round::Goes => {
                self.machines[node].forming = Some(forming);
                return;
            }
            Round::Formed => (),
            Round::JoinedAnew => self.machines[node].join_anew(),
        }
        self.start(node);
        self.joined_ms = self.now_ms;
    }

    pub fn cut_both_ways(&self, node: usize, other: usize) {
        self.network.cut(node, other);
        self.network.cut(other, node);
    }

    pub fn heal_both_ways(&self, node: usize, other: usize) {
        self.network.heal(node, other);
        self.network.heal(other, node);
    }

    pub fn isolate(&self, node: usize) {
        (0..self.machines.len()).filter(|other| *other != node).for_each(|other| self.cut_both_ways(node, other));
    }

    /// Begins to move a slot, mostly one that clients write to, to a group that may own it already.
    pub fn move_slot(&mut self) {
        let node = self.chance.below(self.machines.len() as u64) as usize;
        let Some(shared) = self.machines[node].shared() else { return };
        let groups: Vec<GroupId> = shared.replication.topology().groups().keys().copied().collect();
        let to = groups[self.chance.below(groups.len() as u64) as usize];
        let key = self.clients.recent_key(&mut self.chance);
        let slot = match self.chance.below(5) {
            0 => Slot::new(self.chance.below(SLOT_COUNT as u64) as u16).expect("below the count"),
            _ => KeySlot::of_key(key.as_bytes()).slot(),
        };
        self.begin_move(node, slot, to);
        self.count("move");
    }

    /// As an operator at this node would.
    pub fn begin_move(&mut self, node: usize, slot: Slot, to: GroupId) {
        self.begin_moves(node, [slot].into(), to);
    }

    pub fn begin_moves(&mut self, node: usize, slots: BTreeSet<Slot>, to: GroupId) {
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            // Refused while the slot is moving, or with no meta leader.
            let _ = shared.replication.start_moves(to, slots, "").await;
        });
    }

    pub fn cancel_moves(&mut self) {
        let node = self.chance.below(self.machines.len() as u64) as usize;
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            let _ = shared.replication.cancel_moves(|_| true).await;
        });
        self.count("cancelled moves");
    }

    /// Hands what the node leads to others.
    pub fn transfer(&mut self, node: usize) {
        let Some(shared) = self.machines[node].shared() else { return };
        for group in shared.replication.led_groups() {
            let topology = shared.replication.topology();
            let Some(info) = topology.group(group.id()) else { continue };
            let others: Vec<_> = info.replicas.keys().copied().filter(|replica| *replica != group.replica()).collect();
            let target = others[self.chance.below(others.len() as u64) as usize];
            self.machines[node].spawn(async move {
                // Refused, or to a node that is away: as an operator would see it.
                let _ = group.transfer(target).await;
            });
        }
    }

    /// What a node does first that is told to stop.
    pub fn depart(&self, node: usize) {
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            shared.replication.announce_departure();
            shared.replication.hand_over_leadership(Instant::now() + HAND_OVER_MAX).await;
        });
    }

    /// What the key holds, from whichever node leads.
    pub fn read(&mut self, key: &str) -> Result<String, String> {
        self.ask(&[b"GET", key.as_bytes()])
    }

    /// What one command comes to in the end.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<String, String> {
        let until = self.now_ms + HEAL_MS_MAX;
        let mut node = 0;
        while self.now_ms < until {
            let answer = self.send(node, words);
            for _ in 0..200 {
                self.step(false)?;
                match answer.lock().take().map(|replies| replies.map(|replies| take(&mut &replies[..]))) {
                    Some(Some(Ok(value))) => return Ok(value),
                    Some(Some(Err(_)) | None) => break,
                    None => (),
                }
            }
            node = (node + 1) % self.machines.len();
        }
        Err(format!("{} is not done any more", String::from_utf8_lossy(&words.join(&b' '))))
    }

    /// Where the replies will be, if the node is up.
    pub fn send(&mut self, node: usize, words: &[&[u8]]) -> Answer {
        let answer = Arc::new(Mutex::new(None));
        if let Some(shared) = self.machines[node].shared() {
            let (slot, mut bytes) = (answer.clone(), Vec::new());
            put(&mut bytes, words);
            self.machines[node].spawn(async move {
                let replies = SimulatedConnection::open(shared).turn(&bytes).await;
                *slot.lock() = Some(replies);
            });
        }
        answer
    }

    /// The reply, if the node is up and gives one within `ms_max`; clients make no new calls meanwhile.
    pub fn call(&mut self, node: usize, words: &[&[u8]], ms_max: u64) -> Result<Option<BytesMut>, String> {
        let answer = self.send(node, words);
        for _ in 0..ms_max {
            self.step(false)?;
            if let Some(replies) = answer.lock().take() {
                return Ok(replies);
            }
        }
        Ok(None)
    }
}
