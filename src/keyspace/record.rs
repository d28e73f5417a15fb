//! How one key, its value and its expiry lie in memory.
//!
//! Hot path. A record takes 24 bytes in the sub-table; three forms of body by size:
//! ```text
//! Inline   Box<[u8]>   up to 256 bytes         flags u8 | key length u16 | expire_at i64, if flagged | key | value
//! Packed   Arc<[u8]>   up to 4 KiB, the same layout, so that copying a sub-table copies no more than 256 KiB
//! Big      key and value refcounted apart, the value as `rope.rs` says
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::keyspace::access::AccessMark;
use crate::keyspace::prefetch::prefetch;
use crate::keyspace::rope::{Patch, Piece, SharedValue};
use crate::keyspace::terms::Value;

/// § Times the records of a sub-table, this bounds what one copy-on-write copies under a bucket's lock: 256 KiB.
pub const INLINE_BYTES_MAX: usize = 256;
/// Above this a value has its own refcounted allocation.
pub const PACKED_BYTES_MAX: usize = 4096;
/// A shorter `Value::Shared` is copied: as a slice of a log entry it would pin the whole entry.
const SHARE_BYTES_MIN: usize = 32 * 1024;

const EXPIRES: u8 = 1;
const EDITED: u8 = 2;
const HEADER_BYTES: usize = 3;
const EXPIRY_BYTES: usize = 8;
/// What `Big` and its box cost beside key and value.
const BIG_OVERHEAD_BYTES: usize = 160;

const _: () = assert!(size_of::<Record>() == 24);

#[derive(Debug, Clone)]
pub struct Record {
    body: Body,
    /// Upper half of the key's hash: the order of records, sub-tables and SCAN. Stored so that no split or search
    /// hashes a (possibly huge) key again under the lock.
    pub hash: u32,
    pub mark: AccessMark,
}

#[derive(Debug, Clone)]
enum Body {
    Inline(Box<[u8]>),
    Large(Box<Large>),
}

#[derive(Debug, Clone)]
enum Large {
    Packed(Arc<[u8]>),
    Big(Big),
}

#[derive(Debug, Clone)]
struct Big {
    key: Bytes,
    value: SharedValue,
    expire_at: Option<Timestamp>,
    edited: bool,
}

/// Expiry and whether the value was edited in place (which Redis shows as encoding `raw`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits {
    pub expire_at: Option<Timestamp>,
    pub edited: bool,
}

impl Record {
    pub fn new(hash: u32, mark: AccessMark, key: &[u8], value: Value<'_>, traits: Traits) -> Self {
        Self { body: Body::new(key, value, traits), hash, mark }
    }

    pub fn key(&self) -> &[u8] {
        match self.body.view() {
            View::Packed(bytes) => packed_split(bytes).0,
            View::Big(big) => &big.key,
        }
    }

    /// Fetches the key, and the value with it if it is small.
    pub(super) fn warm(&self) {
        match &self.body {
            Body::Inline(bytes) => prefetch(&**bytes, 2),
            Body::Large(large) => prefetch(&**large, 1),
        }
    }

    /// The key to keep: a large one by reference count.
    pub fn shared_key(&self) -> Bytes {
        match self.body.view() {
            View::Packed(bytes) => Bytes::copy_from_slice(packed_split(bytes).0),
            View::Big(big) => big.key.clone(),
        }
    }

    /// The value; one with its own allocation by reference count.
    pub fn value(&self) -> Value<'_> {
        match self.body.view() {
            View::Packed(bytes) => Value::Slice(packed_split(bytes).1),
            View::Big(big) => Value::Shared(big.value.clone()),
        }
    }

    pub fn value_len(&self) -> usize {
        match self.body.view() {
            View::Packed(bytes) => packed_split(bytes).1.len(),
            View::Big(big) => big.value.len(),
        }
    }

    pub fn traits(&self) -> Traits {
        match self.body.view() {
            View::Packed(bytes) => packed_traits(bytes),
            View::Big(big) => Traits { expire_at: big.expire_at, edited: big.edited },
        }
    }

    pub fn expire_at(&self) -> Option<Timestamp> {
        self.traits().expire_at
    }

    /// Bytes of the record with its allocations.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.body {
                Body::Inline(bytes) => bytes.len(),
                Body::Large(large) => match &**large {
                    Large::Packed(bytes) => bytes.len() + size_of::<Large>() + 16,
                    Large::Big(big) => big.key.len() + big.value.memory_bytes() + BIG_OVERHEAD_BYTES,
                },
            }
    }

    /// What it replaced, unless that was overwritten.
    pub fn set_value(&mut self, value: Value<'_>, traits: Traits) -> Option<Discarded> {
        if self.overwrite(&value, traits) {
            return None;
        }
        let body = match &self.body {
            Body::Large(large) => match &**large {
                // A big key is passed on by refcount.
                Large::Big(big) => Body::with_big_key(big.key.clone(), value, traits),
                Large::Packed(_) => Body::new(self.key(), value, traits),
            },
            Body::Inline(_) => Body::new(self.key(), value, traits),
        };
        Some(Discarded(Parts::Body(std::mem::replace(&mut self.body, body))))
    }

    /// A small value of the old one's length goes in its place: memory that is at hand, where another allocation's would have to be fetched.
    fn overwrite(&mut self, value: &Value<'_>, traits: Traits) -> bool {
        let (Body::Inline(bytes), Some(value)) = (&mut self.body, value.as_slice()) else { return false };
        let old = packed_split(bytes).1;
        let start = bytes.len() - old.len();
        if old.len() != value.len() || packed_traits(bytes).expire_at.is_some() != traits.expire_at.is_some() {
            return false;
        }
        if let Some(expire_at) = traits.expire_at {
            bytes[HEADER_BYTES..][..EXPIRY_BYTES].copy_from_slice(&expire_at.0.to_le_bytes());
        }
        bytes[0] = flags(traits);
        bytes[start..].copy_from_slice(value);
        true
    }

    pub fn set_expire(&mut self, expire_at: Option<Timestamp>) {
        self.set_traits(Traits { expire_at, ..self.traits() });
    }

    fn set_traits(&mut self, traits: Traits) {
        if let Body::Large(large) = &mut self.body
            && let Large::Big(big) = &mut **large
        {
            (big.expire_at, big.edited) = (traits.expire_at, traits.edited);
            return;
        }
        self.body = Body::new(self.key(), self.value(), traits);
    }

    /// Writes into the value as it is rebuilt elsewhere: what it counts as does not change by that.
    pub fn write_part(&mut self, patch: Patch<'_>, traits: Traits) -> Discarded {
        let discarded = self.write(patch);
        self.set_traits(traits);
        discarded
    }

    /// Writes into the value in place.
    pub fn write(&mut self, patch: Patch<'_>) -> Discarded {
        if let Body::Large(large) = &mut self.body
            && let Large::Big(big) = &mut **large
        {
            big.edited = true;
            return Discarded(Parts::Pieces(big.value.write(patch)));
        }
        let View::Packed(bytes) = self.body.view() else { unreachable!("a big one has been written to") };
        let (key, old) = packed_split(bytes);
        let traits = Traits { edited: true, ..packed_traits(bytes) };
        let length = old.len().max(patch.end());
        let body = if length <= PACKED_BYTES_MAX {
            let mut value = Vec::with_capacity(length);
            value.extend_from_slice(old);
            patch.write_to_short(&mut value);
            Body::new(key, Value::Slice(&value), traits)
        } else {
            let mut value = SharedValue::from(Bytes::copy_from_slice(old));
            value.write(patch);
            Body::new(key, Value::Shared(value), traits)
        };
        Discarded(Parts::Body(std::mem::replace(&mut self.body, body)))
    }

    pub fn discard(self) -> Discarded {
        Discarded(Parts::Body(self.body))
    }
}

/// What was taken out of the keyspace. § Much of it is freed outside the lock: unmapping 512 MB takes milliseconds.
#[derive(Debug)]
pub struct Discarded(Parts);

#[derive(Debug)]
enum Parts {
    Body(Body),
    Pieces(Vec<Piece>),
}

impl Discarded {
    pub fn is_slow_to_free(&self) -> bool {
        match &self.0 {
            Parts::Body(body) => match body.view() {
                View::Packed(_) => false,
                View::Big(_) => true,
            },
            Parts::Pieces(pieces) => !pieces.is_empty(),
        }
    }
}

enum View<'a> {
    Packed(&'a [u8]),
    Big(&'a Big),
}

impl Body {
    fn view(&self) -> View<'_> {
        match self {
            Self::Inline(bytes) => View::Packed(bytes),
            Self::Large(large) => match &**large {
                Large::Packed(bytes) => View::Packed(bytes),
                Large::Big(big) => View::Big(big),
            },
        }
    }

    fn new(key: &[u8], value: Value<'_>, traits: Traits) -> Self {
        match Self::packed(key, &value, traits) {
            Some(body) => body,
            None => Self::big(Bytes::copy_from_slice(key), value, traits),
        }
    }

    fn with_big_key(key: Bytes, value: Value<'_>, traits: Traits) -> Self {
        Self::packed(&key, &value, traits).unwrap_or_else(|| Self::big(key, value, traits))
    }

    fn big(key: Bytes, value: Value<'_>, traits: Traits) -> Self {
        let value = match (value.as_slice(), &value) {
            (Some(bytes), Value::Shared(_)) if bytes.len() < SHARE_BYTES_MIN => Bytes::copy_from_slice(bytes).into(),
            (_, _) => value.into_shared(),
        };
        let Traits { expire_at, edited } = traits;
        Self::Large(Box::new(Large::Big(Big { key, value, expire_at, edited })))
    }

    fn packed(key: &[u8], value: &Value<'_>, traits: Traits) -> Option<Self> {
        let value = value.as_slice()?;
        let expiry_bytes = if traits.expire_at.is_some() { EXPIRY_BYTES } else { 0 };
        let length = HEADER_BYTES + expiry_bytes + key.len() + value.len();
        if length > PACKED_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.push(flags(traits));
        bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        if let Some(expire_at) = traits.expire_at {
            bytes.extend_from_slice(&expire_at.0.to_le_bytes());
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        if length <= INLINE_BYTES_MAX {
            Some(Self::Inline(bytes.into_boxed_slice()))
        } else {
            Some(Self::Large(Box::new(Large::Packed(bytes.into()))))
        }
    }
}

fn flags(traits: Traits) -> u8 {
    let expires = if traits.expire_at.is_some() { EXPIRES } else { 0 };
    expires | if traits.edited { EDITED } else { 0 }
}

fn packed_traits(bytes: &[u8]) -> Traits {
    let expire_at = (bytes[0] & EXPIRES != 0).then(|| {
        let field = &bytes[HEADER_BYTES..HEADER_BYTES + EXPIRY_BYTES];
        Timestamp(i64::from_le_bytes(field.try_into().expect("the range is eight bytes")))
    });
    Traits { expire_at, edited: bytes[0] & EDITED != 0 }
}

fn packed_split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let key_bytes = usize::from(u16::from_le_bytes([bytes[1], bytes[2]]));
    let start = HEADER_BYTES + if bytes[0] & EXPIRES != 0 { EXPIRY_BYTES } else { 0 };
    bytes[start..].split_at(key_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &[u8], expire_at: Option<i64>) -> Record {
        Record::new(7, AccessMark::new(1), b"key", Value::Slice(value), traits(expire_at, false))
    }

    fn traits(expire_at: Option<i64>, edited: bool) -> Traits {
        Traits { expire_at: expire_at.map(Timestamp), edited }
    }

    #[test]
    fn a_value_of_the_same_length_goes_in_the_old_ones_place() {
        for (before, after) in [(None, None), (Some(5), Some(9)), (None, Some(9)), (Some(5), None)] {
            for length in [0, 1, 64, INLINE_BYTES_MAX, PACKED_BYTES_MAX, 2 * PACKED_BYTES_MAX] {
                let mut changed = record(&vec![b'o'; length], before);
                let copy = changed.clone();
                let value = vec![b'n'; length];
                let discarded = changed.set_value(Value::Slice(&value), traits(after, true));
                let small = HEADER_BYTES + EXPIRY_BYTES + 3 + length <= INLINE_BYTES_MAX;
                assert_eq!(discarded.is_none(), small && before.is_some() == after.is_some(), "{length}");
                assert_eq!(changed.key(), b"key");
                assert_eq!(changed.value().as_slice(), Some(&value[..]));
                assert_eq!(changed.traits(), traits(after, true));
                assert_eq!(copy.value().as_slice(), Some(&vec![b'o'; length][..]), "a copy has its own");
            }
        }
        let mut changed = record(b"four", None);
        assert!(changed.set_value(Value::Slice(b"three"), Traits::default()).is_some());
        assert_eq!(changed.value().as_slice(), Some(&b"three"[..]));
    }
}
