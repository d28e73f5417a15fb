//! Many seeds, and the same seed again.

use std::collections::BTreeSet;
#[cfg(tokio_unstable)]
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::admin;
use crate::config::Config;
use crate::simulation::growth::GROWTH;
use crate::simulation::scenario::{DRAWN, Scenario};
use crate::simulation::scripts::SCRIPTS;
use crate::simulation::total::{check, print};

/// Run every time. Without tokio's seed and the simulation's build profile, as in a plain `cargo test`, one is
/// enough to see that it works. Ten have every kind of `Scenario::of_seed`; fresh ones find more than further fixed ones.
const FIXED_SEEDS: u64 = if cfg!(tokio_unstable) { 10 } else { 1 };

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Whether the seed is run anyhow.
#[cfg(tokio_unstable)]
pub fn is_fixed(seed: u64, scenario: Scenario) -> bool {
    let drawn = scenario.name == DRAWN && seed <= FIXED_SEEDS && Scenario::of_seed(seed).fsync == scenario.fsync;
    drawn || (scenario.name != DRAWN && seed == 1)
}

/// `tests/simulate` sets `KVORUM_SIMULATION_SEED` for that seed alone, of the script that `KVORUM_SIMULATION_SCRIPT` names if one is.
#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = number("KVORUM_SIMULATION_SEED") {
        let Config { log_level, log_format, .. } = Config::default();
        admin::init_logging(log_level, log_format);
        let script = std::env::var("KVORUM_SIMULATION_SCRIPT").unwrap_or_default();
        let named = SCRIPTS.into_iter().find(|scenario| scenario.name == script);
        assert!(named.is_some() || script.is_empty(), "no script is named {script}");
        let report = check(seed, named.unwrap_or(Scenario::of_seed(seed)));
        return println!("{report:?}");
    }
    (1..=FIXED_SEEDS).for_each(|seed| drop(check(seed, Scenario::of_seed(seed))));
    print();
}

/// For as long as `KVORUM_SIMULATION_SECONDS` says.
#[test]
fn no_fresh_seed_breaks_an_invariant() {
    let until = Instant::now() + Duration::from_secs(number("KVORUM_SIMULATION_SECONDS").unwrap_or(0));
    while Instant::now() < until {
        let seed = crate::random::draw_u64() >> 16;
        check(seed, Scenario::of_seed(seed));
    }
    print();
}

#[test]
#[cfg(tokio_unstable)]
fn no_script_breaks_an_invariant() {
    // Growth has a test of its own.
    SCRIPTS.into_iter().filter(|script| script.name != GROWTH.name).for_each(|script| drop(check(1, script)));
    print();
}

/// `KVORUM_SIMULATION_GROWTH` sets the first of ten seeds, instead of the one that is run each time.
#[test]
fn nodes_come_and_go_while_others_fail() {
    let seeds = number("KVORUM_SIMULATION_GROWTH").map_or(1..2, |first| first..first + 10);
    seeds.for_each(|seed| drop(check(seed, GROWTH)));
    print();
}

#[test]
fn every_script_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = SCRIPTS.iter().map(|scenario| scenario.name).collect();
    assert!(names.len() == SCRIPTS.len() && !names.contains(DRAWN), "{names:?}");
}

/// Only so can a failing seed be looked at again, which is done in a process of its own: about one seed in ten does not go the same way after
/// another in one process, for a reason that is not known.
#[test]
#[cfg(tokio_unstable)]
fn a_seed_gives_the_same_run_each_time() {
    let start = || {
        let mut again = Command::new(std::env::current_exe().expect("this program"));
        again.args(["--exact", "simulation::seeds::no_seed_breaks_an_invariant", "--nocapture"]);
        again.env("KVORUM_SIMULATION_SEED", "7").env_remove("KVORUM_SIMULATION_SCRIPT");
        again.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs")
    };
    let [first, second] = [start(), start()].map(|run| {
        let output = run.wait_with_output().expect("ends");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().find(|line| line.starts_with("Report {")).expect("it came to its end").to_owned()
    });
    assert_eq!(first, second);
}
