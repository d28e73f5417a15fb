//! What the wall clocks of the other nodes say, which they tell with their hints (`News`).
//!
//! § One clock must not decide how late it is. A group whose replicas have all been restarted has no stamp that anybody saw in time, and takes the time
//! from a wall clock: of the one machine whose clock is an hour ahead after a power cut, it would expire an hour's keys at once.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::clock::{Boottime, Timestamp};
use crate::cluster::NodeId;

/// Milliseconds by which the wall clock of each node that is connected is ahead of the boottime here; what the message took counts as behind.
///
/// § Not of the wall clock here, which may be turned before a node tells its own again: it would take them all along.
#[derive(Debug, Default)]
pub struct Walls(Mutex<BTreeMap<NodeId, i64>>);

impl Walls {
    pub fn learn(&self, peer: NodeId, wall: Timestamp) {
        self.0.lock().insert(peer, wall.0.saturating_sub(Boottime::now().as_ms()));
    }

    pub fn forget(&self, peer: NodeId) {
        self.0.lock().remove(&peer);
    }

    /// Whether so many clocks of these nodes are known, beside this one's own.
    pub fn are_known(&self, mut nodes: impl Iterator<Item = NodeId>, count: usize) -> bool {
        let known = self.0.lock();
        count == 0 || nodes.by_ref().filter(|node| known.contains_key(node)).nth(count - 1).is_some()
    }

    /// The wall clock that is in the middle of all known, this one's among them. Of an even number the earlier: what lives too long can be deleted, what has
    /// expired does not come back.
    pub fn agreed(&self) -> Timestamp {
        self.agree(Timestamp::wall_now(), Boottime::now())
    }

    fn agree(&self, wall: Timestamp, now: Boottime) -> Timestamp {
        let own = wall.0.saturating_sub(now.as_ms());
        let mut leads: Vec<i64> = self.0.lock().values().copied().chain([own]).collect();
        leads.sort_unstable();
        Timestamp(now.as_ms().saturating_add(leads[(leads.len() - 1) / 2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_clock_among_three_decides_nothing_and_of_two_the_earlier_does() {
        const HOUR_MS: i64 = 3_600_000;
        let ahead_ms = |leads: &[i64]| {
            let walls = Walls::default();
            for (peer, lead) in (1..).zip(leads) {
                walls.learn(NodeId([peer; 20]), Timestamp(Timestamp::wall_now().0 + lead));
            }
            // To the nearest hour.
            (walls.agreed().0 - Timestamp::wall_now().0 + HOUR_MS / 2).div_euclid(HOUR_MS)
        };
        for (leads, agreed) in [
            (&[][..], 0),
            (&[0, 0], 0),
            (&[0, HOUR_MS], 0),
            (&[0, -HOUR_MS], 0),
            // This node's own is the wrong one.
            (&[HOUR_MS, HOUR_MS], 1),
            (&[-HOUR_MS, -HOUR_MS], -1),
            (&[HOUR_MS], 0),
            (&[-HOUR_MS], -1),
            (&[i64::MIN / 2, i64::MAX / 2], 0),
        ] {
            assert_eq!(ahead_ms(leads), agreed, "{leads:?}");
        }
    }

    #[test]
    fn a_clock_that_is_turned_here_takes_the_others_not_along() {
        let (walls, wall, now) = (Walls::default(), Timestamp::wall_now(), Boottime::now());
        [1, 2].into_iter().for_each(|peer| walls.learn(NodeId([peer; 20]), wall));
        for turned_ms in [-3_600_000, 3_600_000] {
            let agreed = walls.agree(Timestamp(wall.0 + turned_ms), now);
            assert!((agreed.0 - wall.0).abs() < 10_000, "{agreed:?} {wall:?}");
        }
    }

    #[test]
    fn a_node_that_is_gone_has_no_say() {
        let walls = Walls::default();
        let peer = NodeId([1; 20]);
        let are_known = |count| walls.are_known([1, 3].map(|number| NodeId([number; 20])).into_iter(), count);
        assert_eq!([are_known(0), are_known(1)], [true, false]);
        walls.learn(peer, Timestamp(0));
        assert_eq!([are_known(1), are_known(2)], [true, false]);
        assert!(walls.agreed().0 < 1_000_000);
        walls.forget(peer);
        assert!(walls.agreed().0 > 1_000_000);
    }
}
