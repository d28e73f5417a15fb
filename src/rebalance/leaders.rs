//! Who leads each group, for the cluster's story: leaderships that have gone to other nodes, or back, are told when all has been quiet for a while. Pure.
//!
//! Nobody acts on it. A new meta leader begins with all groups where they should be, so what is not is told once more by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, Hints, MetaOp, NodeId, Topology};

/// Several groups change hands one after the other when a node dies or is back; they are told together.
const QUIET: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Leaders {
    seen: BTreeMap<GroupId, NodeId>,
    changed: Option<Instant>,
    /// Those of the others are where they should be.
    told: BTreeMap<GroupId, NodeId>,
}

impl Leaders {
    /// What is to be told next: groups that have come to one node, all of them preferring it or none.
    pub fn look(&mut self, topology: &Topology, hints: &Hints, now: Instant) -> Option<MetaOp> {
        let leader = |group: &GroupId| {
            let leader = hints.leader(*group).filter(|_| hints.is_current(*group))?;
            Some((*group, leader.node)).filter(|(_, node)| topology.node(*node).is_some())
        };
        let seen: BTreeMap<GroupId, NodeId> = topology.groups().keys().filter_map(leader).collect();
        if seen != self.seen || self.changed.is_none() {
            (self.seen, self.changed) = (seen, Some(now));
        }
        self.told.retain(|group, _| topology.group(*group).is_some());
        if self.changed.is_none_or(|changed| now - changed < QUIET) {
            return None;
        }
        let known = |group: &GroupId| self.told.get(group).copied().or_else(|| topology.preferred_node(*group));
        let mut news = self.seen.iter().filter(|(group, node)| known(group) != Some(**node));
        let (first, node) = news.next()?;
        let prefers = |group: &GroupId| topology.preferred_node(*group) == Some(*node);
        let same = news.filter(|(group, other)| *other == node && prefers(group) == prefers(first));
        let groups: BTreeSet<GroupId> = std::iter::once(first).chain(same.map(|(group, _)| group)).copied().collect();
        Some(MetaOp::Led { epoch: topology.epoch(), node: *node, groups })
    }

    /// It is told.
    pub fn note(&mut self, op: &MetaOp) {
        if let MetaOp::Led { node, groups, .. } = op {
            self.told.extend(groups.iter().map(|group| (*group, *node)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::cluster::{LeaderHint, apply_meta, fixture_node, fixture_topology};

    struct Story {
        state: Option<Topology>,
        hints: Hints,
        leaders: Leaders,
        now: Instant,
        term: u64,
    }

    impl Story {
        fn new() -> Self {
            let (state, hints, leaders) = (Some(fixture_topology(3, 6, 3)), Hints::default(), Leaders::default());
            Self { state, hints, leaders, now: Instant::now(), term: 1 }
        }

        fn lead(&mut self, group: u32, number: u8) {
            let (group, node) = (GroupId(group), fixture_node(number));
            let info = self.state.as_ref().unwrap().group(group).unwrap();
            let (replica, _) = info.replicas.iter().find(|(_, home)| **home == node).unwrap();
            self.term += 1;
            self.hints.learn(group, LeaderHint { term: self.term, replica: *replica, node });
        }

        /// What is told in so many seconds.
        fn pass(&mut self, seconds: u64) -> Vec<String> {
            let before = self.state.as_ref().unwrap().events().len();
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                let topology = self.state.clone().unwrap();
                if let Some(op) = self.leaders.look(&topology, &self.hints, self.now) {
                    apply_meta(&mut self.state, &op, Timestamp(0)).expect("applies");
                    let again = apply_meta(&mut self.state, &op, Timestamp(0)).unwrap_err().to_string();
                    assert!(again.starts_with("planned for epoch"), "a late duplicate: {again}");
                    self.leaders.note(&op);
                }
            }
            let events = self.state.as_ref().unwrap().events();
            events.iter().skip(before).map(|event| event.what.clone()).collect()
        }
    }

    #[test]
    fn leaderships_that_go_elsewhere_and_back_are_told_once_and_together() {
        let mut story = Story::new();
        (1..=6).for_each(|group| story.lead(group, (group as u8 - 1) % 3 + 1));
        assert!(story.pass(20).is_empty(), "all is as it should be");
        story.lead(3, 1);
        assert!(story.pass(3).is_empty());
        story.lead(6, 1);
        assert_eq!(story.pass(20), ["groups 3, 6 are led by 127.0.0.1:7001 for now"]);
        story.lead(3, 3);
        assert_eq!(story.pass(20), ["group 3 is led by 127.0.0.1:7003, as it should be"]);
        // A new meta leader knows nothing of it.
        story.leaders = Leaders::default();
        story.lead(6, 2);
        assert_eq!(story.pass(20), ["group 6 is led by 127.0.0.1:7002 for now"]);
    }
}
