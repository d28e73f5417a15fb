//! The simulation finds what it is for: each planted bug within a few seeds.

use crate::planted::{Bug, plant};
use crate::simulation::scenario::Scenario;
use crate::simulation::scripts::{
    DEAF_TRANSFERS, EVERY_SECOND, FIGURE_EIGHT, LOSS_OF_ALL, LOST_LEASE, MOVE_CRASHES, QUICK_RESTARTS, WIPE,
};
use crate::simulation::world::run;

const SEEDS_MAX: u64 = 40;

const DRAWN: Scenario = Scenario::drawn();

/// Each with the scenario that brings it out. One that takes several faults in a row at the right moments has a scenario of its own.
const BUGS: &[(Bug, Scenario)] = &[
    (Bug::AcknowledgeBeforeQuorum, DRAWN),
    (Bug::AcknowledgeBeforeSync, DRAWN),
    (Bug::EverySecondIsForgotten, EVERY_SECOND),
    (Bug::LeaseWithoutMargin, DRAWN),
    (Bug::LeaseWithoutEnd, DRAWN),
    (Bug::LeaseKeptAcrossTransfer, DEAF_TRANSFERS),
    (Bug::RestartForgetsVote, DRAWN),
    (Bug::NoWaitAfterRestart, LOST_LEASE),
    (Bug::LostLeadershipIsRefused, DRAWN),
    (Bug::TruncatedIsRefused, FIGURE_EIGHT),
    (Bug::PendingKeyWithoutNonce, QUICK_RESTARTS),
    (Bug::PositionWithoutOpNumber, DRAWN),
    (Bug::SnapshotAheadOfLog, LOSS_OF_ALL),
    (Bug::ExpiryByLocalClock, DRAWN),
    (Bug::ReadOvertakesWrite, DRAWN),
    (Bug::WipedNodeFounds, WIPE),
    (Bug::ServeBeforeCommitted, MOVE_CRASHES),
    (Bug::UnfreezeUnasked, MOVE_CRASHES),
    (Bug::FreezeStopsNothing, DRAWN),
];

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for (bug, scenario) in chosen() {
        plant(Some(bug));
        let found = (1..=SEEDS_MAX).find_map(|seed| run(seed, scenario).err());
        plant(None);
        match found {
            Some(error) => println!("{bug:?}: {}", error.chars().take(200).collect::<String>()),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}

fn chosen() -> Vec<(Bug, Scenario)> {
    let named = std::env::var("KVORUM_SIMULATION_BUG").ok();
    BUGS.iter().copied().filter(|(bug, _)| named.as_ref().is_none_or(|named| *named == format!("{bug:?}"))).collect()
}
