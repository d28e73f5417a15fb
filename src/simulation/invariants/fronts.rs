//! Whoever leads sends entries to as many followers first as make a quorum with it, and lets the others wait; without that it is only slower, so that
//! nothing else would tell.

use crate::simulation::invariants::Seen;

/// When all is at rest.
pub fn fronts_are_formed(seen: &Seen) -> Result<(), String> {
    for group in seen.groups.iter().filter(|group| group.leads()) {
        let (membership, front) = (seen.replication.membership(group), group.front());
        if !membership.joint && front.len() != membership.voters.len() / 2 {
            return Err(format!(
                "group {} has the front {front:?} of {:?} on node {}",
                group.id(),
                membership.voters,
                seen.node
            ));
        }
    }
    Ok(())
}
