//! Which slots a group holds, and what they are in the middle of: group-wide replicated state. Pure; `move_op.rs` applies it, `rebalance/moves.rs` drives it.
//!
//! # How a slot moves
//!
//! ```text
//! source:  Owned ─ Freeze(m) ─> Frozen(m) ─ Settle(m): committed ─> absent
//!                                    └────── Settle(m): aborted ──> Owned
//! target:  absent ─ Begin(m, a) ─> Staged(m, a) ─ Adopt(m, a) ─> Adopted(m) ─ Settle(m): committed ─> Owned
//!                                      └──────────────────────────────┴────── Settle(m): aborted ───> absent
//! ```
//!
//! 1. The meta group logs that m is started (`cluster/moves.rs`).
//! 2. The source's leader sends the slot's data in pages, which the target logs (Begin, Stage); then what has changed since, again and again, until that
//!    is little. Requests are served by the source as ever.
//! 3. The meta group confirms that m is started still, and so that it can decide. The source logs Freeze(m): from its apply on requests for the slot
//!    wait, and an op on it that is logged later does nothing and is routed again. What changed until then is the last page, and goes with Adopt(m, a).
//! 4. When the target has applied Adopt, the source's leader proposes CommitMove(m) to the meta group: the one instant of change. Afterwards the
//!    target logs Settle(m) and serves, the source logs Settle(m) and lets go of the data.
//!
//! The other way, streaming each op on the slot behind the data, would put every write to it into two logs, needs an order between data and ops, and
//! a source leader that keeps what was not acknowledged yet. Deltas need none of it: a pass that fails is made again from the last export.
//!
//! # Why nothing is lost, and no slot has two owners
//!
//! § Owned at the target needs Committed(m); Committed(m) needs an applied Adopt(m, a), which needs every page of the attempt in order (count and
//! checksum), the last of which was exported after Freeze(m) was applied. Frozen ends only by Settle(m), which a leader logs after it has read m's
//! outcome in the meta group, where the first one counts. If the meta group cannot be reached, the slot stays frozen. Freeze, Adopt, Settle and what the
//! meta group logs are synced in every mode (`batch.rs`): each is what another group goes by.
//!
//! § Every op names its move, and does nothing unless the slot's state names the same; Freeze and Begin do nothing unless the move is newer than the last
//! that ended for the slot here. So what comes late or twice does nothing: a freeze after an abort, a page of an older attempt, a settlement after
//! the slot has come back.
//!
//! A new source leader begins a new attempt; one that finds the slot frozen aborts the move to be done again, since sending all of it anew would take
//! longer than its clients should wait. A new target leader goes on where the state is. Whoever leads retries: `rebalance/moves.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::cluster::MoveId;
use crate::planted::{self, Bug};
use crate::slot::Slot;

/// What a group has of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    Owned,
    Frozen {
        id: MoveId,
    },
    /// `pages` of them, with this checksum over all.
    Staged {
        id: MoveId,
        attempt: Attempt,
        pages: u64,
        checksum: u32,
    },
    /// Complete, but whether it is this group's is the meta group's to say.
    Adopted {
        id: MoveId,
    },
}

/// One try of a source leader to send a slot; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// Of the source's leadership.
    pub term: u64,
    pub replica: u64,
    /// In this leader's process.
    pub number: u64,
}

/// One step of a move, as it is logged for a slot. Stage and Adopt come with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveOp {
    Freeze {
        id: MoveId,
    },
    /// `stamp`: the source's time.
    Begin {
        id: MoveId,
        attempt: Attempt,
        stamp: Timestamp,
    },
    /// `number`: pages before it.
    Stage {
        id: MoveId,
        attempt: Attempt,
        number: u64,
    },
    /// `checksum`: over all pages, this one's included. `stamp`: the source's last.
    Adopt {
        id: MoveId,
        attempt: Attempt,
        number: u64,
        checksum: u32,
        stamp: Timestamp,
    },
    Settle {
        id: MoveId,
        outcome: Outcome,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Committed,
    Aborted,
}

/// What an op that counts does to the slot's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It does not count, or changes only what is known of moves.
    Nothing,
    /// Requests are not served any more, or not yet.
    Stop,
    Serve,
    Clear,
    /// The page is taken in.
    Take,
    /// The page is taken in, and the group's time is this at least.
    TakeLast(Timestamp),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTable {
    held: BTreeMap<Slot, Held>,
    /// The last move of each slot that ended here. § It keeps what is late from counting.
    ended: BTreeMap<Slot, MoveId>,
    /// How many slots have gone to other groups.
    departures: u64,
}

impl Held {
    /// Somebody has to wait for the outcome of a move.
    pub fn is_unsettled(self) -> bool {
        match self {
            Self::Frozen { .. } | Self::Adopted { .. } => true,
            Self::Owned | Self::Staged { .. } => false,
        }
    }
}

/// Over `page`, after those that gave `before`.
pub fn checksum_of(before: u32, page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(page);
    hasher.finalize()
}

impl SlotTable {
    /// A new group is given its slots, but for those that a move has brought or taken already.
    pub fn found(&mut self, slots: impl Iterator<Item = Slot>) -> Vec<Slot> {
        let given: Vec<Slot> =
            slots.filter(|slot| self.held(*slot).is_none() && !self.ended.contains_key(slot)).collect();
        self.held.extend(given.iter().map(|slot| (*slot, Held::Owned)));
        given
    }

    pub fn held(&self, slot: Slot) -> Option<Held> {
        self.held.get(&slot).copied()
    }

    pub fn owns(&self, slot: Slot) -> bool {
        self.held(slot) == Some(Held::Owned)
    }

    /// Zero if none has.
    pub fn ended(&self, slot: Slot) -> MoveId {
        self.ended.get(&slot).copied().unwrap_or_default()
    }

    pub fn slots(&self) -> impl Iterator<Item = (Slot, Held)> {
        self.held.iter().map(|(slot, held)| (*slot, *held))
    }

    pub fn departures(&self) -> u64 {
        self.departures
    }

    pub fn unsettled_count(&self) -> usize {
        self.slots().filter(|(_, held)| held.is_unsettled()).count()
    }

    pub fn apply(&mut self, slot: Slot, op: &MoveOp, page: &[u8]) -> Effect {
        match *op {
            MoveOp::Freeze { id } => self.freeze(slot, id),
            MoveOp::Begin { id, attempt, stamp: _ } => self.begin(slot, id, attempt),
            MoveOp::Stage { id, attempt, number } => match self.next_page(slot, id, attempt, number, page) {
                Some(checksum) => {
                    self.held.insert(slot, Held::Staged { id, attempt, pages: number + 1, checksum });
                    Effect::Take
                }
                None => Effect::Nothing,
            },
            MoveOp::Adopt { id, attempt, number, checksum, stamp } => {
                let found = self.next_page(slot, id, attempt, number, page);
                if found != Some(checksum) {
                    return Effect::Nothing;
                }
                self.held.insert(slot, Held::Adopted { id });
                Effect::TakeLast(stamp)
            }
            MoveOp::Settle { id, outcome } => self.settle(slot, id, outcome),
        }
    }

    /// What comes late.
    fn is_over(&self, slot: Slot, id: MoveId) -> bool {
        id <= self.ended(slot) && !planted::is(Bug::LateStepCounts)
    }

    fn freeze(&mut self, slot: Slot, id: MoveId) -> Effect {
        if self.is_over(slot, id) || !self.owns(slot) {
            return Effect::Nothing;
        }
        self.held.insert(slot, Held::Frozen { id });
        Effect::Stop
    }

    fn begin(&mut self, slot: Slot, id: MoveId, attempt: Attempt) -> Effect {
        let counts = match self.held(slot) {
            None => !self.is_over(slot, id),
            Some(Held::Staged { id: staged, attempt: before, .. }) => staged == id && before < attempt,
            Some(Held::Owned | Held::Frozen { .. } | Held::Adopted { .. }) => false,
        };
        if !counts {
            return Effect::Nothing;
        }
        self.held.insert(slot, Held::Staged { id, attempt, pages: 0, checksum: 0 });
        Effect::Clear
    }

    /// The checksum with this page, if it is the next of this attempt.
    fn next_page(&self, slot: Slot, id: MoveId, attempt: Attempt, number: u64, page: &[u8]) -> Option<u32> {
        match self.held(slot) {
            Some(Held::Staged { id: staged, attempt: current, pages, checksum })
                if (staged, current, pages) == (id, attempt, number) =>
            {
                Some(checksum_of(checksum, page))
            }
            _ => None,
        }
    }

    /// § The leader that logs this has read the outcome in the meta group.
    fn settle(&mut self, slot: Slot, id: MoveId, outcome: Outcome) -> Effect {
        let effect = match (self.held(slot), outcome) {
            (Some(Held::Frozen { id: own }), Outcome::Aborted) if own == id => Effect::Serve,
            (Some(Held::Adopted { id: own }), Outcome::Committed) if own == id => Effect::Serve,
            (Some(Held::Frozen { id: own }), Outcome::Committed) if own == id => Effect::Clear,
            (Some(Held::Adopted { id: own } | Held::Staged { id: own, .. }), Outcome::Aborted) if own == id => {
                Effect::Clear
            }
            // Aborted before it reached this group, and what is late of it must not reach it any more.
            (None | Some(Held::Owned), Outcome::Aborted) if id > self.ended(slot) => Effect::Nothing,
            // It names another move, or has been logged before.
            (None | Some(_), Outcome::Committed | Outcome::Aborted) => return Effect::Nothing,
        };
        match effect {
            Effect::Serve => drop(self.held.insert(slot, Held::Owned)),
            Effect::Clear => drop(self.held.remove(&slot)),
            _ => (),
        }
        self.departures += u64::from(outcome == Outcome::Committed && effect == Effect::Clear);
        self.ended.insert(slot, id);
        effect
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
