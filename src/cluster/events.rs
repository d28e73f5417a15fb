//! What was decided about the cluster, when, and why: a bounded list in the topology, so that every node can tell the story.
//!
//! An event is written as an entry of the meta group is applied, from what the entry says and what it did. Its time is the entry's, so all
//! nodes hold the same list.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Epoch, GroupId, MetaOp, MetaOutcome, Move, MoveId, MoveState, NodeId, NodeInfo, ReplicaId, Topology};
use crate::clock::Timestamp;

/// The newest are kept.
pub const EVENT_COUNT_MAX: usize = 256;
/// Bytes of a reason; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 400;
/// Of an event about many.
const GROUPS_LISTED: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The wall clock of the meta leader that proposed it.
    pub at: Timestamp,
    /// Of the topology with this change.
    pub epoch: Epoch,
    pub what: String,
    /// Empty if `what` says it all.
    pub why: String,
}

const MOVES_BEGIN: &str = " slot(s) are to move from ";
const MOVES_GIVEN_UP: &str = " slot(s) stay in ";
const MOVES_END: &str = " slots, and no more are on the way to it";

/// Appends, and drops the oldest beyond the limit.
///
/// The scheduler moves slots a batch at a time, redis-cli and a cancelled job one after the other: what goes on between the same groups is told once,
/// with the sum, as long as nothing else happens.
pub(super) fn note(events: &mut VecDeque<Event>, mut event: Event) {
    let of_moves = events.iter().rev().take_while(|event| is_of_moves(&event.what)).count();
    let mut recent = events.split_off(events.len() - of_moves);
    if let Some((mut count, rest)) = counted(&event.what) {
        recent.retain(|other| {
            let (others, theirs) = counted(&other.what).unwrap_or((0, ""));
            let goes_on = theirs == rest && kind(&other.why) == kind(&event.why);
            count += if goes_on { others } else { 0 };
            !goes_on
        });
        event.what = format!("{count}{rest}");
    } else if let Some(group) = filled(&event.what) {
        recent.retain(|other| filled(&other.what) != Some(group));
    }
    events.append(&mut recent);
    events.push_back(event);
    while events.len() > EVENT_COUNT_MAX {
        events.pop_front();
    }
}

fn is_of_moves(what: &str) -> bool {
    counted(what).is_some() || filled(what).is_some()
}

/// How many slots begin to move or stay, and where.
fn counted(what: &str) -> Option<(usize, &str)> {
    let at = [MOVES_BEGIN, MOVES_GIVEN_UP].into_iter().find_map(|text| what.find(text))?;
    Some((what[..at].parse().ok()?, &what[at..]))
}

/// A reason without the figures in it.
fn kind(why: &str) -> &str {
    why.split(|letter: char| letter.is_ascii_digit()).next().unwrap_or_default()
}

/// The group that has got all that was on the way to it.
fn filled(what: &str) -> Option<&str> {
    Some(what.strip_suffix(MOVES_END)?.rsplit_once(' ')?.0)
}

/// No longer than a reason may be, and on one line.
fn bounded(why: &str) -> String {
    let mut end = why.len().min(REASON_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why[..end].replace(['\r', '\n'], " ")
}

impl Topology {
    /// The event of an op that changed something. `before` knows nodes that the op removed.
    pub(super) fn event_of(&self, before: &Self, op: &MetaOp, outcome: &MetaOutcome, at: Timestamp) -> Option<Event> {
        let (what, why) = match op {
            MetaOp::Found(_) => ("the cluster was founded".to_owned(), ""),
            MetaOp::Join { node, .. } => (self.joined(before, *node, outcome), ""),
            MetaOp::UpdateAddress { node, info } => (self.readdressed(before, *node, info), ""),
            MetaOp::Forget { node } => (format!("{} left the cluster", before.name_of(*node)), ""),
            MetaOp::Place { group, remove, add, why, .. } => (before.placed(*group, *remove, *add), why.as_str()),
            MetaOp::Prefer { group, replica, why, .. } => {
                let node = self.group(*group).and_then(|info| info.replicas.get(replica)).copied()?;
                (format!("group {group} is to be led by {}", self.name_of(node)), why.as_str())
            }
            MetaOp::Keep { group, replica, instead, why, .. } => {
                let home = |replica| before.group(*group).and_then(|info| info.home_of(replica));
                let (stays, other) = (self.name_of(home(*replica)?), self.name_of(home(*instead)?));
                (format!("a replica of group {group} stays on {stays}, and none comes to {other}"), why.as_str())
            }
            MetaOp::Departed { group, replica } => {
                let node = before.group(*group).and_then(|info| info.departing.get(replica)).copied()?;
                (format!("group {group} has left {}", before.name_of(node)), "")
            }
            MetaOp::Absent { node, counted_ms, given_up } => {
                (self.absence_text(before, *node, *counted_ms, *given_up)?, "")
            }
            MetaOp::Drain { node, successor, .. } => {
                let name = self.name_of(*node);
                let what = match successor {
                    Some(new) => format!("{name} is to be replaced by {}", self.name_of(*new)),
                    None => format!("{name} is to leave the cluster"),
                };
                (what, "an operator asked for it")
            }
            MetaOp::Stay { node } => {
                (format!("{} is to stay after all", self.name_of(*node)), "an operator asked for it")
            }
            MetaOp::StartMoves { to, why, .. } => (self.started(before, *to), why.as_str()),
            MetaOp::CommitMove { .. } | MetaOp::ConfirmMove { .. } => return None,
            MetaOp::AbortMove { id, again } => self.given_up(*id, *again)?,
            MetaOp::FinishMove { id, .. } => (self.ended(before, *id)?, ""),
            MetaOp::MakeGroup { why, .. } => {
                let group = *self.groups.keys().next_back()?;
                (format!("group {group} is made, to be led by {}", self.leader_to_be(group)?), why.as_str())
            }
            MetaOp::Dissolve { group, why, .. } => (format!("group {group} is dissolved"), why.as_str()),
            MetaOp::RaiseLevel { level } => {
                (format!("entries are written at feature level {level}"), "every node's version knows it")
            }
            MetaOp::Led { node, groups, .. } => (self.led(*node, groups), ""),
            MetaOp::EvenSlots => ("slots are to be evened out".to_owned(), "an operator asked for it"),
            MetaOp::PauseRebalance => ("rebalancing is paused".to_owned(), "an operator asked for it"),
            MetaOp::ResumeRebalance => ("rebalancing goes on".to_owned(), "an operator asked for it"),
        };
        Some(Event { at, epoch: self.epoch, what, why: bounded(why) })
    }

    fn joined(&self, before: &Self, node: NodeId, outcome: &MetaOutcome) -> String {
        match outcome {
            MetaOutcome::Replaced { old, .. } => {
                format!(
                    "{} joined in the place of node {old}, which was at this address and did not answer",
                    self.name_of(node)
                )
            }
            _ => format!("{} joined, node {} of the cluster", self.name_of(node), before.nodes().len() + 1),
        }
    }

    fn readdressed(&self, before: &Self, node: NodeId, info: &NodeInfo) -> String {
        let (was, now) = (before.name_of(node), info.address());
        match before.node_at(&now).filter(|holder| *holder != node) {
            Some(holder) => format!("{was} is now at {now}, where node {holder} was, of which no address is known"),
            None => format!("{was} is now at {now}"),
        }
    }

    fn placed(&self, group: GroupId, remove: Option<ReplicaId>, add: Option<NodeId>) -> String {
        let home = |replica| self.group(group).and_then(|info| info.replicas.get(&replica)).copied();
        match (remove.and_then(home).map(|node| self.name_of(node)), add.map(|node| self.name_of(node))) {
            (Some(from), Some(to)) => format!("a replica of group {group} moves from {from} to {to}"),
            (None, Some(to)) => format!("group {group} gets a replica on {to}"),
            (Some(from), None) => format!("group {group} gives up its replica on {from}"),
            (None, None) => format!("group {group} stays where it is"),
        }
    }

    fn led(&self, node: NodeId, groups: &BTreeSet<GroupId>) -> String {
        let listed: Vec<String> = groups.iter().take(GROUPS_LISTED).map(GroupId::to_string).collect();
        let more = match groups.len().saturating_sub(GROUPS_LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (noun, verb) = if groups.len() == 1 { ("group", "is") } else { ("groups", "are") };
        let prefer = groups.iter().all(|group| self.preferred_node(*group) == Some(node));
        let remark = match (prefer, groups.len()) {
            (true, 1) => ", as it should be",
            (true, _) => ", as they should be",
            (false, _) => " for now",
        };
        format!("{noun} {}{more} {verb} led by {}{remark}", listed.join(", "), self.name_of(node))
    }

    fn leader_to_be(&self, group: GroupId) -> Option<String> {
        let info = self.group(group)?;
        Some(self.name_of(info.replicas[&info.preferred]))
    }

    fn started(&self, before: &Self, to: GroupId) -> String {
        let fresh: Vec<(MoveId, &Move)> = self.moves().filter(|(id, _)| *id >= before.next_move()).collect();
        let sources: BTreeSet<GroupId> = fresh.iter().map(|(_, moved)| moved.from).collect();
        let sources: Vec<String> = sources.iter().map(GroupId::to_string).collect();
        format!("{}{MOVES_BEGIN}group {} to group {to}", fresh.len(), sources.join(", "))
    }

    /// `None` for a move that begins anew, of which nobody needs to know.
    fn given_up(&self, id: MoveId, again: bool) -> Option<(String, &'static str)> {
        let moved = self.slot_move(id).filter(|moved| moved.state == MoveState::Aborted { again: false })?;
        let Move { from, to, .. } = moved;
        let why = if again { "no try came to its end" } else { "it was cancelled, or refused for good" };
        Some((format!("1{MOVES_GIVEN_UP}group {from}: moving to group {to} is given up"), why))
    }

    /// `None` until the last slot that was on the way to the group is there.
    fn ended(&self, before: &Self, id: MoveId) -> Option<String> {
        let to = before.slot_move(id)?.to;
        let is_last = !self.moves().any(|(_, other)| other.to == to);
        is_last.then(|| format!("group {to} has {}{MOVES_END}", self.slots_of(to).count()))
    }

    /// `None` for the notes between the first and the last, by which a new meta leader knows how long a node has been away.
    fn absence_text(&self, before: &Self, node: NodeId, counted_ms: u64, given_up: bool) -> Option<String> {
        let (name, known) = (self.name_of(node), before.absence_of(node));
        match (known, given_up) {
            (_, true) => Some(format!(
                "{name} has been away for {} s: its replicas are rebuilt elsewhere, if there is an elsewhere",
                counted_ms / 1000
            )),
            (Some(_), false) if counted_ms == 0 => Some(format!("{name} is back")),
            (None, false) => Some(format!("{name} is away: it has had no connection for {} s", counted_ms / 1000)),
            (Some(_), false) => None,
        }
    }

    /// For a plan, of which every step is told.
    pub fn forget_events(&mut self) {
        self.events.clear();
    }

    /// How an operator knows the node: its address, or its id if it is gone.
    pub fn name_of(&self, node: NodeId) -> String {
        self.node(node).map_or_else(|| format!("node {node}"), |info| info.address().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_that_go_on_between_the_same_groups_are_told_once_until_something_else_happens() {
        let mut events = VecDeque::new();
        let mut tell = |what: &str| {
            note(&mut events, Event { at: Timestamp(0), epoch: Epoch(0), what: what.to_owned(), why: String::new() });
            events.iter().map(|event| event.what.clone()).collect::<Vec<_>>()
        };
        for (count, to) in [(32, 1), (20, 2), (9, 1)] {
            tell(&format!("{count} slot(s) are to move from group 3 to group {to}"));
            tell(&format!("group {to} has {count} slots, and no more are on the way to it"));
        }
        let joined = [
            "20 slot(s) are to move from group 3 to group 2",
            "group 2 has 20 slots, and no more are on the way to it",
            "41 slot(s) are to move from group 3 to group 1",
            "group 1 has 9 slots, and no more are on the way to it",
        ];
        let (group_3, again) = ("group 3 is dissolved", "1 slot(s) are to move from group 3 to group 1");
        assert_eq!(tell(group_3), [&joined[..], &[group_3]].concat());
        assert_eq!(tell(again), [&joined[..], &[group_3, again]].concat());
        tell("1 slot(s) stay in group 3: moving to group 1 is given up");
        let told = tell("1 slot(s) stay in group 3: moving to group 1 is given up");
        assert_eq!(told.last().map(String::as_str), Some("2 slot(s) stay in group 3: moving to group 1 is given up"));
    }

    #[test]
    fn only_the_newest_events_are_kept_and_reasons_are_short_lines() {
        let mut events = VecDeque::new();
        for epoch in 0..300 {
            let why = bounded(&"a\nü".repeat(200));
            assert!(why.len() <= REASON_BYTES_MAX && !why.contains('\n'));
            note(&mut events, Event { at: Timestamp(0), epoch: Epoch(epoch), what: String::new(), why });
        }
        assert_eq!((events.len(), events[0].epoch), (EVENT_COUNT_MAX, Epoch(44)));
    }
}
