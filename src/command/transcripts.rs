//! Runs the transcripts of `tests/transcripts` against the command table in this process, without server or log.
//!
//! The format is described in `tests/transcripts/format.rs`.

use bytes::BytesMut;

use self::format::{Runner, print_reply, split_words};
use crate::clock::Timestamp;
use crate::keyspace::{Applied, HashSecret, Keyspace, PIECE_BYTES, Position, SlotState, Time};
use crate::protocol::{ArgRange, Args, Protocol, Reply};
use crate::slot::{KeySlot, Slot};

use super::op;
use super::row::{ReadOutcome, Run};
use super::{NodeCommand, OpCode, command_reply, help_reply, key_slot_of, table};

#[path = "../../tests/transcripts/format.rs"]
mod format;

/// Plans, encodes, decodes and applies requests one after the other, as a group of one replica would.
struct Executor {
    keyspace: Keyspace,
    position: Position,
    now: Timestamp,
}

impl Executor {
    fn new() -> Self {
        let keyspace = Keyspace::new(HashSecret([1, 2, 3, 4]));
        let now = Timestamp(1_700_000_000_000);
        keyspace.set_access_clock(now);
        Slot::all().for_each(|slot| keyspace.set_state(slot, SlotState::Owned));
        Self { keyspace, position: Position::default(), now }
    }

    fn run(&mut self, args: &Args<'_>, reply: &mut Reply) {
        let row = match table::resolve(args) {
            Ok(row) => row,
            Err(error) => return error.reply(reply),
        };
        let key_slot = match key_slot_of(row, args) {
            Ok(key_slot) => key_slot,
            Err(error) => return error.reply(reply),
        };
        match row.run {
            Run::Write { code, plan, apply: _ } => {
                let mut batch = BytesMut::new();
                let key_slot = key_slot.expect("a write has a key");
                match op::encode(&mut batch, code, key_slot, |op| plan(args, self.now, op)) {
                    Ok(()) => self.apply(batch, reply),
                    Err(error) => error.reply(reply),
                }
            }
            Run::Read(read) => {
                let key_slot = key_slot.expect("a read has a key");
                let mark = reply.len();
                // The log has passed nothing yet, so that every expired key is Due at first.
                let lagging = Time::new(Timestamp(0), self.now);
                let mut outcome = self.keyspace.read(key_slot, |bucket| read(args, bucket, lagging, reply));
                if let ReadOutcome::Due = outcome {
                    reply.truncate(mark);
                    let at_apply = Time::new(self.now, self.now);
                    outcome = self.keyspace.read(key_slot, |bucket| read(args, bucket, at_apply, reply));
                }
                match outcome {
                    ReadOutcome::Done => {}
                    ReadOutcome::Compute(job) => job.run(reply),
                    ReadOutcome::Due => panic!("a read at the stamp is never Due"),
                }
            }
            Run::Node(NodeCommand::Command(which)) => command_reply(which, args, reply),
            Run::Node(NodeCommand::Help) => help_reply(args, reply),
            Run::Node(_) | Run::Container => panic!("{} is answered by the server layer", row.name),
        }
    }

    fn apply(&mut self, batch: BytesMut, reply: &mut Reply) {
        let stamp = self.now;
        let mut batch = batch.freeze();
        while let Some(op) = op::decode(&mut batch).unwrap() {
            self.position.op += 1;
            let applied = op::apply(&op, self.position, stamp, &self.keyspace, reply);
            assert_eq!(applied, Applied::Done(()));
        }
    }
}

fn check(name: &str) {
    let (name, text) = format::TRANSCRIPTS.iter().find(|(other, _)| *other == name).expect("the transcript exists");
    let advance = |executor: &mut Executor, ms| executor.now = Timestamp(executor.now.as_ms() + ms as i64);
    format::check(name, text, Runner::Process, &mut Executor::new(), advance, call);
}

fn run_line(executor: &mut Executor, request: &str) -> Vec<String> {
    call(executor, &split_words(request))
}

fn call(executor: &mut Executor, words: &[Vec<u8>]) -> Vec<String> {
    let bytes = words.concat();
    let mut start = 0;
    let ranges: Vec<ArgRange> = words
        .iter()
        .map(|word| {
            let range = ArgRange { start, end: start + word.len() as u32 };
            start = range.end;
            range
        })
        .collect();
    let mut reply = Reply::new(Protocol::Resp2);
    executor.run(&Args::new(&bytes, &ranges), &mut reply);
    reply.fill_in();
    let mut rest = &reply.buffer()[..];
    let lines = print_reply(&mut rest).unwrap();
    assert!(rest.is_empty(), "more than one reply");
    lines
}

#[test]
fn string_commands_answer_as_redis_does() {
    check("strings");
}

#[test]
fn counters_answer_as_redis_does() {
    check("numbers");
}

#[test]
fn key_commands_answer_as_redis_does() {
    check("keys");
}

#[test]
fn lcs_answers_as_redis_does() {
    check("lcs");
}

#[test]
fn command_and_form_errors_answer_as_redis_does() {
    check("command");
}

#[test]
fn due_keys_are_deleted_by_the_stamp_alone() {
    let mut executor = Executor::new();
    run_line(&mut executor, "SET k v PX 100");
    run_line(&mut executor, "SET other v");
    let key_slot = KeySlot::of_key(b"k");
    let expire_due = |executor: &mut Executor| {
        let mut batch = BytesMut::new();
        op::encode(&mut batch, OpCode::EXPIRE_DUE, key_slot, |op| {
            super::plan_expire_due([&b"k"[..], b"other", b"gone"], op);
            Ok(())
        })
        .unwrap();
        executor.apply(batch, &mut Reply::discard());
    };
    expire_due(&mut executor);
    assert_eq!(run_line(&mut executor, "GET k"), ["\"v\""]);
    executor.now = Timestamp(executor.now.as_ms() + 100);
    expire_due(&mut executor);
    // Clock and stamp before the expire time: only deletion makes the key absent.
    executor.now = Timestamp(executor.now.as_ms() - 50);
    assert_eq!(run_line(&mut executor, "GET k"), ["(nil)"]);
    assert_eq!(run_line(&mut executor, "GET other"), ["\"v\""]);
}

#[test]
fn ttl_is_rounded_to_the_nearest_second() {
    let mut executor = Executor::new();
    run_line(&mut executor, "SET k v PX 1500");
    assert_eq!(run_line(&mut executor, "TTL k"), ["(integer) 2"]);
    executor.now = Timestamp(executor.now.as_ms() + 1);
    assert_eq!(run_line(&mut executor, "TTL k"), ["(integer) 1"]);
    assert_eq!(run_line(&mut executor, "PTTL k"), ["(integer) 1499"]);
}

#[test]
fn keys_of_two_slots_are_refused() {
    let mut executor = Executor::new();
    let crossslot = ["(error) CROSSSLOT Keys in request don't hash to the same slot"];
    assert_eq!(run_line(&mut executor, "MGET a b"), crossslot);
    assert_eq!(run_line(&mut executor, "RENAME a b"), crossslot);
}

#[test]
fn large_values_are_answered_after_the_lock_is_gone() {
    let mut executor = Executor::new();
    let large = "x".repeat(100_000);
    run_line(&mut executor, &format!("SET k {large}"));
    run_line(&mut executor, "SET {k}small v");
    let quoted = format!("\"{large}\"");
    assert_eq!(run_line(&mut executor, "GET k"), [quoted.as_str()]);
    assert_eq!(run_line(&mut executor, "GETRANGE k 99998 -1"), ["\"xx\""]);
    let all = run_line(&mut executor, "MGET {k}small {k}none k");
    assert_eq!(all, ["1) \"v\"", "2) (nil)", &format!("3) {quoted}")]);
    let bytes = b"GETk";
    let ranges = [ArgRange { start: 0, end: 3 }, ArgRange { start: 3, end: 4 }];
    let Some(Run::Read(read)) = table::lookup(b"get").map(|row| row.run) else { panic!("GET reads") };
    let time = Time::new(executor.now, executor.now);
    let mut reply = Reply::new(Protocol::Resp2);
    let outcome = executor
        .keyspace
        .read(KeySlot::of_key(b"k"), |bucket| read(&Args::new(bytes, &ranges), bucket, time, &mut reply));
    assert!(matches!(outcome, ReadOutcome::Done));
    assert_eq!((reply.len(), reply.total_len()), (11, 100_011), "nothing large is copied under the lock");
}

#[test]
fn large_edits_are_copied_to_where_they_belong_before_the_lock() {
    let mut executor = Executor::new();
    let tail = "t".repeat(3 * PIECE_BYTES + 1);
    let mut expected = String::new();
    for _ in 0..3 {
        expected += &tail;
        assert_eq!(run_line(&mut executor, &format!("APPEND k {tail}")), [format!("(integer) {}", expected.len())]);
    }
    let end = expected.len() - 1;
    expected.replace_range(1..end, &"s".repeat(end - 1));
    run_line(&mut executor, &format!("SETRANGE k 1 {}", &expected[1..end]));
    assert_eq!(run_line(&mut executor, "GET k"), [format!("\"{expected}\"")]);
    // An expired value has no length, neither before the lock nor under it.
    run_line(&mut executor, "PEXPIRE k 10");
    executor.now = Timestamp(executor.now.as_ms() + 10);
    assert_eq!(run_line(&mut executor, &format!("APPEND k {tail}")), [format!("(integer) {}", tail.len())]);
    assert_eq!(run_line(&mut executor, "GET k"), [format!("\"{tail}\"")]);
}

#[test]
fn a_write_that_answers_with_a_value_counts_as_a_read_where_it_is_answered() {
    let mut executor = Executor::new();
    run_line(&mut executor, "SET k v");
    let requests = [
        ("GETEX k", (1, 0)),
        ("GETEX {k}none", (0, 1)),
        ("GETSET k w", (1, 0)),
        ("SET k v GET", (1, 0)),
        ("SET k v", (0, 0)),
        ("COPY k {k}2", (1, 0)),
        ("RENAME {k}2 {k}3", (0, 0)),
        ("MEMORY USAGE k", (0, 0)),
        ("MEMORY USAGE {k}none", (0, 0)),
        ("OBJECT ENCODING k", (1, 0)),
        ("GETDEL k", (1, 0)),
        ("GETDEL k", (0, 1)),
    ];
    for (request, counted) in requests {
        let (hits, misses) = executor.keyspace.lookups();
        run_line(&mut executor, request);
        assert_eq!(executor.keyspace.lookups(), (hits + counted.0, misses + counted.1), "{request}");
    }
    let before = executor.keyspace.lookups();
    let mut batch = BytesMut::new();
    let key_slot = KeySlot::of_key(b"k");
    let encoded = op::encode(&mut batch, OpCode::GETDEL, key_slot, |op| {
        op.bytes(b"{k}3");
        Ok(())
    });
    assert_eq!(encoded, Ok(()));
    executor.apply(batch, &mut Reply::discard());
    assert_eq!(executor.keyspace.lookups(), before, "on the other replicas");
}

#[test]
fn a_write_marks_its_key_as_used_whatever_comes_of_it() {
    let mut executor = Executor::new();
    run_line(&mut executor, "SET k v");
    run_line(&mut executor, "SET {k}other v");
    for request in [
        "SET k w",
        "GETEX k",
        "SETNX k x",
        "SET k x NX",
        "MSETNX k x",
        "EXPIRE k 9 XX",
        "RENAMENX k {k}other",
        "APPEND k \"\"",
        "SETRANGE k 0 \"\"",
        "PERSIST k",
        "COPY k {k}other",
        "INCR k",
    ] {
        executor.now = Timestamp(executor.now.as_ms() + 100_000);
        assert_eq!(run_line(&mut executor, "OBJECT IDLETIME k"), ["(integer) 100"]);
        run_line(&mut executor, request);
        assert_eq!(run_line(&mut executor, "OBJECT IDLETIME k"), ["(integer) 0"], "{request}");
    }
}

#[test]
fn applying_a_batch_twice_from_equal_states_gives_equal_states() {
    let requests = ["SET k 5 EX 10", "INCRBYFLOAT k 0.1", "APPEND k 7", "COPY k {k}2", "GETEX k EX 5", "DECR {k}2"];
    let mut runs = Vec::new();
    for _ in 0..2 {
        let mut executor = Executor::new();
        let replies: Vec<_> = requests.iter().map(|request| run_line(&mut executor, request)).collect();
        runs.push((replies, run_line(&mut executor, "MGET k {k}2"), run_line(&mut executor, "PEXPIRETIME k")));
    }
    assert_eq!(runs[0], runs[1]);
}
