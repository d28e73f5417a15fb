//! How long nodes have been away. Pure: who is connected goes in, what the meta group should note comes out.
//!
//! § A node is given up only after it has been seen to be away for the whole of the time, never too early: only time that a meta leader has
//! watched counts, a note in the topology carries it over to the next leader, and a leader that has seen the node since that note begins at
//! nothing. So a restart of the leader makes the wait longer by what was not noted yet, at most an eighth, and never shorter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::{Absence, MetaOp, NodeId, Topology};

/// Notes while a node is away; each is an entry of the meta group.
const NOTES: u32 = 8;
/// The first note, which operators read of, does not wait for longer; as long as other nodes take to show a node as failed.
const FIRST_NOTE_MS_MAX: u64 = 3000;

#[derive(Debug)]
pub struct Watch {
    limit_ms: u64,
    /// Of the nodes that are away, while this node leads: how long, and what of it is noted.
    away: BTreeMap<NodeId, (u64, u64)>,
    /// Nodes that were seen after this note about them.
    seen: BTreeMap<NodeId, Absence>,
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
        self.seen.retain(|node, note| topology.absence_of(*node) == Some(*note));
        self.away.retain(|node, _| leads && topology.node(*node).is_some() && !connected.contains(node));
        let mut ops = Vec::new();
        for node in topology.nodes().keys().copied() {
            let note = topology.absence_of(node);
            if connected.contains(&node) {
                self.seen.extend(note.map(|note| (node, note)));
                ops.extend(note.map(|_| MetaOp::Absent { node, counted_ms: 0, given_up: false }));
            } else if leads && note.is_none_or(|note| !note.given_up) {
                ops.extend(self.count(node, note, passed_ms));
            }
        }
        if leads { ops } else { Vec::new() }
    }

    fn count(&mut self, node: NodeId, note: Option<Absence>, passed_ms: u64) -> Option<MetaOp> {
        let begin = if self.seen.contains_key(&node) { 0 } else { note.map_or(0, |note| note.counted_ms) };
        let Some((counted_ms, noted_ms)) = self.away.get_mut(&node) else {
            self.away.insert(node, (begin, begin));
            return None;
        };
        *counted_ms = counted_ms.saturating_add(passed_ms);
        let given_up = *counted_ms >= self.limit_ms;
        let interval_ms = (self.limit_ms / u64::from(NOTES)).max(1);
        let wait_ms = if note.is_none() { interval_ms.min(FIRST_NOTE_MS_MAX) } else { interval_ms };
        if !given_up && *counted_ms - *noted_ms < wait_ms {
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
        leaders.pass(Some(0), false, 1);
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
        leaders.pass(None, false, 1);
        assert_eq!(leaders.pass(Some(1), true, 60), Some(20_500));
    }
}
