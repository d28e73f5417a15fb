//! The time in a group's log never runs backwards, and is the same on all replicas.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::cluster::GroupId;
use crate::raft::{Group, Witnessed};

#[derive(Default)]
pub struct Time(BTreeMap<(GroupId, u64), Timestamp>);

impl Time {
    pub fn look(&mut self, node: usize, group: &Group, applied: &[Witnessed]) -> Result<(), String> {
        for entry in applied {
            let index = entry.log_id.index;
            if let Some((_, before)) =
                self.0.range(..(group.id(), index)).next_back().filter(|((id, _), _)| *id == group.id())
                && *before > entry.stamp
            {
                return Err(format!("group {}: time ran backwards at entry {index} on node {node}", group.id()));
            }
            let known = *self.0.entry((group.id(), index)).or_insert(entry.stamp);
            if known != entry.stamp {
                return Err(format!("group {}: entry {index} has other times on other replicas", group.id()));
            }
        }
        Ok(())
    }
}
