//! A group never has fewer voters than were asked for, whatever moves, joins or leaves, and each of them is one that the topology knows.

use crate::cluster::{ReplicaId, Topology};
use crate::simulation::invariants::Seen;

/// `newest`: of all that are seen.
pub fn look(seen: &Seen, replicas: usize, newest: &Topology) -> Result<(), String> {
    for group in seen.groups.iter().filter(|group| group.leads()) {
        let membership = seen.replication.membership(group);
        let voters = &membership.voters;
        // Before it is founded a group has none.
        if !voters.is_empty() && voters.len() < replicas {
            return Err(format!("group {} has {} voters on node {}: {voters:?}", group.id(), voters.len(), seen.node));
        }
        // Without a lease it may have been removed itself. A group that was dissolved is not there any more.
        let Some(info) = newest.group(group.id()).filter(|_| group.lease().is_some()) else { continue };
        // § What votes is deleted by nobody: it has a home. Unless the node that it was on has lost all it had, and another came in its place.
        let is_member = |voter: &ReplicaId| newest.node(membership.members[voter]).is_some();
        let is_given_up = |voter: &&ReplicaId| info.home_of(**voter).is_none() && is_member(voter);
        if let Some(voter) = voters.iter().find(is_given_up) {
            let (id, node) = (group.id(), seen.node);
            return Err(format!(
                "replica {voter:?} votes in group {id} of node {node}, and the topology has given it up"
            ));
        }
    }
    Ok(())
}
