//! Damaged and hostile log files, for `tests/fuzz`.

use std::path::{Path, PathBuf};

use bytes::BytesMut;

use super::disk::RealDisk;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, Salt, put_record, seal, segment_header, take_record};
use super::recover::{Replayed, replay};
use super::segments::segment_path;
use crate::raft::fuzzing::blocks;

/// Records are read or refused, and what was read is written as it was. A segment whose checksums hold, around the input, and one that
/// is the input, are read or refused; what recovery accepts, it accepts again and finds the same.
pub fn log(input: &[u8], directory: &Path) {
    let mut rest = input;
    while !rest.is_empty() {
        let Ok((key, record)) = take_record(&mut rest) else { break };
        let mut written = BytesMut::new();
        put_record(&mut written, key, &record);
        assert_eq!(take_record(&mut &written[..]), Ok((key, record)));
    }
    let path = segment_path(directory, 1);
    recover_twice(&path, input);
    recover_twice(&path, &segment(input));
}

/// The input's blocks as bodies of batches, and what is left of it behind them.
fn segment(input: &[u8]) -> Vec<u8> {
    let salt = Salt(1);
    let (mut segment, mut previous_crc) = (segment_header(salt).to_vec(), 0);
    let (bodies, rest) = blocks(input);
    for (lsn, body) in (1..).zip(bodies) {
        let mut batch = vec![0; BATCH_HEADER_BYTES];
        batch.extend_from_slice(body);
        previous_crc = seal(&mut batch, salt, BatchHeader { lsn, previous_crc, durable_lsn: lsn - 1 });
        segment.extend_from_slice(&batch);
    }
    segment.extend_from_slice(rest);
    segment
}

fn recover_twice(path: &PathBuf, bytes: &[u8]) {
    let directory = path.parent().expect("it is in a directory");
    std::fs::write(path, bytes).expect("writes");
    if let Ok(first) = replay(&RealDisk, directory, 0) {
        let second =
            replay(&RealDisk, directory, 0).unwrap_or_else(|error| panic!("what was recovered reads: {error}"));
        assert_eq!(found(&first), found(&second));
    }
    // A segment that was not finished being begun is removed.
    let _ = std::fs::remove_file(path);
}

fn found(replayed: &Replayed) -> String {
    let tails = replayed.tails.iter().map(|(key, tail)| (key, tail.vote, tail.purged, tail.last(), tail.bytes()));
    format!("{:?} {} {}", tails.collect::<Vec<_>>(), replayed.end.lsn, replayed.end.crc)
}
