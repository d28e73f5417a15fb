//! At any moment at most one node may answer a group's reads from its own state.

use std::collections::BTreeMap;

use crate::cluster::GroupId;
use crate::raft::Group;

#[derive(Default)]
pub struct Leases(BTreeMap<GroupId, usize>);

impl Leases {
    pub fn begin_step(&mut self) {
        self.0.clear();
    }

    pub fn look(&mut self, node: usize, group: &Group) -> Result<(), String> {
        if !group.lease().is_some_and(|lease| lease.confirm()) {
            return Ok(());
        }
        match self.0.insert(group.id(), node) {
            Some(other) => {
                Err(format!("two leases: nodes {other} and {node} would both answer reads of group {}", group.id()))
            }
            None => Ok(()),
        }
    }
}
