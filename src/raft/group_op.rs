//! Ops that concern a whole group instead of one bucket.
//!
//! § They expand at apply into one positioned step per bucket, so that replay over a snapshot skips exactly the buckets that
//! hold the op already. Ownership is group-wide state, captured with the snapshot, and is replayed without skipping.

use crate::command::OpCode;
use crate::command::op::{DamagedBody, Op, OpReader, OpWriter};
use crate::keyspace::{Position, SlotState};
use crate::protocol::Reply;
use crate::raft::chunk::Chunk;
use crate::raft::group::GroupState;
use crate::raft::move_op;
use crate::slot::{KeySlot, SLOT_COUNT, Slot};

/// Body of FOUND: one bit per slot.
const BITMAP_BYTES: usize = SLOT_COUNT / 8;

impl Chunk {
    /// The group owns `slots` from here on. Proposed by the group's first leader; again is a no-op.
    pub(super) fn push_found(&mut self, slots: impl Iterator<Item = Slot>) {
        let mut bitmap = [0u8; BITMAP_BYTES];
        slots.for_each(|slot| bitmap[slot.index() / 8] |= 1 << (slot.index() % 8));
        self.push_silent(OpCode::FOUND, any_key_slot(), |writer: &mut OpWriter<'_>| writer.bytes(&bitmap));
    }

    /// FLUSHALL: every bucket of the group is emptied.
    pub fn push_flush(&mut self) {
        let flush = self.push_op(OpCode::FLUSH, any_key_slot(), 0, |_| Ok(()));
        flush.expect("this body cannot be refused");
    }
}

/// Group-wide ops name a key slot only because the layout has a place for one.
fn any_key_slot() -> KeySlot {
    KeySlot::new(0).expect("0 is a key slot")
}

/// Applies a group-wide op on this replica. The caller has checked `is_group_wide`.
pub fn apply(state: &GroupState, op: &Op, position: Position, reply: &mut Reply) -> Result<(), DamagedBody> {
    match op.code {
        OpCode::FOUND => found(state, OpReader::new(&op.body).bytes()?)?,
        OpCode::MOVE => move_op::apply(state, op, position)?,
        // § Keys that wait for a move's outcome would survive it: nothing happens, and the empty reply has it tried again.
        OpCode::FLUSH if state.read_slots(|slots| slots.unsettled_count() > 0) => return Ok(()),
        OpCode::FLUSH => KeySlot::all().for_each(|key_slot| state.keyspace.flush(key_slot, position)),
        other => unreachable!("{other:?} is no group-wide op"),
    }
    reply.ok();
    Ok(())
}

fn found(state: &GroupState, bitmap: &[u8]) -> Result<(), DamagedBody> {
    if bitmap.len() != BITMAP_BYTES {
        return Err(DamagedBody);
    }
    if !state.applied().founded {
        let named = Slot::all().filter(|slot| bitmap[slot.index() / 8] & (1 << (slot.index() % 8)) != 0);
        let given = state.update_slots(|slots| slots.found(named));
        given.into_iter().for_each(|slot| state.keyspace.set_state(slot, SlotState::Owned));
        state.note_slots();
        state.update_applied(|applied| applied.founded = true);
    }
    Ok(())
}
