//! What a reader sees of one key.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::keyspace::access;
use crate::keyspace::record::Record;
use crate::keyspace::terms::{Time, Value};

/// Longest value Redis embeds in its object header (OBJ_ENCODING_EMBSTR_SIZE_LIMIT).
const EMBSTR_BYTES_MAX: usize = 44;
const I64_DIGITS_MAX: usize = 20;

/// The outcome of a read.
#[derive(Debug)]
pub enum Lookup<'a> {
    Hit(Entry<'a>),
    /// Absent, or past due by the log's own stamp.
    Miss,
    /// § Past due by the clock but not by the log: only an op answered at apply may say that it is gone, or a later
    /// leader with another clock could show it again.
    Due,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    String,
}

/// What OBJECT ENCODING shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Int,
    Embstr,
    Raw,
}

#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    record: &'a Record,
}

impl<'a> Entry<'a> {
    pub(super) fn new(record: &'a Record) -> Self {
        Self { record }
    }

    pub fn key(&self) -> &'a [u8] {
        self.record.key()
    }

    /// The key to keep. § A large one comes by refcount instead of being copied under the lock.
    pub fn shared_key(&self) -> Bytes {
        self.record.shared_key()
    }

    /// The value. § A large one is there by refcount: reply with it instead of copying under the lock.
    pub fn value(&self) -> Value<'a> {
        self.record.value()
    }

    pub fn value_len(&self) -> usize {
        self.record.value_len()
    }

    pub fn expire_at(&self) -> Option<Timestamp> {
        self.record.expire_at()
    }

    pub fn value_type(&self) -> ValueType {
        ValueType::String
    }

    pub fn encoding(&self) -> Encoding {
        if self.record.traits().edited {
            Encoding::Raw
        } else if self.value().as_slice().is_some_and(is_canonical_i64) {
            Encoding::Int
        } else if self.value_len() <= EMBSTR_BYTES_MAX {
            Encoding::Embstr
        } else {
            Encoding::Raw
        }
    }

    pub fn idle_seconds(&self, now: Timestamp) -> u32 {
        self.record.mark.idle_seconds(access::seconds(now))
    }

    /// The logarithmic access counter as last written.
    pub fn frequency(&self) -> u8 {
        self.record.mark.frequency()
    }

    /// The counter decayed to `now`.
    pub fn frequency_at(&self, now: Timestamp) -> u8 {
        self.record.mark.frequency_at(access::seconds(now)) as u8
    }

    /// Notes a read, relaxed, for eviction.
    pub fn note_read(&self, time: Time) {
        if !time.marking.untouched {
            self.touch(time.clock);
        }
    }

    /// Notes an access in any case.
    pub fn touch(&self, now: Timestamp) {
        self.record.mark.touch(access::seconds(now));
    }

    pub fn memory_bytes(&self) -> usize {
        self.record.memory_bytes()
    }
}

/// Whether the bytes are exactly how an i64 prints, so that Redis stores a number.
fn is_canonical_i64(value: &[u8]) -> bool {
    if value.is_empty() || value.len() > I64_DIGITS_MAX {
        return false;
    }
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let canonical = match digits {
        [b'0'] => digits.len() == value.len(),
        [b'1'..=b'9', ..] => true,
        [] | [_, ..] => false,
    };
    canonical && std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_canonical_i64;

    #[test]
    fn only_what_an_i64_prints_is_an_integer() {
        for yes in ["0", "7", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert!(is_canonical_i64(yes.as_bytes()), "{yes}");
        }
        for no in ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "1a", "9223372036854775808", "1.0"] {
            assert!(!is_canonical_i64(no.as_bytes()), "{no}");
        }
    }
}
