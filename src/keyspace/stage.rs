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

enum Change<'a> {
    Record(Record),
    Part { key: &'a [u8], mark: AccessMark, patch: Patch<'a>, traits: Traits },
    Removed(&'a [u8]),
}

impl Keyspace {
    /// Makes the page's changes to the slot's buckets. § Each bucket skips what it holds already, like any op.
    pub fn stage(&self, slot: Slot, position: Position, page: &[u8]) -> Result<(), ImportError> {
        let mut bytes = Cursor(page);
        let mut changes = BTreeMap::<KeySlot, Vec<Change<'_>>>::new();
        while !bytes.0.is_empty() {
            let (key_slot, change) = self.change_from(&mut bytes)?;
            if key_slot.slot() != slot {
                return Err(ImportError::WrongSlot(key_slot));
            }
            changes.entry(key_slot).or_default().push(change);
        }
        for (key_slot, changes) in changes {
            self.change(key_slot, |bucket| {
                if bucket.position < position {
                    changes.into_iter().for_each(|change| change.make(bucket));
                    bucket.position = position;
                }
            });
        }
        Ok(())
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
