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
    pub fn look(&mut self, node: usize, group: &Group, applied: &[Witnessed]) {
        let (last, covered) = self.last.entry((node, group.id(), group.replica())).or_default();
        for entry in applied {
            // What a node applies after a gap it has from a snapshot; after a restart it begins earlier.
            self.installs += u64::from(entry.log_id.index > *last + 1);
            *last = entry.log_id.index;
        }
        let snapshot = group.snapshot_index();
        self.snapshots += u64::from(snapshot > *covered);
        *covered = snapshot;
    }
}
