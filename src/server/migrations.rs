//! Moves of slots that clients asked this node for by CLUSTER MIGRATESLOTS or CLUSTER MIGRATION IMPORT, each request a job that they can ask about.
//!
//! A job is looked at when somebody asks: what became of it is read off the topology. As in Valkey and Redis, jobs are kept in memory only, on
//! the node that was asked, and the oldest that are over go first. The moves themselves are the meta group's, and go on without their job.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::cluster::{GroupId, Move, MoveId, NodeId, Topology};
use crate::slot::{KeySlot, Slot};

/// As many as Valkey keeps unless told otherwise. Those that are over go first.
const JOB_COUNT_MAX: usize = 1000;
/// A move that was started is shown by the topology known here within this time.
const SEEN_WAIT_MS_MAX: i64 = 5000;

/// Key slots, both ends included.
pub type KeySlotRange = (KeySlot, KeySlot);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// 40 hex digits.
    pub id: String,
    /// As they were asked for.
    pub ranges: Vec<KeySlotRange>,
    /// Where their slots go.
    pub slots: BTreeMap<GroupId, BTreeSet<Slot>>,
    /// Ids that the moves begun for the job may have, each at its first try.
    pub moves: BTreeSet<MoveId>,
    pub source: NodeId,
    pub target: NodeId,
    pub created: Timestamp,
    /// When it was last seen to have come further.
    pub updated: Timestamp,
    /// Slots that are not there.
    pub left: usize,
    pub state: MigrationState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationState {
    Active,
    Done,
    Cancelled,
    /// Moves were given up, or slots went on to other groups before anybody asked.
    Failed,
}

/// Oldest first.
#[derive(Debug, Default)]
pub struct Migrations(Mutex<VecDeque<Migration>>);

impl Migration {
    pub fn slot_count(&self) -> usize {
        self.slots.values().map(BTreeSet::len).sum()
    }

    pub fn covers(&self, key_slot: KeySlot) -> bool {
        self.ranges.iter().any(|(first, last)| (first..=last).contains(&&key_slot))
    }

    /// Not only a move of one of its slots: others may have begun another since, which is none of the job's.
    pub fn has_begun(&self, moved: &Move) -> bool {
        let goes_there = self.slots.get(&moved.to).is_some_and(|slots| slots.contains(&moved.slot));
        goes_there && self.moves.contains(&moved.origin)
    }

    fn look(&mut self, topology: &Topology, now: Timestamp) {
        if self.state != MigrationState::Active {
            return;
        }
        let all = self.slots.iter().flat_map(|(to, slots)| slots.iter().map(|slot| (*to, *slot)));
        let left: Vec<(GroupId, Slot)> = all.filter(|(to, slot)| topology.group_of(*slot) != *to).collect();
        let is_open = left.iter().all(|(to, slot)| topology.destination_of(*slot) == *to);
        let is_young = now.as_ms().saturating_sub(self.created.as_ms()) < SEEN_WAIT_MS_MAX;
        let state = match left.len() {
            0 => MigrationState::Done,
            _ if is_open || is_young => MigrationState::Active,
            _ => MigrationState::Failed,
        };
        if (state, left.len()) != (self.state, self.left) {
            (self.state, self.left, self.updated) = (state, left.len(), now);
        }
    }
}

impl Migrations {
    pub fn note(&self, migration: Migration, topology: &Topology, now: Timestamp) {
        let mut jobs = self.0.lock();
        jobs.iter_mut().for_each(|job| job.look(topology, now));
        jobs.push_back(migration);
        if jobs.len() > JOB_COUNT_MAX {
            let over = jobs.iter().position(|job| job.state != MigrationState::Active);
            jobs.remove(over.unwrap_or(0));
        }
    }

    /// All of them, as they are now.
    pub fn look(&self, topology: &Topology, now: Timestamp) -> Vec<Migration> {
        let mut jobs = self.0.lock();
        jobs.iter_mut().for_each(|job| job.look(topology, now));
        jobs.iter().cloned().collect()
    }

    /// After the moves of these jobs were given up: those that had not come to their end before count as cancelled.
    pub fn note_cancelled(&self, ids: &BTreeSet<String>, topology: &Topology, now: Timestamp) {
        let mut jobs = self.0.lock();
        for job in jobs.iter_mut().filter(|job| ids.contains(&job.id)) {
            job.look(topology, now);
            if matches!(job.state, MigrationState::Active | MigrationState::Failed) {
                (job.state, job.updated) = (MigrationState::Cancelled, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{MetaOp, MoveEnd, fixture_node, fixture_topology};

    const NOW: Timestamp = Timestamp(1_000_000);
    const LATER: Timestamp = Timestamp(1_000_000 + SEEN_WAIT_MS_MAX);

    /// Two slots of group 1, which go to group 2.
    fn job(topology: &Topology, id: &str) -> Migration {
        let slots: BTreeSet<Slot> = topology.slots_of(GroupId(1)).take(2).collect();
        Migration {
            id: id.to_owned(),
            ranges: slots.iter().map(|slot| slot.key_slot_bounds()).collect(),
            slots: [(GroupId(2), slots)].into(),
            moves: BTreeSet::new(),
            source: fixture_node(1),
            target: fixture_node(2),
            created: NOW,
            updated: NOW,
            left: 2,
            state: MigrationState::Active,
        }
    }

    fn start(topology: &mut Topology) -> [MoveId; 2] {
        let (first, slots) = (topology.next_move(), job(topology, "").slots[&GroupId(2)].clone());
        topology
            .apply(&MetaOp::StartMoves { first, to: GroupId(2), slots, why: String::new(), by_hand: true })
            .unwrap();
        [first, MoveId(first.0 + 1)]
    }

    fn seen(jobs: &Migrations, topology: &Topology, now: Timestamp) -> (MigrationState, usize, Timestamp) {
        let job = jobs.look(topology, now).pop().unwrap();
        (job.state, job.left, job.updated)
    }

    #[test]
    fn a_job_is_done_when_all_its_slots_are_there_and_stays_so() {
        let mut topology = fixture_topology(3, 3, 3);
        let jobs = Migrations::default();
        jobs.note(job(&topology, "a"), &topology, NOW);
        assert_eq!(seen(&jobs, &topology, NOW), (MigrationState::Active, 2, NOW), "the topology here is behind");
        let [one, other] = start(&mut topology);
        topology.apply(&MetaOp::CommitMove { id: one }).unwrap();
        assert_eq!(seen(&jobs, &topology, LATER), (MigrationState::Active, 1, LATER));
        topology.apply(&MetaOp::AbortMove { id: other, again: true }).unwrap();
        assert_eq!(seen(&jobs, &topology, LATER).0, MigrationState::Active, "it is tried again");
        for end in [MoveEnd::Source, MoveEnd::Target] {
            topology.apply(&MetaOp::FinishMove { id: other, end }).unwrap();
        }
        topology.apply(&MetaOp::CommitMove { id: MoveId(other.0 + 1) }).unwrap();
        assert_eq!(seen(&jobs, &topology, LATER), (MigrationState::Done, 0, LATER));
        assert_eq!(seen(&jobs, &fixture_topology(3, 3, 3), LATER), (MigrationState::Done, 0, LATER));
    }

    #[test]
    fn a_job_whose_moves_are_given_up_has_failed_unless_it_was_cancelled() {
        let mut topology = fixture_topology(3, 3, 3);
        let jobs = Migrations::default();
        jobs.note(job(&topology, "a"), &topology, NOW);
        jobs.note(job(&topology, "b"), &topology, NOW);
        for id in start(&mut topology) {
            topology.apply(&MetaOp::AbortMove { id, again: false }).unwrap();
        }
        jobs.note_cancelled(&["a".to_owned()].into(), &topology, LATER);
        let states: Vec<MigrationState> = jobs.look(&topology, LATER).iter().map(|job| job.state).collect();
        assert_eq!(states, [MigrationState::Cancelled, MigrationState::Failed]);
    }

    #[test]
    fn a_job_has_begun_its_own_moves_at_each_try_and_none_that_others_begin_of_its_slots_since() {
        let mut topology = fixture_topology(3, 3, 3);
        let moves: [MoveId; 2] = start(&mut topology);
        let job = Migration { moves: moves.into(), ..job(&fixture_topology(3, 3, 3), "a") };
        let own = |topology: &Topology| topology.moves().filter(|(_, moved)| job.has_begun(moved)).count();
        let end = |topology: &mut Topology, again| {
            for id in topology.moves().map(|(id, _)| id).collect::<Vec<_>>() {
                topology.apply(&MetaOp::AbortMove { id, again }).unwrap();
                for end in [MoveEnd::Source, MoveEnd::Target] {
                    topology.apply(&MetaOp::FinishMove { id, end }).unwrap();
                }
            }
        };
        assert_eq!(own(&topology), 2);
        end(&mut topology, true);
        assert!(own(&topology) == 2 && topology.slot_move(moves[0]).is_none(), "another try under other ids");
        end(&mut topology, false);
        start(&mut topology);
        end(&mut topology, true);
        assert_eq!((own(&topology), topology.moves().count()), (0, 2));
    }

    #[test]
    fn the_oldest_jobs_that_are_over_are_forgotten_first() {
        let topology = fixture_topology(3, 3, 3);
        let jobs = Migrations::default();
        jobs.note(job(&topology, "active"), &topology, NOW);
        for number in 0..JOB_COUNT_MAX {
            let state = MigrationState::Done;
            jobs.note(Migration { state, ..job(&topology, &number.to_string()) }, &topology, NOW);
        }
        let ids: Vec<String> = jobs.look(&topology, NOW).into_iter().map(|job| job.id).collect();
        assert_eq!((ids.len(), ids[0].as_str(), ids[1].as_str()), (JOB_COUNT_MAX, "active", "1"));
    }
}
