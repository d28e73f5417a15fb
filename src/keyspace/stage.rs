//! Taking in the changes of `delta.rs`: data of a slot that is not owned yet. Damaged bytes give errors, and then nothing of the page is stored.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::keyspace::access::AccessMark;
use crate::keyspace::bucket::Bucket;
use crate::keyspace::delta::{FLAG_PART, FLAG_REMOVED};
use crate::keyspace::export::{FLAG_EDITED, FLAG_EXPIRES};
use crate::keyspace::import::{Cursor, ImportError};
use crate::keyspace::record::{Record, Traits};
use crate::keyspace::rope::Patch;
use crate::keyspace::store::Keyspace;
use crate::keyspace::terms::{Position, Value};
use crate::slot::{KeySlot, Slot};

/// Longest value: Redis's proto-max-bulk-len.
const VALUE_BYTES_MAX: usize = 512 << 20;

enum Change<'a> {
    Record(Record),
    Part { key: &'a [u8], mark: AccessMark, patch: Patch<'a>, traits: Traits },
    Removed(&'a [u8]),
}

type Changes<'a> = BTreeMap<KeySlot, Vec<Change<'a>>>;

impl Keyspace {
    /// Makes the page's changes to the slot's buckets. § Each bucket skips what it holds already, like any op.
    pub fn stage(&self, slot: Slot, position: Position, page: &[u8]) -> Result<(), ImportError> {
        for (key_slot, changes) in self.changes_from(slot, page)? {
            self.change(key_slot, |bucket| {
                if bucket.position < position {
                    changes.into_iter().for_each(|change| change.make(bucket));
                    bucket.position = position;
                }
            });
        }
        Ok(())
    }

    /// Whether `stage` would take the page in.
    pub fn check_page(&self, slot: Slot, page: &[u8]) -> Result<(), ImportError> {
        self.changes_from(slot, page).map(|_| ())
    }

    fn changes_from<'a>(&self, slot: Slot, page: &'a [u8]) -> Result<Changes<'a>, ImportError> {
        let mut bytes = Cursor(page);
        let mut changes = Changes::new();
        while !bytes.0.is_empty() {
            let (key_slot, change) = self.change_from(&mut bytes)?;
            if key_slot.slot() != slot {
                return Err(ImportError::WrongSlot(key_slot));
            }
            changes.entry(key_slot).or_default().push(change);
        }
        Ok(changes)
    }

    /// § What is large is copied here, outside the lock.
    fn change_from<'a>(&self, bytes: &mut Cursor<'a>) -> Result<(KeySlot, Change<'a>), ImportError> {
        let [flags] = bytes.array()?;
        if flags & !(FLAG_EXPIRES | FLAG_EDITED | FLAG_REMOVED | FLAG_PART) != 0 {
            return Err(ImportError::Flags(flags));
        }
        let key_bytes = u32::from_le_bytes(bytes.array()?) as usize;
        let mark = AccessMark::from_bits(u32::from_le_bytes(bytes.array()?));
        let offset = u32::from_le_bytes(bytes.array()?) as usize;
        let length = u32::from_le_bytes(bytes.array()?) as usize;
        let expire_at = match flags & FLAG_EXPIRES {
            0 => None,
            _ => Some(Timestamp(i64::from_le_bytes(bytes.array()?))),
        };
        let (key, value) = (bytes.take(key_bytes)?, bytes.take(length)?);
        let traits = Traits { expire_at, edited: flags & FLAG_EDITED != 0 };
        // § A patch past the end is padded: what a damaged page names must not allocate what it likes.
        if offset > VALUE_BYTES_MAX {
            return Err(ImportError::Truncated);
        }
        let change = if flags & FLAG_REMOVED != 0 {
            Change::Removed(key)
        } else if flags & FLAG_PART != 0 {
            Change::Part { key, mark, patch: Patch::new(offset, value), traits }
        } else {
            Change::Record(Record::new(self.context.hash(key), mark, key, Value::Slice(value), traits))
        };
        Ok((KeySlot::of_key(key), change))
    }
}

impl Change<'_> {
    fn make(self, bucket: &mut Bucket) {
        match self {
            Self::Record(record) => bucket.insert_restored(record),
            Self::Part { key, mark, patch, traits } => bucket.write_restored(key, mark, patch, traits),
            Self::Removed(key) => bucket.remove_restored(key),
        }
    }
}
