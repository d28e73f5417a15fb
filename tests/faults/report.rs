//! What a run came to: a table by kind of fault, and the reasons why it fails or does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::clients::CLIENTS;
use super::history::{Answer, Call, Op, Outcome};
use super::linearizable::Failure;
use super::schedule::Fault;

/// More unknown outcomes would leave too much that nobody can be blamed for.
const UNKNOWN_PERCENT_MAX: usize = 5;
/// Keys whose history has too many orders to try them all.
const UNDECIDED_PERCENT_MAX: usize = 1;
/// Fewer answers around one fault would mean that clients were not really there.
const OK_PER_FAULT_MIN: usize = 200;
/// Of a planned stop. A node closes the connections of clients that are silent, or will not leave, and a request may be on its way to it just then:
/// the node never reads it, and no answer can follow the end of a connection. About one stop in twenty meets one among these clients.
const CROSSED_MAX: usize = 2;
const VIOLATIONS_SHOWN: usize = 3;

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
    violations: usize,
}

#[derive(Default)]
pub struct Report {
    rows: BTreeMap<Fault, Row>,
    keys: usize,
    keys_without_change: usize,
    /// Too many calls of unknown outcome at a time, and so too many orders to try.
    undecided: usize,
    pub violations: Vec<String>,
    /// Why the run does not count, or fails for another reason than a violation.
    pub troubles: Vec<String>,
}

impl Report {
    /// What clients did around one fault.
    pub fn add(&mut self, fault: Fault, calls: &[(Arc<str>, Call)]) {
        let row = self.rows.entry(fault).or_default();
        row.faults += 1;
        let mut ok = 0;
        for (_, call) in calls {
            match call.outcome {
                Outcome::Ok(_) => ok += 1,
                Outcome::NotDone(_) => row.refused += 1,
                Outcome::Unknown(error) => {
                    row.unknown += 1;
                    match error {
                        _ if !fault.is_planned() => (),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => row.crossed += 1,
                        _ => row.unanswered.push(call.to_string()),
                    }
                }
            }
            row.longest_request = row.longest_request.max(call.end - call.asked);
        }
        row.ok += ok;
        row.longest_gap = row.longest_gap.max(longest_gap(calls));
        if ok < OK_PER_FAULT_MIN {
            self.troubles.push(format!("{fault:?}: only {ok} answers"));
        }
        let keys: BTreeSet<&Arc<str>> = calls.iter().map(|(key, _)| key).collect();
        self.keys += keys.len();
        self.keys_without_change += keys.iter().filter(|key| !has_changed_leader(calls, key)).count();
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
        let mut objections: Vec<String> = self.violations.iter().take(VIOLATIONS_SHOWN).cloned().collect();
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
        objections
    }
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

fn has_changed_leader(calls: &[(Arc<str>, Call)], key: &str) -> bool {
    let answered = calls.iter().filter(|(other, call)| &**other == key && matches!(call.outcome, Outcome::Ok(_)));
    answered.map(|(_, call)| call.node).collect::<BTreeSet<_>>().len() > 1
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["fault", "times", "ok", "refused", "unknown", "gap ms", "request ms", "violations"];
        let [fault, times, ok, refused, unknown, gap, request, violations] = titles;
        let mut line = |cells: [String; 8]| {
            let [fault, rest @ ..] = cells;
            writeln!(out, "{fault:<26} {}", rest.map(|cell| format!("{cell:>10}")).join(" "))
        };
        line([fault, times, ok, refused, unknown, gap, request, violations].map(str::to_owned))?;
        let mut total = Row::default();
        let cells = |name: String, row: &Row| {
            let counts = [row.faults, row.ok, row.refused, row.unknown].map(|count| count.to_string());
            let [times, ok, refused, unknown] = counts;
            let [gap, request] = [row.longest_gap, row.longest_request].map(|time| time.as_millis().to_string());
            [name, times, ok, refused, unknown, gap, request, row.violations.to_string()]
        };
        for (fault, row) in &self.rows {
            line(cells(format!("{fault:?}"), row))?;
            total.faults += row.faults;
            total.ok += row.ok;
            total.refused += row.refused;
            total.unknown += row.unknown;
            total.longest_gap = total.longest_gap.max(row.longest_gap);
            total.longest_request = total.longest_request.max(row.longest_request);
            total.violations += row.violations;
        }
        line(cells("all".to_owned(), &total))?;
        let (keys, without, undecided) = (self.keys, self.keys_without_change, self.undecided);
        write!(out, "{keys} keys, {without} of them without a change of leader, {undecided} undecided")
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
    report.add(fault, &calls);
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
    let still = round(&[1], Fault::Nothing, 0, ErrorKind::TimedOut).objections();
    assert_eq!(still, ["1 of 1 keys saw no change of leader: too little was tried"]);
    let mut report = Report::default();
    report.add(Fault::KillAll, &[]);
    assert_eq!(report.objections(), ["KillAll: only 0 answers"]);
    report.add_failure(Fault::KillAll, "key", Failure::Violation("text".to_owned()));
    assert_eq!(report.objections()[0], "KillAll, key: not linearizable\ntext");
}
