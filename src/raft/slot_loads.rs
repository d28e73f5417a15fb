//! What each slot costs: what slots are evened out by.
//!
//! Requests are sampled: a stretch of requests counts as so many for the slot of one of them, which costs one addition and is right on average.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cluster::{GroupId, NodeId};
use crate::raft::peers::{ASK_SLOT_LOADS, ASK_SLOT_RATES};
use crate::raft::replication::Replication;
use crate::random;
use crate::slot::{SLOT_COUNT, Slot};

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);
/// Slots, of sixteen buckets each, that are looked at before others on this thread get a turn.
const SLOTS_AT_ONCE: usize = 16;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLoad {
    /// Of keys and values.
    pub bytes: u64,
    /// As `counter` counts them.
    pub requests: u64,
    /// Who has counted: drawn anew at every start of a process.
    pub counter: u64,
}

/// Requests for each slot that this node has served.
#[derive(Debug)]
pub struct SlotRequests {
    counter: u64,
    counts: Box<[AtomicU64]>,
    /// Of all nodes, per second, as the scheduler has seen them over time while it ran here.
    rates: Mutex<Option<Vec<f64>>>,
}

impl Default for SlotRequests {
    fn default() -> Self {
        let counts = (0..SLOT_COUNT).map(|_| AtomicU64::new(0)).collect();
        Self { counter: random::draw_u64(), counts, rates: Mutex::default() }
    }
}

impl SlotRequests {
    pub fn note(&self, slot: Slot, count: usize) {
        self.counts[slot.index()].fetch_add(count as u64, Relaxed);
    }

    fn of(&self, slot: Slot) -> u64 {
        self.counts[slot.index()].load(Relaxed)
    }

    pub fn note_rates(&self, rates: &[f64]) {
        *self.rates.lock() = Some(rates.to_vec());
    }
}

impl Replication {
    /// Of all slots; `None` while some leader does not answer, or a slot is on its way.
    pub async fn slot_loads(&self) -> Option<BTreeMap<Slot, SlotLoad>> {
        let (topology, hints) = (self.topology(), self.hints());
        let leaders: Option<BTreeSet<NodeId>> =
            topology.groups().keys().map(|group| hints.leader(*group).map(|leader| leader.node)).collect();
        let mut loads = self.slot_loads_here().await;
        let others = leaders?.into_iter().filter(|node| *node != self.node());
        for answer in join_all(others.map(|node| self.ask_slot_loads(node))).await {
            loads.extend(answer?);
        }
        (loads.len() == SLOT_COUNT).then_some(loads)
    }

    pub(super) async fn encoded_slot_loads(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.slot_loads_here().await).expect("numbers encode")
    }

    /// Requests per second of each of the slots, as the meta leader has seen them; `None` if it has not yet, or does not answer.
    pub async fn slot_rates(&self) -> Option<Vec<f64>> {
        if self.leads_meta() {
            return self.slot_requests().rates.lock().clone();
        }
        let leader = self.hints().leader(GroupId::META)?;
        let answer = self.ask(leader.node, ASK_SLOT_RATES, &[], ANSWER_WAIT_MAX).await.ok()?;
        let rates: Vec<f64> = postcard::from_bytes::<Option<_>>(&answer).ok()??;
        let sound = rates.len() == SLOT_COUNT && rates.iter().all(|rate| rate.is_finite() && *rate >= 0.0);
        sound.then_some(rates)
    }

    pub(super) fn encoded_slot_rates(&self) -> Vec<u8> {
        let rates = if self.leads_meta() { self.slot_requests().rates.lock().clone() } else { None };
        postcard::to_stdvec(&rates).expect("numbers encode")
    }

    async fn slot_loads_here(&self) -> BTreeMap<Slot, SlotLoad> {
        let mut loads = BTreeMap::new();
        for group in self.led_groups() {
            let owned: Vec<Slot> = Slot::all().filter(|slot| group.keyspace().owns(*slot)).collect();
            for slots in owned.chunks(SLOTS_AT_ONCE) {
                for slot in slots {
                    let (_, bytes) = group.keyspace().slot_size(*slot);
                    let requests = self.slot_requests();
                    let load = SlotLoad { bytes, requests: requests.of(*slot), counter: requests.counter };
                    loads.insert(*slot, load);
                }
                tokio::task::yield_now().await;
            }
        }
        loads
    }

    async fn ask_slot_loads(&self, node: NodeId) -> Option<BTreeMap<Slot, SlotLoad>> {
        let answer = self.ask(node, ASK_SLOT_LOADS, &[], ANSWER_WAIT_MAX).await.ok()?;
        let loads: BTreeMap<Slot, SlotLoad> = postcard::from_bytes(&answer).ok()?;
        loads.keys().all(|slot| slot.index() < SLOT_COUNT).then_some(loads)
    }
}
