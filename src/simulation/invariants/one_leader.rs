//! The leaderships of a log follow each other: never back to an earlier one (Raft section 5.4; with openraft's ids a leadership is a term
//! and a replica, so a term may see two, one after the other).

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::GroupId;
use crate::raft::{Group, Witnessed};

type Leadership = (u64, u64);

#[derive(Default)]
pub struct OneLeader {
    seen: BTreeSet<(GroupId, Leadership)>,
    /// Where each leadership's first and last applied entries are.
    spans: BTreeMap<(GroupId, Leadership), (u64, u64)>,
}

impl OneLeader {
    pub fn look(&mut self, node: usize, group: &Group, applied: &[Witnessed]) -> Result<(), String> {
        let id = group.id();
        self.seen.extend(group.elected().map(|leadership| (id, leadership)));
        for entry in applied {
            let (leader, index) = (entry.log_id.leader_id, entry.log_id.index);
            let leadership = (leader.term, leader.node_id);
            let span = self.spans.entry((id, leadership)).or_insert((index, index));
            *span = (span.0.min(index), span.1.max(index));
            let (first, last) = *span;
            let earlier = self.spans.range((id, (0, 0))..(id, leadership)).next_back();
            let later = self.spans.range((id, leadership)..).nth(1).filter(|((other, _), _)| *other == id);
            if earlier.is_some_and(|(_, span)| span.1 > first) || later.is_some_and(|(_, span)| span.0 < last) {
                return Err(format!(
                    "group {id}: entries of leadership {leadership:?} on node {node} are among another's"
                ));
            }
        }
        Ok(())
    }

    pub fn leaderships(&self) -> usize {
        self.seen.len()
    }
}
