//! What the scheduler remembers for evening out slots: how often each has been asked for lately, and since when the cluster has been as it is.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{NodeId, Topology};
use crate::raft::Replication;
use crate::rebalance::slots::SlotWeights;
use crate::slot::{SLOT_COUNT, Slot};

/// Between two looks at what slots cost.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long load has to have been uneven before slots move for it, and the cluster is left alone after they have: requests come in waves. What a new
/// group, or one to be dissolved, needs is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// A node that has just joined may be there to replace one that is about to leave.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// Part of a rate that the newest look makes up.
const NEWEST_PART: f64 = 0.2;

#[derive(Debug)]
pub struct Balance {
    nodes: BTreeSet<NodeId>,
    nodes_since: Instant,
    looked: Option<Instant>,
    /// Requests counted at the last look.
    counted: Vec<u64>,
    /// Requests per second.
    rates: Vec<f64>,
    bytes: Vec<u64>,
    /// Slots have been where they should be until then.
    even_at: Instant,
    /// Slots have begun to move, and are not yet all where they should be.
    evening: bool,
    /// As the topology counts it.
    asked: Option<u64>,
}

impl Balance {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            nodes: BTreeSet::new(),
            nodes_since: now,
            looked: None,
            counted: vec![0; SLOT_COUNT],
            rates: vec![0.0; SLOT_COUNT],
            bytes: vec![0; SLOT_COUNT],
            even_at: now,
            evening: false,
            asked: None,
        }
    }

    /// Whether the members have been the same for a while. To be asked again and again.
    pub fn is_quiet(&mut self, topology: &Topology) -> bool {
        let nodes: BTreeSet<NodeId> = topology.staying().collect();
        if nodes != self.nodes {
            (self.nodes, self.nodes_since) = (nodes, Instant::now());
        }
        self.nodes_since.elapsed() >= QUIET_AFTER
    }

    /// Whether it is time to look at what slots cost.
    pub fn is_due(&mut self, topology: &Topology) -> bool {
        let asked = self.asked.replace(topology.evening_asked());
        self.evening |= asked.is_some_and(|asked| asked != topology.evening_asked());
        self.evening || is_urgent(topology) || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL)
    }

    /// What slots cost now; `None` if not all of them answer.
    pub async fn look(&mut self, replication: &Replication) -> Option<SlotWeights> {
        let loads = replication.slot_loads().await?;
        let passed = self.looked.map(|looked| looked.elapsed().as_secs_f64());
        self.looked = Some(Instant::now());
        for slot in Slot::all() {
            let load = loads.get(&slot).copied().unwrap_or_default();
            let at = slot.index();
            self.bytes[at] = load.bytes;
            // Another leader counts from its own start.
            let counted = std::mem::replace(&mut self.counted[at], load.requests);
            if let Some(passed) = passed.filter(|passed| *passed > 0.0 && load.requests >= counted) {
                let rate = (load.requests - counted) as f64 / passed;
                self.rates[at] += (rate - self.rates[at]) * NEWEST_PART;
            }
        }
        Some(SlotWeights::new(&self.bytes, &self.rates))
    }

    /// Slots are where they should be.
    pub fn note_even(&mut self) {
        (self.even_at, self.evening) = (Instant::now(), false);
    }

    /// Slots begin to move.
    pub fn note_moves(&mut self) {
        self.evening = true;
    }

    /// Slots have been uneven for long enough.
    pub fn may_move(&self, topology: &Topology) -> bool {
        self.evening || is_urgent(topology) || self.even_at.elapsed() >= PATIENCE
    }
}

/// A group without slots, or one that is to be dissolved, does not wait.
fn is_urgent(topology: &Topology) -> bool {
    let empty = || topology.groups().keys().any(|group| !topology.slots().contains(group));
    !topology.leaving_groups().is_empty() || (!topology.is_placed_by_hand() && empty())
}

/// By bytes and number, for a plan that is only shown: how often a slot is asked for is seen over time.
pub async fn slot_weights_now(replication: &Replication) -> SlotWeights {
    Balance::new().look(replication).await.unwrap_or_else(SlotWeights::equal)
}
