//! A slot has one owner: topologies of one epoch are the same on every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{Epoch, Topology};
use crate::simulation::invariants::Seen;

#[derive(Default)]
pub struct Topologies {
    digests: BTreeMap<Epoch, u32>,
    /// The last one seen of each node, so that each is looked at once.
    last: BTreeMap<usize, Arc<Topology>>,
}

impl Topologies {
    pub fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let topology = seen.replication.topology();
        if self.last.get(&seen.node).is_some_and(|last| Arc::ptr_eq(last, &topology)) {
            return Ok(());
        }
        let digest = crc32fast::hash(&topology.encode());
        let known = *self.digests.entry(topology.epoch()).or_insert(digest);
        if known != digest {
            return Err(format!("node {} has another topology of epoch {:?}", seen.node, topology.epoch()));
        }
        self.last.insert(seen.node, topology);
        Ok(())
    }
}
