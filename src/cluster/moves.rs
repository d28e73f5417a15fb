//! Moves of slots between groups, as the meta group keeps them. How the groups carry one out is in `raft/slots.rs` and
//! `rebalance/moves.rs`.
//!
//! ```text
//! Started ── CommitMove ──> Committed ──┐ FinishMove by the source and by the target
//!    └────── AbortMove ───> Aborted ────┴──────────────────────────────────────────> forgotten, or Started under a new id
//! ```
//!
//! § Commit and abort compare and set: whichever is logged first is the outcome, for ever. The owner in the topology changes with Committed and
//! at no other time. The outcome is kept until both groups have logged their clean-up, so a group that still holds something of a move
//! can always ask what became of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{GroupId, MetaError, MetaOutcome, MoveId, Topology, TopologyError};
use crate::slot::{SLOT_COUNT, Slot};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub slot: Slot,
    pub from: GroupId,
    pub to: GroupId,
    pub state: MoveState,
    pub source_done: bool,
    pub target_done: bool,
    /// Aborted ones of the slot to the same group before it, each begun again as the next.
    pub tries: u32,
    /// The id of its first try.
    pub origin: MoveId,
    /// An operator wants it: the scheduler is not to undo it.
    pub by_hand: bool,
}

/// Tries of a move. Each may send the whole slot and hold up its clients, and what has failed so often will fail again.
pub const MOVE_TRIES_MAX: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveState {
    Started,
    Committed,
    /// `again`: not given up for good.
    Aborted {
        again: bool,
    },
}

/// Which of a move's two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MoveEnd {
    Source,
    Target,
}

impl Move {
    /// Aborted, it is not begun again.
    fn is_last_try(&self) -> bool {
        self.tries + 1 >= MOVE_TRIES_MAX
    }

    pub fn group(&self, end: MoveEnd) -> GroupId {
        match end {
            MoveEnd::Source => self.from,
            MoveEnd::Target => self.to,
        }
    }

    /// It is under way, or begins anew when both groups have cleaned up.
    pub fn is_open(&self) -> bool {
        match self.state {
            MoveState::Started | MoveState::Aborted { again: true } => true,
            MoveState::Committed | MoveState::Aborted { again: false } => false,
        }
    }

    pub fn is_done(&self, end: MoveEnd) -> bool {
        match end {
            MoveEnd::Source => self.source_done,
            MoveEnd::Target => self.target_done,
        }
    }
}

impl Topology {
    /// Oldest first.
    pub fn moves(&self) -> impl Iterator<Item = (MoveId, &Move)> {
        self.moves.iter().map(|(id, slot_move)| (*id, slot_move))
    }

    pub fn slot_move(&self, id: MoveId) -> Option<&Move> {
        self.moves.get(&id)
    }

    /// The id that the next move will have.
    pub fn next_move(&self) -> MoveId {
        self.next_move
    }

    /// Newer than `older`, with the same nodes, groups and settings.
    pub fn differs_in_slots_alone(&self, older: &Self) -> bool {
        let Self { epoch, slots, events, moves, next_move, placed_by_hand, evening_asked, .. } = self.clone();
        let moved = Self { epoch, slots, events, moves, next_move, placed_by_hand, evening_asked, ..older.clone() };
        self.epoch > older.epoch && *self == moved
    }

    pub(super) fn start_moves(
        &mut self,
        first: MoveId,
        to: GroupId,
        slots: &BTreeSet<Slot>,
        by_hand: bool,
    ) -> Result<MetaOutcome, MetaError> {
        if !self.groups.contains_key(&to) {
            return Err(MetaError::UnknownGroup(to));
        }
        if let Some(slot) = slots.iter().find(|slot| slot.index() >= SLOT_COUNT) {
            return Err(MetaError::UnknownSlot(*slot));
        }
        // § Without this a duplicate that comes when a slot has moved on, and back, would move it once more.
        if first != self.next_move {
            return Err(MetaError::NextMove(self.next_move));
        }
        let wanted: Vec<Slot> = slots.iter().copied().filter(|slot| self.group_of(*slot) != to).collect();
        if let Some((id, slot_move)) = self.moves().find(|(_, other)| wanted.contains(&other.slot)) {
            return Err(MetaError::SlotMoves { slot: slot_move.slot, id });
        }
        if wanted.is_empty() {
            return Ok(MetaOutcome::Unchanged);
        }
        wanted.into_iter().for_each(|slot| self.start_move(slot, to, by_hand, None));
        Ok(MetaOutcome::Moves)
    }

    /// `before`: the try that has come to nothing.
    fn start_move(&mut self, slot: Slot, to: GroupId, by_hand: bool, before: Option<&Move>) {
        let id = self.next_move;
        self.next_move = MoveId(id.0 + 1);
        let (from, state) = (self.group_of(slot), MoveState::Started);
        let (tries, origin) = before.map_or((0, id), |before| (before.tries + 1, before.origin));
        let (source_done, target_done) = (false, false);
        self.moves.insert(id, Move { slot, from, to, state, source_done, target_done, tries, origin, by_hand });
    }

    pub(super) fn confirm_move(&self, id: MoveId) -> Result<MetaOutcome, MetaError> {
        match self.moves.get(&id).ok_or(MetaError::UnknownMove(id))?.state {
            MoveState::Started => Ok(MetaOutcome::Unchanged),
            MoveState::Committed => Err(MetaError::MoveCommitted(id)),
            MoveState::Aborted { .. } => Err(MetaError::MoveAborted(id)),
        }
    }

    /// § Compare and set; see the module's text.
    pub(super) fn commit_move(&mut self, id: MoveId) -> Result<MetaOutcome, MetaError> {
        let slot_move = self.moves.get_mut(&id).ok_or(MetaError::UnknownMove(id))?;
        match slot_move.state {
            MoveState::Started => {
                slot_move.state = MoveState::Committed;
                let Move { slot, from, to, by_hand, .. } = *slot_move;
                self.slots[slot.index()] = to;
                self.note_placed(slot, from, to, by_hand);
                Ok(MetaOutcome::Moves)
            }
            MoveState::Committed => Ok(MetaOutcome::Unchanged),
            MoveState::Aborted { .. } => Err(MetaError::MoveAborted(id)),
        }
    }

    pub(super) fn abort_move(&mut self, id: MoveId, again: bool) -> Result<MetaOutcome, MetaError> {
        let slot_move = self.moves.get_mut(&id).ok_or(MetaError::UnknownMove(id))?;
        let state = match slot_move.state {
            MoveState::Started => MoveState::Aborted { again: again && !slot_move.is_last_try() },
            // Given up for good stays so.
            MoveState::Aborted { again: before } => MoveState::Aborted { again: before && again },
            MoveState::Committed => return Err(MetaError::MoveCommitted(id)),
        };
        if slot_move.state == state {
            return Ok(MetaOutcome::Unchanged);
        }
        slot_move.state = state;
        Ok(MetaOutcome::Moves)
    }

    pub(super) fn finish_move(&mut self, id: MoveId, end: MoveEnd) -> Result<MetaOutcome, MetaError> {
        let Some(slot_move) = self.moves.get_mut(&id) else { return Ok(MetaOutcome::Unchanged) };
        if slot_move.state == MoveState::Started {
            return Err(MetaError::MoveNotOver(id));
        }
        if slot_move.is_done(end) {
            return Ok(MetaOutcome::Unchanged);
        }
        match end {
            MoveEnd::Source => slot_move.source_done = true,
            MoveEnd::Target => slot_move.target_done = true,
        }
        if slot_move.source_done && slot_move.target_done {
            let ended = self.moves.remove(&id);
            let again = ended.filter(|ended| ended.state == MoveState::Aborted { again: true });
            if let Some(before) = again {
                self.start_move(before.slot, before.to, before.by_hand, Some(&before));
            }
        }
        Ok(MetaOutcome::Moves)
    }

    /// A slot is in one move at a time, and where the topology says unless that move is committed.
    pub(super) fn validate_moves(&self) -> Result<(), TopologyError> {
        let mut moving = BTreeSet::new();
        for (id, Move { slot, from, to, state, source_done, target_done, tries, origin, by_hand: _ }) in self.moves() {
            let owner = if *state == MoveState::Committed { to } else { from };
            let fits = slot.index() < SLOT_COUNT && self.group_of(*slot) == *owner && moving.insert(*slot);
            let groups = from != to && [from, to].iter().all(|group| self.groups.contains_key(group));
            let is_over = *state != MoveState::Started || !(*source_done || *target_done);
            let is_counted = *tries < MOVE_TRIES_MAX && *origin <= id;
            if !fits || !groups || !is_over || !is_counted || (*source_done && *target_done) || id >= self.next_move {
                return Err(TopologyError::Move(id));
            }
        }
        Ok(())
    }
}
