//! LCS: the longest common subsequence of two values.
//!
//! Time and memory grow with the product of the lengths, so nothing is computed under the bucket's lock (§ nothing over
//! 1 ms there): the read takes the values and returns a job, which the caller runs afterwards.

use bytes::Bytes;

use crate::keyspace::{Bucket, Lookup, SharedValue, Time};
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::number::integer_argument;
use super::row::ReadOutcome;
use super::strings::STRING_BYTES_MAX;

/// An LCS request with its values.
#[derive(Debug)]
pub struct LcsJob {
    a: SharedValue,
    b: SharedValue,
    show: Show,
}

#[derive(Debug, Clone, Copy)]
enum Show {
    Subsequence,
    Length,
    Matches { length_min: u64, with_length: bool },
}

pub fn read_lcs(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    let show = match parse(args) {
        Ok(show) => show,
        Err(error) => {
            error.reply(reply);
            return ReadOutcome::Done;
        }
    };
    let mut values = [SharedValue::from(Bytes::new()), SharedValue::from(Bytes::new())];
    for (value, key) in values.iter_mut().zip(args.iter().skip(1)) {
        match bucket.get(key, time) {
            Lookup::Due => return ReadOutcome::Due,
            Lookup::Miss => {}
            Lookup::Hit(entry) => {
                entry.note_read(time);
                *value = entry.value().into_shared();
            }
        }
    }
    let [a, b] = values;
    ReadOutcome::Compute(Box::new(LcsJob { a, b, show }))
}

fn parse(args: &Args<'_>) -> Result<Show, WireError> {
    let (mut length, mut indexes, mut with_length, mut length_min) = (false, false, false, 0);
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_slice() {
            b"len" => length = true,
            b"idx" => indexes = true,
            b"withmatchlen" => with_length = true,
            b"minmatchlen" => length_min = integer_argument(words.next().ok_or(WireError::Syntax)?)?,
            _ => return Err(WireError::Syntax),
        }
    }
    match (length, indexes) {
        (true, true) => Err(WireError::LcsLenWithIdx),
        (true, false) => Ok(Show::Length),
        (false, true) => Ok(Show::Matches { length_min: u64::try_from(length_min).unwrap_or(0), with_length }),
        (false, false) => Ok(Show::Subsequence),
    }
}

impl LcsJob {
    /// Appends the reply. May take long: a tenth of a second for 10,000 by 10,000 bytes.
    pub fn run(self, reply: &mut Reply) {
        let cells = (self.a.len() as u64 + 1).saturating_mul(self.b.len() as u64 + 1);
        if cells.saturating_mul(size_of::<u32>() as u64) > STRING_BYTES_MAX {
            WireError::LcsTooLarge.reply(reply);
            return;
        }
        if reply.is_discarded() {
            return;
        }
        let (a, b) = (self.a.to_bytes(), self.b.to_bytes());
        let lengths = Lengths::of(&a, &b);
        match self.show {
            Show::Length => reply.integer(i64::from(lengths.at(a.len(), b.len()))),
            Show::Subsequence => {
                let mut subsequence = Vec::new();
                for range in lengths.ranges(&a, &b) {
                    subsequence.extend(a[range.a..range.a + range.length].iter().rev());
                }
                subsequence.reverse();
                reply.bulk(&subsequence);
            }
            Show::Matches { length_min, with_length } => {
                let mut ranges = lengths.ranges(&a, &b);
                ranges.retain(|range| range.length as u64 >= length_min);
                reply.map(2);
                reply.bulk(b"matches");
                reply.array(ranges.len());
                for range in ranges {
                    reply.array(2 + usize::from(with_length));
                    for start in [range.a, range.b] {
                        reply.array(2);
                        reply.integer(start as i64);
                        reply.integer((start + range.length - 1) as i64);
                    }
                    if with_length {
                        reply.integer(range.length as i64);
                    }
                }
                reply.bulk(b"len");
                reply.integer(i64::from(lengths.at(a.len(), b.len())));
            }
        }
    }
}

/// Equal bytes: `a[a..a + length]` and `b[b..b + length]`.
#[derive(Debug, Clone, Copy)]
struct MatchRange {
    a: usize,
    b: usize,
    length: usize,
}

/// The length of the longest common subsequence of every pair of prefixes.
struct Lengths {
    cells: Vec<u32>,
    width: usize,
}

impl Lengths {
    fn of(a: &[u8], b: &[u8]) -> Self {
        let width = b.len() + 1;
        let mut cells = vec![0; (a.len() + 1) * width];
        for (i, byte_a) in a.iter().enumerate() {
            let (above, row) = cells[i * width..(i + 2) * width].split_at_mut(width);
            for (j, byte_b) in b.iter().enumerate() {
                row[j + 1] = if byte_a == byte_b { above[j] + 1 } else { above[j + 1].max(row[j]) };
            }
        }
        Self { cells, width }
    }

    /// Of the first `i` bytes of a and the first `j` of b.
    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The runs of equal bytes that make up the subsequence, last one first, with Redis's choice among equals.
    fn ranges(&self, a: &[u8], b: &[u8]) -> Vec<MatchRange> {
        let (mut i, mut j) = (a.len(), b.len());
        let mut ranges: Vec<MatchRange> = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                match ranges.last_mut() {
                    Some(range) if range.a == i && range.b == j => {
                        *range = MatchRange { a: i - 1, b: j - 1, length: range.length + 1 };
                    }
                    Some(_) | None => ranges.push(MatchRange { a: i - 1, b: j - 1, length: 1 }),
                }
                (i, j) = (i - 1, j - 1);
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        ranges
    }
}
