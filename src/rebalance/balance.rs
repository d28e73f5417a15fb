//! What the scheduler remembers for evening out slots: how often each has been asked for lately, and since when the cluster has been as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, NodeId, Topology};
use crate::raft::{Replication, SlotLoad};
use crate::rebalance::slots::SlotWeights;
use crate::slot::{SLOT_COUNT, Slot};

/// Between two looks at what slots cost.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long load has to have been uneven before slots move for it, and the cluster is left alone after they have: requests come in waves. What a new
/// group, or one to be dissolved, needs is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// A node that has just joined may be there to replace one that is about to leave.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// After a batch of slots or a replica has moved, clients have the machine to themselves for as long as that took, or this long if that is shorter: what
/// the move of much data takes is limited by the bytes that are sent.
const REST_MAX: Duration = Duration::from_secs(1);
/// Requests per second of all clients together: where there are fewer, moves disturb nobody and do not rest.
const BUSY_RATE_MIN: f64 = 500.0;
/// What was asked for so long ago counts a third of what is asked for now.
const MEMORY_SECONDS: f64 = 25.0;

#[derive(Debug)]
pub struct Balance {
    nodes: BTreeSet<NodeId>,
    nodes_since: Instant,
    looked: Option<Instant>,
    /// Who counted how many requests, at the last look.
    counted: Vec<(u64, u64)>,
    /// Requests per second.
    rates: Vec<f64>,
    bytes: Vec<u64>,
    /// Slots have been where they should be until then.
    even_at: Instant,
    /// Slots have begun to move, and are not yet all where they should be.
    evening: bool,
    /// As the topology counts it.
    asked: Option<u64>,
    /// As the topology has it.
    placed_by_hand: Option<BTreeMap<GroupId, BTreeSet<Slot>>>,
    /// The slots that are moved, where to, and since when.
    last: Option<(GroupId, BTreeSet<Slot>, Instant)>,
    /// Replicas are on their way since then.
    placing: Option<Instant>,
    rests_until: Instant,
    /// When it was seen that some of them are not there, and how often in a row.
    failed_at: Option<Instant>,
    failures: u32,
}

impl Balance {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            nodes: BTreeSet::new(),
            nodes_since: now,
            looked: None,
            counted: vec![(0, 0); SLOT_COUNT],
            rates: vec![0.0; SLOT_COUNT],
            bytes: vec![0; SLOT_COUNT],
            even_at: now,
            evening: false,
            asked: None,
            placed_by_hand: None,
            last: None,
            placing: None,
            rests_until: now,
            failed_at: None,
            failures: 0,
        }
    }

    /// By a new leader of the meta group: slots that the one before it was evening out are not left half way for as long as others would wait.
    pub fn taken_over(topology: &Topology) -> Self {
        let evening = topology.moves().any(|(_, moved)| moved.is_open() && !moved.by_hand);
        Self { evening, placed_by_hand: Some(topology.placed_by_hand().clone()), ..Self::new() }
    }

    /// Whether the members have been the same for a while. To be asked again and again.
    pub fn is_quiet(&mut self, topology: &Topology) -> bool {
        let nodes: BTreeSet<NodeId> = topology.staying().collect();
        if nodes != self.nodes {
            (self.nodes, self.nodes_since) = (nodes, Instant::now());
        }
        self.nodes_since.elapsed() >= QUIET_AFTER
    }

    fn rest_after(&self, took: Duration) -> Duration {
        if self.rates.iter().sum::<f64>() < BUSY_RATE_MIN { Duration::ZERO } else { took.min(REST_MAX) }
    }

    /// Whether what moved last has only just arrived; `moving`: replicas are on their way. To be asked again and again.
    pub fn rests(&mut self, moving: bool) -> bool {
        let now = Instant::now();
        if moving {
            self.placing.get_or_insert(now);
        } else if let Some(began) = self.placing.take() {
            self.rests_until = now + self.rest_after(now - began);
        }
        now < self.rests_until
    }

    /// Whether it is time to look at what slots cost; to be asked when no slot is on its way. What did not come to its end is not begun again at once.
    pub fn is_due(&mut self, topology: &Topology) -> bool {
        let now = Instant::now();
        if let Some((to, slots, began)) = self.last.take() {
            self.rests_until = now + self.rest_after(now - began);
            if slots.iter().any(|slot| topology.group_of(*slot) != to) {
                (self.failed_at, self.failures) = (Some(now), self.failures + 1);
            } else {
                self.failures = 0;
            }
        }
        self.wait_for_operator(topology);
        let asked = self.asked.replace(topology.evening_asked());
        if asked.is_some_and(|asked| asked != topology.evening_asked()) {
            (self.evening, self.failed_at, self.failures) = (true, None, 0);
        }
        // One leader that changes is no reason to wait for long, and a node that leaves waits for the rest.
        let longest = if topology.leaving_groups().is_empty() { PATIENCE } else { QUIET_AFTER };
        let doubled = 2_u32.saturating_pow(self.failures.saturating_sub(1));
        let patience = QUIET_AFTER.saturating_mul(doubled).min(longest);
        if now < self.rests_until || self.failed_at.is_some_and(|failed| failed.elapsed() < patience) {
            return false;
        }
        // While nothing may move, what slots cost is looked at all the same: a plan that is shown goes by it.
        let hurries = !topology.is_paused() && (self.evening || is_urgent(topology));
        hurries || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL)
    }

    /// An operator who moves slots may have more of them to move: what he does is not evened out while he is at it.
    fn wait_for_operator(&mut self, topology: &Topology) {
        if self.placed_by_hand.as_ref() != Some(topology.placed_by_hand()) {
            self.placed_by_hand = Some(topology.placed_by_hand().clone());
            (self.even_at, self.evening) = (Instant::now(), false);
        }
    }

    /// What slots cost now; `None` if not all of them answer.
    pub async fn look(&mut self, replication: &Replication) -> Option<SlotWeights> {
        let loads = replication.slot_loads().await?;
        let passed = self.looked.map(|looked| looked.elapsed().as_secs_f64());
        self.looked = Some(Instant::now());
        self.take_in(&loads, passed);
        replication.slot_requests().note_rates(&self.rates);
        Some(SlotWeights::new(&self.bytes, &self.rates))
    }

    /// `passed`: seconds since the last look, if there was one.
    fn take_in(&mut self, loads: &BTreeMap<Slot, SlotLoad>, passed: Option<f64>) {
        for slot in Slot::all() {
            let load = loads.get(&slot).copied().unwrap_or_default();
            let at = slot.index();
            self.bytes[at] = load.bytes;
            // Each leader counts for itself.
            let (counter, counted) = std::mem::replace(&mut self.counted[at], (load.counter, load.requests));
            if let Some(passed) = passed.filter(|passed| *passed > 0.0 && load.counter == counter) {
                let rate = load.requests.saturating_sub(counted) as f64 / passed;
                self.rates[at] += (rate - self.rates[at]) * (1.0 - (-passed / MEMORY_SECONDS).exp());
            }
        }
    }

    /// Slots are where they should be.
    pub fn note_even(&mut self) {
        (self.even_at, self.evening, self.failures) = (Instant::now(), false, 0);
    }

    /// Slots begin to move.
    pub fn note_moves(&mut self, to: GroupId, slots: BTreeSet<Slot>) {
        (self.evening, self.last) = (true, Some((to, slots, Instant::now())));
    }

    /// Slots have been uneven for long enough.
    pub fn may_move(&self, topology: &Topology) -> bool {
        if topology.is_paused() {
            return false;
        }
        self.evening || is_urgent(topology) || self.even_at.elapsed() >= PATIENCE
    }
}

/// A group without slots, or one that is to be dissolved, does not wait.
fn is_urgent(topology: &Topology) -> bool {
    let waits = |group: &GroupId| !topology.slots().contains(group) && !topology.is_emptied_by_hand(*group);
    // With every slot held none could be given.
    let some_free = topology.held_count() < SLOT_COUNT;
    !topology.leaving_groups().is_empty() || (some_free && topology.groups().keys().any(waits))
}

/// For a plan that is only shown: how often a slot is asked for is seen over time, by the meta leader.
pub async fn slot_weights_now(replication: &Replication) -> SlotWeights {
    let (loads, rates) = tokio::join!(replication.slot_loads(), replication.slot_rates());
    let Some(loads) = loads else { return SlotWeights::equal() };
    let bytes: Vec<u64> = Slot::all().map(|slot| loads.get(&slot).map_or(0, |load| load.bytes)).collect();
    SlotWeights::new(&bytes, &rates.unwrap_or_else(|| vec![0.0; SLOT_COUNT]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{MetaOp, MoveEnd, fixture_topology};

    fn loads(counter: u64, requests: u64) -> BTreeMap<Slot, SlotLoad> {
        Slot::all().map(|slot| (slot, SlotLoad { bytes: 1, requests, counter })).collect()
    }

    #[test]
    fn a_rate_is_of_one_counter_and_as_new_as_the_time_that_it_was_seen_for() {
        let mut balance = Balance::new();
        balance.take_in(&loads(1, 360_000), None);
        assert_eq!(balance.rates[0], 0.0, "one look shows no rate");
        balance.take_in(&loads(2, 400_000), Some(5.0));
        balance.take_in(&loads(1, 500_000), Some(5.0));
        assert_eq!(balance.rates[0], 0.0, "the slot was led elsewhere in between");
        balance.take_in(&loads(1, 500_500), Some(5.0));
        assert!((17.0..19.0).contains(&balance.rates[0]), "{}", balance.rates[0]);
        (0..10).for_each(|_| balance.take_in(&loads(1, 500_500), Some(0.1)));
        assert!(balance.rates[0] > 17.0, "a second is no time: {}", balance.rates[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_that_did_not_arrive_are_not_sent_again_at_once() {
        let (mut balance, topology) = (Balance::new(), fixture_topology(3, 3, 3));
        let slot = topology.slots_of(GroupId(1)).next().expect("it has some");
        balance.note_moves(GroupId(1), [slot].into());
        assert!(balance.is_due(&topology), "it is there");
        for (failures, seconds) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
            balance.note_moves(GroupId(2), [slot].into());
            assert!(!balance.is_due(&topology));
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert!(!balance.is_due(&topology), "after {failures} others");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(balance.is_due(&topology), "after {failures} others");
        }
        balance.note_moves(GroupId(1), [slot].into());
        assert!(balance.is_due(&topology));
        balance.note_moves(GroupId(2), [slot].into());
        assert!(!balance.is_due(&topology));
        tokio::time::advance(QUIET_AFTER).await;
        assert!(balance.is_due(&topology), "one has come to its end in between");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_goes_on_with_what_the_scheduler_was_at_and_leaves_an_operator_alone() {
        let slots: BTreeSet<Slot> = fixture_topology(3, 3, 3).slots_of(GroupId(1)).take(2).collect();
        for (by_hand, goes_on) in [(Some(false), true), (Some(true), false), (None, false)] {
            let mut topology = fixture_topology(3, 3, 3);
            if let Some(by_hand) = by_hand {
                let (first, slots) = (topology.next_move(), slots.clone());
                let op = MetaOp::StartMoves { first, to: GroupId(2), slots, why: String::new(), by_hand };
                topology.apply(&op).expect("applies");
            }
            let mut balance = Balance::taken_over(&topology);
            assert!(balance.is_due(&topology) && balance.may_move(&topology) == goes_on, "{by_hand:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_move_clients_have_as_much_time_as_it_took_but_no_more_than_a_second() {
        let (mut balance, topology) = (Balance::new(), fixture_topology(3, 3, 3));
        let slot = topology.slots_of(GroupId(1)).next().expect("it has some");
        balance.note_moves(GroupId(1), [slot].into());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(balance.is_due(&topology), "nobody asks for anything");
        balance.rates.fill(1.0);
        for (took_ms, rest_ms) in [(300, 300), (20_000, 1000)] {
            balance.note_moves(GroupId(1), [slot].into());
            tokio::time::advance(Duration::from_millis(took_ms)).await;
            assert!(!balance.is_due(&topology));
            tokio::time::advance(Duration::from_millis(rest_ms - 1)).await;
            assert!(!balance.is_due(&topology), "{took_ms}");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(balance.is_due(&topology), "{took_ms}");

            assert!(!balance.rests(true), "a replica moves");
            tokio::time::advance(Duration::from_millis(took_ms)).await;
            assert!(!balance.rests(true));
            assert!(balance.rests(false));
            tokio::time::advance(Duration::from_millis(rest_ms)).await;
            assert!(!balance.rests(false) && balance.is_due(&topology), "{took_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_who_moves_slots_is_left_alone_and_one_who_asks_for_evenness_does_not_wait() {
        let (mut balance, mut topology) = (Balance::new(), fixture_topology(3, 3, 3));
        let slots: BTreeSet<Slot> = topology.slots_of(GroupId(1)).collect();
        tokio::time::advance(PATIENCE).await;
        balance.is_due(&topology);
        for part in [1, slots.len()] {
            let (first, slots) = (topology.next_move(), slots.iter().copied().take(part).collect());
            let op = MetaOp::StartMoves { first, to: GroupId(2), slots, why: String::new(), by_hand: true };
            topology.apply(&op).expect("applies");
            let ids: Vec<_> = topology.moves().map(|(id, _)| id).collect();
            for op in ids.into_iter().flat_map(|id| {
                let ends = [MoveEnd::Source, MoveEnd::Target].map(|end| MetaOp::FinishMove { id, end });
                std::iter::once(MetaOp::CommitMove { id }).chain(ends)
            }) {
                topology.apply(&op).expect("applies");
            }
            tokio::time::advance(PATIENCE).await;
            assert!(balance.is_due(&topology) && !balance.may_move(&topology), "{part}");
        }
        tokio::time::advance(PATIENCE).await;
        assert!(balance.is_due(&topology) && balance.may_move(&topology));
        topology.apply(&MetaOp::EvenSlots).expect("applies");
        assert!(balance.is_due(&topology) && balance.may_move(&topology));
        topology.apply(&MetaOp::PauseRebalance).expect("applies");
        assert!(!balance.may_move(&topology));
    }
}
