//! How long nodes have been away. Pure: who is connected goes in, what the meta group should note comes out.
//!
//! § A node is given up only after it has been seen to be away for the whole of the time, never too early: only time that a meta leader has
//! watched counts, a note in the topology carries it over to the next leader, and a leader that has seen the node back since that note begins
//! at nothing. So a restart of the leader makes the wait longer by what was not noted yet, at most an eighth, and never shorter.
//!
//! A node is back once it has stayed for a while. One that crashes whenever it has come up does not, and the times that it is away add up,
//! less half of those that it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::{Absence, MetaOp, NodeId, Topology};

/// Notes while a node is away; each is an entry of the meta group.
const NOTES: u32 = 8;
/// The first note, which operators read of, does not wait for longer; as long as other nodes take to show a node as failed.
const FIRST_NOTE_MS_MAX: u64 = 3000;
/// How long a node must stay to be back: an eighth of the time, and no longer than this.
const STAY_MS_MAX: u64 = 30_000;
/// Of the time that a node is there before it is back, one part of so many is taken off what it was away.
const PARTS_TAKEN_OFF: u64 = 2;

#[derive(Debug)]
pub struct Watch {
    limit_ms: u64,
    /// Of the nodes that are away, or came back lately, while this node leads: how long they were away, and what of it is noted.
    away: BTreeMap<NodeId, Count>,
    /// Nodes that came back after this note about them, or before there was one, and for how long they have stayed.
    seen: BTreeMap<NodeId, (Option<Absence>, u64)>,
}

#[derive(Debug)]
struct Count {
    counted_ms: u64,
    noted_ms: u64,
    /// It was away at the last look too, and so ever since.
    is_away: bool,
}

impl Watch {
    pub fn new(limit: Duration) -> Self {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self { limit_ms, away: BTreeMap::new(), seen: BTreeMap::new() }
    }

    /// `passed` since the last look, of which only what this process was awake for; the ops are for a meta leader to propose.
    pub fn look(
        &mut self,
        topology: &Topology,
        connected: &BTreeSet<NodeId>,
        leads: bool,
        passed: Duration,
    ) -> Vec<MetaOp> {
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let stay_ms = self.stay_ms();
        self.seen.retain(|node, (note, stayed_ms)| {
            let is_there = connected.contains(node) || *stayed_ms >= stay_ms;
            is_there && topology.absence_of(*node) == *note
        });
        self.away.retain(|node, _| leads && topology.node(*node).is_some());
        let mut ops = Vec::new();
        for node in topology.nodes().keys().copied() {
            let note = topology.absence_of(node);
            if connected.contains(&node) {
                ops.extend(self.stays(node, note, passed_ms));
            } else if leads && note.is_none_or(|note| !note.given_up) {
                ops.extend(self.count(node, note, passed_ms));
            }
        }
        if leads { ops } else { Vec::new() }
    }

    fn stays(&mut self, node: NodeId, note: Option<Absence>, passed_ms: u64) -> Option<MetaOp> {
        if note.is_none() && !self.away.contains_key(&node) {
            return None;
        }
        let stayed_ms = self.seen.get(&node).map_or(0, |(_, stayed_ms)| stayed_ms.saturating_add(passed_ms));
        if let Some(count) = self.away.get_mut(&node) {
            count.is_away = false;
            count.counted_ms = count.counted_ms.saturating_sub(passed_ms / PARTS_TAKEN_OFF);
        }
        let is_back = stayed_ms >= self.stay_ms();
        if is_back {
            self.away.remove(&node);
        }
        if is_back && note.is_none() {
            self.seen.remove(&node);
        } else {
            self.seen.insert(node, (note, stayed_ms));
        }
        note.filter(|_| is_back).map(|_| MetaOp::Absent { node, counted_ms: 0, given_up: false })
    }

    fn stay_ms(&self) -> u64 {
        (self.limit_ms / u64::from(NOTES)).min(STAY_MS_MAX)
    }

    fn count(&mut self, node: NodeId, note: Option<Absence>, passed_ms: u64) -> Option<MetaOp> {
        let begin = if self.seen.contains_key(&node) { 0 } else { note.map_or(0, |note| note.counted_ms) };
        let new = Count { counted_ms: begin, noted_ms: begin, is_away: false };
        let Count { counted_ms, noted_ms, is_away } = self.away.entry(node).or_insert(new);
        if !std::mem::replace(is_away, true) {
            return None;
        }
        *counted_ms = counted_ms.saturating_add(passed_ms);
        let given_up = *counted_ms >= self.limit_ms;
        let interval_ms = (self.limit_ms / u64::from(NOTES)).max(1);
        let wait_ms = if note.is_none() { interval_ms.min(FIRST_NOTE_MS_MAX) } else { interval_ms };
        if !given_up && counted_ms.saturating_sub(*noted_ms) < wait_ms {
            return None;
        }
        *noted_ms = *counted_ms;
        Some(MetaOp::Absent { node, counted_ms: *counted_ms, given_up })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{fixture_node as node, fixture_topology};

    const STEP: Duration = Duration::from_millis(500);

    struct Leaders {
        topology: Topology,
        watches: Vec<Watch>,
    }

    impl Leaders {
        fn new(count: usize) -> Self {
            let watches = (0..count).map(|_| Watch::new(Duration::from_secs(20))).collect();
            Self { topology: fixture_topology(3, 3, 3), watches }
        }

        /// Milliseconds of node 3's absence under this leader until it is given up; the others watch as followers.
        fn pass(&mut self, leader: Option<usize>, away: bool, steps: u64) -> Option<u64> {
            let connected: BTreeSet<NodeId> =
                if away { [node(1), node(2)].into() } else { (1..=3).map(node).collect() };
            for step in 1..=steps {
                for (index, watch) in self.watches.iter_mut().enumerate() {
                    let ops = watch.look(&self.topology.clone(), &connected, leader == Some(index), STEP);
                    assert!(leader == Some(index) || ops.is_empty(), "only a leader says something");
                    ops.iter().for_each(|op| drop(self.topology.apply(op).expect("applies")));
                }
                if self.topology.is_given_up(node(3)) {
                    return Some(step * 500);
                }
            }
            None
        }
    }

    #[test]
    fn a_node_is_given_up_after_the_time_and_not_before_and_forgiven_when_it_is_back() {
        let mut leaders = Leaders::new(1);
        assert_eq!(leaders.pass(Some(0), true, 60), Some(20_500), "the first look only begins to count");
        let epoch = leaders.topology.epoch();
        assert!(epoch.0 < 12, "few notes: {epoch:?}");
        leaders.pass(Some(0), true, 20);
        assert_eq!(leaders.topology.epoch(), epoch, "all is said");
        for looks in 0..6 {
            assert!(leaders.topology.is_given_up(node(3)), "it must stay: {looks} looks");
            leaders.pass(Some(0), false, 1);
        }
        assert_eq!(leaders.topology.absence_of(node(3)), None);
    }

    #[test]
    fn a_new_leader_goes_on_with_what_was_noted_and_never_counts_more_than_was_watched() {
        let mut leaders = Leaders::new(2);
        assert_eq!(leaders.pass(Some(0), true, 30), None, "15 s");
        let more = leaders.pass(Some(1), true, 60).expect("given up");
        assert!((5_000..=8_500).contains(&more), "{more} ms more");
    }

    #[test]
    fn a_leader_that_has_seen_the_node_since_the_note_begins_anew() {
        let mut leaders = Leaders::new(2);
        leaders.pass(Some(0), true, 30);
        // Nobody leads, so nobody can note that it was back.
        leaders.pass(None, false, 6);
        assert_eq!(leaders.pass(Some(1), true, 60), Some(20_500));
    }

    /// Times that it was away for `away` looks, and there for `there`, until it is given up.
    fn times(away: u64, there: u64) -> Option<usize> {
        let mut leaders = Leaders::new(1);
        (1..=200).find(|_| {
            let given_up = leaders.pass(Some(0), true, away);
            leaders.pass(Some(0), false, there);
            given_up.is_some()
        })
    }

    #[test]
    fn a_node_that_crashes_whenever_it_has_come_up_is_given_up() {
        // Each time 4 s more, less half of the 2 s that it is there.
        assert_eq!(times(9, 4), Some(7));
        // It need not be away for long enough to be noted.
        assert_eq!(times(4, 2), Some(20));
        assert_eq!(times(3, 5), None, "it is there for most of the time");
        assert_eq!(times(4, 6), None, "it stays");
        assert_eq!(times(30, 6), None, "it stays");
    }

    #[test]
    fn a_leader_whose_word_that_a_node_is_back_was_lost_begins_anew_too() {
        let mut leaders = Leaders::new(1);
        leaders.pass(Some(0), true, 30);
        let connected: BTreeSet<NodeId> = (1..=3).map(node).collect();
        for _ in 0..6 {
            leaders.watches[0].look(&leaders.topology.clone(), &connected, true, STEP);
        }
        assert_eq!(leaders.pass(Some(0), true, 60), Some(20_500));
    }
}
