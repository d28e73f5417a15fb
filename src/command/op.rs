//! Ops: how one write is encoded in an entry, and how it is applied. Hot path.
//!
//! An entry's batch is a run of ops, all numbers little-endian:
//!
//! ```text
//! code u16 | key slot u16 | body length u32 | body
//! ```
//!
//! The body is the command's own: what its `plan` function wrote with `OpWriter`, its `apply` function reads back with
//! `OpReader`. Inside a body, byte strings are `length u32 | bytes`, times are `i64` milliseconds, an absent time is
//! `i64::MIN`. Codes are stable: a number is never reused, since logs and snapshots outlive a version of the program.
//!
//! § An op carries absolute times and literal arguments, so applying it needs no clock and gives the same result on
//! every replica. A damaged body panics in `op::apply`, after `decode` has checked the frame: the log's checksums let no
//! damage through, so a body that does not parse means that this replica would diverge, and it must stop instead.

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::keyspace::{Applied, Bucket, Entry, Keyspace, PIECE_BYTES, Patch, Position, Value, WARMED_AT_ONCE};
use crate::protocol::Reply;
use crate::slot::KeySlot;

use super::errors::WireError;
use super::row::ApplyFn;
use super::{expiry, strings, table};

/// Bytes before an op's body.
pub const HEADER_BYTES: usize = 8;
/// A value at least this long shares the entry's memory instead of being copied under the bucket's lock. It is as long
/// as a whole batch of small ops may get, so a shared value pins at most about twice its own size.
const SHARED_VALUE_BYTES_MIN: usize = 64 * 1024;
/// Longest key. Redis allows 512 MB; a record of a key and a value must fit one block of a snapshot.
pub const KEY_BYTES_MAX: usize = 16 << 20;
/// What all arguments of one command may come to: the longest value, the longest key and some options. Redis has no such limit; an op
/// must fit one message to a follower.
pub const ARGUMENT_BYTES_MAX: usize = 544 << 20;
/// Longest body: every argument may carry its length.
pub const BODY_BYTES_MAX: usize = ARGUMENT_BYTES_MAX + 4 * ARGUMENT_COUNT_MAX;
const ARGUMENT_COUNT_MAX: usize = 1 << 20;
/// Hashing a longer key takes longer than what it would save.
const WARMED_KEY_BYTES_MAX: usize = 256;
const NO_TIMESTAMP: i64 = i64::MIN;

/// Says which apply function an op belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpCode(pub u16);

impl OpCode {
    pub const SET: Self = Self(1);
    pub const GETEX: Self = Self(2);
    pub const GETDEL: Self = Self(3);
    pub const GETSET: Self = Self(4);
    pub const SETNX: Self = Self(5);
    pub const SETEX: Self = Self(6);
    pub const PSETEX: Self = Self(7);
    pub const MSET: Self = Self(8);
    pub const MSETNX: Self = Self(9);
    pub const INCR: Self = Self(10);
    pub const DECR: Self = Self(11);
    pub const INCRBY: Self = Self(12);
    pub const DECRBY: Self = Self(13);
    pub const INCRBYFLOAT: Self = Self(14);
    pub const APPEND: Self = Self(15);
    pub const SETRANGE: Self = Self(16);
    pub const DEL: Self = Self(17);
    pub const UNLINK: Self = Self(18);
    pub const EXPIRE: Self = Self(19);
    pub const PEXPIRE: Self = Self(20);
    pub const EXPIREAT: Self = Self(21);
    pub const PEXPIREAT: Self = Self(22);
    pub const PERSIST: Self = Self(23);
    pub const RENAME: Self = Self(24);
    pub const RENAMENX: Self = Self(25);
    pub const COPY: Self = Self(26);
    /// Deletes those of the listed keys that are due at the stamp; proposed by leaders, no client's command.
    pub const EXPIRE_DUE: Self = Self(27);
    /// Empties every bucket. Group-wide.
    pub const FLUSH: Self = Self(28);
    /// Gives a new group its slots. Group-wide: see `raft/group_op.rs`.
    pub const FOUND: Self = Self(29);
    /// A step of a slot's move between groups. Group-wide: see `raft/move_op.rs`.
    pub const MOVE: Self = Self(30);
    /// One more than the highest code.
    pub const COUNT: usize = 31;

    /// Ops that the group carries out itself, over all its buckets.
    pub fn is_group_wide(self) -> bool {
        self == Self::FLUSH || self == Self::FOUND || self == Self::MOVE
    }
}

/// What an op is applied to.
#[derive(Debug)]
pub struct Apply<'a> {
    pub bucket: &'a mut Bucket,
    /// The entry's stamp. § A key due at the stamp counts as absent.
    pub stamp: Timestamp,
    /// What a large APPEND or SETRANGE writes.
    pub patch: Option<Patch<'a>>,
}

impl Apply<'_> {
    /// The key's entry, for a write that answers with its value: a read as well. § It counts on the node that answers, once, and not on each replica; no
    /// replicated state depends on that.
    pub fn read(&mut self, key: &[u8], reply: &Reply) -> Option<Entry<'_>> {
        if reply.is_discarded() { self.bucket.live(key, self.stamp) } else { self.bucket.live_read(key, self.stamp) }
    }

    /// `bytes` to be written at `offset`. Panics if a large one was prepared for another place.
    pub fn patch<'a>(&mut self, offset: usize, bytes: &'a [u8]) -> Patch<'a>
    where
        Self: 'a,
    {
        let patch = self.patch.take().unwrap_or_else(|| Patch::new(offset, bytes));
        assert_eq!(patch.offset(), offset, "nothing but apply changes a value");
        patch
    }
}

/// Writes one op's body at the end of a batch.
#[derive(Debug)]
pub struct OpWriter<'a> {
    buffer: &'a mut BytesMut,
}

impl<'a> OpWriter<'a> {
    pub fn new(buffer: &'a mut BytesMut) -> Self {
        Self { buffer }
    }

    pub fn u8(&mut self, value: u8) {
        self.buffer.put_u8(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.buffer.put_u32_le(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64_le(value);
    }

    /// Length-prefixed.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a bulk is at most proto-max-bulk-len, 512 MB");
        self.buffer.put_u32_le(length);
        self.buffer.put_slice(bytes);
    }

    pub fn optional_timestamp(&mut self, at: Option<Timestamp>) {
        self.buffer.put_i64_le(at.map_or(NO_TIMESTAMP, Timestamp::as_ms));
    }
}

/// Appends one op to `batch`; `body` writes it. If `body` fails, `batch` is as it was.
pub fn encode(
    batch: &mut BytesMut,
    code: OpCode,
    key_slot: KeySlot,
    body: impl FnOnce(&mut OpWriter<'_>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = batch.len();
    batch.put_u16_le(code.0);
    batch.put_u16_le(key_slot.get());
    batch.put_u32_le(0);
    if let Err(error) = body(&mut OpWriter::new(batch)) {
        batch.truncate(start);
        return Err(error);
    }
    let length = u32::try_from(batch.len() - start - HEADER_BYTES).expect("a request is far below 4 GiB");
    batch[start + 4..start + HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// One op of a batch, not yet looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub code: OpCode,
    pub key_slot: KeySlot,
    pub body: Bytes,
}

/// A batch that is not a run of ops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("op cut short: {have} bytes of {need}")]
    Short { have: usize, need: usize },
    #[error("no op has code {0}")]
    Code(u16),
    #[error("no key slot has number {0}")]
    KeySlot(u16),
}

/// Takes the first op off `batch`; `None` at its end.
pub fn decode(batch: &mut Bytes) -> Result<Option<Op>, DecodeError> {
    if batch.is_empty() {
        return Ok(None);
    }
    let Some(header) = batch.first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::Short { have: batch.len(), need: HEADER_BYTES });
    };
    let [code_0, code_1, slot_0, slot_1, length @ ..] = *header;
    let code = u16::from_le_bytes([code_0, code_1]);
    let key_slot = u16::from_le_bytes([slot_0, slot_1]);
    let need = HEADER_BYTES + u32::from_le_bytes(length) as usize;
    if code == 0 || usize::from(code) >= OpCode::COUNT {
        return Err(DecodeError::Code(code));
    }
    let Some(key_slot) = KeySlot::new(key_slot) else { return Err(DecodeError::KeySlot(key_slot)) };
    if batch.len() < need {
        return Err(DecodeError::Short { have: batch.len(), need });
    }
    let body = batch.split_to(need).slice(HEADER_BYTES..);
    Ok(Some(Op { code: OpCode(code), key_slot, body }))
}

/// The keys of the first ops of `batch`, with which memory is fetched early. An op's body begins with its key; one that does not, or that is
/// damaged, gives another key or none, which does no harm here.
pub fn first_keys(batch: &[u8]) -> SmallVec<[(KeySlot, &[u8]); WARMED_AT_ONCE]> {
    let (mut rest, mut keys) = (batch, SmallVec::new());
    for _ in 0..WARMED_AT_ONCE {
        let Some(([_, _, slot_0, slot_1, length @ ..], body)) = rest.split_first_chunk::<HEADER_BYTES>() else { break };
        let Some((body, next)) = body.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        rest = next;
        let key_slot = KeySlot::new(u16::from_le_bytes([*slot_0, *slot_1]));
        let key = body.split_first_chunk().and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize));
        let key = key.filter(|key| key.len() <= WARMED_KEY_BYTES_MAX);
        keys.extend(key_slot.zip(key));
    }
    keys
}

/// A body that its plan function cannot have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged op body")]
pub struct DamagedBody;

/// Reads an op's body; every access is bounds-checked.
#[derive(Debug, Clone)]
pub struct OpReader<'a> {
    rest: &'a [u8],
    body: &'a Bytes,
}

impl<'a> OpReader<'a> {
    pub fn new(body: &'a Bytes) -> Self {
        Self { rest: body, body }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DamagedBody> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DamagedBody)?;
        self.rest = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, DamagedBody> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, DamagedBody> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, DamagedBody> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], DamagedBody> {
        let length = self.u32()? as usize;
        let (head, tail) = self.rest.split_at_checked(length).ok_or(DamagedBody)?;
        self.rest = tail;
        Ok(head)
    }

    /// A value to be stored: shared with the entry when it is large, else a slice to copy.
    pub fn value(&mut self) -> Result<Value<'a>, DamagedBody> {
        let bytes = self.bytes()?;
        // § Nothing over 1 ms under a bucket's lock: a 512 MB value is not copied there.
        Ok(if bytes.len() >= SHARED_VALUE_BYTES_MIN {
            Value::Shared(self.body.slice_ref(bytes).into())
        } else {
            Value::Slice(bytes)
        })
    }

    pub fn optional_timestamp(&mut self) -> Result<Option<Timestamp>, DamagedBody> {
        let at = self.i64()?;
        Ok((at != NO_TIMESTAMP).then_some(Timestamp(at)))
    }
}

/// Applies one op, not a group-wide one, under its bucket's lock, and appends its reply.
///
/// Panics if the op cannot be read: see the top of this file.
pub fn apply(op: &Op, position: Position, stamp: Timestamp, keyspace: &Keyspace, reply: &mut Reply) -> Applied<()> {
    let function =
        table::apply_function(op.code).expect("decode let only known codes through, and the group keeps its own");
    // § What is large is copied before the lock is taken, and dropped after it if the op is skipped.
    let mut patch = if op.body.len() < PIECE_BYTES { None } else { strings::large_patch(op, stamp, keyspace) };
    keyspace.apply(op.key_slot, position, |bucket| {
        let mut apply = Apply { bucket, stamp, patch: patch.take() };
        let applied = function(&mut OpReader::new(&op.body), &mut apply, reply);
        applied.expect("the log's checksums held, so the body is what plan wrote");
    })
}

/// Ops that no row has.
pub(super) const INTERNAL_OPS: &[(OpCode, ApplyFn)] = &[(OpCode::EXPIRE_DUE, expiry::apply_expire_due)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::{HashSecret, SlotState};
    use proptest::prelude::*;

    fn key_slot() -> KeySlot {
        KeySlot::of_key(b"k")
    }

    #[test]
    fn a_batch_is_laid_out_as_drawn() {
        let mut batch = BytesMut::new();
        encode(&mut batch, OpCode::SETEX, KeySlot::new(0x0102).unwrap(), |op| {
            op.bytes(b"k");
            op.optional_timestamp(Some(Timestamp(2)));
            op.u8(3);
            Ok(())
        })
        .unwrap();
        assert_eq!(batch[..], *b"\x06\0\x02\x01\x0e\0\0\0\x01\0\0\0k\x02\0\0\0\0\0\0\0\x03");
    }

    #[test]
    fn a_refused_plan_leaves_the_batch_as_it_was() {
        let mut batch = BytesMut::from(&b"before"[..]);
        let refused = encode(&mut batch, OpCode::SET, key_slot(), |op| {
            op.bytes(b"half");
            Err(WireError::Syntax)
        });
        assert_eq!((refused, &batch[..]), (Err(WireError::Syntax), &b"before"[..]));
    }

    #[test]
    fn ops_are_decoded_in_order_and_cut_ones_refused() {
        let mut batch = BytesMut::new();
        for code in [OpCode::DEL, OpCode::FLUSH] {
            encode(&mut batch, code, key_slot(), |op| {
                op.bytes(b"body");
                Ok(())
            })
            .unwrap();
        }
        let whole = batch.freeze();
        let mut rest = whole.clone();
        assert_eq!(decode(&mut rest).unwrap().unwrap().code, OpCode::DEL);
        assert_eq!(decode(&mut rest).unwrap().unwrap().code, OpCode::FLUSH);
        assert_eq!(decode(&mut rest), Ok(None));
        for cut in 1..whole.len() / 2 {
            assert!(matches!(decode(&mut whole.slice(..cut)), Err(DecodeError::Short { .. })), "{cut}");
        }
        assert_eq!(decode(&mut Bytes::from_static(&[0; 8])), Err(DecodeError::Code(0)));
        assert_eq!(decode(&mut Bytes::from_static(&[1, 0, 0xff, 0xff, 0, 0, 0, 0])), Err(DecodeError::KeySlot(0xffff)));
    }

    #[test]
    fn the_first_keys_of_a_batch_are_found_and_damage_is_passed_over() {
        let long = [b'x'; WARMED_KEY_BYTES_MAX + 1];
        let mut batch = BytesMut::new();
        for key in [&b"a"[..], &long, b"", b"b"] {
            encode(&mut batch, OpCode::SET, KeySlot::of_key(key), |op| {
                op.bytes(key);
                op.bytes(b"value");
                Ok(())
            })
            .unwrap();
        }
        encode(&mut batch, OpCode::FLUSH, key_slot(), |_| Ok(())).unwrap();
        batch.extend_from_slice(b"\x01\0\x02\x01\xff\xff\xff\xff");
        let keys = [&b"a"[..], b"", b"b"].map(|key| (KeySlot::of_key(key), key));
        assert_eq!(first_keys(&batch)[..], keys);
        assert_eq!(first_keys(&batch.repeat(WARMED_AT_ONCE)).len(), 3, "what follows damage is not read");
        assert_eq!(first_keys(&batch[..batch.len() - 8].repeat(2)).len(), 5, "of eight ops");
    }

    #[test]
    fn large_values_share_the_entrys_memory() {
        let mut batch = BytesMut::new();
        encode(&mut batch, OpCode::SET, key_slot(), |op| {
            op.bytes(&[7; SHARED_VALUE_BYTES_MIN]);
            op.bytes(&[7; SHARED_VALUE_BYTES_MIN - 1]);
            Ok(())
        })
        .unwrap();
        let op = decode(&mut batch.freeze()).unwrap().unwrap();
        let mut reader = OpReader::new(&op.body);
        assert!(
            matches!(reader.value(), Ok(Value::Shared(value)) if value.to_bytes().as_ptr() == op.body[4..].as_ptr())
        );
        assert!(matches!(reader.value(), Ok(Value::Slice(_))));
        assert_eq!(reader.bytes(), Err(DamagedBody));
    }

    fn apply_body(code: OpCode, body: &Bytes) {
        thread_local! {
            static KEYSPACE: Keyspace = Keyspace::new(HashSecret([1, 2, 3, 4]));
        }
        let Some(function) = table::apply_function(code) else {
            assert!(code.is_group_wide());
            return;
        };
        KEYSPACE.with(|keyspace| {
            keyspace.set_state(key_slot().slot(), SlotState::Owned);
            let index = keyspace.read(key_slot(), Bucket::position).index + 1;
            let _ = keyspace.apply(key_slot(), Position { index, op: 0 }, |bucket| {
                let mut target = Apply { bucket, stamp: Timestamp(1), patch: None };
                let _ = function(&mut OpReader::new(body), &mut target, &mut Reply::discard());
            });
        });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_when_decoded(bytes: Vec<u8>) {
            let mut batch = Bytes::from(bytes);
            while let Ok(Some(_)) = decode(&mut batch) {}
        }

        #[test]
        fn random_bodies_are_refused_or_applied(code in 1..OpCode::COUNT as u16, bytes: Vec<u8>) {
            let body = Bytes::from(bytes);
            apply_body(OpCode(code), &body);
        }

        #[test]
        fn words_that_are_short_lengths_are_refused_or_applied(
            code in 1..OpCode::COUNT as u16,
            words: Vec<(u8, Vec<u8>)>,
        ) {
            let mut buffer = BytesMut::new();
            let mut op = OpWriter::new(&mut buffer);
            for (kind, word) in &words {
                match kind % 3 {
                    0 => op.u8(*kind),
                    1 => op.optional_timestamp(Some(Timestamp(i64::from(*kind)))),
                    _ => op.bytes(word),
                }
            }
            let body = buffer.freeze();
            apply_body(OpCode(code), &body);
        }
    }
}
