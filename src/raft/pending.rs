//! Proposals whose outcome is not known yet, in proposal order. Hot path.
//!
//! § The outcome of a chunk:
//! * (a) openraft answers ForwardToLeader: the entry was never appended. Re-route.
//! * (b) the own entry is applied: reply.
//! * (c) an entry of a *newer* leader id is applied, blank ones included: every pending entry of an older leader id, and every one
//!   proposed before an applied own entry, can no longer come: a log holds entries in leader order. Re-route.
//! * (d) LogEntryDiscarded, truncation, a dropped responder: nothing is known, since a truncated entry may survive on another
//!   replica, be committed there and come back (Raft section 5.4.2, figure 8). Keep waiting for (b) or (c).
//! * (e) a snapshot was installed past it, a fatal error, or the wait bound: unknown.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::raft::chunk::ChunkOutcome;
use crate::raft::submissions::Submission;
use crate::raft::types::LeaderId;
use crate::raft::window::Place;

#[derive(Debug)]
pub struct PendingEntry {
    pub leader: LeaderId,
    pub seq: u64,
    pub submissions: Vec<Submission>,
    /// In the proposer's window; freed with the entry.
    pub _place: Place,
    /// For the commit latency.
    pub proposed: std::time::Instant,
}

#[derive(Debug, Default)]
pub struct Pending(Mutex<VecDeque<PendingEntry>>);

impl PendingEntry {
    fn is_before(&self, leader: LeaderId, seq: u64) -> bool {
        (self.leader, self.seq) < (leader, seq)
    }

    fn end(self, outcome: fn() -> ChunkOutcome) {
        for submission in self.submissions {
            // The connection may be gone; its commands' fate is then nobody's to hear.
            let _ = submission.outcome.send(outcome());
        }
    }
}

impl Pending {
    /// Called before the proposal is handed to openraft, so that the entry cannot be applied unseen.
    pub fn push(&self, entry: PendingEntry) {
        let mut entries = self.0.lock();
        debug_assert!(entries.back().is_none_or(|last| last.is_before(entry.leader, entry.seq)));
        entries.push_back(entry);
    }

    /// Rule (a).
    pub fn never_appended(&self, leader: LeaderId, seq: u64) {
        let entry = {
            let mut entries = self.0.lock();
            let position = entries.iter().position(|entry| (entry.leader, entry.seq) == (leader, seq));
            position.and_then(|position| entries.remove(position))
        };
        if let Some(entry) = entry {
            entry.end(|| ChunkOutcome::Reroute);
        }
    }

    /// Rule (c) for everything older than the applied own entry, then rule (b): hands that entry out to be answered.
    pub fn take_applied(&self, leader: LeaderId, seq: u64) -> Option<PendingEntry> {
        self.discard_before(leader, seq);
        let mut entries = self.0.lock();
        let found = entries.front().is_some_and(|entry| (entry.leader, entry.seq) == (leader, seq));
        found.then(|| entries.pop_front()).flatten()
    }

    /// Rule (c): an entry of `leader` was applied.
    pub fn discard_older(&self, leader: LeaderId) {
        self.discard_before(leader, 0);
    }

    /// Rule (e).
    pub fn unknown_through(&self, leader: LeaderId) {
        self.end_while(|entry| entry.leader <= leader, || ChunkOutcome::Unknown);
    }

    /// Rule (e), when this replica stops.
    pub fn unknown_all(&self) {
        self.end_while(|_| true, || ChunkOutcome::Unknown);
    }

    fn discard_before(&self, leader: LeaderId, seq: u64) {
        self.end_while(|entry| entry.is_before(leader, seq), || ChunkOutcome::Reroute);
    }

    fn end_while(&self, condition: impl Fn(&PendingEntry) -> bool, outcome: fn() -> ChunkOutcome) {
        loop {
            let entry = {
                let mut entries = self.0.lock();
                if !entries.front().is_some_and(&condition) {
                    return;
                }
                entries.pop_front()
            };
            if let Some(entry) = entry {
                entry.end(outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::protocol::Protocol;
    use crate::raft::chunk::Chunk;
    use crate::raft::window::Window;

    fn leader(term: u64) -> LeaderId {
        LeaderId { term, node_id: 1 }
    }

    fn push(pending: &Pending, term: u64, seq: u64) -> oneshot::Receiver<ChunkOutcome> {
        let (outcome, receiver) = oneshot::channel();
        let place = Arc::new(Window::default()).enter();
        let submissions = vec![Submission::new(Chunk::new(Protocol::Resp2), outcome)];
        pending.push(PendingEntry {
            leader: leader(term),
            seq,
            submissions,
            _place: place,
            proposed: std::time::Instant::now(),
        });
        receiver
    }

    fn is_open(receiver: &mut oneshot::Receiver<ChunkOutcome>) -> bool {
        matches!(receiver.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn a_newer_leaders_entry_discards_what_older_leaders_left_pending() {
        let pending = Pending::default();
        let mut old = push(&pending, 1, 1);
        let mut new = push(&pending, 2, 2);
        pending.discard_older(leader(2));
        assert!(matches!(old.try_recv(), Ok(ChunkOutcome::Reroute)));
        assert!(is_open(&mut new), "the newer leader's own proposals are not discarded by its blank entry");
    }

    #[test]
    fn an_entry_of_the_same_leader_discards_only_what_was_proposed_before_it() {
        let pending = Pending::default();
        let mut first = push(&pending, 1, 1);
        let mut third = push(&pending, 1, 3);
        let taken = push(&pending, 1, 4);
        drop(taken);
        assert!(pending.take_applied(leader(1), 2).is_none());
        assert!(matches!(first.try_recv(), Ok(ChunkOutcome::Reroute)));
        assert!(is_open(&mut third));
        assert_eq!(pending.take_applied(leader(1), 3).map(|entry| entry.seq), Some(3));
    }

    #[test]
    fn an_installed_snapshot_leaves_what_it_covers_unknown() {
        let pending = Pending::default();
        let mut covered = push(&pending, 1, 1);
        let mut later = push(&pending, 3, 2);
        pending.unknown_through(leader(2));
        assert!(matches!(covered.try_recv(), Ok(ChunkOutcome::Unknown)));
        assert!(is_open(&mut later));
    }
}
