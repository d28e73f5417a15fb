//! Pushes for clients that asked to be told of slots that move (CLIENT MAINT_NOTIFICATIONS, RESP3): they read the slot map again before they would be
//! sent elsewhere by MOVED.
//!
//! ```text
//! >3 +SMIGRATING :<number> "<ranges>"
//! >3 +SMIGRATED  :<number> *n( *3 "<host:port before>" "<host:port now>" "<ranges>" )
//! ```
//! Ranges are of key slots: `1,5-9`. Every node tells its clients of all moves; the number, which rises with the topology's epoch, lets a client recognize
//! what it has been told by another node, and is another one for each of the two. What moves within half a second is told together, so that a large move does
//! not make every client read the map for every slot.
//!
//! Clients wait longer for answers from SMIGRATING on and until SMIGRATED (go-redis's `handleSMigrating`, redis-py's relaxed timeout). So each slot gets both,
//! in this order: one that has moved between two looks, and one whose move was given up, which is told as moved to where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::{Epoch, GroupId, Hints, Topology};
use crate::protocol::{Protocol, Reply};
use crate::server::shared::Shared;
use crate::slot::Slot;

/// For clients that are slow to read; they miss the oldest of more.
pub const NOTIFICATIONS_KEPT: usize = 64;
const TOLD_TOGETHER: Duration = Duration::from_millis(500);

/// Runs until aborted.
pub async fn notify_clients(shared: Arc<Shared>) {
    let replication = &shared.replication;
    let mut topologies = replication.newest_topologies();
    let mut told = Told::new(replication.newest_topology());
    loop {
        if topologies.changed().await.is_err() {
            return;
        }
        for push in told.look(replication.newest_topology(), &replication.hints()) {
            // Nobody may have asked for it.
            let _ = shared.notifications.send(push);
        }
        tokio::time::sleep(TOLD_TOGETHER).await;
    }
}

/// What clients know.
struct Told {
    topology: Arc<Topology>,
    /// Slots of which they know that they move, and where they were then.
    moving: BTreeMap<Slot, GroupId>,
}

impl Told {
    fn new(topology: Arc<Topology>) -> Self {
        Self { topology, moving: BTreeMap::new() }
    }

    /// What they are to be told of the topology as it is now.
    fn look(&mut self, now: Arc<Topology>, hints: &Hints) -> Vec<Bytes> {
        let before = std::mem::replace(&mut self.topology, now.clone());
        let moves = || now.moves().filter(|(_, moved)| moved.is_open());
        let fresh = moves().filter(|(id, _)| *id >= before.next_move()).map(|(_, moved)| moved.slot);
        let moved = Slot::all().filter(|slot| before.group_of(*slot) != now.group_of(*slot));
        let begun: BTreeSet<Slot> = fresh.chain(moved).filter(|slot| !self.moving.contains_key(slot)).collect();
        self.moving.extend(begun.iter().map(|slot| (*slot, before.group_of(*slot))));
        let open: BTreeSet<Slot> = moves().map(|(_, moved)| moved.slot).collect();
        let (moving, over) = std::mem::take(&mut self.moving).into_iter().partition(|(slot, _)| open.contains(slot));
        self.moving = moving;
        [migrating(begun, now.epoch()), migrated(over, &before, &now, hints)].into_iter().flatten().collect()
    }
}

/// Slots that have begun to move.
fn migrating(slots: BTreeSet<Slot>, epoch: Epoch) -> Option<Bytes> {
    let ranges = ranges(slots.into_iter())?;
    Some(push("SMIGRATING", 2 * epoch.0, |reply| reply.bulk(ranges.as_bytes())))
}

/// Slots that do not move any more, and where they were.
fn migrated(over: BTreeMap<Slot, GroupId>, before: &Topology, now: &Topology, hints: &Hints) -> Option<Bytes> {
    let mut moved: BTreeMap<(GroupId, GroupId), Vec<Slot>> = BTreeMap::new();
    for (slot, from) in over {
        moved.entry((from, now.group_of(slot))).or_default().push(slot);
    }
    // As CLUSTER SLOTS names a group's owner. One that was dissolved meanwhile has none.
    let address = |topology: &Topology, group| {
        let leader = hints.leader(group).map(|leader| leader.node).filter(|node| topology.node(*node).is_some());
        let node = leader.or_else(|| topology.presumed_leader(group))?;
        topology.node(node).filter(|info| info.is_known()).map(|info| info.address().to_string())
    };
    let entries: Vec<(String, String, String)> = moved
        .into_iter()
        .filter_map(|((from, to), slots)| {
            let (old, new) = (address(before, from), address(now, to)?);
            Some((old.unwrap_or_else(|| new.clone()), new, ranges(slots.into_iter())?))
        })
        .collect();
    if entries.is_empty() {
        return None;
    }
    Some(push("SMIGRATED", 2 * now.epoch().0 + 1, |reply| {
        reply.array(entries.len());
        for (from, to, ranges) in &entries {
            reply.array(3);
            for text in [from, to, ranges] {
                reply.bulk(text.as_bytes());
            }
        }
    }))
}

fn push(name: &str, number: u64, rest: impl FnOnce(&mut Reply)) -> Bytes {
    let mut reply = Reply::new(Protocol::Resp3);
    reply.push(3);
    reply.simple(name);
    reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
    rest(&mut reply);
    reply.take().freeze()
}

/// Runs of key slots, rising; `None` of no slots.
fn ranges(slots: impl Iterator<Item = Slot>) -> Option<String> {
    let mut bounds: Vec<(u16, u16)> = slots
        .map(|slot| {
            let (first, last) = slot.key_slot_bounds();
            (first.get(), last.get())
        })
        .collect();
    bounds.sort_unstable();
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for (first, last) in bounds {
        match runs.last_mut() {
            Some(run) if run.1 + 1 == first => run.1 = last,
            _ => runs.push((first, last)),
        }
    }
    let texts: Vec<String> = runs.into_iter().map(|(first, last)| format!("{first}-{last}")).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{MetaOp, MoveId, fixture_topology};

    struct Look {
        told: Told,
        topology: Topology,
        slot: Slot,
    }

    impl Look {
        fn new() -> Self {
            let topology = fixture_topology(3, 3, 3);
            let slot = Slot::by_key_slots().find(|slot| topology.group_of(*slot) == GroupId(1)).unwrap();
            Self { told: Told::new(Arc::new(topology.clone())), topology, slot }
        }

        fn start(&mut self) -> MoveId {
            let (first, slots, why) = (self.topology.next_move(), [self.slot].into(), String::new());
            let op = MetaOp::StartMoves { first, to: GroupId(2), slots, why, by_hand: true };
            self.topology.apply(&op).unwrap();
            first
        }

        /// The pushes of a look, on a line each, without what their lengths say.
        fn told(&mut self) -> Vec<String> {
            let pushes = self.told.look(Arc::new(self.topology.clone()), &Hints::default());
            let line = |push: Bytes| {
                let text = String::from_utf8(push.to_vec()).unwrap();
                let words = text.split("\r\n").filter(|word| !word.starts_with(['$', '*', '>']));
                words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
            };
            pushes.into_iter().map(line).collect()
        }
    }

    const NODES: [&str; 2] = ["127.0.0.1:7001", "127.0.0.1:7002"];

    fn key_slots(slot: Slot) -> String {
        let (first, last) = slot.key_slot_bounds();
        format!("{}-{}", first.get(), last.get())
    }

    #[test]
    fn a_slot_is_told_to_move_and_then_to_have_moved_and_each_once() {
        let mut look = Look::new();
        let range = key_slots(look.slot);
        let id = look.start();
        assert_eq!(look.told(), [format!("+SMIGRATING :4 {range}")]);
        assert!(look.told().is_empty());
        look.topology.apply(&MetaOp::CommitMove { id }).unwrap();
        let [from, to] = NODES;
        assert_eq!(look.told(), [format!("+SMIGRATED :7 {from} {to} {range}")]);
        assert!(look.told().is_empty());
    }

    #[test]
    fn a_slot_that_has_moved_between_two_looks_is_told_both() {
        let mut look = Look::new();
        let range = key_slots(look.slot);
        let id = look.start();
        look.topology.apply(&MetaOp::CommitMove { id }).unwrap();
        let [from, to] = NODES;
        assert_eq!(look.told(), [format!("+SMIGRATING :6 {range}"), format!("+SMIGRATED :7 {from} {to} {range}")]);
    }

    #[test]
    fn a_move_that_is_given_up_is_told_to_be_over_and_one_that_is_begun_again_is_not() {
        let mut look = Look::new();
        let range = key_slots(look.slot);
        let id = look.start();
        assert_eq!(look.told().len(), 1);
        look.topology.apply(&MetaOp::AbortMove { id, again: true }).unwrap();
        assert!(look.told().is_empty());
        look.topology.apply(&MetaOp::AbortMove { id, again: false }).unwrap();
        let owner = NODES[0];
        assert_eq!(look.told(), [format!("+SMIGRATED :9 {owner} {owner} {range}")]);
        // Nobody has heard of it.
        let mut look = Look::new();
        let id = look.start();
        look.topology.apply(&MetaOp::AbortMove { id, again: false }).unwrap();
        assert!(look.told().is_empty());
    }

    #[test]
    fn neighbouring_slots_make_one_range() {
        let slots: Vec<Slot> = Slot::by_key_slots().collect();
        let some = [slots[2], slots[0], slots[1], slots[5]];
        assert_eq!(ranges(some.into_iter()).unwrap(), "0-47,80-95");
        assert_eq!(ranges(std::iter::empty()), None);
    }
}
