//! Nanoseconds per operation of the hot paths, one line per case: `cargo bench --bench micro [-- NAME]` runs those whose name
//! contains NAME.
//!
//! A plain loop, timed in rounds of which the fastest counts: the others were disturbed. A case is one row of `CASES`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use kvorum::protocol::{Protocol, ReadLimits, Reply, RequestReader, Requests, encode_command};

struct Case {
    name: &'static str,
    /// Operations that one call of what `prepare` returns does.
    operations: u32,
    /// Builds the case's state; what it returns is timed.
    prepare: fn() -> Box<dyn FnMut()>,
}

const CASES: &[Case] = &[
    Case { name: "decode SET, 64-byte value", operations: 1, prepare: || decode(&set_request(), 1) },
    Case { name: "decode GET, pipeline of 16", operations: 16, prepare: || decode(&get_request(), 16) },
    Case { name: "decode PING, inline", operations: 1, prepare: || decode(b"PING\r\n", 1) },
    Case { name: "encode +OK", operations: 16, prepare: || encode(|reply| reply.ok()) },
    Case { name: "encode simple", operations: 16, prepare: || encode(|reply| reply.simple("QUEUED")) },
    Case { name: "encode integer", operations: 16, prepare: || encode(|reply| reply.integer(black_box(1_234_567))) },
    Case {
        name: "encode bulk, 64 bytes",
        operations: 16,
        prepare: || encode(|reply| reply.bulk(black_box(&[b'x'; 64]))),
    },
    Case { name: "encode null", operations: 16, prepare: || encode(|reply| reply.null()) },
    Case { name: "encode array header", operations: 16, prepare: || encode(|reply| reply.array(black_box(3))) },
];

fn main() {
    // Cargo passes `--bench`; anything else selects cases.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for case in CASES {
        if wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part)) {
            println!("{:<40} {:>9.1} ns/op", case.name, fastest(case));
        }
    }
}

const ROUND_COUNT: u32 = 20;
const ROUND_MIN: Duration = Duration::from_millis(20);

fn fastest(case: &Case) -> f64 {
    let mut run = (case.prepare)();
    let mut calls = 1u32;
    // Warms up, and finds how many calls make a round.
    while timed(&mut run, calls) < ROUND_MIN {
        calls *= 2;
    }
    let best = (0..ROUND_COUNT).map(|_| timed(&mut run, calls)).min().expect("there are rounds");
    best.as_nanos() as f64 / (f64::from(calls) * f64::from(case.operations))
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

fn decode(request: &[u8], pipeline: usize) -> Box<dyn FnMut()> {
    let bytes = request.repeat(pipeline);
    let mut reader = RequestReader::new(ReadLimits::default());
    let mut requests = Requests::default();
    Box::new(move || {
        requests.clear();
        let consumed = reader.decode(black_box(&bytes), &mut requests).expect("the request is well-formed");
        assert_eq!((consumed, requests.len()), (bytes.len(), pipeline));
        black_box(&requests);
    })
}

/// Sixteen replies into one buffer, as for a pipeline.
fn encode(write: impl Fn(&mut Reply) + 'static) -> Box<dyn FnMut()> {
    let mut reply = Reply::new(Protocol::Resp2);
    Box::new(move || {
        for _ in 0..16 {
            write(&mut reply);
        }
        black_box(reply.buffer());
        reply.truncate(0);
    })
}
