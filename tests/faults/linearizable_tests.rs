//! The checker on histories known to be good and known to be bad, and beside a search of all orders.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::history::{Answer, Call, Op, Outcome, Value};
use super::linearizable::{Checker, Failure};
use super::random::Random;

fn value(text: &str) -> Value {
    Some(text.as_bytes().into())
}

fn set(text: &str) -> Op {
    Op::Set(text.as_bytes().into())
}

fn append(text: &str) -> Op {
    Op::Append(text.as_bytes().into())
}

fn done() -> Outcome {
    Outcome::Ok(Answer::Done)
}

fn number(number: i64) -> Outcome {
    Outcome::Ok(Answer::Number(number))
}

fn read(text: &str) -> Outcome {
    Outcome::Ok(Answer::Value(value(text)))
}

fn read_nothing() -> Outcome {
    Outcome::Ok(Answer::Value(None))
}

fn unknown() -> Outcome {
    Outcome::Unknown(ErrorKind::TimedOut)
}

fn not_done() -> Outcome {
    Outcome::NotDone("CLUSTERDOWN".to_owned())
}

/// Each row is its own client: start, end, op, outcome.
fn history(rows: &[(u64, u64, Op, Outcome)]) -> Vec<Call> {
    let call = |(client, (start, end, op, outcome)): (usize, &(u64, u64, Op, Outcome))| Call {
        client,
        op: op.clone(),
        asked: Duration::from_millis(*start),
        start: Duration::from_millis(*start),
        end: Duration::from_millis(*end),
        outcome: outcome.clone(),
        node: 0,
    };
    rows.iter().enumerate().map(call).collect()
}

#[track_caller]
fn check(is_good: bool, rows: &[(u64, u64, Op, Outcome)]) {
    match Checker::default().follow(&history(rows)) {
        Ok(()) => assert!(is_good, "a bad history passed"),
        Err(Failure::Violation(text)) => assert!(!is_good, "a good history failed: {text}"),
        Err(Failure::Undecided(text)) => panic!("{text}"),
    }
}

#[test]
fn a_read_between_two_writes_may_see_only_what_could_be_there() {
    check(true, &[(0, 1, set("a"), done()), (2, 3, Op::Get, read("a"))]);
    // Concurrent with the write: before or after it.
    check(true, &[(0, 1, set("a"), done()), (2, 9, set("b"), done()), (3, 4, Op::Get, read("a"))]);
    check(true, &[(0, 1, set("a"), done()), (2, 9, set("b"), done()), (3, 4, Op::Get, read("b"))]);
    // Touching instants overlap.
    check(true, &[(0, 1, set("a"), done()), (1, 2, Op::Get, read_nothing())]);
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::Get, read("b"))]);
}

#[test]
fn a_stale_read_is_found() {
    check(false, &[(0, 1, set("a"), done()), (2, 3, set("b"), done()), (4, 5, Op::Get, read("a"))]);
    // Two reads during one write see it come and go.
    let flips = [(3, 4, Op::Get, read("b")), (5, 6, Op::Get, read("a"))];
    check(false, &[vec![(0, 1, set("a"), done()), (2, 9, set("b"), done())], flips.to_vec()].concat());
}

#[test]
fn a_lost_write_is_found() {
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::Get, read_nothing())]);
    check(false, &[(0, 1, append("a"), number(1)), (2, 3, append("b"), number(1))]);
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::SetNx(b"b"[..].into()), done())]);
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::Del, number(0))]);
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::GetDel, read_nothing())]);
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::Expire, number(0))]);
    check(
        true,
        &[(0, 1, set("abc"), done()), (2, 3, Op::SetRange(b"x"[..].into()), number(3)), (4, 5, Op::Get, read("xbc"))],
    );
    check(
        false,
        &[(0, 1, set("abc"), done()), (2, 3, Op::SetRange(b"x"[..].into()), number(3)), (4, 5, Op::Get, read("x"))],
    );
}

#[test]
fn a_lost_update_is_found() {
    check(true, &[(0, 5, Op::Incr, number(2)), (1, 6, Op::Incr, number(1)), (7, 8, Op::Get, read("2"))]);
    check(false, &[(0, 5, Op::Incr, number(1)), (1, 6, Op::Incr, number(1))]);
    check(false, &[(0, 5, Op::IncrByFloat, read("1")), (1, 6, Op::Incr, number(1))]);
    check(
        false,
        &[(0, 5, Op::GetSet(b"a"[..].into()), read_nothing()), (1, 6, Op::GetSet(b"b"[..].into()), read_nothing())],
    );
    check(false, &[(0, 5, Op::Incr, number(1)), (1, 6, Op::Incr, number(2)), (7, 8, Op::Get, read("1"))]);
}

#[test]
fn an_effect_that_comes_twice_is_found() {
    check(false, &[(0, 1, Op::Incr, number(2))]);
    check(false, &[(0, 1, append("a"), number(1)), (2, 3, Op::Get, read("aa"))]);
    check(false, &[(0, 1, append("a"), unknown()), (2, 3, Op::Get, read("a")), (4, 5, Op::Get, read("aa"))]);
    // A deleted value comes back.
    check(false, &[(0, 1, set("a"), done()), (2, 3, Op::Del, number(1)), (4, 5, Op::Get, read("a"))]);
}

#[test]
fn what_was_refused_must_not_have_happened() {
    check(true, &[(0, 1, set("a"), not_done()), (2, 3, Op::Get, read_nothing())]);
    check(false, &[(0, 1, set("a"), not_done()), (2, 3, Op::Get, read("a"))]);
    check(false, &[(0, 1, Op::Incr, not_done()), (2, 3, Op::Incr, number(2))]);
}

#[test]
fn an_unknown_outcome_may_show_late_or_never() {
    let lost = (0, 1, set("a"), unknown());
    check(true, &[lost.clone(), (2, 3, Op::Get, read_nothing())]);
    check(true, &[lost.clone(), (2, 3, Op::Get, read_nothing()), (4, 5, Op::Get, read("a"))]);
    check(true, &[lost.clone(), (2, 3, set("b"), done()), (4, 5, Op::Get, read("a"))]);
    // Not before it was sent, and not gone again by itself.
    check(false, &[(0, 1, Op::Get, read("a")), (2, 3, set("a"), unknown())]);
    check(false, &[lost, (2, 3, Op::Get, read("a")), (4, 5, Op::Get, read_nothing())]);
}

#[test]
fn a_history_may_come_in_pieces_and_unknown_calls_outlive_them() {
    let mut checker = Checker::default();
    checker.follow(&history(&[(0, 1, set("a"), unknown()), (0, 1, set("b"), done())])).expect("good");
    checker.follow(&history(&[(2, 3, Op::Get, read("b"))])).expect("good");
    checker.follow(&history(&[(4, 5, Op::Get, read("a"))])).expect("it came late");
    assert!(checker.follow(&history(&[(6, 7, Op::Get, read("b"))])).is_err());
}

#[test]
fn many_unknown_calls_do_not_multiply_the_states() {
    let mut rows: Vec<_> = (0..40).map(|index| (index, index, set(&format!("u{index}")), unknown())).collect();
    rows.extend((50..60).map(|at| (at, at, set(&format!("d{at}")), done())));
    rows.push((70, 71, Op::Get, read("u7")));
    check(true, &rows);
    rows.push((72, 73, Op::Get, read("d50")));
    check(false, &rows);
}

/// Whether some order of all answered calls and of any of the unknown ones is right.
fn some_order_is_right(calls: &[Call], left: &mut Vec<usize>, value: &Value) -> bool {
    let answered = |index: &usize| matches!(calls[*index].outcome, Outcome::Ok(_));
    if !left.iter().any(answered) {
        return true;
    }
    let first_end = left.iter().filter(|index| answered(index)).map(|index| calls[*index].end).min().expect("one");
    for place in 0..left.len() {
        let call = &calls[left[place]];
        let Some((answer, after)) = call.op.apply(value).filter(|_| call.start <= first_end) else { continue };
        if matches!(&call.outcome, Outcome::Ok(told) if *told != answer) {
            continue;
        }
        let index = left.remove(place);
        let is_right = some_order_is_right(calls, left, &after);
        left.insert(place, index);
        if is_right {
            return true;
        }
    }
    false
}

/// Few values and answers that are near the truth, so that good and bad histories are both common.
fn random_calls(random: &mut Random) -> Vec<Call> {
    let mut truth: Value = None;
    let count = 2 + random.below(5);
    let call = |client| {
        let letter = ["1", "2"][random.below(2)];
        let bytes: Arc<[u8]> = letter.as_bytes().into();
        let usual = [Op::Get, Op::Get, set(letter), Op::SetNx(bytes.clone()), Op::Del, Op::Incr, append("3")];
        let others = [Op::GetSet(bytes.clone()), Op::GetDel, Op::SetRange(bytes), Op::IncrByFloat, Op::Expire];
        let ops = [&usual[..], &usual, &others].concat();
        let op = ops[random.below(ops.len())].clone();
        let (answer, after) = op.apply(&truth).expect("every value is a number");
        let outcome = match random.below(10) {
            0 | 1 => unknown(),
            2 => not_done(),
            3 => Outcome::Ok(op.apply(&value("1")).expect("a number").0),
            _ => Outcome::Ok(answer),
        };
        if !matches!(outcome, Outcome::NotDone(_)) && random.below(8) != 0 {
            truth = after;
        }
        let start = Duration::from_millis(client as u64 * 10 + random.below(25) as u64);
        let end = start + Duration::from_millis(1 + random.below(30) as u64);
        Call { client, op, asked: start, start, end, outcome, node: 0 }
    };
    (0..count).map(call).collect()
}

#[test]
fn the_checker_agrees_with_a_search_of_all_orders() {
    let mut random = Random::new(7);
    let mut verdicts = [0, 0];
    for round in 0..4_000 {
        let calls = random_calls(&mut random);
        let done = |index: &usize| !matches!(calls[*index].outcome, Outcome::NotDone(_));
        let mut left: Vec<usize> = (0..calls.len()).filter(done).collect();
        let expected = some_order_is_right(&calls, &mut left, &None);
        let found = Checker::default().follow(&calls);
        let shown = || calls.iter().map(Call::to_string).collect::<Vec<_>>().join("\n");
        assert_eq!(found.is_ok(), expected, "round {round}: {found:?}\n{}", shown());
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 400), "too one-sided: {verdicts:?}");
}
