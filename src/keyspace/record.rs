//! How one key, its value and its expiry lie in memory.
//!
//! Hot path. A record takes 24 bytes in the sub-table; three forms of body by size:
//! ```text
//! Inline   Box<[u8]>   up to 256 bytes         flags u8 | key length u16 | expire_at i64, if flagged | key | value
//! Packed   Arc<[u8]>   up to 4 KiB, the same layout, so that copying a sub-table copies no more than 256 KiB
//! Big      key and value refcounted apart; a value that APPEND or SETRANGE made keeps spare capacity
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::keyspace::access::AccessMark;
use crate::keyspace::terms::Value;

/// § Times the records of a sub-table, this bounds what one copy-on-write copies under a bucket's lock: 256 KiB.
pub const INLINE_BYTES_MAX: usize = 256;
/// Above this a value has its own refcounted allocation.
pub const PACKED_BYTES_MAX: usize = 4096;
/// A shorter `Value::Shared` is copied: as a slice of a log entry it would pin the whole entry.
const SHARE_BYTES_MIN: usize = 32 * 1024;
/// Spare room of a growing value, as Redis's SDS does: as much again, at most 1 MiB or an eighth.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

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
    value: BigValue,
    expire_at: Option<Timestamp>,
    edited: bool,
}

#[derive(Debug, Clone)]
enum BigValue {
    Shared(Bytes),
    Growing(Arc<Vec<u8>>),
}

/// Lets a reader hold a growing value without copying it.
struct Held(Arc<Vec<u8>>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
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

    pub fn value(&self) -> &[u8] {
        match self.body.view() {
            View::Packed(bytes) => packed_split(bytes).1,
            View::Big(big) => big.value.as_slice(),
        }
    }

    /// The value by refcount, when it has its own allocation.
    pub fn shared(&self) -> Option<Bytes> {
        match self.body.view() {
            View::Packed(_) => None,
            View::Big(Big { value: BigValue::Shared(bytes), .. }) => Some(bytes.clone()),
            View::Big(Big { value: BigValue::Growing(bytes), .. }) => Some(Bytes::from_owner(Held(bytes.clone()))),
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
                    Large::Big(big) => big.key.len() + big.value.capacity() + BIG_OVERHEAD_BYTES,
                },
            }
    }

    pub fn set_value(&mut self, value: Value<'_>, traits: Traits) -> Discarded {
        let body = match &self.body {
            Body::Large(large) => match &**large {
                // A big key is passed on by refcount.
                Large::Big(big) => Body::with_big_key(big.key.clone(), value, traits),
                Large::Packed(_) => Body::new(self.key(), value, traits),
            },
            Body::Inline(_) => Body::new(self.key(), value, traits),
        };
        Discarded(std::mem::replace(&mut self.body, body))
    }

    pub fn set_expire(&mut self, expire_at: Option<Timestamp>) {
        if let Body::Large(large) = &mut self.body
            && let Large::Big(big) = &mut **large
        {
            big.expire_at = expire_at;
            return;
        }
        let traits = Traits { expire_at, ..self.traits() };
        self.body = Body::new(self.key(), Value::Slice(self.value()), traits);
    }

    /// Edits the value in place; `length` is what it will have. A big unshared value with room is not copied.
    pub fn edit(&mut self, length: usize, edit: impl FnOnce(&mut Vec<u8>)) {
        if let Body::Large(large) = &mut self.body
            && let Large::Big(big) = &mut **large
        {
            big.edited = true;
            big.value.edit(length, edit);
            return;
        }
        let mut value = Vec::with_capacity(length);
        value.extend_from_slice(self.value());
        edit(&mut value);
        let traits = Traits { edited: true, ..self.traits() };
        self.body = Body::edited(self.key(), value, traits);
    }

    pub fn discard(self) -> Discarded {
        Discarded(self.body)
    }
}

/// A body taken out of the keyspace. § A large one is freed outside the lock: unmapping 512 MB takes milliseconds.
#[derive(Debug)]
pub struct Discarded(Body);

impl Discarded {
    pub fn is_slow_to_free(&self) -> bool {
        match self.0.view() {
            View::Packed(_) => false,
            View::Big(_) => true,
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
        match Self::packed(key, value.as_slice(), traits) {
            Some(body) => body,
            None => Self::with_big_key(Bytes::copy_from_slice(key), value, traits),
        }
    }

    fn edited(key: &[u8], value: Vec<u8>, traits: Traits) -> Self {
        Self::packed(key, &value, traits)
            .unwrap_or_else(|| Self::big(Bytes::copy_from_slice(key), BigValue::Growing(Arc::new(value)), traits))
    }

    fn with_big_key(key: Bytes, value: Value<'_>, traits: Traits) -> Self {
        if let Some(body) = Self::packed(&key, value.as_slice(), traits) {
            return body;
        }
        let value = match value {
            Value::Shared(bytes) if bytes.len() >= SHARE_BYTES_MIN => bytes,
            Value::Shared(bytes) => Bytes::copy_from_slice(&bytes),
            Value::Slice(bytes) => Bytes::copy_from_slice(bytes),
        };
        Self::big(key, BigValue::Shared(value), traits)
    }

    fn big(key: Bytes, value: BigValue, traits: Traits) -> Self {
        let Traits { expire_at, edited } = traits;
        Self::Large(Box::new(Large::Big(Big { key, value, expire_at, edited })))
    }

    fn packed(key: &[u8], value: &[u8], traits: Traits) -> Option<Self> {
        let expiry_bytes = if traits.expire_at.is_some() { EXPIRY_BYTES } else { 0 };
        let length = HEADER_BYTES + expiry_bytes + key.len() + value.len();
        if length > PACKED_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        let expires = if traits.expire_at.is_some() { EXPIRES } else { 0 };
        bytes.push(expires | if traits.edited { EDITED } else { 0 });
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

impl BigValue {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Growing(bytes) => bytes,
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Shared(bytes) => bytes.len(),
            Self::Growing(bytes) => bytes.capacity(),
        }
    }

    fn edit(&mut self, length: usize, edit: impl FnOnce(&mut Vec<u8>)) {
        if let Self::Growing(value) = self
            && let Some(value) = Arc::get_mut(value)
        {
            if value.capacity() < length {
                value.reserve_exact(with_spare(length) - value.len());
            }
            edit(value);
            return;
        }
        let mut value = Vec::with_capacity(with_spare(length));
        value.extend_from_slice(self.as_slice());
        edit(&mut value);
        *self = Self::Growing(Arc::new(value));
    }
}

fn with_spare(length: usize) -> usize {
    length + length.min(SPARE_BYTES_MAX.max(length / 8))
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
