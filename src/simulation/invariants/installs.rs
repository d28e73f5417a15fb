//! How many snapshots there were: a run without any would not show what it seems to show.

use std::collections::BTreeMap;

use crate::cluster::{GroupId, ReplicaId};
use crate::raft::{Group, Witnessed};

#[derive(Default)]
pub struct Installs {
    /// The last entry applied, and the last one that a snapshot covers.
    last: BTreeMap<(usize, GroupId, ReplicaId), (u64, u64)>,
    pub snapshots: u64,
    pub installs: u64,
}

impl Installs {
    /// Whether the state is a snapshot's, installed or found at a start, and what was applied after it.
    pub fn look(&mut self, node: usize, group: &Group, applied: &[Witnessed]) -> bool {
        let mut loaded = false;
        let (last, covered) = self.last.entry((node, group.id(), group.replica())).or_default();
        for entry in applied {
            loaded |= entry.log_id.index != *last + 1;
            // After a restart it begins earlier.
            self.installs += u64::from(entry.log_id.index > *last + 1);
            *last = entry.log_id.index;
        }
        let at = group.applied_index();
        loaded |= at != *last;
        self.installs += u64::from(at > *last);
        *last = at;
        let snapshot = group.snapshot_index();
        self.snapshots += u64::from(snapshot > *covered);
        *covered = snapshot;
        loaded
    }
}
