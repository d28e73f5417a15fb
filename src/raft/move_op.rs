//! Logging the steps of a slot's move, and applying them. What counts is decided by `slots.rs`; here is what it does to the data.
//!
//! An op of a move names its slot by the slot's first key slot. Its body is two byte strings: the postcard [`MoveOp`], and the page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::MoveId;
use crate::command::OpCode;
use crate::command::op::{DamagedBody, Op, OpReader};
use crate::keyspace::{Position, SlotState};
use crate::planted::{self, Bug};
use crate::protocol::Protocol;
use crate::raft::chunk::{Chunk, ChunkOutcome};
use crate::raft::group::{Group, GroupState, NoLeader};
use crate::raft::slots::{Effect, Held, MoveOp, Outcome};
use crate::slot::Slot;

/// What a leader has sent to other groups.
#[derive(Debug, Default)]
pub struct Moved {
    keys: AtomicU64,
    bytes: AtomicU64,
    /// Why its last step failed; none since then if none has.
    trouble: Mutex<Option<String>>,
    /// When the next page may go.
    next: Mutex<Option<Instant>>,
}

impl Moved {
    /// When a page may go that takes so long at the greatest rate. Slots that are sent beside each other share it, and one alone has all of it.
    fn turn(&self, now: Instant, takes: Duration) -> Instant {
        let mut next = self.next.lock();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + takes);
        turn
    }
}

/// Those of a thousand groups travel in one frame.
pub const TROUBLE_BYTES_MAX: usize = 96;

impl Chunk {
    pub(super) fn push_move(&mut self, slot: Slot, op: &MoveOp, page: &[u8]) {
        let step = postcard::to_stdvec(op).expect("numbers encode");
        self.push_silent(OpCode::MOVE, slot.key_slot_bounds().0, |writer| {
            writer.bytes(&step);
            writer.bytes(page);
        });
        // Pages count with the Adopt behind them; a Begin that is lost is begun again.
        self.durable |= match op {
            MoveOp::Freeze { .. } | MoveOp::Adopt { .. } | MoveOp::Settle { .. } => true,
            MoveOp::Begin { .. } | MoveOp::Stage { .. } => false,
        };
    }
}

/// § Replay over a snapshot: the table is as it was at the op's place, so the same ops count; buckets that hold the effect skip it.
pub fn apply(state: &GroupState, op: &Op, position: Position) -> Result<(), DamagedBody> {
    let mut body = OpReader::new(&op.body);
    let step: MoveOp = postcard::from_bytes(body.bytes()?).map_err(|_| DamagedBody)?;
    let (slot, page) = (op.key_slot.slot(), body.bytes()?);
    let effect = state.update_slots(|slots| slots.apply(slot, &step, page));
    let keyspace = &state.keyspace;
    if effect == Effect::Stop {
        // § Before any bucket is out of reach: whoever reads the whole group meanwhile must notice that some were.
        state.note_slots();
    }
    match effect {
        Effect::Nothing => (),
        Effect::Stop if planted::is(Bug::FreezeStopsNothing) => (),
        Effect::Stop => keyspace.set_state(slot, SlotState::Absent),
        Effect::Serve => keyspace.set_state(slot, SlotState::Owned),
        Effect::Clear => keyspace.clear_slot(slot, position),
        Effect::Take => keyspace.stage(slot, position, page).map_err(|_| DamagedBody)?,
        Effect::TakeLast(stamp) => {
            keyspace.stage(slot, position, page).map_err(|_| DamagedBody)?;
            // § What the source has seen expired stays so.
            state.advance_stamp(position.index, stamp);
        }
    }
    if matches!(step, MoveOp::Adopt { .. }) && planted::is(Bug::ServeBeforeCommitted) && effect != Effect::Nothing {
        state.update_slots(|slots| {
            let Some(Held::Adopted { id }) = slots.held(slot) else { return };
            slots.apply(slot, &MoveOp::Settle { id, outcome: Outcome::Committed }, b"");
        });
        keyspace.set_state(slot, SlotState::Owned);
    }
    match effect {
        // Each page would wake every request that waits on this node, and have whole groups read again.
        Effect::Nothing | Effect::Take | Effect::Stop => (),
        Effect::Serve | Effect::Clear | Effect::TakeLast(_) => state.note_slots(),
    }
    Ok(())
}

impl Group {
    /// What the group has of a slot, as far as this replica has applied.
    pub fn held(&self, slot: Slot) -> Option<Held> {
        self.state().read_slots(|slots| slots.held(slot))
    }

    pub fn slots(&self) -> Vec<(Slot, Held)> {
        self.state().read_slots(|slots| slots.slots().collect())
    }

    /// Sent to other groups by this leader.
    pub fn note_moved(&self, keys: u64, bytes: u64) {
        self.state().moved.keys.fetch_add(keys, Ordering::Relaxed);
        self.state().moved.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When a page may be sent to another group; see `Moved::turn`.
    pub fn sending_turn(&self, takes: Duration) -> Instant {
        self.state().moved.turn(Instant::now(), takes)
    }

    /// Keys and bytes, since the process started.
    pub fn moved(&self) -> (u64, u64) {
        let Moved { keys, bytes, .. } = &self.state().moved;
        (keys.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    /// For operators to see why moves of slots to other groups do not come to their end; `None` when one has.
    pub fn note_move_trouble(&self, trouble: Option<&dyn std::fmt::Display>) {
        let trouble = trouble.map(|trouble| {
            let text = trouble.to_string();
            text[..text.floor_char_boundary(TROUBLE_BYTES_MAX)].to_owned()
        });
        *self.state().moved.trouble.lock() = trouble;
    }

    pub fn move_trouble(&self) -> Option<String> {
        self.state().moved.trouble.lock().clone()
    }

    /// How many slots have gone from this group to others.
    pub fn departures(&self) -> u64 {
        self.state().read_slots(|slots| slots.departures())
    }

    /// The last move of the slot that ended here; zero if none has.
    pub fn ended(&self, slot: Slot) -> MoveId {
        self.state().read_slots(|slots| slots.ended(slot))
    }

    /// Logs one step of a move and waits until it is applied; whether it counted, the slot's state says.
    pub async fn log_move(&self, slot: Slot, op: &MoveOp, page: &[u8]) -> Result<(), NoLeader> {
        let mut chunk = Chunk::new(Protocol::Resp2);
        chunk.push_move(slot, op, page);
        match self.submit(chunk).await {
            ChunkOutcome::Replied { .. } => Ok(()),
            ChunkOutcome::Reroute | ChunkOutcome::Unknown => Err(NoLeader),
        }
    }
}

#[cfg(test)]
#[path = "move_op_tests.rs"]
mod tests;
