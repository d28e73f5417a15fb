//! What comes first, and what does not keep the rest from its turn.

use super::*;
use crate::cluster::{MOVE_TRIES_MAX, MetaOp, fixture_topology};

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

/// Group A's view of moves, of the first `count` of its slots to B.
struct Stage {
    topology: Topology,
    held: BTreeMap<Slot, Held>,
    ended: BTreeMap<Slot, MoveId>,
    is_founded: bool,
    turns: Turns,
    now: Instant,
}

impl Stage {
    fn new(count: usize) -> Self {
        let mut topology = fixture_topology(3, 3, 3);
        let slots: BTreeSet<Slot> = topology.slots_of(A).take(count).collect();
        let (first, why) = (topology.next_move(), String::new());
        topology
            .apply(&MetaOp::StartMoves { first, to: B, slots: slots.clone(), why, by_hand: false })
            .expect("started");
        let held = slots.iter().map(|slot| (*slot, Held::Owned)).collect();
        let (turns, now) = (Turns::default(), Instant::now());
        Self { topology, held, ended: BTreeMap::new(), is_founded: true, turns, now }
    }

    fn ids(&self) -> Vec<MoveId> {
        self.topology.moves().map(|(id, _)| id).collect()
    }

    fn slot(&self, id: MoveId) -> Slot {
        self.topology.slot_move(id).expect("it is known").slot
    }

    fn freeze(&mut self, id: MoveId) {
        self.held.insert(self.slot(id), Held::Frozen { id });
    }

    fn end(&mut self, id: MoveId) {
        self.ended.insert(self.slot(id), id);
    }

    fn next(&mut self) -> Option<Work> {
        let view = View {
            topology: &self.topology,
            group: A,
            is_founded: self.is_founded,
            refuses_writes: false,
            held: &|slot| self.held.get(&slot).copied(),
            ended: &|slot| self.ended.get(&slot).copied().unwrap_or_default(),
        };
        self.turns.next(&view, self.now).map(|(work, _)| work)
    }

    fn all(&mut self) -> Vec<Work> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

#[test]
fn so_many_slots_are_sent_at_once_and_each_has_its_turn() {
    let mut stage = Stage::new(6);
    let ids = stage.ids();
    assert_eq!(stage.all(), ids[..SENT_AT_ONCE].iter().copied().map(Work::Send).collect::<Vec<_>>());
    // The first fails, and comes again after those that were not tried yet.
    stage.turns.ended(A, Work::Send(ids[0]));
    assert_eq!(stage.all(), [Work::Send(ids[4])]);
    stage.turns.ended(A, Work::Send(ids[1]));
    assert_eq!(stage.all(), [Work::Send(ids[5])]);
    stage.turns.ended(A, Work::Send(ids[2]));
    assert_eq!(stage.all(), [Work::Send(ids[0])]);
}

#[test]
fn a_frozen_slot_that_nobody_works_on_waits_for_none_that_are_sent() {
    let mut stage = Stage::new(300);
    let ids = stage.ids();
    assert_eq!(stage.all().len(), SENT_AT_ONCE);
    // One of an earlier leader's, behind all others; and one that is being sent here.
    stage.freeze(ids[299]);
    stage.freeze(ids[1]);
    assert_eq!(stage.all(), [Work::GiveUp(ids[299])]);
    // Its task ends without an outcome, the meta group being away: it comes again, and first.
    stage.turns.ended(A, Work::Send(ids[1]));
    assert_eq!(stage.all(), [Work::GiveUp(ids[1]), Work::Send(ids[4])]);
    stage.turns.ended(A, Work::GiveUp(ids[1]));
    stage.turns.ended(A, Work::Send(ids[2]));
    assert_eq!(stage.next(), Some(Work::GiveUp(ids[1])));
}

#[test]
fn what_the_meta_group_is_not_told_yet_keeps_no_outcome_from_being_logged() {
    let mut stage = Stage::new(40);
    let ids = stage.ids();
    for id in &ids[..30] {
        stage.topology.apply(&MetaOp::CommitMove { id: *id }).expect("committed");
        stage.freeze(*id);
        stage.end(*id);
    }
    let finishing = stage.all().into_iter().filter(|work| matches!(work, Work::Finish(..))).count();
    assert_eq!(finishing, SETTLED_AT_ONCE);
    stage.topology.apply(&MetaOp::CommitMove { id: ids[35] }).expect("committed");
    assert_eq!(stage.all(), [Work::Settle(ids[35])]);
    stage.turns.ended(A, Work::Settle(ids[35]));
    stage.end(ids[35]);
    assert_eq!(stage.all(), [], "it has its turn at the meta group after the others");
    stage.turns.ended(A, Work::Finish(ids[3], MoveEnd::Source));
    assert_eq!(stage.all(), [Work::Finish(ids[3], MoveEnd::Source)]);
}

#[test]
fn no_outcome_is_logged_before_the_group_has_its_founding_slots() {
    let mut stage = Stage::new(1);
    let id = stage.ids()[0];
    stage.topology.apply(&MetaOp::AbortMove { id, again: false }).expect("aborted");
    (stage.is_founded, stage.held) = (false, BTreeMap::new());
    assert_eq!(stage.all(), []);
    stage.is_founded = true;
    assert_eq!(stage.all(), [Work::Settle(id)]);
}

#[test]
fn a_move_that_has_failed_waits_longer_each_time_before_it_is_sent_again() {
    let mut stage = Stage::new(1);
    for tries in 0..MOVE_TRIES_MAX {
        let id = stage.ids()[0];
        stage.turns.forget(&stage.topology);
        let begun = stage.now;
        while stage.next() != Some(Work::Send(id)) {
            stage.now += Duration::from_millis(500);
        }
        let waited = (stage.now - begun).as_secs();
        assert_eq!(waited, [0, 1, 2, 4, 8, 16, 16, 16][tries as usize]);
        stage.turns.ended(A, Work::Send(id));
        stage.topology.apply(&MetaOp::AbortMove { id, again: true }).expect("aborted");
        for end in [MoveEnd::Source, MoveEnd::Target] {
            stage.topology.apply(&MetaOp::FinishMove { id, end }).expect("finished");
        }
    }
    assert_eq!(stage.ids(), []);
}
