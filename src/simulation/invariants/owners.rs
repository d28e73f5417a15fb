//! A slot has one owner at any time, on whichever nodes and from whatever log or snapshot the groups have their state; in the end it is the one that the
//! topology names.

use std::collections::BTreeMap;

use crate::cluster::GroupId;
use crate::raft::Held;
use crate::simulation::invariants::Seen;
use crate::slot::Slot;

/// Of all nodes at one moment.
#[derive(Default)]
pub struct Owners(BTreeMap<Slot, (GroupId, usize)>);

impl Owners {
    /// § Who may serve reads now; a follower, or a leader whose lease is over, may be behind.
    pub fn look(&mut self, seen: &Seen) -> Result<(), String> {
        for group in seen.groups.iter().filter(|group| group.lease().is_some()) {
            for slot in Slot::all().filter(|slot| group.keyspace().owns(*slot)) {
                let (owner, node) = *self.0.entry(slot).or_insert((group.id(), seen.node));
                if owner != group.id() {
                    return Err(format!(
                        "slot {slot} is served by group {owner} on node {node} and by group {} on node {}",
                        group.id(),
                        seen.node
                    ));
                }
            }
        }
        Ok(())
    }
}

/// When all moves are over.
pub fn owned_as_named(seen: &Seen) -> Result<(), String> {
    let topology = seen.replication.newest_topology();
    for group in &seen.groups {
        for slot in Slot::all() {
            let (held, owned) = (group.held(slot), group.keyspace().owns(slot));
            let named = topology.group_of(slot) == group.id();
            let expected = named.then_some(Held::Owned);
            if held != expected || owned != named {
                return Err(format!(
                    "node {} has slot {slot} in group {} as {held:?}, owned: {owned}; the topology names group {}",
                    seen.node,
                    group.id(),
                    topology.group_of(slot)
                ));
            }
        }
    }
    Ok(())
}
