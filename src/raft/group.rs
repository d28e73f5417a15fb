//! One replica of one data group: what the rest of the node calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::{Boottime, GroupClock, LastStamp, Timestamp};
use crate::cluster::{DiskSpace, FIRST_LEVEL, GroupId, ReplicaId};
use crate::command::{OpCode, plan_expire_due};
use crate::keyspace::{Keyspace, Time};
use crate::metrics::GroupMetrics;
use crate::planted::{self, Bug};
use crate::protocol::Protocol;
use crate::raft::GroupLog;
use crate::raft::acks::Acks;
use crate::raft::batch::Origin;
use crate::raft::chunk::{Chunk, ChunkOutcome};
use crate::raft::leadership::won;
use crate::raft::lease::{LeaseCell, LeaseGuard};
use crate::raft::machine::GroupRaft;
use crate::raft::move_op::Moved;
use crate::raft::pending::Pending;
use crate::raft::slots::SlotTable;
use crate::raft::submissions::Submissions;
use crate::raft::types::{LeaderId, LogId, StoredMembership};
use crate::slot::KeySlot;

const STAMP_WAIT_MAX: Duration = Duration::from_millis(500);
/// Between looks for answers to heartbeats, which are on their way.
const CONFIRMATION_POLL: Duration = Duration::from_millis(1);
/// The longest a client waits for an outcome; then its connection is closed (rule (e)).
pub const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the state machine and the handle share.
pub struct GroupState {
    pub id: GroupId,
    pub replica: ReplicaId,
    pub origin: Origin,
    pub keyspace: Keyspace,
    pub clock: GroupClock,
    pub lease: LeaseCell,
    pub pending: Pending,
    /// Woken when an entry of a new leader id is applied: a new leader's lease may start.
    pub leader_applied: Notify,
    pub metrics: GroupMetrics,
    stamp: AtomicI64,
    /// Boot time at which `stamp` was applied; 0 when it was given at an unknown time before.
    stamp_seen: AtomicU64,
    /// The log's last entry when this process started.
    found_last: Option<LogId>,
    /// The term of the log's vote then: see `leadership::won`.
    pub found_term: u64,
    /// The feature level that entries are written with, of the whole node.
    pub level: Arc<AtomicU16>,
    applied: Mutex<Applied>,
    slots: Mutex<SlotTable>,
    /// Slots that wait for a move's outcome.
    unsettled: AtomicUsize,
    /// Rises whenever some slot begins or ends to be served.
    slot_changes: AtomicU64,
    pub moved: Moved,
    /// Wakes requests that wait for a slot to be served.
    pub changes: watch::Sender<u64>,
    /// A `DiskSpace`.
    space: AtomicU8,
    #[cfg(test)]
    pub witnessed: Mutex<Vec<Witnessed>>,
}

/// An entry as this replica applied it, for the simulation's invariants.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witnessed {
    pub log_id: LogId,
    pub crc32: u32,
    /// The last stamp after it.
    pub stamp: Timestamp,
}

/// How far this replica's state machine is.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
    /// The group has been given its founding slots.
    pub founded: bool,
}

impl Applied {
    /// In a joint membership, both sets of voters count.
    fn sole_voter_is(&self, replica: ReplicaId) -> bool {
        self.membership.voter_ids().eq([replica.0])
    }
}

impl std::fmt::Debug for GroupState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupState({}, {})", self.id, self.replica)
    }
}

impl GroupState {
    /// `found_last` is the log's last entry, found at start.
    pub fn new(id: GroupId, replica: ReplicaId, nonce: u64, keyspace: Keyspace, found_last: Option<LogId>) -> Self {
        let nonce = if planted::is(Bug::PendingKeyWithoutNonce) { 0 } else { nonce };
        Self {
            id,
            replica,
            origin: Origin { replica: replica.0, nonce },
            keyspace,
            clock: GroupClock::default(),
            lease: LeaseCell::default(),
            pending: Pending::default(),
            leader_applied: Notify::new(),
            metrics: GroupMetrics::new(id.0),
            stamp: AtomicI64::new(i64::MIN),
            stamp_seen: AtomicU64::new(0),
            found_last,
            found_term: 0,
            level: Arc::new(AtomicU16::new(FIRST_LEVEL)),
            applied: Mutex::default(),
            slots: Mutex::default(),
            unsettled: AtomicUsize::new(0),
            slot_changes: AtomicU64::new(0),
            moved: Moved::default(),
            changes: watch::Sender::new(0),
            space: AtomicU8::new(DiskSpace::Enough as u8),
            #[cfg(test)]
            witnessed: Mutex::default(),
        }
    }

    /// The last stamp applied.
    pub fn stamp(&self) -> Timestamp {
        Timestamp(self.stamp.load(Ordering::Acquire))
    }

    pub fn last_stamp(&self) -> LastStamp {
        let seen = self.stamp_seen.load(Ordering::Acquire);
        LastStamp { stamp: self.stamp(), seen: (seen != 0).then_some(Boottime(seen)) }
    }

    /// Advances the last stamp to that of entry `index`, also for ops that replay skips; the stamp that counts is returned.
    ///
    /// § An entry found in the log at start was stamped before the node went down. Taken as seen now, it would hold the group's clock
    /// back by that time: after a restart of the whole group, keys would live on for as long as the nodes were down.
    pub fn advance_stamp(&self, index: u64, stamp: Timestamp) -> Timestamp {
        let last = self.stamp.fetch_max(stamp.0, Ordering::AcqRel);
        let stamp = last.max(stamp.0);
        if self.found_last.is_none_or(|found| found.index < index) {
            self.see_stamp(stamp.saturating_sub(last));
        }
        Timestamp(stamp)
    }

    /// § An entry that comes late, to a replica that was away, was not stamped when it is applied. An earlier one that came in time says when:
    /// the stamp is seen as long after it as it was stamped after it, and at the latest now.
    fn see_stamp(&self, advanced_ms: i64) {
        let now = Boottime::now().0;
        let before = self.stamp_seen.load(Ordering::Acquire);
        let advanced = u64::try_from(advanced_ms).unwrap_or(0).saturating_mul(1_000_000);
        let seen = if before == 0 { now } else { now.min(before.saturating_add(advanced)) };
        self.stamp_seen.store(seen, Ordering::Release);
    }

    /// § From a snapshot, which may have lain on a disk for days: nobody knows when the stamp was given, unless an earlier one was seen in time.
    pub fn restore_stamp(&self, stamp: Timestamp) {
        let last = self.stamp.swap(stamp.0, Ordering::AcqRel);
        if self.stamp_seen.load(Ordering::Acquire) != 0 {
            self.see_stamp(stamp.0.saturating_sub(last));
        }
    }

    pub fn take_note_of_space(&self, space: DiskSpace) {
        self.space.store(space as u8, Ordering::Release);
    }

    pub fn applied(&self) -> Applied {
        self.applied.lock().clone()
    }

    pub fn applied_id(&self) -> Option<LogId> {
        self.applied.lock().log_id
    }

    pub fn update_applied(&self, update: impl FnOnce(&mut Applied)) {
        update(&mut self.applied.lock());
    }

    pub fn read_slots<R>(&self, read: impl FnOnce(&SlotTable) -> R) -> R {
        read(&self.slots.lock())
    }

    /// Followed by `note_slots` once the keyspace agrees; before it has to, when a slot is not served any more.
    pub fn update_slots<R>(&self, update: impl FnOnce(&mut SlotTable) -> R) -> R {
        update(&mut self.slots.lock())
    }

    /// Tells whoever waits, or reads many slots at once, that what is served has changed.
    pub fn note_slots(&self) {
        let unsettled = self.slots.lock().unsettled_count();
        self.unsettled.store(unsettled, Ordering::Release);
        self.slot_changes.fetch_add(1, Ordering::AcqRel);
        self.changes.send_modify(|count| *count += 1);
    }

    /// See `Group::slot_version`.
    pub fn slot_version(&self) -> Option<u64> {
        let version = self.slot_changes.load(Ordering::Acquire);
        (self.unsettled.load(Ordering::Acquire) == 0).then_some(version)
    }

    /// § A sole voter's endless lease ends as the entry that names other voters is applied: openraft proposes the change that lets
    /// them elect a leader by themselves only after this (the joint one) is applied here.
    pub fn apply_membership(&self, membership: StoredMembership) {
        let mut applied = self.applied.lock();
        applied.membership = membership;
        if !applied.sole_voter_is(self.replica) {
            self.lease.end_endless();
        }
    }

    /// Gives a sole voter its lease. False if it is not the sole voter now; under the lock of `apply_membership`, so that
    /// neither undoes the other.
    pub fn extend_endless_lease(&self, leader: LeaderId) -> bool {
        let applied = self.applied.lock();
        let sole = applied.sole_voter_is(self.replica);
        if sole {
            self.lease.extend(leader, None);
        }
        sole
    }
}

/// The group cannot answer here: it has no leader, or leads elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead its group")]
pub struct NoLeader;

/// What a transfer of leadership came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this replica does not lead its group")]
    NotLeader,
    #[error("the target is not a voter of the group")]
    NotVoter,
    #[error("the target did not catch up in time")]
    Lagging,
    #[error("the target did not take over in time")]
    TimedOut,
}

/// Asks the lease task for a transfer.
#[derive(Debug)]
pub struct TransferRequest {
    pub target: ReplicaId,
    pub done: oneshot::Sender<Result<(), TransferError>>,
}

#[derive(Debug)]
pub struct Group {
    pub(super) state: Arc<GroupState>,
    pub(super) raft: GroupRaft,
    pub(super) log: GroupLog,
    pub(super) queue: Submissions,
    pub(super) transfers: mpsc::Sender<TransferRequest>,
    pub(super) leads: watch::Receiver<bool>,
    pub(super) acks: Arc<Acks>,
    pub(super) read_index_wait: Duration,
}

impl Group {
    pub fn id(&self) -> GroupId {
        self.state.id
    }

    pub fn replica(&self) -> ReplicaId {
        self.state.replica
    }

    pub fn keyspace(&self) -> &Keyspace {
        &self.state.keyspace
    }

    pub(super) fn state(&self) -> &Arc<GroupState> {
        &self.state
    }

    /// (term, replica) of the leadership that this replica knows of.
    #[cfg(test)]
    pub fn elected(&self) -> Option<(u64, u64)> {
        let metrics = self.raft.server_metrics();
        let vote = metrics.borrow_watched().vote;
        vote.committed.then_some((vote.leader_id.term, vote.leader_id.node_id))
    }

    /// Whom a leader sends entries to first.
    #[cfg(test)]
    pub fn front(&self) -> Vec<ReplicaId> {
        self.acks.front()
    }

    /// The last entry that the replica's own snapshot covers.
    #[cfg(test)]
    pub fn snapshot_index(&self) -> u64 {
        self.log.snapshot().map_or(0, |log_id| log_id.index)
    }

    /// What was applied since the last call.
    #[cfg(test)]
    pub fn take_witnessed(&self) -> Vec<Witnessed> {
        std::mem::take(&mut *self.state.witnessed.lock())
    }

    pub(super) fn raft(&self) -> &GroupRaft {
        &self.raft
    }

    /// True while this replica leads and takes proposals.
    pub fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// Changes with every slot that begins or ends to be served; `None` while one waits for a move's outcome, and whoever reads all
    /// slots has to wait too.
    pub fn slot_version(&self) -> Option<u64> {
        self.state.slot_version()
    }

    /// Too many of the group's nodes are short of disk space; see `raft/space.rs`. Meant for a leader.
    pub fn refuses_writes(&self) -> bool {
        self.state.space.load(Ordering::Acquire) != DiskSpace::Enough as u8
    }

    /// So many cannot write that nothing is proposed for reads either that find a key past due. Meant for a leader.
    pub fn refuses_expiry(&self) -> bool {
        self.state.space.load(Ordering::Acquire) == DiskSpace::Ended as u8
    }

    /// Index of the last entry applied here; covers every write acknowledged here before the call.
    pub fn applied_index(&self) -> u64 {
        self.state.applied_id().map_or(0, |id| id.index)
    }

    /// The current term as this replica knows it.
    pub fn term(&self) -> u64 {
        self.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// (term, replica) of this replica's own leadership, if it has one. § Not its vote's: it may have voted for a successor that it knows nothing of yet.
    pub fn leadership(&self) -> Option<(u64, u64)> {
        let leader = won(&self.raft, self.state.found_term)?;
        Some((leader.term, leader.node_id))
    }

    /// It has its founding slots, as far as this replica has applied.
    pub fn is_founded(&self) -> bool {
        self.state.applied.lock().founded
    }

    /// Bytes of the log's entries that are not purged.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Some if reads may be answered here now, subject to `LeaseGuard::confirm` afterwards.
    pub fn lease(&self) -> Option<LeaseGuard<'_>> {
        self.state.lease.get()
    }

    /// The times a read is answered at: what the log has passed, and the group clock.
    pub fn time(&self) -> Time {
        let stamp = self.state.stamp();
        if planted::is(Bug::ExpiryByLocalClock) {
            return Time::new(stamp, Timestamp::wall_now());
        }
        Time::new(stamp, self.state.clock.now(Boottime::now()).max(stamp))
    }

    /// Afterwards the local state covers everything acknowledged before the call (Raft section 6.4, ReadIndex).
    ///
    /// § openraft counts an answer as of the newest request that ends at the same entry, also of one that was not answered, or not even sent, yet: two answers
    /// that sat in sockets while this leader stood still would confirm it after another was elected. What counts is what `acks.rs` has heard.
    pub async fn read_index(&self) -> Result<(), NoLeader> {
        let asked = Boottime::now();
        let read = async {
            let leader = won(&self.raft, self.state.found_term).ok_or(NoLeader)?;
            if planted::is(Bug::ReadIndexWithoutQuorum) {
                return Ok(());
            }
            let linearizer =
                self.raft.get_read_linearizer(openraft::ReadPolicy::ReadIndex).await.map_err(|_| NoLeader)?;
            linearizer.await_ready(&self.raft).await.map_err(|_| NoLeader)?;
            let own = self.state.replica;
            while !self.acks.confirm(leader, own, &self.state.applied().membership, asked) {
                tokio::time::sleep(CONFIRMATION_POLL).await;
                if won(&self.raft, self.state.found_term) != Some(leader) {
                    return Err(NoLeader);
                }
            }
            Ok(())
        };
        tokio::time::timeout(self.read_index_wait, read).await.unwrap_or(Err(NoLeader))
    }

    /// True if this replica led at some time during the call, by its lease or, where it has none, by a ReadIndex: one that is cut off does not know.
    pub async fn confirms_leadership(&self) -> bool {
        let is_leased = self.lease().is_some_and(|lease| lease.confirm());
        is_leased || self.read_index().await.is_ok()
    }

    /// Sets the gauges of this replica. `is_led`: the group has a leader that hears from its quorum.
    pub fn sample_metrics(&self, term: u64, is_led: bool) {
        let (metrics, counters) = (&self.state.metrics, self.state.keyspace.counters());
        metrics.is_leader.set(f64::from(u8::from(self.leads() && is_led)));
        metrics.term.set(term as f64);
        metrics.applied_index.set(self.applied_index() as f64);
        metrics.keys.set(counters.keys as f64);
        metrics.keys_with_ttl.set(counters.keys_with_ttl as f64);
        metrics.keys_expired.absolute(counters.expired);
    }

    /// Proposes the chunk and waits for its outcome, at most [`OUTCOME_WAIT_MAX`]. Dropping the future abandons the reply,
    /// and of the ops those that were not proposed yet.
    pub async fn submit(&self, chunk: Chunk) -> ChunkOutcome {
        let give_up = tokio::time::Instant::now() + OUTCOME_WAIT_MAX;
        // What found no room, or no proposer, did not happen.
        let queued = tokio::time::timeout_at(give_up, self.queue.enqueue(chunk)).await;
        let Ok(Some(outcome)) = queued else { return ChunkOutcome::Reroute };
        let outcome = tokio::time::timeout_at(give_up, outcome).await;
        outcome.ok().and_then(Result::ok).unwrap_or(ChunkOutcome::Unknown)
    }

    /// Logs the group's time: an op without effect. Whatever becomes of it, it does not take long. Whether it was committed for certain.
    pub(super) async fn stamp(&self) -> bool {
        let mut chunk = Chunk::new(Protocol::Resp2);
        let key_slot = KeySlot::new(0).expect("0 is a key slot");
        chunk.push_silent(OpCode::EXPIRE_DUE, key_slot, |op| plan_expire_due(std::iter::empty::<&[u8]>(), op));
        let outcome = tokio::time::timeout(STAMP_WAIT_MAX, self.submit(chunk)).await;
        matches!(outcome, Ok(ChunkOutcome::Replied { .. }))
    }

    /// Hands leadership to `target`; returns when the target leads or the transfer has failed.
    pub async fn transfer(&self, target: ReplicaId) -> Result<(), TransferError> {
        // A target that was away knows the group's time only from an entry that it gets in time.
        self.stamp().await;
        let (done, receiver) = oneshot::channel();
        self.transfers.send(TransferRequest { target, done }).await.map_err(|_| TransferError::NotLeader)?;
        receiver.await.unwrap_or(Err(TransferError::NotLeader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::HashSecret;
    use crate::raft::types::tests::membership;

    #[test]
    fn an_endless_lease_ends_as_the_joint_membership_is_applied() {
        let state = GroupState::new(GroupId(1), ReplicaId(7), 0, Keyspace::new(HashSecret([0; 4])), None);
        let leader = LeaderId { term: 1, node_id: 7 };
        state.apply_membership(membership(&[&[7]]));
        assert!(state.extend_endless_lease(leader));
        let guard = state.lease.get().expect("a sole voter's lease holds");
        state.apply_membership(membership(&[&[7], &[7, 8, 9]]));
        assert!(!guard.confirm(), "the others may elect a leader from here on");
        assert!(!state.extend_endless_lease(leader));
        assert!(state.lease.get().is_none());
    }

    const HOUR_MS: i64 = 3_600_000;

    fn state(found_last: Option<u64>) -> GroupState {
        let found_last = found_last.map(|index| LogId::new(LeaderId { term: 1, node_id: 1 }, index));
        GroupState::new(GroupId(1), ReplicaId(1), 7, Keyspace::new(HashSecret([1; 4])), found_last)
    }

    /// What the group's clock says if this replica becomes the leader now.
    fn clock_at_election(state: &GroupState, wall: Timestamp) -> Timestamp {
        let now = Boottime::now();
        state.clock.start(state.last_stamp(), wall, now);
        state.clock.now(now)
    }

    #[test]
    fn after_a_restart_the_clock_is_not_behind_by_the_time_the_nodes_were_down() {
        let wall = Timestamp(100 * HOUR_MS);
        let replayed = state(Some(9));
        replayed.advance_stamp(8, Timestamp(wall.0 - HOUR_MS));
        replayed.advance_stamp(9, Timestamp(wall.0 - HOUR_MS));
        assert_eq!(clock_at_election(&replayed, wall), wall);
        // The wall clock may be behind the log as well.
        assert_eq!(clock_at_election(&replayed, Timestamp(0)), replayed.stamp());
    }

    #[test]
    fn after_an_entry_of_this_life_a_jump_of_the_wall_clock_is_held_back() {
        for found_last in [None, Some(9)] {
            let state = state(found_last);
            state.advance_stamp(10, Timestamp(HOUR_MS));
            let clock = clock_at_election(&state, Timestamp(100 * HOUR_MS));
            assert!(clock.0 < HOUR_MS + 60_000, "{clock:?}");
        }
    }

    #[test]
    fn entries_that_come_late_do_not_hold_the_clock_back_once_one_came_in_time() {
        let wall = Timestamp(100 * HOUR_MS);
        let away = state(Some(9));
        // What it missed, all at once, and then the present.
        away.advance_stamp(10, Timestamp(wall.0 - HOUR_MS));
        away.advance_stamp(11, Timestamp(wall.0 - HOUR_MS + 5));
        away.advance_stamp(12, wall);
        // The first of a burst that was held up by an hour less a minute.
        assert_eq!(clock_at_election(&away, wall), wall);
        let held_up = state(None);
        held_up.advance_stamp(1, Timestamp(0));
        held_up.stamp_seen.store(Boottime::now().0.saturating_sub(60_000_000_000), Ordering::Release);
        held_up.advance_stamp(2, Timestamp(1000));
        assert_eq!(
            clock_at_election(&held_up, Timestamp(59_000)),
            Timestamp(59_000),
            "59 s have passed since the stamp"
        );
    }

    #[test]
    fn an_installed_snapshot_may_be_of_any_age() {
        let wall = Timestamp(100 * HOUR_MS);
        let fresh = state(None);
        fresh.restore_stamp(Timestamp(2 * HOUR_MS));
        assert_eq!(clock_at_election(&fresh, wall), wall);
        // One that has been there since knows better than its wall clock.
        let running = state(None);
        running.advance_stamp(10, Timestamp(HOUR_MS));
        running.restore_stamp(Timestamp(HOUR_MS + 5));
        assert!(clock_at_election(&running, wall).0 < HOUR_MS + 60_000);
    }
}
