//! The state machine of a data group: applies entries, answers the chunks proposed here, makes and installs snapshots.
//! Hot path.
//!
//! Apply runs on every replica, reads no clock and is deterministic: everything it needs is in the entry. A panic here ends
//! the process (see `node.rs`): a replica that may have diverged must stop.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};

use crate::clock::Timestamp;
use crate::command::op::{self, DecodeError, Op};
use crate::command::{LcsJob, ReadOutcome, Row, Run, WireError};
use crate::keyspace::{Applied, Marking, Position, SlotState, Time, WARMED_AT_ONCE};
use crate::planted::{self, Bug};
use crate::protocol::{OwnedArgs, REPLY_BYTES_MAX, Reply};
use crate::raft::batch::{self, BatchKind};
use crate::raft::chunk::{Chunk, ChunkJob, ChunkOutcome, Item};
use crate::raft::group::GroupState;
use crate::raft::group_op;
use crate::raft::snapshot::{GroupSnapshotBuilder, SnapshotStore};
use crate::raft::submissions::Submission;
use crate::raft::types::{Batch, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::raft::{GroupLog, SnapshotFile};
use crate::slot::KeySlot;

pub type GroupRaft = openraft::Raft<TypeConfig, GroupMachine>;

#[derive(Debug)]
pub struct GroupMachine {
    pub state: Arc<GroupState>,
    pub log: GroupLog,
    pub snapshots: SnapshotStore,
}

impl GroupMachine {
    fn apply_entry(&self, entry: &Entry) -> io::Result<()> {
        let leader = entry.log_id.leader_id;
        match &entry.payload {
            EntryPayload::Blank => self.state.pending.discard_older(leader),
            EntryPayload::Membership(membership) => {
                self.state.pending.discard_older(leader);
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.state.apply_membership(stored);
            }
            EntryPayload::Normal(batch) => self.apply_batch(entry.log_id, batch)?,
        }
        #[cfg(test)]
        self.witness(entry);
        let mut new_leader = false;
        self.state.update_applied(|applied| {
            new_leader = applied.log_id.map(|log_id| log_id.leader_id) != Some(leader);
            applied.log_id = Some(entry.log_id);
        });
        if new_leader {
            self.state.leader_applied.notify_one();
        }
        Ok(())
    }

    #[cfg(test)]
    fn witness(&self, entry: &Entry) {
        let crc32 = match &entry.payload {
            EntryPayload::Normal(batch) => crc32fast::hash(&batch.0),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        let stamp = self.state.stamp();
        self.state.witnessed.lock().push(crate::raft::group::Witnessed { log_id: entry.log_id, crc32, stamp });
    }

    fn apply_batch(&self, log_id: LogId, batch: &Batch) -> io::Result<()> {
        let (header, body) = batch::decode(batch).map_err(|error| corrupt(log_id, &error))?;
        if header.kind != BatchKind::Ops {
            return Err(corrupt(log_id, &"a meta op in a data group's log"));
        }
        let stamp = self.state.advance_stamp(log_id.index, header.stamp);
        let own = if header.origin == self.state.origin {
            self.state.pending.take_applied(log_id.leader_id, header.seq)
        } else {
            self.state.pending.discard_older(log_id.leader_id);
            None
        };
        let (index, seq) = (log_id.index, header.seq);
        let mut entry_run = EntryRun { state: &self.state, index, seq, stamp, ops: body, next_op: 0, warm_at: 0 };
        match own {
            Some(entry) => {
                self.state.metrics.commit_seconds.record(entry.proposed.elapsed().as_secs_f64());
                for submission in entry.submissions {
                    entry_run.answer(submission).map_err(|error| corrupt(log_id, &error))?;
                }
            }
            None => {
                let mut discard = Reply::discard();
                while entry_run.next_op < header.count {
                    entry_run.apply_next(&mut discard).map_err(|error| corrupt(log_id, &error))?;
                }
            }
        }
        Ok(())
    }
}

fn corrupt(log_id: LogId, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("entry {log_id}: {error}"))
}

/// One entry being applied.
struct EntryRun<'a> {
    state: &'a GroupState,
    index: u64,
    /// The proposer's number of it.
    seq: u64,
    stamp: Timestamp,
    /// What is left of the entry.
    ops: Bytes,
    /// Number of ops of the entry applied so far.
    next_op: u32,
    warm_at: u32,
}

impl EntryRun<'_> {
    /// Rule (b): applies a chunk proposed here and answers it.
    fn answer(&mut self, submission: Submission) -> Result<(), DecodeError> {
        let Submission { chunk, outcome, .. } = submission;
        let mut reply = Reply::new(chunk.protocol);
        let mut ends = Vec::with_capacity(chunk.items.len());
        let mut jobs = Vec::new();
        let Chunk { items, .. } = chunk;
        for item in items {
            match item {
                Item::Op => self.apply_next(&mut reply)?,
                Item::Silent => {
                    self.apply_next(&mut Reply::discard())?;
                    continue;
                }
                Item::Read { row, args, key_slot, marking } => {
                    if let Some(job) = self.read((row, &args, key_slot), marking, &mut reply) {
                        jobs.push(ChunkJob { item: ends.len(), job });
                    }
                }
            }
            ends.push(u32::try_from(reply.len()).expect("reads stop at REPLY_BYTES_MAX, and an op copies little"));
        }
        // The connection may be gone; the ops stand.
        let _ = outcome.send(ChunkOutcome::Replied { entry: self.seq, replies: reply.take_replies(), ends, jobs });
        Ok(())
    }

    /// Fetches the memory that the next ops need, where there are several.
    fn warm(&mut self) {
        self.warm_at = self.next_op + WARMED_AT_ONCE as u32;
        let keys = op::first_keys(&self.ops);
        if keys.len() > 1 {
            self.state.keyspace.warm(&keys);
        }
    }

    fn apply_next(&mut self, reply: &mut Reply) -> Result<(), DecodeError> {
        if self.next_op == self.warm_at {
            self.warm();
        }
        let op = op::decode(&mut self.ops)?.ok_or(DecodeError::Short { have: 0, need: op::HEADER_BYTES })?;
        let number = if planted::is(Bug::PositionWithoutOpNumber) { 0 } else { self.next_op };
        let position = Position { index: self.index, op: number };
        self.next_op += 1;
        if op.code.is_group_wide() {
            group_op::apply(self.state, &op, position, reply).expect("the log's checksums held");
            // § A slot came with a later time: what the rest of the entry does to it must not be earlier. The same on replay, which skips no such op.
            self.stamp = self.state.stamp();
        } else {
            self.apply_to_bucket(&op, position, reply);
        }
        Ok(())
    }

    fn apply_to_bucket(&self, op: &Op, position: Position, reply: &mut Reply) {
        match op::apply(op, position, self.stamp, &self.state.keyspace, reply) {
            Applied::Done(()) => (),
            // § A bucket restored from a snapshot may already hold this op.
            Applied::Skipped => (),
            // The slot has left the group: a no-op, and the empty reply re-routes it.
            Applied::NotOwned => (),
        }
    }

    /// § Answered in log order, by the log's own time: a ride-along read never consults a clock. What takes long to compute is handed
    /// back.
    fn read(
        &self,
        (row, args, key_slot): (&'static Row, &OwnedArgs, KeySlot),
        marking: Marking,
        reply: &mut Reply,
    ) -> Option<Box<LcsJob>> {
        if reply.total_len() > REPLY_BYTES_MAX {
            WireError::ReplyTooLarge.reply(reply);
            return None;
        }
        let Run::Read(read) = row.run else { unreachable!("only reads ride along") };
        let time = Time { marking, ..Time::new(self.stamp, self.stamp) };
        let outcome = self.state.keyspace.read(key_slot, |bucket| match bucket.state() {
            SlotState::Owned => Some(read(&args.args(), bucket, time, reply)),
            SlotState::Absent => None,
        });
        match outcome {
            // The empty reply re-routes it.
            None | Some(ReadOutcome::Done) => None,
            Some(ReadOutcome::Due) => unreachable!("nothing is due at clock = stamp"),
            Some(ReadOutcome::Compute(job)) => Some(job),
        }
    }
}

impl RaftStateMachine<TypeConfig> for GroupMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = GroupSnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.state.applied();
        Ok((applied.log_id, applied.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + openraft::OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            self.apply_entry(&entry)?;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<GroupSnapshotBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> GroupSnapshotBuilder {
        // § The snapshot's index S is the one at its start: group-wide state is captured here, between two entries.
        self.snapshots.builder(self.state.clone(), self.log.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        self.snapshots.install(&self.state, &self.log, meta, snapshot).await?;
        // Rule (e).
        if let Some(log_id) = meta.last_log_id {
            self.state.pending.unknown_through(log_id.leader_id);
        }
        self.state.leader_applied.notify_one();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>>> {
        Ok(self.snapshots.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{GroupId, MoveId, ReplicaId};
    use crate::keyspace::{HashSecret, Keyspace};
    use crate::protocol::Protocol;
    use crate::raft::{Attempt, MoveOp, checksum_of};

    #[test]
    fn what_follows_an_adoption_in_one_entry_has_the_time_that_came_with_it() {
        let state = GroupState::new(GroupId(1), ReplicaId(1), 7, Keyspace::new(HashSecret([1; 4])), None);
        let slot = KeySlot::of_key(b"key").slot();
        let (id, attempt) = (MoveId(1), Attempt { term: 1, replica: 1, number: 1 });
        let (mut chunk, stamp) = (Chunk::new(Protocol::Resp2), state.advance_stamp(1, Timestamp(1000)));
        chunk.push_move(slot, &MoveOp::Begin { id, attempt, stamp }, b"");
        let (checksum, later) = (checksum_of(0, b""), Timestamp(1700));
        chunk.push_move(slot, &MoveOp::Adopt { id, attempt, number: 0, checksum, stamp: later }, b"");
        let ops = chunk.ops.freeze();
        let mut run = EntryRun { state: &state, index: 1, seq: 1, stamp, ops, next_op: 0, warm_at: 9 };
        for expected in [stamp, later] {
            run.apply_next(&mut Reply::discard()).expect("sound");
            assert_eq!(run.stamp, expected);
        }
    }
}
