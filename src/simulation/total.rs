//! What runs came to, added up over all tests of the process.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use parking_lot::Mutex;

use crate::simulation::scenario::{DRAWN, Scenario};
use crate::simulation::world::{Report, run};

static ALL: Mutex<Total> = Mutex::new(Total::none());

#[derive(Debug)]
pub struct Total {
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
    faults: BTreeMap<String, u64>,
    sent_crc32: u32,
    violations: u64,
}

/// Panics if an invariant does not hold, and says how to see it again.
pub fn check(seed: u64, scenario: Scenario) -> Report {
    let outcome = run(seed, scenario);
    let mut all = ALL.lock();
    all.seeds += 1;
    match outcome {
        Ok(report) => {
            all.add(&report);
            report
        }
        Err(error) => {
            all.violations += 1;
            drop(all);
            let script = if scenario.name == DRAWN { "" } else { scenario.name };
            panic!("{error}\nagain: tests/simulate --seed {seed} {script}");
        }
    }
}

/// A run of another process.
#[cfg(tokio_unstable)]
pub fn add(report: &Report) {
    let mut all = ALL.lock();
    all.seeds += 1;
    all.add(report);
}

/// All of this process so far: what the last test to end prints is the sum.
pub fn print() {
    println!("{}", ALL.lock());
}

impl Total {
    const fn none() -> Self {
        Self {
            seeds: 0,
            steps: 0,
            done: 0,
            refused: 0,
            unknown: 0,
            entries_applied: 0,
            leaderships: 0,
            snapshots: 0,
            installs: 0,
            compared: 0,
            faults: BTreeMap::new(),
            sent_crc32: 0,
            violations: 0,
        }
    }

    fn add(&mut self, report: &Report) {
        let Report { steps, done, refused, unknown, applied, leaderships, .. } = report;
        let Report { snapshots, installs, compared, faults, sent_crc32, .. } = report;
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
            *self.faults.entry(fault.clone()).or_default() += count;
        }
    }
}

impl Display for Total {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { seeds, steps, done, refused, unknown, entries_applied, leaderships, .. } = self;
        let Self { snapshots, installs, compared, faults, sent_crc32, violations, .. } = self;
        writeln!(out, "\nsimulation, so far: {seeds} seeds, {steps} steps of 1 ms, bytes sent {sent_crc32:08x}")?;
        writeln!(out, "  faults: {}", faults.values().sum::<u64>())?;
        faults.iter().try_for_each(|(fault, count)| writeln!(out, "  {count:9} {fault}"))?;
        let checked = done + refused + unknown;
        writeln!(out, "  operations checked: {checked} ({done} done, {refused} refused, {unknown} unknown)")?;
        writeln!(out, "  entries applied: {entries_applied}, leaderships: {leaderships}")?;
        writeln!(out, "  snapshots: {snapshots}, installed: {installs}, replicas compared: {compared}")?;
        writeln!(out, "  violations: {violations}")
    }
}
