//! What the source's leader of a move asks of the target's: to log one step for a slot, and to say what the slot is then.
//!
//! ```text
//! question: postcard (group, slot, step, bytes that came before) | page, or its end
//! answer:   postcard Result<MoveAnswer, Refusal>
//!
//! before a page that is longer than a message:
//! question: postcard (group, slot, offset) | part of the page
//! answer:   postcard Result<(), text>
//! ```
//! A question that is lost, late or doubled does no harm: see `slots.rs`. The asker looks at the answer's state, and at nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::{Boottime, STAMP_LEAD_MS_MAX, Timestamp};
use crate::cluster::{GroupId, MetaOp, Move, MoveId, MoveState, Topology};
use crate::raft::ASK_BYTES_MAX;
use crate::raft::peers::{ASK_MOVE, ASK_MOVE_PART};
use crate::raft::replication::Replication;
use crate::raft::slots::{Held, MoveOp};
use crate::slot::{SLOT_COUNT, Slot};

/// A part of a page and what the question says of it fit one message.
pub const PART_BYTES: usize = ASK_BYTES_MAX - 256;
const START_TRIES_MAX: usize = 3;
/// A busy node hears of what others have started within this time.
const START_SEEN_WAIT: Duration = Duration::from_secs(1);
/// Two commits that follow the one by which a slot changes hands.
const CLEAN_UP_WAIT_MAX: Duration = Duration::from_secs(5);
/// After this a node whose topology does not show a move that was started will not.
const MOVE_SEEN_WAIT: Duration = Duration::from_secs(5);
/// For a step that no client waits for.
pub const STEP_WAIT_MAX: Duration = Duration::from_secs(2);

/// A slot in the target's leader, with the step applied if it counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveAnswer {
    pub held: Option<Held>,
    /// The last move that ended for the slot there.
    pub ended: MoveId,
    pub keys: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallMoveError {
    #[error("group {0} has no leader now")]
    NoLeader(GroupId),
    #[error("the leader of group {group} does not answer: {error}")]
    Unanswered { group: GroupId, error: String },
    #[error("the leader of group {group} answers: {error}")]
    Refused { group: GroupId, error: String },
    /// It would be again.
    #[error("the leader of group {group} refuses it: {error}")]
    RefusedForGood { group: GroupId, error: String },
}

/// Why a step was not logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Refusal {
    ForNow(String),
    ForGood(String),
}

impl Replication {
    /// Starts moves of those of `slots` that `to` does not own, with ids from the one on that it returns. An error says why none was started. The
    /// scheduler's moves of them are given up: an operator who waited for those would find the next ones under way.
    pub async fn start_moves(&self, to: GroupId, slots: BTreeSet<Slot>, why: &str) -> Result<MoveId, String> {
        let mut topologies = self.newest_topologies();
        for tries_left in (0..START_TRIES_MAX).rev() {
            let topology = self.newest_topology();
            if topology.leaving_groups().contains(&to) {
                // What an operator would put there would be taken away again at once.
                return Err(format!(
                    "group {to} is to be dissolved, as there are more groups than nodes: see kvorum cluster status"
                ));
            }
            // If there is another operator's among them, or no such group, the answer to what is proposed says so, and the scheduler goes on.
            let is_in_way = |moved: &Move| moved.is_open() && slots.contains(&moved.slot);
            if topology.group(to).is_some() && !topology.moves().any(|(_, moved)| is_in_way(moved) && moved.by_hand) {
                self.cancel_moves(|moved| is_in_way(moved) && !moved.by_hand).await?;
            }
            self.wait_cleaned_up(&slots).await;
            let first = self.newest_topology().next_move();
            let op = MetaOp::StartMoves { first, to, slots: slots.clone(), why: why.to_owned(), by_hand: true };
            let proposed = self.propose_anywhere(&op).await;
            // Who asks this node next is to find them under way; after an error too they may be, or others.
            let newer = topologies.wait_for(|now| now.as_ref().is_some_and(|now| now.next_move() > first));
            let is_newer = matches!(tokio::time::timeout(START_SEEN_WAIT, newer).await, Ok(Ok(_)));
            let Err(error) = proposed else { return Ok(first) };
            let now = self.newest_topology();
            let moves_to = |slot: &Slot| now.moves().any(|(_, moved)| moved.slot == *slot && moved.to == to);
            if is_newer && slots.iter().all(|slot| now.group_of(*slot) == to || moves_to(slot)) {
                return Ok(first);
            }
            if !is_newer || tries_left == 0 {
                return Err(error);
            }
        }
        Err("other moves were started again and again".to_owned())
    }

    /// Until both groups of each move of these slots that is over are done with it, or it takes too long. A slot that has come a moment ago can go on.
    async fn wait_cleaned_up(&self, slots: &BTreeSet<Slot>) {
        let is_over =
            |topology: &Topology| !topology.moves().any(|(_, moved)| slots.contains(&moved.slot) && !moved.is_open());
        let mut topologies = self.newest_topologies();
        let over = topologies.wait_for(|now| now.as_ref().is_some_and(|now| is_over(now)));
        // Otherwise the answer to what is proposed next says so.
        let _ = tokio::time::timeout(CLEAN_UP_WAIT_MAX, over).await;
    }

    /// Moves `slots` to `to`, and returns when the topology known here has them there. Slots that are there, or on their way, are none the worse for it.
    ///
    /// Errors: an operator has one of them on its way elsewhere, it was given up, or takes longer than `wait_max`, and then it goes on.
    pub async fn move_slots(
        &self,
        to: GroupId,
        slots: &BTreeSet<Slot>,
        why: &str,
        wait_max: Duration,
    ) -> Result<(), String> {
        let topology = self.newest_topology();
        let is_elsewhere = |moved: &Move| slots.contains(&moved.slot) && moved.is_open() && moved.to != to;
        if let Some((_, moved)) = topology.moves().find(|(_, moved)| is_elsewhere(moved) && moved.by_hand) {
            return Err(format!("slot {} is on its way to group {}", moved.slot, moved.to));
        }
        if slots.iter().any(|slot| topology.destination_of(*slot) != to) {
            self.start_moves(to, slots.clone(), why).await?;
        }
        match tokio::time::timeout(wait_max, self.wait_moved(to, slots)).await {
            Ok(moved) => moved,
            Err(_) => Err("it takes long and goes on, see kvorum cluster status".to_owned()),
        }
    }

    async fn wait_moved(&self, to: GroupId, slots: &BTreeSet<Slot>) -> Result<(), String> {
        let mut topologies = self.newest_topologies();
        let began = Instant::now();
        let mut seen = false;
        loop {
            let topology = self.newest_topology();
            let mut left = slots.iter().copied().filter(|slot| topology.group_of(*slot) != to).peekable();
            if left.peek().is_none() {
                return Ok(());
            }
            let given_up = left.find(|slot| topology.destination_of(*slot) != to);
            // A move that was started is seen here a moment later.
            seen |= given_up.is_none();
            if let Some(slot) = given_up.filter(|_| seen || began.elapsed() > MOVE_SEEN_WAIT) {
                let owner = topology.group_of(slot);
                return Err(format!(
                    "slot {slot} stays in group {owner}: its move was given up, see kvorum cluster events"
                ));
            }
            match tokio::time::timeout(START_SEEN_WAIT, topologies.changed()).await {
                Ok(Ok(())) | Err(_) => (),
                Ok(Err(_)) => return Err("the node stops".to_owned()),
            }
        }
    }

    /// Gives up those of these moves that are not committed, and returns when it is known here: what is asked for next must not find them open.
    pub async fn cancel_moves(&self, unwanted: impl Fn(&Move) -> bool) -> Result<(), String> {
        let topology = self.newest_topology();
        let open = |(_, moved): &(MoveId, &Move)| unwanted(moved) && moved.is_open();
        let ids: Vec<MoveId> = topology.moves().filter(open).map(|(id, _)| id).collect();
        for id in &ids {
            let aborted = self.propose_anywhere(&MetaOp::AbortMove { id: *id, again: false }).await;
            let now = self.newest_topology();
            // One that was committed, or over, meanwhile is none of the operator's errors.
            if now.slot_move(*id).is_some_and(|kept| kept.state == MoveState::Started) {
                aborted?;
            }
        }
        let mut topologies = self.newest_topologies();
        let is_over = |now: &Topology| !ids.iter().any(|id| now.slot_move(*id).is_some_and(Move::is_open));
        let known = topologies.wait_for(|now| now.as_ref().is_some_and(|now| is_over(now)));
        let known = tokio::time::timeout(MOVE_SEEN_WAIT, known).await;
        known.map_or_else(|_| Err("this node has not heard of it yet".to_owned()), |_| Ok(()))
    }

    /// Whether the step counted, the answer's state says.
    pub async fn call_move(
        &self,
        group: GroupId,
        slot: Slot,
        step: &MoveOp,
        page: &[u8],
        wait_max: Duration,
    ) -> Result<MoveAnswer, CallMoveError> {
        let refused = |refusal| match refusal {
            Refusal::ForNow(error) => CallMoveError::Refused { group, error },
            Refusal::ForGood(error) => CallMoveError::RefusedForGood { group, error },
        };
        let unanswered = |error: String| CallMoveError::Unanswered { group, error };
        let leader = self.hints().leader(group).ok_or(CallMoveError::NoLeader(group))?;
        if leader.node == self.node() {
            let logged = tokio::time::timeout(wait_max, self.log_step(group, slot, step, page)).await;
            return logged.map_err(|late| unanswered(late.to_string()))?.map_err(refused);
        }
        let (ahead, rest) = page.split_at(page.len().saturating_sub(PART_BYTES).next_multiple_of(PART_BYTES));
        for (number, part) in ahead.chunks(PART_BYTES).enumerate() {
            let body = question(&(group, slot, number * PART_BYTES), part);
            let answer = self.ask(leader.node, ASK_MOVE_PART, &body, wait_max).await;
            let answer = answer.map_err(|error| unanswered(error.to_string()))?;
            let taken: Result<(), String> =
                postcard::from_bytes(&answer).map_err(|error| unanswered(error.to_string()))?;
            taken.map_err(|error| CallMoveError::Refused { group, error })?;
        }
        let body = question(&(group, slot, step, ahead.len()), rest);
        let answer = self.ask(leader.node, ASK_MOVE, &body, wait_max).await;
        let answer = answer.map_err(|error| unanswered(error.to_string()))?;
        let answer: Result<MoveAnswer, Refusal> =
            postcard::from_bytes(&answer).map_err(|error| unanswered(error.to_string()))?;
        answer.map_err(refused)
    }

    pub(super) fn take_part(&self, body: &Bytes) -> Result<(), String> {
        let question = postcard::take_from_bytes::<(GroupId, Slot, usize)>(body);
        let ((group, slot, offset), part) = question.map_err(|error| error.to_string())?;
        self.group(group).filter(|group| group.leads()).ok_or("it is led elsewhere")?;
        self.page_parts.add((group, slot), offset, part, Instant::now()).map_err(|error| error.to_string())
    }

    pub(super) async fn answer_move(&self, body: &Bytes) -> Vec<u8> {
        let answer = match postcard::take_from_bytes::<(GroupId, Slot, MoveOp, usize)>(body) {
            Ok(((group, slot, step, 0), page)) => self.log_step(group, slot, &step, page).await,
            Ok(((group, slot, step, ahead), end)) => match self.page_parts.take((group, slot), ahead) {
                Ok(page) => self.log_step(group, slot, &step, &[&page, end].concat()).await,
                Err(error) => Err(Refusal::ForNow(error.to_string())),
            },
            Err(error) => Err(Refusal::ForNow(error.to_string())),
        };
        postcard::to_stdvec(&answer).expect("numbers and a text encode")
    }

    async fn log_step(&self, group: GroupId, slot: Slot, step: &MoveOp, page: &[u8]) -> Result<MoveAnswer, Refusal> {
        let for_now = |text: &str| Refusal::ForNow(text.to_owned());
        let group = self.group(group).filter(|group| group.leads()).ok_or_else(|| for_now("it is led elsewhere"))?;
        if slot.index() >= SLOT_COUNT {
            return Err(Refusal::ForNow(format!("there is no slot {slot}")));
        }
        // § What is not a page is refused before it is logged: an op that cannot be applied ends the process.
        group.keyspace().check_page(slot, page).map_err(|error| Refusal::ForNow(error.to_string()))?;
        // What space is left is for what clients wait for.
        if group.refuses_writes() && !matches!(step, MoveOp::Settle { .. }) {
            return Err(for_now("the disk is full"));
        }
        check_time(step, group.time().clock).inspect_err(|refusal| {
            group.state().metrics.stamps_clamped.increment(1);
            tracing::warn!(group = %group.id(), %slot, ?refusal, "a slot is not taken");
        })?;
        group.log_move(slot, step, page).await.map_err(|error| Refusal::ForNow(error.to_string()))?;
        let (held, ended) = (group.held(slot), group.ended(slot));
        if let (MoveOp::Adopt { stamp, .. }, Some(Held::Adopted { .. })) = (step, held) {
            // The log has it by now, and until the clock has come as far, the group's time would stand still.
            group.state().clock.raise(*stamp, Boottime::now());
        }
        let (keys, _) = group.keyspace().slot_size(slot);
        Ok(MoveAnswer { held, ended, keys })
    }
}

fn question<T: Serialize>(head: &T, page: &[u8]) -> Vec<u8> {
    let mut body = postcard::to_stdvec(head).expect("numbers encode");
    body.extend_from_slice(page);
    body
}

/// § A group's time must be past what the source has seen expired, so it follows the source's: as far as it follows a new leader's wall clock, and no
/// further. Else one wrong clock would spread from group to group.
fn check_time(step: &MoveOp, clock: Timestamp) -> Result<(), Refusal> {
    let (MoveOp::Begin { stamp, .. } | MoveOp::Adopt { stamp, .. }) = step else { return Ok(()) };
    let lead_ms = stamp.0.saturating_sub(clock.0);
    if lead_ms <= STAMP_LEAD_MS_MAX {
        return Ok(());
    }
    Err(Refusal::ForGood(format!(
        "the time of the slot's group is {lead_ms} ms ahead of this one's: check NTP on the machines that lead them"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::slots::Attempt;

    #[test]
    fn a_slot_from_a_group_whose_time_is_far_ahead_is_refused_for_good_at_its_first_and_last_step() {
        let (id, attempt) = (MoveId(1), Attempt { term: 1, replica: 1, number: 1 });
        let begin = |stamp| MoveOp::Begin { id, attempt, stamp };
        let adopt = |stamp| MoveOp::Adopt { id, attempt, number: 0, checksum: 0, stamp };
        for (lead_ms, refused) in [(-9_000_000, false), (0, false), (1000, false), (1001, true), (3_600_000, true)] {
            let (clock, stamp) = (Timestamp(50_000), Timestamp(50_000 + lead_ms));
            for step in [begin(stamp), adopt(stamp)] {
                let answer = check_time(&step, clock);
                assert_eq!(matches!(answer, Err(Refusal::ForGood(_))), refused, "{lead_ms}: {answer:?}");
            }
        }
        assert!(matches!(check_time(&adopt(Timestamp(i64::MAX)), Timestamp(-1)), Err(Refusal::ForGood(_))));
    }
}
