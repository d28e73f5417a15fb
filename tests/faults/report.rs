//! What a run came to: a table by kind of fault, and the reasons why it fails or does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::clients::CLIENTS;
use super::history::{Answer, Call, Op, Outcome};
use super::linearizable::Failure;
use super::moves::Moves;
use super::schedule::Fault;
use crate::host::{STOLEN_PERCENT_MAX, VIOLATION};

/// More unknown outcomes would leave too much that nobody can be blamed for.
const UNKNOWN_PERCENT_MAX: usize = 5;
/// Keys whose history has too many orders to try them all.
const UNDECIDED_PERCENT_MAX: usize = 1;
/// Of a fault's keys, slots that were not moved in its time.
const UNMOVED_PERCENT_MAX: usize = 10;
/// Fewer answers around one fault would mean that clients were not really there.
const OK_PER_FAULT_MIN: usize = 200;
/// Of a planned stop. A node closes the connections of clients that are silent, or will not leave, and a request may be on its way to it just then:
/// the node never reads it, and no answer can follow the end of a connection. About one stop in twenty meets one among these clients.
const CROSSED_MAX: usize = 2;
const VIOLATIONS_SHOWN: usize = 3;
/// From here on a run is a proof, with so many faults, and so many of each kind.
const LONG_SECONDS: u64 = 1800;
const FAULTS_MIN: usize = 150;
const TIMES_MIN: usize = 8;
/// The gap is the longest time that a client had no answer, the request the longest that one of them waited, parked or not.
const COLUMNS: [&str; 10] = [
    "                     fault",
    "times",
    "ok",
    "refused",
    "unknown",
    "gap ms",
    "request ms",
    "moved",
    "undone",
    "violations",
];
const CELL_WIDTH: usize = 8;

#[derive(Default)]
struct Row {
    faults: usize,
    ok: usize,
    refused: usize,
    unknown: usize,
    /// Requests of a planned stop that reached a connection which the node had closed: it is reset then.
    crossed: usize,
    /// Other requests of a planned stop without an answer.
    unanswered: Vec<String>,
    /// From a client's last success to its next.
    longest_gap: Duration,
    /// From the first attempt to the answer or the lack of one.
    longest_request: Duration,
    moves: Moves,
    violations: usize,
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.faults += other.faults;
        self.ok += other.ok;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        self.longest_request = self.longest_request.max(other.longest_request);
        self.moves.add(other.moves);
        self.violations += other.violations;
    }
}

#[derive(Default)]
pub struct Report {
    rows: BTreeMap<Fault, Row>,
    keys: usize,
    keys_without_change: usize,
    /// Of hot keys, in the time of one fault.
    pub slots_unmoved: usize,
    /// Too many calls of unknown outcome at a time, and so too many orders to try.
    undecided: usize,
    /// Installed, by all nodes.
    pub snapshots: usize,
    /// Times that a fourth node came, and left.
    pub joined: usize,
    pub left: usize,
    pub violations: Vec<String>,
    /// How long it was to be.
    pub seconds: u64,
    /// Why the run does not count, or fails for another reason than a violation.
    pub troubles: Vec<String>,
}

impl Report {
    /// What clients did around one fault, in the time of which the host took so much of the processor.
    pub fn add(
        &mut self,
        fault: Fault,
        calls: &[(Arc<str>, Call)],
        has_changed_leader: impl Fn(&str) -> bool,
        moves: Moves,
        stolen_percent: u64,
    ) {
        let is_starved = stolen_percent > STOLEN_PERCENT_MAX;
        if is_starved {
            println!(
                "          the host took {stolen_percent} % of the processor: clients' time-outs are not held against the nodes"
            );
        }
        let row = self.rows.entry(fault).or_default();
        row.faults += 1;
        row.moves.add(moves);
        let mut ok = 0;
        for (_, call) in calls {
            match call.outcome {
                Outcome::Ok(_) => ok += 1,
                Outcome::NotDone(_) => row.refused += 1,
                Outcome::Unknown(error) => {
                    row.unknown += 1;
                    match error {
                        _ if !fault.is_planned() => (),
                        // The client's own time-out. That a node has closed a connection counts all the same.
                        ErrorKind::WouldBlock | ErrorKind::TimedOut if is_starved => (),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => row.crossed += 1,
                        _ => row.unanswered.push(call.to_string()),
                    }
                }
            }
            row.longest_request = row.longest_request.max(call.end - call.asked);
        }
        row.ok += ok;
        row.longest_gap = row.longest_gap.max(longest_gap(calls));
        if ok < OK_PER_FAULT_MIN && !is_starved {
            self.troubles.push(format!("{fault:?}: only {ok} answers"));
        }
        let keys: BTreeSet<&Arc<str>> = calls.iter().map(|(key, _)| key).collect();
        self.keys += keys.len();
        self.keys_without_change += keys.iter().filter(|key| !has_changed_leader(key)).count();
    }

    pub fn add_failure(&mut self, fault: Fault, key: &str, failure: Failure) {
        let text = format!("{fault:?}, {key}: {failure}");
        match failure {
            Failure::Violation(_) => {
                self.rows.entry(fault).or_default().violations += 1;
                self.violations.push(text);
            }
            Failure::Undecided(_) => {
                self.undecided += 1;
                println!("{text}");
            }
        }
    }

    pub fn longest_request(&self, fault: Fault) -> Duration {
        self.rows.get(&fault).map_or(Duration::ZERO, |row| row.longest_request)
    }

    /// What an operator does on purpose must cost no client an answer.
    pub fn unanswered(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for (fault, row) in &self.rows {
            texts.extend(row.unanswered.iter().map(|call| format!("{fault:?}: no answer to {call}")));
            let excused = if *fault == Fault::Transfers { 0 } else { CROSSED_MAX + row.faults };
            if row.crossed > excused {
                texts.push(format!("{fault:?}: {} requests met the end of their connections", row.crossed));
            }
        }
        texts
    }

    /// Everything that is wrong, one text each; a run that must pass has none.
    pub fn objections(&self) -> Vec<String> {
        let sum = |count: fn(&Row) -> usize| self.rows.values().map(count).sum::<usize>();
        let (all, unknown) = (sum(|row| row.ok + row.refused + row.unknown), sum(|row| row.unknown));
        let mut objections: Vec<String> =
            self.violations.iter().take(VIOLATIONS_SHOWN).map(|text| format!("{VIOLATION}{text}")).collect();
        objections.extend(self.troubles.iter().cloned());
        objections.extend(self.unanswered());
        if unknown * 100 > all * UNKNOWN_PERCENT_MAX {
            objections.push(format!("{unknown} of {all} outcomes are unknown"));
        }
        if self.undecided > 1 + self.keys * UNDECIDED_PERCENT_MAX / 100 {
            objections.push(format!("{} of {} keys are undecided", self.undecided, self.keys));
        }
        if self.keys_without_change > 0 {
            let (without, keys) = (self.keys_without_change, self.keys);
            objections.push(format!("{without} of {keys} keys saw no change of leader: too little was tried"));
        }
        if self.slots_unmoved * 100 > self.keys * UNMOVED_PERCENT_MAX {
            let (unmoved, keys) = (self.slots_unmoved, self.keys);
            objections.push(format!("{unmoved} slots of {keys} keys were not moved: too little was tried"));
        }
        // A run of this length is to have tried everything often.
        if self.seconds >= LONG_SECONDS {
            let rare = self.rows.iter().filter(|(_, row)| row.faults < TIMES_MIN);
            objections.extend(rare.map(|(fault, row)| format!("{fault:?}: only {} times", row.faults)));
            if sum(|row| row.faults) < FAULTS_MIN {
                objections.push(format!("only {} faults", sum(|row| row.faults)));
            }
        }
        // So long a run has the time for these, too.
        let all_came = Fault::ALL.iter().all(|kind| self.rows.contains_key(kind));
        if all_came && (self.snapshots == 0 || self.left == 0) {
            let Self { snapshots, left, .. } = self;
            objections
                .push(format!("{snapshots} snapshots installed, {left} nodes came and left: too little was tried"));
        }
        objections
    }
}

fn cells(name: &str, row: &Row) -> [String; COLUMNS.len()] {
    let [times, ok, refused, unknown] = [row.faults, row.ok, row.refused, row.unknown].map(|count| count.to_string());
    let [gap, request] = [row.longest_gap, row.longest_request].map(|time| time.as_millis().to_string());
    let [moved, undone, violations] = [row.moves.done, row.moves.undone, row.violations].map(|count| count.to_string());
    [name.to_owned(), times, ok, refused, unknown, gap, request, moved, undone, violations]
}

fn longest_gap(calls: &[(Arc<str>, Call)]) -> Duration {
    let mut ends = vec![Vec::new(); CLIENTS];
    for (_, call) in calls.iter().filter(|(_, call)| matches!(call.outcome, Outcome::Ok(_))) {
        ends[call.client].push(call.end);
    }
    ends.iter_mut().for_each(|ends| ends.sort());
    let gaps = ends.iter().flat_map(|ends| ends.windows(2).map(|pair| pair[1] - pair[0]));
    gaps.max().unwrap_or_default()
}

/// Two nodes have answered for it; where slots do not move, that takes an election.
pub fn has_two_leaders(calls: &[(Arc<str>, Call)], key: &str) -> bool {
    let answered = calls.iter().filter(|(other, call)| &**other == key && matches!(call.outcome, Outcome::Ok(_)));
    answered.map(|(_, call)| call.node).collect::<BTreeSet<_>>().len() > 1
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |cells: [String; COLUMNS.len()]| {
            let padded = cells.iter().zip(COLUMNS).map(|(cell, title)| {
                let width = title.len().max(CELL_WIDTH);
                format!("{cell:>width$}")
            });
            writeln!(out, "{}", padded.collect::<Vec<_>>().join(" "))
        };
        line(COLUMNS.map(|title| title.trim().to_owned()))?;
        let mut total = Row::default();
        for (fault, row) in &self.rows {
            line(cells(&format!("{fault:?}"), row))?;
            total.add(row);
        }
        line(cells("all", &total))?;
        let Self { keys, keys_without_change, slots_unmoved, undecided, snapshots, joined, left, .. } = self;
        writeln!(
            out,
            "{keys} keys: {keys_without_change} without a change of leader, {slots_unmoved} slots not moved, {undecided} undecided"
        )?;
        write!(out, "{snapshots} snapshots installed, {joined} nodes joined, {left} left")
    }
}

fn round(nodes: &[usize], fault: Fault, unknown: usize, error: ErrorKind) -> Report {
    let call = |index: usize, outcome: Outcome| {
        let start = Duration::from_millis(index as u64);
        let node = nodes[index % nodes.len()];
        (Arc::from("key"), Call { client: 0, op: Op::Del, asked: start, start, end: start, outcome, node })
    };
    let mut calls: Vec<_> = (0..1_000).map(|index| call(index, Outcome::Ok(Answer::Number(0)))).collect();
    calls.extend((0..unknown).map(|index| call(index, Outcome::Unknown(error))));
    let mut report = Report::default();
    report.add(fault, &calls, |key| has_two_leaders(&calls, key), Moves::default(), 0);
    report
}

#[test]
fn a_run_counts_only_if_enough_was_tried_and_little_is_unknown() {
    let unplanned = |unknown| round(&[0, 1], Fault::Nothing, unknown, ErrorKind::TimedOut).objections();
    assert_eq!(unplanned(52), Vec::<String>::new());
    assert_eq!(unplanned(53), ["53 of 1053 outcomes are unknown"]);
    let planned = |unknown, error| round(&[0, 1], Fault::RestartLeader, unknown, error).objections();
    assert_eq!(planned(CROSSED_MAX + 1, ErrorKind::ConnectionReset), Vec::<String>::new());
    let met = ["RestartLeader: 4 requests met the end of their connections"];
    assert_eq!(planned(CROSSED_MAX + 2, ErrorKind::ConnectionReset), met);
    // The node had read it.
    assert!(planned(1, ErrorKind::UnexpectedEof)[0].starts_with("RestartLeader: no answer to "));
    let mut unmoved = round(&[0, 1], Fault::Nothing, 0, ErrorKind::TimedOut);
    unmoved.slots_unmoved = 1;
    assert_eq!(unmoved.objections(), ["1 slots of 1 keys were not moved: too little was tried"]);
    let still = round(&[1], Fault::Nothing, 0, ErrorKind::TimedOut).objections();
    assert_eq!(still, ["1 of 1 keys saw no change of leader: too little was tried"]);
    let mut report = Report::default();
    report.add(Fault::KillAll, &[], |_| true, Moves::default(), 0);
    assert_eq!(report.objections(), ["KillAll: only 0 answers"]);
    report.add_failure(Fault::KillAll, "key", Failure::Violation("text".to_owned()));
    assert_eq!(report.objections()[0], "VIOLATION: KillAll, key: not linearizable\ntext");
}

#[test]
fn a_run_of_all_kinds_counts_only_with_a_snapshot_and_a_node_that_came_and_left() {
    let mut report = Report { rows: Fault::ALL.map(|kind| (kind, Row::default())).into(), ..Report::default() };
    assert_eq!(report.objections(), ["0 snapshots installed, 0 nodes came and left: too little was tried"]);
    (report.snapshots, report.left) = (1, 1);
    assert_eq!(report.objections(), Vec::<String>::new());
    let table = report.to_string();
    let mut widths: Vec<usize> = table.lines().map(str::len).collect();
    widths.truncate(Fault::ALL.len() + 2);
    assert!(widths.iter().all(|width| *width == widths[0]), "a column is too narrow\n{table}");
}
