//! A slot has one owner: the group that the topology names, on whichever node and from whatever log or snapshot it has its state.

use crate::keyspace::SlotState;
use crate::simulation::invariants::Seen;
use crate::slot::Slot;

pub fn look(seen: &Seen) -> Result<(), String> {
    let topology = seen.replication.topology();
    for group in &seen.groups {
        let owned = |slot: &Slot| group.keyspace().slot_state(*slot) == SlotState::Owned;
        if let Some(slot) = Slot::all().filter(owned).find(|slot| topology.group_of(*slot) != group.id()) {
            return Err(format!("node {} has slot {slot:?} in group {}, which does not own it", seen.node, group.id()));
        }
    }
    Ok(())
}
