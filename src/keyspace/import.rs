//! Reading back the pieces of `export.rs`. Damaged bytes give errors, and then nothing of the piece is stored.

use crate::clock::Timestamp;
use crate::keyspace::access::AccessMark;
use crate::keyspace::bucket::Context;
use crate::keyspace::export::{FLAG_EDITED, FLAG_EXPIRES};
use crate::keyspace::record::{Record, Traits};
use crate::keyspace::store::Keyspace;
use crate::keyspace::terms::{Position, Value};
use crate::slot::KeySlot;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("a bucket's piece is cut short")]
    Truncated,
    #[error("a bucket's piece goes on for {0} bytes after its last record")]
    Trailing(usize),
    #[error("there is no key slot {0}")]
    KeySlot(u16),
    #[error("there is no slot state {0}")]
    State(u8),
    #[error("a record has unknown flags {0}")]
    Flags(u8),
    #[error("a key of another key slot than {0}")]
    WrongKeySlot(KeySlot),
    #[error("a key of key slot {0}, which is in another slot")]
    WrongSlot(KeySlot),
}

impl Keyspace {
    /// Adds one piece to its bucket and sets the bucket's position. § Ownership is the group's, and whoever imports sets it at the end:
    /// until then the bucket stays absent, and refuses reads of what is there by halves.
    pub fn import(&self, piece: &[u8]) -> Result<(), ImportError> {
        let mut bytes = Cursor(piece);
        let number = u16::from_le_bytes(bytes.array()?);
        let key_slot = KeySlot::new(number).ok_or(ImportError::KeySlot(number))?;
        match bytes.array()? {
            [0 | 1] => (),
            [other] => return Err(ImportError::State(other)),
        }
        let position = Position { index: u64::from_le_bytes(bytes.array()?), op: u32::from_le_bytes(bytes.array()?) };
        let count = u32::from_le_bytes(bytes.array()?);
        // Not reserved by the announced count: it may be damaged.
        let mut records = Vec::new();
        for _ in 0..count {
            // § Copied here, outside the lock: a record may be 512 MB.
            records.push(bytes.record(key_slot, &self.context)?);
        }
        if !bytes.0.is_empty() {
            return Err(ImportError::Trailing(bytes.0.len()));
        }
        self.change(key_slot, |bucket| {
            records.into_iter().for_each(|record| bucket.insert_restored(record));
            bucket.position = position;
        });
        Ok(())
    }
}

pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], ImportError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ImportError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(ImportError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn record(&mut self, key_slot: KeySlot, context: &Context) -> Result<Record, ImportError> {
        let [flags] = self.array()?;
        if flags & !(FLAG_EXPIRES | FLAG_EDITED) != 0 {
            return Err(ImportError::Flags(flags));
        }
        let key_bytes = u32::from_le_bytes(self.array()?) as usize;
        let value_bytes = u32::from_le_bytes(self.array()?) as usize;
        let mark = AccessMark::from_bits(u32::from_le_bytes(self.array()?));
        let expire_at = match flags & FLAG_EXPIRES {
            0 => None,
            _ => Some(Timestamp(i64::from_le_bytes(self.array()?))),
        };
        let (key, value) = (self.take(key_bytes)?, self.take(value_bytes)?);
        if KeySlot::of_key(key) != key_slot {
            return Err(ImportError::WrongKeySlot(key_slot));
        }
        let traits = Traits { expire_at, edited: flags & FLAG_EDITED != 0 };
        Ok(Record::new(context.hash(key), mark, key, Value::Slice(value), traits))
    }
}
