//! The simulation finds what it is for: each planted bug within a few seeds, by the check that is for it, and nothing in the same seed without the bug.

use std::collections::BTreeSet;

use crate::planted::{Bug, plant};
use crate::simulation::member_scripts::MEMBER_CRASHES;
use crate::simulation::move_scripts::MOVE_CRASHES;
use crate::simulation::scenario::Scenario;
use crate::simulation::scripts::{
    DEAF_TRANSFERS, EVERY_SECOND, FIGURE_EIGHT, LONE_LEADER, LOSS_OF_ALL, LOST_LEASE, QUICK_RESTARTS, READ_INDEX,
    SOLE_VOTERS, WIPE,
};
use crate::simulation::seeds::{alone, is_fixed, print_report, report_of, seed_asked_for, text_of};
use crate::simulation::total::{add, print};
use crate::simulation::world::{Report, run};

const SEEDS_MAX: u64 = 40;

const DRAWN: Scenario = Scenario::drawn();
/// A clock that is ahead makes a node ask the log whether a key has expired, and no more.
const LATE_CLOCKS: Scenario = Scenario { late_clocks: true, ..DRAWN };

/// Of a lease.
const TWO_LEASES: &str = "two leases: ";
const EXPIRED: &str = ", which has minutes to live";
/// Of a history, behind the key.
const LOST: &str = ": acknowledged and lost: ";
const NOT_THERE_LATER: &str = ": a read saw what was not there later: ";
const HAPPENED: &str = ": was told that it did not happen, but it did: ";
const TWICE: &str = " was applied twice";
const OVERTOOK: &str = ": a read overtook its connection's write: ";
const STALE: &str = ": stale: ";
/// Of replicas.
const OTHER_ENTRY: &str = " where (LogId";
const OTHER_STATE: &str = " holds (";
const AMONG_ANOTHERS: &str = " are among another's";
/// openraft's own check, of a candidate whose term is older than its log.
const VOTE_BEHIND_LOG: &str = "must GE last_leader_log_ids";
/// openraft's own check, of a follower that lacks what it acknowledged.
const LOG_REVERSION: &str = "follower log reversion is not allowed";
const OTHER_TOPOLOGY: &str = " has another topology of epoch ";
/// Of a slot.
const TWO_OWNERS: &str = " is served by group ";
const NOT_OVER: &str = " that was disturbed at ";
const NOT_FINISHED: &str = "moves are not over, ";
const OTHER_OWNER: &str = "; the topology names group ";
/// What every node says of a topology that names a replica on a node that is not there.
const NO_HOME: &str = "ReplicaWithoutNode(";
/// Of a member.
const GIVEN_UP: &str = ", and the topology has given it up";

struct Row {
    bug: Bug,
    /// What brings it out. A bug that takes several faults in a row at the right moments has a script of its own.
    scenario: Scenario,
    /// The seed that is tried first: it found the bug when last looked at.
    first: u64,
    /// § What the check that is for it says, one of them. Any other error may be of the bug, but does not show that it would be found.
    found: &'static [&'static str],
}

const fn row(bug: Bug, scenario: Scenario, first: u64, found: &'static [&'static str]) -> Row {
    Row { bug, scenario, first, found }
}

const BUGS: &[Row] = &[
    row(Bug::AcknowledgeBeforeQuorum, LONE_LEADER, 1, &[LOST, NOT_THERE_LATER, AMONG_ANOTHERS, OTHER_ENTRY]),
    row(Bug::AcknowledgeBeforeSync, DRAWN, 1, &[LOST, OTHER_ENTRY, AMONG_ANOTHERS, LOG_REVERSION]),
    row(Bug::EverySecondIsForgotten, EVERY_SECOND, 7, &[" is gone, acknowledged at "]),
    row(Bug::LeaseWithoutMargin, DRAWN, 5, &[TWO_LEASES]),
    row(Bug::LeaseWithoutEnd, DRAWN, 5, &[TWO_LEASES]),
    row(Bug::ReadIndexWithoutQuorum, READ_INDEX, 1, &[STALE]),
    row(Bug::LeaseKeptAcrossTransfer, DEAF_TRANSFERS, 1, &[TWO_LEASES]),
    row(Bug::RestartForgetsVote, DRAWN, 15, &[LOST, OTHER_ENTRY, AMONG_ANOTHERS, VOTE_BEHIND_LOG]),
    row(Bug::NoWaitAfterRestart, LOST_LEASE, 1, &[TWO_LEASES]),
    row(Bug::LostLeadershipIsRefused, DRAWN, 18, &[HAPPENED, TWICE]),
    row(Bug::TruncatedIsRefused, FIGURE_EIGHT, 3, &[HAPPENED, TWICE]),
    // Not by what its other part breaks: a leader that goes on in its term may write another entry at a place.
    row(Bug::PendingKeyWithoutNonce, QUICK_RESTARTS, 3, &[LOST, TWICE, HAPPENED]),
    row(Bug::FormerLeadershipOpens, SOLE_VOTERS, 2, &[LOST, EXPIRED]),
    row(Bug::PositionWithoutOpNumber, DRAWN, 1, &[OVERTOOK, LOST]),
    row(Bug::SnapshotAheadOfLog, LOSS_OF_ALL, 34, &[OTHER_STATE]),
    row(Bug::ExpiryByLocalClock, LATE_CLOCKS, 9, &[EXPIRED]),
    row(Bug::ReadOvertakesWrite, DRAWN, 1, &[OVERTOOK]),
    row(Bug::WipedNodeFounds, WIPE, 1, &[OTHER_TOPOLOGY]),
    row(Bug::ServeBeforeCommitted, MOVE_CRASHES, 1, &[TWO_OWNERS]),
    row(Bug::UnfreezeUnasked, MOVE_CRASHES, 1, &[TWO_OWNERS, NOT_OVER, LOST]),
    row(Bug::FreezeStopsNothing, DRAWN, 1, &[TWO_OWNERS]),
    row(Bug::LateStepCounts, DRAWN, 1, &[NOT_FINISHED, OTHER_OWNER]),
    row(Bug::DepartsWithVote, MEMBER_CRASHES, 1, &[GIVEN_UP]),
    row(Bug::ForgottenWithReplicas, MEMBER_CRASHES, 1, &[NO_HOME]),
];

/// Before what a run broke, for the process that has started it.
const BROKEN: &str = "broken ";
/// Whether the named bug is planted in the process that `KVORUM_SIMULATION_SEED` is given to.
const PLANTED: &str = "KVORUM_SIMULATION_PLANTED";

#[test]
fn every_planted_bug_is_found() {
    if let Some(seed) = seed_asked_for() {
        return run_alone(seed);
    }
    let (mut missed, mut clean) = (Vec::new(), BTreeSet::new());
    for row @ Row { bug, scenario, first, .. } in chosen() {
        let mut seeds = (*first..=SEEDS_MAX).chain(1..*first);
        match seeds.find(|seed| is_found(row, *seed)) {
            // § Only what the bug's absence mends is found by its presence.
            Some(seed) if clean.insert((scenario.name, scenario.late_clocks, seed)) && !is_fixed(seed, *scenario) => {
                let mended = outcome(row, seed, false);
                add(&mended.unwrap_or_else(|error| panic!("without {bug:?} as well: {error}")));
            }
            Some(_) => (),
            None => missed.push(bug),
        }
    }
    print();
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}

fn is_found(row: &Row, seed: u64) -> bool {
    let Err(error) = outcome(row, seed, true) else { return false };
    let is_found = row.found.iter().any(|text| error.contains(text));
    let verdict = if is_found { "found" } else { "an error of another kind" };
    println!("{:?}: {verdict}: {}", row.bug, error.chars().take(200).collect::<String>());
    is_found
}

/// Of the row's scenario from this seed, with the bug or without. In a process of its own, so that the row's first seed goes the same way each time.
fn outcome(row: &Row, seed: u64, planted: bool) -> Result<Report, String> {
    let mut alone = alone("planted_bugs::every_planted_bug_is_found", seed);
    alone.env("KVORUM_SIMULATION_BUG", format!("{:?}", row.bug)).env(PLANTED, u8::from(planted).to_string());
    let output = alone.output().expect("runs");
    report_of(&output).ok_or_else(|| {
        let text = text_of(&output);
        text.lines().find_map(|line| line.strip_prefix(BROKEN)).unwrap_or(&text).to_owned()
    })
}

fn run_alone(seed: u64) {
    let Row { bug, scenario, .. } = chosen().next().expect("a bug of the list is named");
    let is_planted = std::env::var(PLANTED).is_ok_and(|text| text == "1");
    plant(is_planted.then_some(*bug));
    match run(seed, *scenario) {
        Ok(report) => print_report(&report),
        Err(error) => println!("\n{BROKEN}{}", error.replace('\n', " ")),
    }
}

fn chosen() -> impl Iterator<Item = &'static Row> {
    let named = std::env::var("KVORUM_SIMULATION_BUG").ok();
    BUGS.iter().filter(move |row| named.as_ref().is_none_or(|named| *named == format!("{:?}", row.bug)))
}
