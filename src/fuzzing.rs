//! What `tests/fuzz` calls, one function a target: bytes from outside are read or refused, never a panic or memory without bound.

use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};

use crate::clock::Timestamp;
use crate::command::{ReadOutcome, Run, key_slot_of, op, table};
use crate::keyspace::{Applied, HashSecret, Keyspace, Position, SlotState, Time};
use crate::protocol::{Args, Protocol, ReadLimits, Reply, RequestReader, Requests};
use crate::raft::fuzzing::contents;
pub use crate::raft::fuzzing::{log, messages, snapshot};
use crate::slot::Slot;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// What a value may grow to; SETRANGE would make 512 MB of a few bytes.
const OFFSET_MAX: i64 = 1 << 20;

/// A configuration file's text is taken or refused.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let flags = ["--config".to_owned(), "kvorum.toml".to_owned()];
    let _ = crate::config::load(&flags, &|_| None, &|_| Ok(text.to_owned()));
}

thread_local! {
    // A keyspace takes longer to make than an input to run.
    static REPLICAS: [Keyspace; 2] = [replica(), replica()];
    static ENTRY: Cell<u64> = const { Cell::new(0) };
}

/// Bytes are ops or refused. Of commands, as a client sends them, plan makes ops that apply understands; a replica that gets them
/// all in one entry answers and holds the same as one that gets them one by one.
pub fn ops(input: &[u8]) {
    let mut raw = Bytes::copy_from_slice(input);
    while let Ok(Some(_)) = op::decode(&mut raw) {}

    let mut reader = RequestReader::new(ReadLimits { requests_max: 64, ..ReadLimits::default() });
    let mut requests = Requests::default();
    let _ = reader.decode(input, &mut requests);
    let index = ENTRY.get() + 1;
    ENTRY.set(index);
    REPLICAS.with(|[one_by_one, together]| {
        let mut entry = BytesMut::new();
        let (mut answers, mut again) = (Reply::new(Protocol::Resp2), Reply::new(Protocol::Resp2));
        for request in 0..requests.len() {
            let position = Position { index, op: request as u32 };
            entry.extend_from_slice(&run(&requests.get(request, input), one_by_one, position, &mut answers));
        }
        let (mut entry, mut touched, mut op) = (entry.freeze(), BTreeSet::new(), 0);
        while let Some(next) = op::decode(&mut entry).expect("plan wrote it") {
            let applied = op::apply(&next, Position { index, op }, NOW, together, &mut again);
            assert_eq!(applied, Applied::Done(()));
            touched.insert(next.key_slot);
            op += 1;
        }
        assert_eq!(answers.buffer(), again.buffer());
        for key_slot in touched {
            assert_eq!(contents(one_by_one, key_slot), contents(together, key_slot));
            let last = Position { index, op: u32::MAX };
            [one_by_one, together].into_iter().for_each(|keyspace| keyspace.flush(key_slot, last));
        }
    });
}

fn replica() -> Keyspace {
    let keyspace = Keyspace::new(HashSecret([1; 4]));
    Slot::all().for_each(|slot| keyspace.set_state(slot, SlotState::Owned));
    keyspace
}

/// Runs one command; returns the op it wrote.
fn run(args: &Args<'_>, keyspace: &Keyspace, position: Position, reply: &mut Reply) -> BytesMut {
    let mut written = BytesMut::new();
    let Ok(row) = table::resolve(args) else { return written };
    let Ok(Some(key_slot)) = key_slot_of(row, args) else { return written };
    let huge =
        |word: &[u8]| std::str::from_utf8(word).is_ok_and(|text| text.parse::<i64>().is_ok_and(|n| n > OFFSET_MAX));
    match row.run {
        Run::Write { code, plan, apply: _ } if !args.iter().any(huge) => {
            if op::encode(&mut written, code, key_slot, |op| plan(args, NOW, op)).is_ok() {
                let op = op::decode(&mut written.clone().freeze()).expect("plan wrote it").expect("one op");
                assert_eq!(op::apply(&op, position, NOW, keyspace, reply), Applied::Done(()));
            }
        }
        Run::Read(read) => {
            let time = Time::new(NOW, NOW);
            let answer = &mut Reply::new(Protocol::Resp2);
            match keyspace.read(key_slot, |bucket| read(args, bucket, time, answer)) {
                ReadOutcome::Done => (),
                ReadOutcome::Compute(job) => job.run(answer),
                ReadOutcome::Due => panic!("a read at the stamp is never Due"),
            }
        }
        Run::Write { .. } | Run::Node(_) | Run::Container => (),
    }
    written
}
