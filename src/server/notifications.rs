//! Pushes for clients that asked to be told of slots that move (CLIENT MAINT_NOTIFICATIONS, RESP3): they read the slot map again before they would be
//! sent elsewhere by MOVED.
//!
//! ```text
//! >3 +SMIGRATING :<epoch> "<ranges>"
//! >3 +SMIGRATED  :<epoch> *n( *3 "<host:port before>" "<host:port now>" "<ranges>" )
//! ```
//! Ranges are of key slots: `1,5-9`. Every node tells its clients of all moves; the epoch, which rises, lets a client recognize what it has been told
//! by another node. What moves within half a second is told together, so that a large move does not make every client read the map for every slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::{GroupId, Hints, Topology};
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
    let mut told = replication.newest_topology();
    loop {
        if topologies.changed().await.is_err() {
            return;
        }
        let now = replication.newest_topology();
        for push in [migrating(&told, &now), migrated(&told, &now, &replication.hints())].into_iter().flatten() {
            // Nobody may have asked for it.
            let _ = shared.notifications.send(push);
        }
        told = now;
        tokio::time::sleep(TOLD_TOGETHER).await;
    }
}

/// Slots that have begun to move.
fn migrating(before: &Topology, now: &Topology) -> Option<Bytes> {
    let fresh = now.moves().filter(|(id, _)| *id >= before.next_move()).map(|(_, moved)| moved.slot);
    let ranges = ranges(fresh)?;
    Some(push("SMIGRATING", now, |reply| reply.bulk(ranges.as_bytes())))
}

/// Slots that are another group's.
fn migrated(before: &Topology, now: &Topology, hints: &Hints) -> Option<Bytes> {
    let mut moved: BTreeMap<(GroupId, GroupId), Vec<Slot>> = BTreeMap::new();
    for slot in Slot::all() {
        let ends = (before.group_of(slot), now.group_of(slot));
        if ends.0 != ends.1 {
            moved.entry(ends).or_default().push(slot);
        }
    }
    // Without a leader a group has no address that a client would know; MOVED will name one.
    let address = |topology: &Topology, group| {
        let leader = hints.leader(group)?;
        topology.node(leader.node).map(|info| info.address().to_string())
    };
    let entries: Vec<(String, String, String)> = moved
        .into_iter()
        .filter_map(|((from, to), slots)| Some((address(before, from)?, address(now, to)?, ranges(slots.into_iter())?)))
        .collect();
    if entries.is_empty() {
        return None;
    }
    Some(push("SMIGRATED", now, |reply| {
        reply.array(entries.len());
        for (from, to, ranges) in &entries {
            reply.array(3);
            for text in [from, to, ranges] {
                reply.bulk(text.as_bytes());
            }
        }
    }))
}

fn push(name: &str, now: &Topology, rest: impl FnOnce(&mut Reply)) -> Bytes {
    let mut reply = Reply::new(Protocol::Resp3);
    reply.push(3);
    reply.simple(name);
    reply.integer(i64::try_from(now.epoch().0).unwrap_or(i64::MAX));
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::cluster::{MetaOp, fixture_topology};

    #[test]
    fn a_move_is_told_when_it_begins_and_its_end_needs_leaders() {
        let before = fixture_topology(3, 3, 3);
        let mut now = before.clone();
        let slot = Slot::by_key_slots().find(|slot| before.group_of(*slot) == GroupId(1)).unwrap();
        let op = MetaOp::StartMoves {
            first: now.next_move(),
            to: GroupId(2),
            slots: BTreeSet::from([slot]),
            why: String::new(),
            by_hand: true,
        };
        now.apply(&op).unwrap();
        let (first, last) = slot.key_slot_bounds();
        let text = format!("{}-{}", first.get(), last.get());
        let expected = format!(">3\r\n+SMIGRATING\r\n:2\r\n${}\r\n{text}\r\n", text.len());
        assert_eq!(migrating(&before, &now).unwrap(), expected.as_bytes());
        assert_eq!(migrating(&now, &now), None);
        let id = now.moves().next().unwrap().0;
        now.apply(&MetaOp::CommitMove { id }).unwrap();
        assert_eq!(migrated(&before, &now, &Hints::default()), None, "nobody leads");
    }

    #[test]
    fn neighbouring_slots_make_one_range() {
        let slots: Vec<Slot> = Slot::by_key_slots().collect();
        let some = [slots[2], slots[0], slots[1], slots[5]];
        assert_eq!(ranges(some.into_iter()).unwrap(), "0-47,80-95");
        assert_eq!(ranges(std::iter::empty()), None);
    }
}
