//! The simulation finds what it is for: each planted bug within a few seeds.

use crate::planted::{Bug, plant};
use crate::simulation::world::run;

const SEEDS_MAX: u64 = 40;
const MS: u64 = 15_000;

const BUGS: &[Bug] = &[
    Bug::AcknowledgeBeforeQuorum,
    Bug::AcknowledgeBeforeSync,
    Bug::LeaseWithoutMargin,
    Bug::LeaseWithoutEnd,
    Bug::LeaseKeptAcrossTransfer,
    Bug::RestartForgetsVote,
    Bug::LostLeadershipIsRefused,
    Bug::PositionWithoutOpNumber,
    Bug::ExpiryByLocalClock,
    Bug::ReadOvertakesWrite,
];

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for bug in chosen() {
        plant(Some(bug));
        let found = (1..=SEEDS_MAX).find_map(|seed| run(seed, MS).err());
        plant(None);
        match found {
            Some(error) => println!("{bug:?}: {}", error.chars().take(200).collect::<String>()),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
}

fn chosen() -> Vec<Bug> {
    let named = std::env::var("KVORUM_SIMULATION_BUG").ok();
    BUGS.iter().copied().filter(|bug| named.as_ref().is_none_or(|named| *named == format!("{bug:?}"))).collect()
}
