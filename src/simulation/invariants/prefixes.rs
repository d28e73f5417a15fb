//! Replicas apply the same entries at the same places (Raft section 5.4.3), in every life of every node.

use std::collections::BTreeMap;

use crate::cluster::GroupId;
use crate::raft::{Group, LogId, Witnessed};

#[derive(Default)]
pub struct Prefixes {
    entries: BTreeMap<(GroupId, u64), (LogId, u32)>,
    pub applied: u64,
}

impl Prefixes {
    pub fn look(&mut self, node: usize, group: &Group, applied: &[Witnessed]) -> Result<(), String> {
        for entry in applied {
            self.applied += 1;
            let this = (entry.log_id, entry.crc32);
            let known = *self.entries.entry((group.id(), entry.log_id.index)).or_insert(this);
            if known != this {
                return Err(format!("group {}: node {node} applied {this:?} where {known:?} was applied", group.id()));
            }
        }
        Ok(())
    }
}
