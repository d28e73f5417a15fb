//! Is there one order of a key's calls, each at one instant between its start and its end, in which every answer is right?
//!
//! Wing and Gong's search in Lowe's just-in-time form. It walks the starts and ends in order of time and holds every state that the
//! key can be in (`Config`). When a call ends, each state must be able to reach one in which the call has taken effect, through
//! calls that are open at that moment; a history is wrong where no state is left. Memory is that of the states, so a history can be
//! followed piece by piece.
//!
//! A call of unknown outcome stays open for ever: it may still take effect, or never. Three things keep the number of states small: of
//! two that are equal otherwise, the one that has used fewer of these calls is kept, since it can do all that the other can; of calls
//! that do the same, the oldest goes first; and as most never show in any answer, the search first does without those (`Scope`).

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::history::{Answer, Call, Op, Outcome, Value, shown_value};

const CLIENTS_MAX: usize = 64;
const UNKNOWN_MAX: usize = 64;
/// States tried in one walk; more is given up, and the key counts as undecided.
const STATES_MAX: usize = 500_000;
/// Calls shown before the one that cannot be placed.
const SHOWN_CALLS: usize = 16;

/// One state that the key can be in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Config {
    value: Value,
    /// Clients whose open call has taken effect.
    taken: u64,
    /// Calls of unknown outcome that have taken effect.
    used: u64,
}

#[derive(Debug)]
pub enum Failure {
    /// No order of the calls explains the answers.
    Violation(String),
    /// Too many possibilities to say.
    Undecided(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(text) => write!(out, "not linearizable\n{text}"),
            Self::Undecided(text) => write!(out, "undecided: {text}"),
        }
    }
}

/// Follows one key.
pub struct Checker {
    states: Vec<Config>,
    unknown: Vec<Op>,
}

impl Default for Checker {
    /// A key that does not exist.
    fn default() -> Self {
        Self { states: vec![Config { value: None, taken: 0, used: 0 }], unknown: Vec::new() }
    }
}

/// Calls of unknown outcome that a walk considers. Fewer can only make it fail, so a walk that succeeds is right with any.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// Those whose value shows in an answer.
    Shown,
    /// Those that write no value of their own, too.
    WithoutValue,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Start,
    End,
}

impl Checker {
    /// Goes on with calls that all started after those given before had ended.
    pub fn follow(&mut self, calls: &[Call]) -> Result<(), Failure> {
        let edges = edges(calls);
        let mut tried = Ok(());
        for scope in [Scope::Shown, Scope::WithoutValue, Scope::All] {
            let mut walk = Walk { states: self.states.clone(), unknown: self.unknown.clone(), considered: 0, tried: 0 };
            tried = walk.follow(calls, &edges, scope);
            match tried {
                Ok(()) => {
                    (self.states, self.unknown) = (walk.states, walk.unknown);
                    break;
                }
                Err(Failure::Undecided(_)) => break,
                Err(Failure::Violation(_)) => {}
            }
        }
        tried
    }
}

/// Starts and ends in order; of one instant, starts come first: the calls overlap.
fn edges(calls: &[Call]) -> Vec<(Edge, &Call)> {
    let mut edges = Vec::new();
    for call in calls {
        assert!(call.client < CLIENTS_MAX, "a client has a bit");
        // A read that nobody heard is none.
        let may_change = matches!(call.outcome, Outcome::Unknown(_)) && !call.op.changes_nothing();
        if matches!(call.outcome, Outcome::Ok(_)) || may_change {
            edges.push((call.start, Edge::Start, call));
        }
        if matches!(call.outcome, Outcome::Ok(_)) {
            edges.push((call.end, Edge::End, call));
        }
    }
    edges.sort_by_key(|(time, edge, _)| (*time, *edge));
    edges.into_iter().map(|(_, edge, call)| (edge, call)).collect()
}

/// One attempt to follow one piece of a history.
struct Walk {
    states: Vec<Config>,
    unknown: Vec<Op>,
    /// Bits of `unknown` that the scope allows.
    considered: u64,
    tried: usize,
}

impl Walk {
    fn follow(&mut self, calls: &[Call], edges: &[(Edge, &Call)], scope: Scope) -> Result<(), Failure> {
        for (index, op) in self.unknown.iter().enumerate().filter(|(_, op)| scope.covers(op, calls)) {
            assert!(!op.changes_nothing(), "reads are left out");
            self.considered |= bit(index);
        }
        let mut open: Vec<&Call> = Vec::new();
        for (edge, call) in edges {
            match (edge, &call.outcome) {
                (Edge::Start, Outcome::Ok(_)) => open.push(call),
                (Edge::Start, _) if self.unknown.len() == UNKNOWN_MAX => {
                    return Err(Failure::Undecided(format!("more than {UNKNOWN_MAX} calls of unknown outcome")));
                }
                (Edge::Start, _) => {
                    if scope.covers(&call.op, calls) {
                        self.considered |= bit(self.unknown.len());
                    }
                    self.unknown.push(call.op.clone());
                }
                (Edge::End, _) => {
                    self.end(call, &open).map_err(|failure| failure.with_calls(calls, call))?;
                    open.retain(|other| other.client != call.client);
                }
            }
        }
        Ok(())
    }

    /// Keeps the states in which `call` has taken effect.
    fn end(&mut self, call: &Call, open: &[&Call]) -> Result<(), Failure> {
        let mut seen: HashMap<(Value, u64), Vec<u64>> = HashMap::new();
        let mut left = Vec::new();
        // Fewest used first, so that a state meets those that can do all it can before itself.
        let mut to_try: BTreeSet<(u32, Config)> = BTreeSet::new();
        to_try.extend(self.states.iter().map(|state| (state.used.count_ones(), state.clone())));
        while let Some((_, state)) = to_try.pop_first() {
            let mut state = state.with_calls_of_no_effect(open);
            let known = seen.entry((state.value.clone(), state.taken)).or_default();
            if known.iter().any(|used| used & state.used == *used) {
                continue;
            }
            known.push(state.used);
            self.tried += 1;
            if self.tried > STATES_MAX {
                return Err(Failure::Undecided(format!("more than {STATES_MAX} states")));
            }
            if state.taken & bit(call.client) != 0 {
                state.taken &= !bit(call.client);
                left.push(state);
                continue;
            }
            to_try.extend(self.steps(&state, open).map(|state| (state.used.count_ones(), state)));
        }
        if left.is_empty() {
            let values: BTreeSet<String> = self.states.iter().map(|state| shown_value(&state.value)).collect();
            let values = values.into_iter().take(SHOWN_CALLS).collect::<Vec<_>>().join(", ");
            return Err(Failure::Violation(format!("possible before, open calls apart: {values}")));
        }
        self.states = left;
        Ok(())
    }

    /// Every state that one more open call leads to.
    fn steps<'a>(&'a self, state: &'a Config, open: &'a [&Call]) -> impl Iterator<Item = Config> + 'a {
        let answered = open.iter().filter_map(|call| state.take(call));
        let left = (0..self.unknown.len()).filter(move |index| self.considered & !state.used & bit(*index) != 0);
        let unknown = left.filter_map(move |index| {
            let op = &self.unknown[index];
            // Of calls that do the same, the oldest: it is there whenever the others are.
            let twin = self.unknown[..index].iter().rposition(|other| other == op);
            let is_oldest = twin.is_none_or(|twin| state.used & bit(twin) != 0);
            let (_, value) = op.apply(&state.value).filter(|_| is_oldest)?;
            Some(Config { value, taken: state.taken, used: state.used | bit(index) })
        });
        answered.chain(unknown)
    }
}

impl Scope {
    fn covers(self, op: &Op, calls: &[Call]) -> bool {
        match op {
            Op::Set(value) | Op::SetNx(value) | Op::Append(value) | Op::SetRange(value) | Op::GetSet(value) => {
                self == Self::All || is_shown(value, calls)
            }
            Op::Get | Op::Del | Op::GetDel | Op::Incr | Op::IncrByFloat | Op::Expire => self != Self::Shown,
        }
    }
}

/// A number also shows in the larger ones that INCR makes of it.
fn is_shown(value: &[u8], calls: &[Call]) -> bool {
    let zeros = value.iter().rev().take_while(|byte| **byte == b'0').count();
    let stem = &value[..value.len() - zeros];
    let shows = |text: &[u8]| text.windows(stem.len().max(1)).any(|part| part == stem);
    calls.iter().any(|call| match &call.outcome {
        Outcome::Ok(Answer::Value(Some(text))) => shows(text),
        Outcome::Ok(Answer::Number(number)) => call.op == Op::Incr && shows(number.to_string().as_bytes()),
        Outcome::Ok(Answer::Done | Answer::Refused | Answer::Value(None)) => false,
        Outcome::NotDone(_) | Outcome::Unknown(_) => false,
    })
}

impl Config {
    fn take(&self, call: &Call) -> Option<Self> {
        let (answer, value) = call.op.apply(&self.value).filter(|_| self.taken & bit(call.client) == 0)?;
        let is_right = matches!(&call.outcome, Outcome::Ok(told) if *told == answer);
        is_right.then_some(Self { value, taken: self.taken | bit(call.client), used: self.used })
    }

    /// A call that by its answer changed nothing may as well happen where that answer is right: nothing later depends on it.
    fn with_calls_of_no_effect(mut self, open: &[&Call]) -> Self {
        for call in open.iter().filter(|call| has_no_effect(call)) {
            self = self.take(call).unwrap_or(self);
        }
        self
    }
}

impl Failure {
    /// Shows the calls that matter: those just before the one that cannot be placed, and those beside it.
    fn with_calls(self, calls: &[Call], failed: &Call) -> Self {
        let Self::Violation(text) = self else { return self };
        let matters = |call: &&Call| call.start <= failed.end && !matches!(call.outcome, Outcome::NotDone(_));
        let mut near: Vec<&Call> = calls.iter().filter(matters).collect();
        near.sort_by_key(|call| call.end);
        let from = near.len().saturating_sub(SHOWN_CALLS);
        let unknown = near[..from].iter().filter(|call| matches!(call.outcome, Outcome::Unknown(_)));
        let shown = unknown.chain(&near[from..]).map(|call| call.to_string()).collect::<Vec<_>>().join("\n");
        Self::Violation(format!("{shown}\ncannot be placed:\n{failed}\n{text}"))
    }
}

/// Whatever the state. A SET that finds its own value already there is not meant: later it could overwrite another.
fn has_no_effect(call: &Call) -> bool {
    match (&call.op, &call.outcome) {
        (Op::SetNx(_), Outcome::Ok(Answer::Refused)) | (Op::Del, Outcome::Ok(Answer::Number(0))) => true,
        (Op::GetDel, Outcome::Ok(Answer::Value(None))) => true,
        (op, _) => op.changes_nothing(),
    }
}

fn bit(index: usize) -> u64 {
    1 << index
}
