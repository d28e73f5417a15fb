//! A group never has fewer voters than were asked for, whatever moves, joins or leaves.

use crate::simulation::invariants::Seen;

pub fn look(seen: &Seen, replicas: usize) -> Result<(), String> {
    for group in seen.groups.iter().filter(|group| group.leads()) {
        let voters = seen.replication.membership(group).voters;
        // Before it is founded a group has none.
        if !voters.is_empty() && voters.len() < replicas {
            return Err(format!("group {} has {} voters on node {}: {voters:?}", group.id(), voters.len(), seen.node));
        }
    }
    Ok(())
}
