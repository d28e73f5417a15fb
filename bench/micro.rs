//! Nanoseconds per operation of the hot paths, one line per case: `cargo bench --bench micro [-- NAME]` runs those whose name
//! contains NAME. `KVORUM_BENCH_QUICK=1` measures a tenth as long, to see that all of it runs.
//!
//! A plain loop, timed in rounds: the median, and the fastest round, which other work on the machine disturbed least. A case
//! is one row of `CASES`. Cases that start with `redis-protocol` do the same work with that crate, for comparison.
//!
//! With `--count` nothing is timed: `bench/instructions` runs it under callgrind, which counts what each case's `counted` executes.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2;
use redis_protocol::resp2::types::BorrowedFrame;

use kvorum::clock::Timestamp;
use kvorum::cluster::{
    ClusterId, Founder, FoundingPlan, GroupId, Hints, Intent, NodeId, NodeInfo, PlanSeed, Route, RouteTable,
    WantedSettings,
};
use kvorum::command::op::{self, Op};
use kvorum::command::{ReadOutcome, Run, key_slot_of, table};
use kvorum::keyspace::{Applied, HashSecret, Keyspace, Position, SlotState, Time};
use kvorum::protocol::{Args, OwnedArgs, Protocol, ReadLimits, Reply, RequestReader, Requests, encode_command};
use kvorum::slot::{KeySlot, Slot};

struct Case {
    name: &'static str,
    prepare: fn() -> Work,
}

/// A case's state, ready to be measured.
struct Work {
    run: Box<dyn FnMut()>,
    /// Operations that one call of `run` does.
    operations: usize,
}

impl Work {
    fn new(operations: usize, run: impl FnMut() + 'static) -> Work {
        Work { run: Box::new(run), operations }
    }
}

const CASES: &[Case] = &[
    Case { name: "decode SET, 64-byte value", prepare: || decode(&set_request(), 1) },
    Case { name: "decode GET, pipeline of 16", prepare: || decode(&get_request(), 16) },
    Case { name: "redis-protocol decode_bytes_mut SET", prepare: || decode_bytes_mut(&set_request(), 16) },
    Case { name: "redis-protocol decode_range SET", prepare: || decode_range(&set_request(), 1) },
    Case { name: "redis-protocol decode_range GET x16", prepare: || decode_range(&get_request(), 16) },
    Case { name: "decode PING, inline", prepare: || decode(b"PING\r\n", 1) },
    Case { name: "key slot of a key, 16 bytes", prepare: key_slot },
    Case { name: "route a key slot", prepare: route },
    Case { name: "plan SET, 64-byte value", prepare: plan_set },
    Case { name: "apply SET, 64 bytes, 1M keys", prepare: apply_set },
    Case { name: "read GET, 64 bytes, 1M keys", prepare: read_get },
    Case { name: "encode +OK", prepare: || encode(|reply| reply.ok()) },
    Case { name: "encode simple", prepare: || encode(|reply| reply.simple("QUEUED")) },
    Case { name: "encode integer", prepare: || encode(|reply| reply.integer(black_box(1_234_567))) },
    Case { name: "encode bulk, 64 bytes", prepare: || encode(|reply| reply.bulk(black_box(&[b'x'; 64]))) },
    Case { name: "encode null", prepare: || encode(|reply| reply.null()) },
    Case { name: "encode array header", prepare: || encode(|reply| reply.array(black_box(3))) },
    Case { name: "redis-protocol encode +OK", prepare: || encode_frame(BorrowedFrame::SimpleString(b"OK")) },
    Case { name: "redis-protocol encode integer", prepare: || encode_frame(BorrowedFrame::Integer(1_234_567)) },
    Case {
        name: "redis-protocol encode bulk, 64 bytes",
        prepare: || encode_frame(BorrowedFrame::BulkString(&[b'x'; 64])),
    },
];

fn main() {
    // Cargo passes `--bench`; what does not begin so selects cases.
    let (flags, wanted): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let cases = CASES.iter().filter(|case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part)));
    if flags.iter().any(|flag| flag == "--count") {
        SCALE.set(COUNTED).expect("nothing has been measured yet");
        return cases.filter(|case| !case.name.starts_with("redis-protocol")).for_each(count);
    }
    SCALE.set(TIMED).expect("nothing has been measured yet");
    let is_quick = std::env::var_os("KVORUM_BENCH_QUICK").is_some_and(|value| value == "1");
    let round_min = if is_quick { ROUND_MIN / 10 } else { ROUND_MIN };
    println!("{:<40} {:>9} {:>9}   ns/op", "", "median", "fastest");
    for case in cases {
        let (median, fastest) = measure(case, round_min);
        println!("{:<40} {median:>9.1} {fastest:>9.1}", case.name);
    }
}

/// How much the keyspace cases hold and touch.
#[derive(Debug)]
struct Scale {
    keys: u64,
    /// Different keys that one call touches.
    touched: u64,
}

/// Few of the keys that one call touches are in the CPU's caches.
const TIMED: Scale = Scale { keys: 1_000_000, touched: 1 << 18 };
/// Callgrind takes fifty times as long and knows no caches here.
const COUNTED: Scale = Scale { keys: 50_000, touched: 1 << 12 };
static SCALE: OnceLock<Scale> = OnceLock::new();

fn scale() -> &'static Scale {
    SCALE.get().expect("main sets it first")
}

/// Prints what `counted` is about to do; what callgrind counts of it is one dump, and dumps are in the order of the lines.
fn count(case: &Case) {
    let mut work = (case.prepare)();
    // Buffers get their sizes.
    (work.run)();
    println!("{}\t{}", case.name, work.operations * COUNTED_CALLS);
    counted(&mut work.run);
}

const COUNTED_CALLS: usize = 10;

#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    for _ in 0..COUNTED_CALLS {
        run();
    }
}

const ROUND_COUNT: usize = 21;
const ROUND_MIN: Duration = Duration::from_millis(20);

/// The median and the fastest round's nanoseconds per operation.
fn measure(case: &Case, round_min: Duration) -> (f64, f64) {
    let Work { mut run, operations } = (case.prepare)();
    let mut calls = 1u32;
    // Warms up, and finds how many calls make a round.
    while timed(&mut run, calls) < round_min {
        calls *= 2;
    }
    let mut rounds: Vec<Duration> = (0..ROUND_COUNT).map(|_| timed(&mut run, calls)).collect();
    rounds.sort_unstable();
    let per_operation = |round: Duration| round.as_nanos() as f64 / (f64::from(calls) * operations as f64);
    (per_operation(rounds[ROUND_COUNT / 2]), per_operation(rounds[0]))
}

fn timed(run: &mut dyn FnMut(), calls: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        run();
    }
    start.elapsed()
}

fn set_request() -> Vec<u8> {
    request(&[b"SET", b"key:000000000042", &[b'x'; 64]])
}

fn get_request() -> Vec<u8> {
    request(&[b"GET", b"key:000000000042"])
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(words, &mut bytes);
    bytes
}

fn decode(request: &[u8], pipeline: usize) -> Work {
    let bytes = request.repeat(pipeline);
    let mut reader = RequestReader::new(ReadLimits::default());
    let mut requests = Requests::default();
    Work::new(pipeline, move || {
        requests.clear();
        let consumed = reader.decode(black_box(&bytes), &mut requests).expect("the request is well-formed");
        assert_eq!((consumed, requests.len()), (bytes.len(), pipeline));
        black_box(&requests);
    })
}

/// Sixteen replies into one buffer, as for a pipeline.
fn encode(write: impl Fn(&mut Reply) + 'static) -> Work {
    let mut reply = Reply::new(Protocol::Resp2);
    Work::new(16, move || {
        for _ in 0..16 {
            write(&mut reply);
        }
        black_box(reply.buffer());
        reply.truncate(0);
    })
}

/// The frames share the buffer, which is filled anew at each call, as by a read from a socket.
fn decode_bytes_mut(request: &[u8], pipeline: usize) -> Work {
    let bytes = request.repeat(pipeline);
    let mut buffer = BytesMut::new();
    Work::new(pipeline, move || {
        buffer.extend_from_slice(black_box(&bytes));
        for _ in 0..pipeline {
            let frame = resp2::decode::decode_bytes_mut(&mut buffer).expect("the request is well-formed");
            assert!(black_box(frame).is_some());
        }
    })
}

fn decode_range(request: &[u8], pipeline: usize) -> Work {
    let bytes = request.repeat(pipeline);
    Work::new(pipeline, move || {
        let mut rest = black_box(&bytes[..]);
        while let Some((frame, taken)) = resp2::decode::decode_range(rest).expect("the request is well-formed") {
            black_box(frame);
            rest = &rest[taken..];
        }
        assert!(rest.is_empty());
    })
}

fn encode_frame(frame: BorrowedFrame<'static>) -> Work {
    let mut buffer = BytesMut::new();
    Work::new(16, move || {
        for _ in 0..16 {
            resp2::encode::extend_encode_borrowed(&mut buffer, black_box(&frame), false).expect("the buffer grows");
        }
        black_box(&buffer);
        buffer.clear();
    })
}

fn key_slot() -> Work {
    Work::new(1, || {
        black_box(KeySlot::of_key(black_box(b"key:000000000042")));
    })
}

/// One of three nodes, which leads every group of the cluster.
fn route() -> Work {
    let node = |number: u8| {
        let port = 7000 + u16::from(number);
        let info = NodeInfo { host: "127.0.0.1".to_owned(), port, peer_port: port + 10_000, http_port: 0 };
        (info.address(), Founder { node: NodeId([number; 20]), info })
    };
    let members: BTreeMap<_, _> = (1..=3).map(node).collect();
    let settings = WantedSettings { groups: Some(6), replicas: Some(3), hash_check: 0 };
    let intent = Intent { addresses: members.keys().cloned().collect(), settings };
    let seed = PlanSeed { cluster_id: ClusterId([1; 16]), hash_secret: [1; 4] };
    let plan = FoundingPlan::new(1, NodeId([1; 20]), intent, &members, seed).expect("three nodes found a cluster");
    let led: BTreeSet<GroupId> = plan.topology().groups().keys().copied().collect();
    let table = RouteTable::new(plan.topology(), &Hints::default(), NodeId([1; 20]), &led);
    let mut key_slots = KeySlot::all().collect::<Vec<_>>().into_iter().cycle();
    Work::new(1, move || {
        let key_slot = key_slots.next().expect("it cycles");
        assert!(matches!(black_box(&table).route(black_box(key_slot)), Route::Local(_)));
    })
}

/// From the words of a request to the op in a batch of sixteen: row, key slot, encoding.
fn plan_set() -> Work {
    let request = words(&set_request());
    let mut batch = BytesMut::new();
    Work::new(16, move || {
        for _ in 0..16 {
            append_op(&mut batch, &black_box(&request).args());
        }
        black_box(&batch);
        batch.clear();
    })
}

fn append_op(batch: &mut BytesMut, args: &Args<'_>) {
    let row = table::resolve(args).expect("the command exists");
    let key_slot = key_slot_of(row, args).expect("one key").expect("a key");
    let Run::Write { code, plan, apply: _ } = row.run else { panic!("{} is not a write", row.name) };
    op::encode(batch, code, key_slot, |body| plan(args, NOW, body)).expect("the request is valid");
}

fn words(request: &[u8]) -> OwnedArgs {
    let mut requests = Requests::default();
    RequestReader::new(ReadLimits::default()).decode(request, &mut requests).expect("the request is well-formed");
    OwnedArgs::copy(&requests.get(0, request))
}

const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// What the keyspace cases run on; `apply SET` replaces values, so that it stays as it is.
static KEYSPACE: LazyLock<Arc<Keyspace>> = LazyLock::new(|| {
    let keyspace = Keyspace::new(HashSecret([1, 2, 3, 4]));
    Slot::all().for_each(|slot| keyspace.set_state(slot, SlotState::Owned));
    for (number, op) in set_ops(0..scale().keys).into_iter().enumerate() {
        apply(&keyspace, Position { index: 1, op: number as u32 + 1 }, &op, &mut Reply::discard());
    }
    assert_eq!(keyspace.counters().keys, scale().keys);
    Arc::new(keyspace)
});

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// Scattered over all keys: the multiplier has no factor in common with their count.
fn some_keys() -> impl Iterator<Item = u64> {
    (0..scale().touched).map(|index| index * 611_953 % scale().keys)
}

fn set_ops(numbers: impl Iterator<Item = u64>) -> Vec<Op> {
    let mut batch = BytesMut::new();
    for number in numbers {
        append_op(&mut batch, &words(&request(&[b"SET", key(number).as_bytes(), &[b'x'; 64]])).args());
    }
    let mut batch: Bytes = batch.freeze();
    std::iter::from_fn(|| op::decode(&mut batch).expect("it was just encoded")).collect()
}

fn apply(keyspace: &Keyspace, position: Position, op: &Op, reply: &mut Reply) {
    assert_eq!(op::apply(op, position, NOW, keyspace, reply), Applied::Done(()));
}

fn apply_set() -> Work {
    let keyspace = KEYSPACE.clone();
    let ops = set_ops(some_keys());
    let mut reply = Reply::new(Protocol::Resp2);
    let mut index = 1;
    Work::new(ops.len(), move || {
        index += 1;
        for (number, op) in ops.iter().enumerate() {
            apply(&keyspace, Position { index, op: number as u32 }, op, &mut reply);
            reply.truncate(0);
        }
    })
}

fn read_get() -> Work {
    let keyspace = KEYSPACE.clone();
    let mut bytes = Vec::new();
    for number in some_keys() {
        encode_command(&[b"GET", key(number).as_bytes()], &mut bytes);
    }
    let mut requests = Requests::default();
    let limits = ReadLimits { requests_max: usize::MAX, ..ReadLimits::default() };
    RequestReader::new(limits).decode(&bytes, &mut requests).expect("the requests are well-formed");
    let Some(Run::Read(read)) = table::lookup(b"get").map(|row| row.run) else { panic!("GET is not a read") };
    let key_slots: Vec<KeySlot> =
        (0..requests.len()).map(|index| KeySlot::of_key(&requests.get(index, &bytes)[1])).collect();
    let time = Time::new(NOW, NOW);
    let mut reply = Reply::new(Protocol::Resp2);
    Work::new(key_slots.len(), move || {
        for (index, key_slot) in key_slots.iter().enumerate() {
            let args = requests.get(index, &bytes);
            let outcome = keyspace.read(*key_slot, |bucket| read(&args, bucket, time, &mut reply));
            assert!(matches!(outcome, ReadOutcome::Done) && reply.len() > 64);
            reply.truncate(0);
        }
    })
}
