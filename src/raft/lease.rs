//! The lease under which a leader answers reads without a round trip. Hot path.
//!
//! § The lease is one object per (term, leadership), swapped whole. A reader takes it, reads its values, then confirms: after a
//! `fence(SeqCst)` it must find the same object, unrevoked and in time. Only the second check proves anything, since
//! the process may have been paused between the first and the read.
//!
//! § Deadline: last quorum ack + 0.5 x the followers' lease (the election timeout's maximum), on CLOCK_BOOTTIME, which runs on
//! while the machine sleeps. openraft counts acks on CLOCK_MONOTONIC, which does not, and too generously; ours are in `raft/acks.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock::Boottime;
use crate::planted::{self, Bug};
use crate::raft::types::LeaderId;

/// A deadline that never comes: a sole voter's lease always holds, since nobody else can be elected.
const FOREVER: u64 = u64::MAX;

#[derive(Debug)]
pub struct Lease {
    leader: LeaderId,
    /// Boot time in nanoseconds. Only ever raised, but for the end of an endless one.
    deadline: AtomicU64,
    revoked: AtomicBool,
}

/// Where a group keeps its lease; empty while this replica may not read locally.
#[derive(Debug, Default)]
pub struct LeaseCell(ArcSwapOption<Lease>);

/// A lease that held when it was taken. What was read under it counts only if `confirm` says so afterwards.
#[derive(Debug)]
pub struct LeaseGuard<'a> {
    cell: &'a LeaseCell,
    lease: arc_swap::Guard<Option<Arc<Lease>>>,
}

impl Lease {
    fn holds(&self) -> bool {
        if self.revoked.load(Ordering::Acquire) {
            return false;
        }
        let deadline = self.deadline.load(Ordering::Acquire);
        deadline == FOREVER || Boottime::now().0 < deadline || planted::is(Bug::LeaseWithoutEnd)
    }
}

impl LeaseCell {
    /// Some if the lease holds now.
    pub fn get(&self) -> Option<LeaseGuard<'_>> {
        let lease = self.0.load();
        lease.as_ref()?.holds().then_some(())?;
        Some(LeaseGuard { cell: self, lease })
    }

    /// Starts the lease of a leadership, or prolongs it. `until` of `None` is a sole voter's.
    pub fn extend(&self, leader: LeaderId, until: Option<Boottime>) {
        let deadline = until.map_or(FOREVER, |boottime| boottime.0);
        let current = self.0.load();
        match current.as_ref() {
            Some(lease) if lease.leader == leader => {
                lease.deadline.fetch_max(deadline, Ordering::AcqRel);
            }
            Some(_) | None => {
                self.0.store(Some(Arc::new(Lease {
                    leader,
                    deadline: AtomicU64::new(deadline),
                    revoked: AtomicBool::new(false),
                })));
            }
        }
    }

    /// § Revoked before a transfer, whose vote overrides every lease, and stays so for the rest of the term: the object
    /// is kept, marked, so that `extend` of the same leadership cannot bring it back. A leadership that had no lease yet gets
    /// one that is revoked from the start.
    pub fn revoke(&self, leader: LeaderId) {
        match self.0.load().as_ref() {
            Some(lease) if lease.leader == leader => lease.revoked.store(true, Ordering::SeqCst),
            Some(_) | None => {
                let lease = Lease { leader, deadline: AtomicU64::new(0), revoked: AtomicBool::new(true) };
                self.0.store(Some(Arc::new(lease)));
            }
        }
    }

    /// § The group has, or is about to have, other voters, who may elect another leader without asking this one: a lease
    /// without end ends now, and the next quorum ack gives it a deadline.
    pub fn end_endless(&self) {
        if let Some(lease) = self.0.load().as_ref() {
            let _ = lease.deadline.compare_exchange(FOREVER, 0, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// This replica no longer leads.
    pub fn clear(&self) {
        self.0.store(None);
    }
}

impl LeaseGuard<'_> {
    /// True if every value read since the guard was taken was read under the lease.
    pub fn confirm(self) -> bool {
        // § The fence keeps the value reads before the checks.
        fence(Ordering::SeqCst);
        let now = self.cell.0.load();
        match (self.lease.as_ref(), now.as_ref()) {
            (Some(taken), Some(current)) => Arc::ptr_eq(taken, current) && current.holds(),
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }
}

/// The share of the followers' lease that ours lasts: half leaves room for clocks that drift and for late timers.
pub fn lease_of(election_timeout_max: Duration) -> Duration {
    election_timeout_max / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    fn soon() -> Option<Boottime> {
        Some(Boottime::now().saturating_add(Duration::from_secs(60)))
    }

    #[test]
    fn a_read_counts_only_under_the_same_unrevoked_lease() {
        let cell = LeaseCell::default();
        assert!(cell.get().is_none());
        cell.extend(leader(1), soon());
        assert!(cell.get().expect("holds").confirm());
        let guard = cell.get().expect("holds");
        cell.extend(leader(2), soon());
        assert!(!guard.confirm(), "another leadership's lease says nothing of this read");
        let guard = cell.get().expect("holds");
        cell.revoke(leader(2));
        assert!(!guard.confirm());
    }

    #[test]
    fn a_pause_between_check_and_read_is_noticed_by_the_second_check() {
        let cell = LeaseCell::default();
        cell.extend(leader(1), Some(Boottime::now().saturating_add(Duration::from_millis(5))));
        let guard = cell.get().expect("holds");
        std::thread::sleep(Duration::from_millis(10));
        assert!(!guard.confirm());
    }

    #[test]
    fn a_revoked_lease_stays_revoked_for_the_rest_of_the_term() {
        let cell = LeaseCell::default();
        cell.extend(leader(1), soon());
        cell.revoke(leader(1));
        cell.extend(leader(1), soon());
        assert!(cell.get().is_none());
        cell.extend(leader(2), soon());
        assert!(cell.get().is_some());
    }

    #[test]
    fn a_leadership_that_is_revoked_before_its_first_ack_gets_no_lease_later() {
        let cell = LeaseCell::default();
        cell.revoke(leader(1));
        cell.extend(leader(1), soon());
        assert!(cell.get().is_none());
    }

    #[test]
    fn a_sole_voters_lease_ends_when_the_group_gains_voters() {
        let cell = LeaseCell::default();
        cell.extend(leader(1), None);
        let guard = cell.get().expect("holds");
        cell.end_endless();
        assert!(!guard.confirm());
        assert!(cell.get().is_none());
        cell.extend(leader(1), soon());
        assert!(cell.get().is_some(), "acks of the new quorum prolong it");
        cell.end_endless();
        assert!(cell.get().is_some(), "one that has an end keeps it");
    }
}
