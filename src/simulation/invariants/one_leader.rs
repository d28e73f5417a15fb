//! A term has one leader (Raft section 5.2).

use std::collections::BTreeMap;

use crate::cluster::GroupId;
use crate::raft::Group;

#[derive(Default)]
pub struct OneLeader(BTreeMap<(GroupId, u64), u64>);

impl OneLeader {
    pub fn look(&mut self, node: usize, group: &Group) -> Result<(), String> {
        let Some((term, replica)) = group.elected() else { return Ok(()) };
        let known = *self.0.entry((group.id(), term)).or_insert(replica);
        if known == replica {
            return Ok(());
        }
        Err(format!(
            "two leaders: replica {replica} leads group {} in term {term} on node {node}, {known} elsewhere",
            group.id()
        ))
    }

    pub fn terms(&self) -> usize {
        self.0.len()
    }
}
