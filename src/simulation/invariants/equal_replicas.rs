//! Replicas that have applied the same entries hold the same data, slots and time, through whatever restarts and installs they came there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{GroupId, ReplicaId};
use crate::raft::Group;
use crate::simulation::invariants::Seen;
use crate::slot::KeySlot;

/// Replicas that have their state from a snapshot, each to be compared with another one as soon as one is at the same entry.
#[derive(Default)]
pub struct EqualReplicas {
    /// The entry from which on their state is that of one: some buckets of a snapshot are ahead of it.
    loaded: BTreeMap<(usize, GroupId, ReplicaId), u64>,
    pub compared: u64,
}

impl EqualReplicas {
    pub fn note_loaded(&mut self, node: usize, group: &Group) {
        let position = |key_slot| group.keyspace().export(key_slot).position().index;
        let whole_from = KeySlot::all().map(position).max().unwrap_or(0);
        self.loaded.insert((node, group.id(), group.replica()), whole_from);
    }

    pub fn look(&mut self, all: &[Seen]) -> Result<(), String> {
        let whole = |seen: &Seen, group: &Group| {
            let from = self.loaded.get(&(seen.node, group.id(), group.replica()));
            from.is_none_or(|from| *from <= group.applied_index())
        };
        let mut compared = Vec::new();
        for key @ (node, id, replica) in self.loaded.keys() {
            let replicas =
                || all.iter().filter_map(|seen| Some((seen, seen.groups.iter().find(|group| group.id() == *id)?)));
            let own = replicas()
                .find(|(seen, group)| seen.node == *node && group.replica() == *replica && whole(seen, group));
            let Some((_, own)) = own else { continue };
            let level = |(seen, group): &(&Seen, &Arc<Group>)| {
                seen.node != *node && group.applied_index() == own.applied_index() && whole(seen, group)
            };
            if let Some((other, group)) = replicas().find(level) {
                compare_group(*id, &[(other.node, &**group), (*node, &**own)])?;
                compared.push(*key);
            }
        }
        self.compared += compared.len() as u64;
        self.loaded.retain(|key, _| !compared.contains(key));
        Ok(())
    }
}

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
