//! Which step of which move a group's leader takes next: pure. `moves.rs` takes it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, Move, MoveEnd, MoveId, MoveState, Topology};
use crate::raft::Held;
use crate::slot::Slot;

/// Slots that a group sends beside each other: each of them waits mostly, for commits of its steps.
const SENT_AT_ONCE: usize = 4;
/// Outcomes that are logged beside each other, and of which the meta group is told.
const SETTLED_AT_ONCE: usize = 16;
/// Before the longest delayed tries.
const TRY_DELAY_MAX: Duration = Duration::from_secs(16);

/// What a group has to do for a move, and that one task at a time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Another leader has frozen the slot: sending all of it anew would take longer than its clients should wait.
    GiveUp(MoveId),
    /// Its outcome is to be logged.
    Settle(MoveId),
    /// The meta group is to hear that it is logged.
    Finish(MoveId, MoveEnd),
    Send(MoveId),
}

/// A group as its leader sees it.
pub struct View<'a> {
    pub topology: &'a Topology,
    pub group: GroupId,
    pub is_founded: bool,
    pub refuses_writes: bool,
    pub held: &'a dyn Fn(Slot) -> Option<Held>,
    /// The last move of a slot that ended here.
    pub ended: &'a dyn Fn(Slot) -> MoveId,
}

#[derive(Default)]
pub struct Turns {
    busy: BTreeSet<(GroupId, Work)>,
    /// The last move of each group that was begun to be sent: the others have their turn first.
    last: BTreeMap<GroupId, MoveId>,
    /// When moves that others of the same slot came before were first seen.
    seen: BTreeMap<MoveId, Instant>,
}

impl Turns {
    pub fn ended(&mut self, group: GroupId, work: Work) {
        self.busy.remove(&(group, work));
    }

    /// What is known of moves that are forgotten is forgotten.
    pub fn forget(&mut self, topology: &Topology) {
        self.seen.retain(|id, _| topology.slot_move(*id).is_some());
    }

    /// Some is busy from now on, until `ended`.
    ///
    /// § First comes what clients wait for, each kind with places of its own: neither what is sent nor a meta group that does not answer must keep
    /// a slot frozen whose outcome could be asked for, or is known.
    pub fn next(&mut self, view: &View<'_>, now: Instant) -> Option<(Work, Move)> {
        let (work, slot_move) =
            self.next_frozen(view).or_else(|| self.next_over(view)).or_else(|| self.next_to_send(view, now))?;
        self.busy.insert((view.group, work));
        Some((work, slot_move.clone()))
    }

    fn is_free(&self, view: &View<'_>, work: Work) -> bool {
        !self.busy.contains(&(view.group, work))
    }

    fn count(&self, view: &View<'_>, wanted: fn(&Work) -> bool) -> usize {
        self.busy.iter().filter(|(group, work)| *group == view.group && wanted(work)).count()
    }

    fn next_to_send<'a>(&mut self, view: &View<'a>, now: Instant) -> Option<(Work, &'a Move)> {
        if view.refuses_writes || self.count(view, |work| matches!(work, Work::Send(_))) >= SENT_AT_ONCE {
            return None;
        }
        for (id, _) in started(view).filter(|(_, slot_move)| slot_move.tries > 0) {
            self.seen.entry(id).or_insert(now);
        }
        let due = |(id, slot_move): &(MoveId, &Move)| {
            (view.held)(slot_move.slot) == Some(Held::Owned)
                && self.is_free(view, Work::Send(*id))
                && self.seen.get(id).is_none_or(|seen| now >= *seen + delay_of(slot_move.tries))
        };
        let before = self.last.get(&view.group).copied().unwrap_or_default();
        let next = started(view).filter(due).find(|(id, _)| *id > before).or_else(|| started(view).find(due));
        let (id, slot_move) = next?;
        self.last.insert(view.group, id);
        Some((Work::Send(id), slot_move))
    }

    /// No task is at work on it: its leader, here or elsewhere, is another one now, or could not ask for the outcome.
    fn next_frozen<'a>(&self, view: &View<'a>) -> Option<(Work, &'a Move)> {
        let mut frozen = started(view).filter(|(id, slot_move)| {
            (view.held)(slot_move.slot) == Some(Held::Frozen { id: *id })
                && self.is_free(view, Work::Send(*id))
                && self.is_free(view, Work::GiveUp(*id))
        });
        frozen.next().map(|(id, slot_move)| (Work::GiveUp(id), slot_move))
    }

    fn next_over<'a>(&self, view: &View<'a>) -> Option<(Work, &'a Move)> {
        let over = view.topology.moves().filter(|(_, slot_move)| slot_move.state != MoveState::Started);
        let ends = over.flat_map(|(id, slot_move)| [MoveEnd::Source, MoveEnd::Target].map(|end| (id, slot_move, end)));
        let own = ends.filter(|(_, slot_move, end)| slot_move.group(*end) == view.group && !slot_move.is_done(*end));
        let (mut to_settle, mut to_finish) = (None, None);
        for (id, slot_move, end) in own {
            if (view.ended)(slot_move.slot) >= id {
                to_finish =
                    to_finish.or(Some((Work::Finish(id, end), slot_move)).filter(|due| self.is_free(view, due.0)));
            } else {
                to_settle = to_settle.or(Some((Work::Settle(id), slot_move)).filter(|due| self.is_free(view, due.0)));
            }
        }
        let settling = self.count(view, |work| matches!(work, Work::Settle(_)));
        // § A group that has not got its founding slots yet would be given this one without it: see `SlotTable::found`.
        let to_settle = to_settle.filter(|_| view.is_founded && settling < SETTLED_AT_ONCE);
        let finishing = self.count(view, |work| matches!(work, Work::Finish(..)));
        to_settle.or(to_finish.filter(|_| finishing < SETTLED_AT_ONCE))
    }
}

/// Moves from the group that are under way.
fn started<'a>(view: &View<'a>) -> impl Iterator<Item = (MoveId, &'a Move)> {
    let own = view.group;
    view.topology.moves().filter(move |(_, moved)| moved.from == own && moved.state == MoveState::Started)
}

/// How long a move waits that so many have come to nothing before.
fn delay_of(tries: u32) -> Duration {
    let seconds = 1_u64.checked_shl(tries).unwrap_or(u64::MAX) / 2;
    Duration::from_secs(seconds).min(TRY_DELAY_MAX)
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
