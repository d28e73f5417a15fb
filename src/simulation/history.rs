//! What clients did and were told, and whether one order of it all explains it.
//!
//! Clients append tokens that are never used twice and read whole values, so the final value of a key gives the order of its writes. That
//! makes linearizability (Herlihy and Wing 1990) cheap to check: a token that was acknowledged is there once, one that was refused is not
//! there, every read is a prefix of the final value, and no call sees less than a call that had ended before it began.

use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Tokens in the value that the call saw, its own included.
    Done,
    /// It did not happen, the client was told.
    Refused,
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub key: String,
    /// For an append.
    pub token: Option<String>,
    /// For a read that was answered, also one in the same turn behind an append.
    pub read: Option<String>,
    pub start_ms: u64,
    pub end_ms: u64,
    pub outcome: Outcome,
}

#[derive(Default)]
pub struct History(BTreeMap<String, Vec<Call>>);

impl History {
    pub fn record(&mut self, call: Call) {
        self.0.entry(call.key.clone()).or_default().push(call);
    }

    pub fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Tokens of the key's appends that were acknowledged.
    pub fn acknowledged(&self, key: &str) -> Vec<&str> {
        let done = self.0.get(key).into_iter().flatten().filter(|call| call.outcome == Outcome::Done);
        done.filter_map(|call| call.token.as_deref()).collect()
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        self.0.values().flatten().filter(|call| call.outcome == outcome).count()
    }

    /// `last` is what the key holds after everything.
    pub fn check(&self, key: &str, last: &str) -> Result<(), String> {
        let order: Vec<&str> = last.split_inclusive(';').collect();
        let mut places = BTreeMap::new();
        for (place, token) in order.iter().enumerate() {
            if places.insert(*token, place).is_some() {
                return Err(format!("{key}: {token} was applied twice"));
            }
        }
        let mut steps = Vec::new();
        for call in self.0.get(key).into_iter().flatten() {
            if let Some((before, after)) = span(key, call, last, &places)? {
                steps.push((call, before, after));
            }
        }
        in_real_time(key, steps)
    }
}

/// Tokens in the value before and after the call; `None` if it had no effect that anybody saw.
fn span(key: &str, call: &Call, last: &str, places: &BTreeMap<&str, usize>) -> Result<Option<(usize, usize)>, String> {
    if let Some(read) = &call.read
        && !last.starts_with(read.as_str())
    {
        return Err(format!("{key}: a read saw what was not there later: {call:?}, in the end {last}"));
    }
    let read = call.read.as_deref().map(|read| read.matches(';').count());
    let Some(token) = &call.token else {
        return Ok(read.map(|tokens| (tokens, tokens)));
    };
    match (places.get(token.as_str()), call.outcome) {
        (Some(_), Outcome::Refused) => Err(format!("{key}: was told that it did not happen, but it did: {call:?}")),
        (None, Outcome::Done) => Err(format!("{key}: acknowledged and lost: {call:?}, in the end {last}")),
        (Some(place), Outcome::Done) => {
            if read.is_some_and(|tokens| tokens <= *place) {
                return Err(format!("{key}: a read overtook its connection's write: {call:?}"));
            }
            Ok(Some((*place, read.unwrap_or(place + 1))))
        }
        (_, Outcome::Unknown | Outcome::Refused) => Ok(None),
    }
}

fn in_real_time(key: &str, mut steps: Vec<(&Call, usize, usize)>) -> Result<(), String> {
    let mut ended: Vec<(u64, usize, &Call)> =
        steps.iter().map(|(call, _, after)| (call.end_ms, *after, *call)).collect();
    ended.sort_by_key(|(end, ..)| *end);
    steps.sort_by_key(|(call, ..)| call.start_ms);
    let (mut seen, mut newest, mut next) = (0, None, 0);
    for (call, before, _) in steps {
        while next < ended.len() && ended[next].0 < call.start_ms {
            if ended[next].1 > seen {
                (seen, newest) = (ended[next].1, Some(ended[next].2));
            }
            next += 1;
        }
        if before < seen {
            return Err(format!("{key}: stale: {call:?} saw {before} tokens after {newest:?} had seen {seen}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(token: Option<&str>, read: Option<&str>, start_ms: u64, end_ms: u64, outcome: Outcome) -> Call {
        let (token, read) = (token.map(str::to_owned), read.map(str::to_owned));
        Call { key: "k".to_owned(), token, read, start_ms, end_ms, outcome }
    }

    fn check(calls: Vec<Call>, last: &str) -> Result<(), String> {
        let mut history = History::default();
        calls.into_iter().for_each(|call| history.record(call));
        history.check("k", last)
    }

    #[test]
    fn histories_that_one_order_explains_pass() {
        use Outcome::{Done, Refused, Unknown};
        let calls = vec![
            call(Some("a;"), None, 0, 10, Done),
            call(Some("b;"), None, 5, 12, Done),
            call(None, Some("b;"), 6, 8, Done),
            call(Some("c;"), None, 13, 20, Unknown),
            call(Some("d;"), None, 13, 20, Refused),
            call(None, Some("b;a;"), 21, 22, Done),
            call(Some("e;"), Some("b;a;c;e;"), 23, 25, Done),
        ];
        assert_eq!(check(calls, "b;a;c;e;"), Ok(()));
    }

    #[test]
    fn histories_that_none_explains_do_not() {
        use Outcome::{Done, Refused};
        let bad = [
            (vec![call(Some("a;"), None, 0, 1, Done)], "", "lost"),
            (vec![call(Some("a;"), None, 0, 1, Done)], "a;a;", "twice"),
            (vec![call(Some("a;"), None, 0, 1, Refused)], "a;", "did not happen"),
            (vec![call(None, Some("a;"), 0, 1, Done)], "b;", "not there later"),
            (vec![call(Some("a;"), None, 0, 1, Done), call(None, Some(""), 2, 3, Done)], "a;", "stale"),
            (vec![call(None, Some("a;"), 0, 1, Done), call(None, Some(""), 2, 3, Done)], "a;", "stale"),
            (vec![call(Some("a;"), None, 0, 1, Done), call(Some("b;"), None, 2, 3, Done)], "b;a;", "stale"),
            (vec![call(Some("a;"), Some(""), 0, 1, Done)], "a;", "overtook"),
        ];
        for (calls, last, expected) in bad {
            let error = check(calls, last).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
