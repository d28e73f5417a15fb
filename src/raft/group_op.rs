//! Ops that concern a whole group instead of one bucket.
//!
//! § They expand at apply into one positioned step per bucket, so that replay over a snapshot skips exactly the buckets that
//! hold the op already.

use crate::command::{Op, OpCode, OpError, OpWriter, WireError};
use crate::keyspace::{Position, SlotState};
use crate::protocol::Reply;
use crate::raft::group::GroupState;
use crate::slot::{KeySlot, SLOT_COUNT, Slot};

/// Body of FOUND: one bit per slot.
const BITMAP_BYTES: usize = SLOT_COUNT / 8;

/// Plans FOUND: the group owns `slots` from here on. Proposed once by the group's first leader; again is a no-op.
pub fn plan_found(slots: &[Slot], writer: &mut OpWriter<'_>) -> Result<(), WireError> {
    let mut bitmap = [0u8; BITMAP_BYTES];
    for slot in slots {
        bitmap[slot.index() / 8] |= 1 << (slot.index() % 8);
    }
    writer.begin(OpCode::FOUND, first_key_slot());
    writer.bytes(&bitmap);
    writer.finish();
    Ok(())
}

/// Plans FLUSH: every bucket of the group is emptied.
pub fn plan_flush(writer: &mut OpWriter<'_>) -> Result<(), WireError> {
    writer.begin(OpCode::FLUSH, first_key_slot());
    writer.finish();
    Ok(())
}

/// Group-wide ops name a key slot only because the layout has a place for one.
fn first_key_slot() -> KeySlot {
    KeySlot::new(0).expect("0 is a key slot")
}

/// Applies a group-wide op on this replica.
pub fn apply(state: &GroupState, op: &Op, position: Position, reply: &mut Reply) -> Result<(), OpError> {
    if op.code == OpCode::FOUND {
        let mut reader = op.reader();
        let bitmap = reader.bytes()?;
        if bitmap.len() != BITMAP_BYTES {
            return Err(OpError::Truncated);
        }
        if !state.applied().founded {
            let owned = Slot::all().filter(|slot| bitmap[slot.index() / 8] & (1 << (slot.index() % 8)) != 0);
            owned.for_each(|slot| state.keyspace.set_state(slot, SlotState::Owned));
            state.update_applied(|applied| applied.founded = true);
        }
    } else if op.code == OpCode::FLUSH {
        KeySlot::all().for_each(|key_slot| state.keyspace.flush(key_slot, position));
    } else {
        return Err(OpError::UnknownCode(op.code));
    }
    reply.ok();
    Ok(())
}
