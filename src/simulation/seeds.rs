//! Many seeds, and the same seed again.

use std::collections::BTreeMap;
#[cfg(tokio_unstable)]
use std::process::Command;
use std::time::{Duration, Instant};

use crate::admin;
use crate::config::Config;
use crate::simulation::growth::GROWTH;
use crate::simulation::scenario::Scenario;
use crate::simulation::scripts::SCRIPTS;
use crate::simulation::world::{Report, run};

/// Run every time. Without tokio's seed and the simulation's build profile, as in a plain `cargo test`, one is
/// enough to see that it works.
const FIXED_SEEDS: u64 = if cfg!(tokio_unstable) { 20 } else { 1 };
/// Of each script.
const SCRIPT_SEEDS: u64 = 2;

/// `tests/simulate` sets `KVORUM_SIMULATION_SEED` for that seed alone, or `KVORUM_SIMULATION_SECONDS` for fresh ones as well.
#[test]
fn no_seed_breaks_an_invariant() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let mut total = Total::default();
    if let Some(seed) = number("KVORUM_SIMULATION_SEED") {
        let Config { log_level, log_format, .. } = Config::default();
        admin::init_logging(log_level, log_format);
        total.add(seed, Scenario::of_seed(seed));
        return println!("{total:?}");
    }
    (1..=FIXED_SEEDS).for_each(|seed| total.add(seed, Scenario::of_seed(seed)));
    if cfg!(tokio_unstable) {
        SCRIPTS.into_iter().for_each(|script| (1..=SCRIPT_SEEDS).for_each(|seed| total.add(seed, script)));
    }
    let until = Instant::now() + Duration::from_secs(number("KVORUM_SIMULATION_SECONDS").unwrap_or(0));
    while Instant::now() < until {
        let seed = crate::random::draw_u64() >> 16;
        total.add(seed, Scenario::of_seed(seed));
    }
    println!("{total:#?}");
}

/// `KVORUM_SIMULATION_GROWTH` sets the first of ten seeds, instead of the one that is run each time.
#[test]
fn nodes_come_and_go_while_others_fail() {
    let first = std::env::var("KVORUM_SIMULATION_GROWTH").ok().map(|text| text.parse::<u64>().expect("a number"));
    let mut total = Total::default();
    let seeds = first.map_or(1..2, |first| first..first + 10);
    seeds.for_each(|seed| total.add(seed, GROWTH));
    println!("{total:#?}");
}

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    steps: u64,
    done: usize,
    refused: usize,
    unknown: usize,
    entries_applied: u64,
    leaderships: usize,
    snapshots: u64,
    installs: u64,
    compared: u64,
    faults: BTreeMap<&'static str, u64>,
    sent_crc32: u32,
}

impl Total {
    fn add(&mut self, seed: u64, scenario: Scenario) {
        self.note(run(seed, scenario).unwrap_or_else(|error| {
            panic!("{error}\nagain: tests/simulate --seed {seed}");
        }));
    }

    fn note(&mut self, report: Report) {
        let Report {
            steps,
            done,
            refused,
            unknown,
            applied,
            leaderships,
            snapshots,
            installs,
            compared,
            faults,
            sent_crc32,
        } = report;
        self.seeds += 1;
        self.steps += steps;
        self.done += done;
        self.refused += refused;
        self.unknown += unknown;
        self.entries_applied += applied;
        self.leaderships += leaderships;
        self.snapshots += snapshots;
        self.installs += installs;
        self.compared += compared;
        self.sent_crc32 ^= sent_crc32;
        for (fault, count) in faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

/// Only so can a failing seed be looked at again, which is done in a process of its own: about one seed in ten does not go the same way after
/// another in one process, for a reason that is not known.
#[test]
#[cfg(tokio_unstable)]
fn a_seed_gives_the_same_run_each_time() {
    let total = || {
        let mut again = Command::new(std::env::current_exe().expect("this program"));
        again.args(["--exact", "simulation::seeds::no_seed_breaks_an_invariant", "--nocapture"]);
        let output = again.env("KVORUM_SIMULATION_SEED", "7").output().expect("runs");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().find(|line| line.starts_with("Total {")).expect("it came to its end").to_owned()
    };
    assert_eq!(total(), total());
}
