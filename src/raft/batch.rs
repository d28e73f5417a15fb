//! The layout of one entry: a batch of ops with its stamp and its proposer's pending key. Hot path.
//!
//! ```text
//! level u16 | kind u8 | flags u8 | count u32 | stamp i64 | replica u64 | nonce u64 | seq u64 | ops ...
//! op:  code u16 | key slot u16 | body length u32 | body                     (see command/op.rs)
//! ```
//! All integers are little-endian. `kind` is 1 for ops of a data group and 2 for a meta op (one postcard value).
//! `flags` bit 0: the log syncs the entry in every mode before it acknowledges it; the other bits are zero.
//!
//! § The pending key is (replica, nonce, committed leader id, seq): the first, second and last are here, the leader id is the
//! entry's own log id, which `write(..).with_leader(L)` ties to the leadership the proposer meant. Without the boot nonce
//! a restarted node could take an entry of its former life for one of its own proposals.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::clock::Timestamp;
use crate::raft::Batch;

/// The highest feature level that this version knows. § What an op means is selected by the level in its entry, which is the topology's: raised when every
/// node knows it, so that versions can be mixed while nodes are upgraded one by one. A replica that meets a level above stops instead of guessing.
pub const FEATURE_LEVEL: u16 = 1;

pub const HEADER_BYTES: usize = 40;

const FLAGS_AT: usize = 3;
const DURABLE: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    Ops,
    Meta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub level: u16,
    pub kind: BatchKind,
    /// Number of ops.
    pub count: u32,
    pub stamp: Timestamp,
    pub origin: Origin,
    pub seq: u64,
    /// § Synced in every mode: it decides who owns a slot. Each group that takes part in a move goes by what the other and the meta group have told it,
    /// and one that forgot its part would leave the slot with two owners or with none.
    pub durable: bool,
}

/// Who proposed an entry: a replica in one life of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub replica: u64,
    pub nonce: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("an entry of {0} bytes is too short for its header")]
    Short(usize),
    #[error("an entry has feature level {0}, this version knows {FEATURE_LEVEL}: upgrade this node")]
    Level(u16),
    #[error("an entry has the unknown kind {0}")]
    Kind(u8),
}

pub fn encode(header: &BatchHeader, bodies: impl Iterator<Item = impl AsRef<[u8]>> + Clone) -> Batch {
    let body_bytes: usize = bodies.clone().map(|body| body.as_ref().len()).sum();
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body_bytes);
    put_header(header, &mut bytes);
    for body in bodies {
        bytes.put_slice(body.as_ref());
    }
    Batch(bytes.freeze())
}

/// Of ops that already lie behind room for the header.
pub fn encode_in_place(header: &BatchHeader, mut bytes: BytesMut) -> Batch {
    put_header(header, &mut &mut bytes[..HEADER_BYTES]);
    Batch(bytes.freeze())
}

fn put_header(header: &BatchHeader, bytes: &mut impl BufMut) {
    bytes.put_u16_le(header.level);
    bytes.put_u8(match header.kind {
        BatchKind::Ops => 1,
        BatchKind::Meta => 2,
    });
    bytes.put_u8(if header.durable { DURABLE } else { 0 });
    bytes.put_u32_le(header.count);
    bytes.put_i64_le(header.stamp.0);
    bytes.put_u64_le(header.origin.replica);
    bytes.put_u64_le(header.origin.nonce);
    bytes.put_u64_le(header.seq);
}

/// The header and the bytes after it.
pub fn decode(batch: &Batch) -> Result<(BatchHeader, Bytes), BatchError> {
    let mut bytes = batch.0.clone();
    if bytes.len() < HEADER_BYTES {
        return Err(BatchError::Short(bytes.len()));
    }
    let level = bytes.get_u16_le();
    if level > FEATURE_LEVEL {
        return Err(BatchError::Level(level));
    }
    let kind = match bytes.get_u8() {
        1 => BatchKind::Ops,
        2 => BatchKind::Meta,
        other => return Err(BatchError::Kind(other)),
    };
    let durable = bytes.get_u8() & DURABLE != 0;
    let count = bytes.get_u32_le();
    let stamp = Timestamp(bytes.get_i64_le());
    let origin = Origin { replica: bytes.get_u64_le(), nonce: bytes.get_u64_le() };
    let seq = bytes.get_u64_le();
    Ok((BatchHeader { level, kind, count, stamp, origin, seq, durable }, bytes))
}

/// Without a look at the rest; false for what is none.
pub fn is_durable(batch: &Batch) -> bool {
    batch.0.len() >= HEADER_BYTES && batch.0[FLAGS_AT] & DURABLE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_decodes_to_what_was_encoded() {
        for durable in [false, true] {
            let header = BatchHeader {
                level: FEATURE_LEVEL,
                kind: BatchKind::Ops,
                count: 2,
                stamp: Timestamp(-5),
                origin: Origin { replica: 7, nonce: 9 },
                seq: 11,
                durable,
            };
            let batch = encode(&header, [b"ab".as_slice(), b"c"].iter());
            let mut ops = BytesMut::zeroed(HEADER_BYTES);
            ops.put_slice(b"abc");
            assert_eq!(encode_in_place(&header, ops), batch);
            let (decoded, body) = decode(&batch).expect("decodes");
            assert_eq!((decoded, &body[..]), (header, &b"abc"[..]));
            assert_eq!(is_durable(&batch), durable);
        }
    }

    #[test]
    fn short_unknown_and_newer_entries_are_refused() {
        for length in 0..HEADER_BYTES {
            let short = Batch(Bytes::from(vec![0xFF; length]));
            assert!(decode(&short).is_err() && !is_durable(&short));
        }
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = 2;
        assert!(matches!(decode(&Batch(Bytes::from(bytes.clone()))), Err(BatchError::Level(2))));
        bytes[0] = 1;
        assert!(matches!(decode(&Batch(Bytes::from(bytes))), Err(BatchError::Kind(0))));
    }
}
