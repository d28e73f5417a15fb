//! Replicas that have applied the same entries hold the same data, slots and time, through whatever restarts and installs they came there.

use std::collections::BTreeMap;

use crate::cluster::GroupId;
use crate::raft::Group;
use crate::simulation::invariants::Seen;

/// `None` while the replicas of a group, `replicas` of them, are not at the same entry.
pub fn compare(all: &[Seen], replicas: usize) -> Option<Result<(), String>> {
    let mut groups = BTreeMap::<GroupId, Vec<(usize, &Group)>>::new();
    for seen in all {
        for group in &seen.groups {
            groups.entry(group.id()).or_default().push((seen.node, &**group));
        }
    }
    let level = |members: &Vec<(usize, &Group)>| {
        let index = members[0].1.applied_index();
        members.len() == replicas && members.iter().all(|(_, group)| group.applied_index() == index)
    };
    groups.values().all(level).then(|| groups.iter().try_for_each(|(id, members)| compare_group(*id, members)))
}

fn compare_group(id: GroupId, members: &[(usize, &Group)]) -> Result<(), String> {
    let state = |group: &Group| {
        let owned = group.slots();
        (group.keyspace().digest(), owned, group.time().stamp, group.keyspace().counters().keys)
    };
    let (first, expected) = (members[0].0, state(members[0].1));
    for (node, group) in members {
        let found = state(group);
        if found != expected {
            return Err(format!(
                "group {id}: at entry {} node {node} holds {found:?} and node {first} {expected:?} (digest, slots, time, keys)",
                group.applied_index()
            ));
        }
    }
    Ok(())
}
