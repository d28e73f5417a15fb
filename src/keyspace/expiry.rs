//! Finding keys past due, for the leader to propose.
//!
//! § Nothing is deleted here: only an op in the log deletes a due key.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::keyspace::scan::KEY_BYTES_PER_LOCK;
use crate::keyspace::store::Keyspace;
use crate::keyspace::terms::SlotState;
use crate::slot::{KEY_SLOT_COUNT, KeySlot};

/// § Tables searched per hold of a read lock.
const TABLES_PER_LOCK: usize = 4;

impl Keyspace {
    /// Adds up to `budget` keys due at `clock` to `out`, from `resume` on and once around; `resume` is left where to go
    /// on. When nothing is due this is one relaxed load per bucket.
    pub fn collect_due(&self, clock: Timestamp, budget: usize, resume: &mut KeySlot, out: &mut Vec<(KeySlot, Bytes)>) {
        self.set_access_clock(clock);
        let end = out.len() + budget;
        let start = resume.index();
        for step in 0..KEY_SLOT_COUNT {
            let key_slot = KeySlot::new(((start + step) % KEY_SLOT_COUNT) as u16).expect("reduced modulo the count");
            *resume = key_slot;
            if self.cells[key_slot.index()].next_expiry.load(Relaxed) > clock.0 {
                continue;
            }
            let mut hash = 0;
            while let ControlFlow::Break(next) = self.collect_from(key_slot, hash, clock, end, out) {
                if out.len() >= end {
                    return;
                }
                hash = next;
            }
        }
    }

    fn collect_from(
        &self,
        key_slot: KeySlot,
        hash: u32,
        clock: Timestamp,
        end: usize,
        out: &mut Vec<(KeySlot, Bytes)>,
    ) -> ControlFlow<u32> {
        let cell = &self.cells[key_slot.index()];
        let bucket = cell.bucket.read();
        // What is not served expires where it is.
        if bucket.state != SlotState::Owned {
            return ControlFlow::Continue(());
        }
        let first = bucket.table_of(hash);
        let (mut searched, mut key_bytes) = (0, 0);
        for reference in bucket.tables.iter().skip(first) {
            if reference.next_expiry.load(Relaxed) > clock.0 {
                continue;
            }
            if searched == TABLES_PER_LOCK || key_bytes >= KEY_BYTES_PER_LOCK || out.len() >= end {
                return ControlFlow::Break(reference.first);
            }
            searched += 1;
            for record in reference.table.records() {
                // What is passed over for its size is found the next time around.
                let has_room = out.len() < end && key_bytes < KEY_BYTES_PER_LOCK;
                if has_room && record.expire_at().is_some_and(|at| at <= clock) {
                    key_bytes += record.key().len();
                    out.push((key_slot, record.shared_key()));
                }
            }
            // Writers are shut out by the read lock, so the bound cannot be raised past an expiry set meanwhile.
            reference.next_expiry.store(reference.table.next_expiry(), Relaxed);
        }
        cell.next_expiry.store(bucket.next_expiry(), Relaxed);
        if out.len() >= end { ControlFlow::Break(0) } else { ControlFlow::Continue(()) }
    }
}
