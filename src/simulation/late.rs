//! Steps of moves that are decided, logged and proposed once more: as by a leader that was away meanwhile, or by a question that was delivered late.
//!
//! § None of them may count: `raft/slots.rs` and `cluster/moves.rs` say why. What would be a lie is never said: an outcome that was not the move's, or
//! that a group has cleaned up before it has.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::cluster::{GroupId, MetaOp, Move, MoveEnd, MoveId, MoveState, Topology};
use crate::raft::{Attempt, MoveOp, Outcome};
use crate::simulation::world::World;

/// Decided moves of the run, as they were last seen.
#[derive(Default)]
pub struct OldMoves(BTreeMap<MoveId, (Move, Outcome)>);

enum Step {
    Logged(GroupId, MoveOp),
    Proposed(MetaOp),
}

impl OldMoves {
    pub fn note(&mut self, topology: &Topology) {
        for (id, moved) in topology.moves() {
            let outcome = match moved.state {
                MoveState::Started => continue,
                MoveState::Committed => Outcome::Committed,
                MoveState::Aborted { .. } => Outcome::Aborted,
            };
            self.0.insert(id, (moved.clone(), outcome));
        }
    }
}

impl World {
    /// A step of a move that is decided comes twice more.
    pub fn repeat_step(&mut self) {
        let count = self.old_moves.0.len() as u64;
        if count == 0 {
            return;
        }
        let nth = self.chance.below(count) as usize;
        let (id, (moved, outcome)) = self.old_moves.0.iter().nth(nth).expect("below their count");
        let (id, moved, outcome) = (*id, moved.clone(), *outcome);
        match self.draw_step(id, &moved, outcome) {
            Step::Logged(group, step) => self.log_again(group, &moved, step),
            Step::Proposed(op) => self.propose_again(op),
        }
        self.count("late step of an old move");
    }

    fn draw_step(&mut self, id: MoveId, moved: &Move, outcome: Outcome) -> Step {
        let Move { slot, from, to, .. } = *moved;
        // Newer than any, as a source leader's that has not heard of the outcome may be.
        let attempt = Attempt { term: u64::MAX, replica: 1, number: 1 };
        let stamp = Timestamp(0);
        let slots = [slot].into();
        match self.chance.below(8) {
            0 | 1 => Step::Logged(from, MoveOp::Freeze { id }),
            2 => Step::Logged(from, MoveOp::Settle { id, outcome }),
            3 => Step::Logged(to, MoveOp::Settle { id, outcome }),
            4 => Step::Logged(to, MoveOp::Begin { id, attempt, stamp }),
            5 => Step::Proposed(MetaOp::StartMoves { first: id, to, slots, why: String::new(), by_hand: true }),
            6 if outcome == Outcome::Committed => Step::Proposed(MetaOp::AbortMove { id, again: true }),
            6 => Step::Proposed(MetaOp::CommitMove { id }),
            // That both are done is true of what is forgotten.
            _ if self.is_forgotten(id) => Step::Proposed(MetaOp::FinishMove { id, end: MoveEnd::Source }),
            _ => Step::Proposed(MetaOp::ConfirmMove { id }),
        }
    }

    fn log_again(&mut self, group: GroupId, moved: &Move, step: MoveOp) {
        let Some(leader) = self.leader(group) else { return };
        let Some(shared) = self.machines[leader].shared() else { return };
        let (slot, group) = (moved.slot, shared.replication.group(group));
        self.machines[leader].spawn(async move {
            for _ in 0..2 {
                if let Some(group) = &group {
                    // Not by one that leads no more.
                    let _ = group.log_move(slot, &step, &[]).await;
                }
            }
        });
    }

    fn propose_again(&mut self, op: MetaOp) {
        let node = self.chance.below(self.machines.len() as u64) as usize;
        let Some(shared) = self.machines[node].shared() else { return };
        self.machines[node].spawn(async move {
            for _ in 0..2 {
                // Refused, as a rule.
                let _ = shared.replication.propose_anywhere(&op).await;
            }
        });
    }
}
