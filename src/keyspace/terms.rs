//! The small types that the keyspace's callers speak.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::keyspace::rope::SharedValue;

/// Where an op stands in the log: index of its entry, then its number in the entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub index: u64,
    pub op: u32,
}

/// Per-cluster secret that seeds the key hash, so that nobody outside can aim keys at one sub-table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSecret(pub [u64; 4]);

impl HashSecret {
    /// The hash of a text. ahash is not the same on every CPU, so nodes compare a test vector before they trust each other.
    pub fn hash(self, text: &[u8]) -> u64 {
        let [a, b, c, d] = self.0;
        ahash::RandomState::with_seeds(a, b, c, d).hash_one(text)
    }
}

impl std::fmt::Debug for HashSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSecret(..)")
    }
}

/// Whether this group owns a bucket's slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlotState {
    #[default]
    Absent,
    Owned,
}

/// What became of an op given to [`crate::keyspace::Keyspace::apply`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Applied<R> {
    /// The bucket already holds this op (replay after a snapshot); nothing was run.
    Skipped,
    /// The slot is not owned here; nothing was run and the position did not move.
    NotOwned,
    Done(R),
}

/// What a read needs beside its key: the last stamp applied from the log, and the group clock now. `stamp <= clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    pub stamp: Timestamp,
    pub clock: Timestamp,
    pub marking: Marking,
}

/// What a read does with access marks, which are no replicated state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marking {
    /// It leaves none, unless that is what it is for (TOUCH).
    pub untouched: bool,
    /// Their counter counts, not their age.
    pub by_frequency: bool,
}

impl Time {
    pub fn new(stamp: Timestamp, clock: Timestamp) -> Self {
        Self { stamp, clock, marking: Marking::default() }
    }
}

/// A value to store, or one read. Give large values as `Shared`: they are kept by refcount instead of being copied under the lock.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    Slice(&'a [u8]),
    Shared(SharedValue),
}

impl Value<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Slice(bytes) => bytes.len(),
            Self::Shared(value) => value.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; `None` if they are in several pieces, and then they are more than 128 KiB.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match self {
            Self::Slice(bytes) => Some(bytes),
            Self::Shared(value) => value.as_slice(),
        }
    }

    /// The value without its lock; a small one is copied.
    pub fn into_shared(self) -> SharedValue {
        match self {
            Self::Slice(bytes) => Bytes::copy_from_slice(bytes).into(),
            Self::Shared(value) => value,
        }
    }
}
