//! A chunk: a run of one connection's commands for one group, proposed together and answered together. Hot path.

use bytes::BytesMut;

use crate::command::op::{self, OpWriter};
use crate::command::{LcsJob, OpCode, Row, WireError};
use crate::keyspace::Marking;
use crate::protocol::{OwnedArgs, Protocol, Replies};
use crate::raft::batch;
use crate::slot::KeySlot;

/// A connection closes its chunks of a turn when they hold this many bytes; one larger command makes a larger chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A chunk whose first command is at least this long is made for an entry of its own.
const ENTRY_BYTES_MIN: usize = 32 << 10;
/// What an op may have beside what the request had: its header and times. The words' lengths take less than in the request.
const OP_OVERHEAD_BYTES: usize = 24;

/// What one position of a chunk stands for.
#[derive(Debug)]
pub enum Item {
    /// The next logged op; its reply is the client's.
    Op,
    /// The next logged op; nobody reads its reply (due keys that a read or the background found).
    Silent,
    /// A read that rides along unlogged and is answered at apply, after the ops before it.
    Read { row: &'static Row, args: OwnedArgs, key_slot: KeySlot, marking: Marking },
}

#[derive(Debug)]
pub struct Chunk {
    pub(super) protocol: Protocol,
    /// Encoded ops, back to back, behind `room`.
    pub(super) ops: BytesMut,
    /// Bytes kept for the header of an entry that this chunk makes up alone: the entry is then these bytes, not a copy of them.
    room: usize,
    pub(super) op_count: u32,
    pub(super) items: Vec<Item>,
    /// Its entry is synced in every mode.
    pub(super) durable: bool,
    /// Bytes held by ride-along reads.
    read_bytes: usize,
    /// The entry that last answered a chunk of the same connection; see `raft/cohort.rs`.
    pub follows: Option<u64>,
}

/// What became of a chunk. There is no fourth outcome: see the rules (a)-(e) in `raft/pending.rs`.
#[derive(Debug)]
pub enum ChunkOutcome {
    /// Reply `i` is `replies[ends[i - 1]..ends[i]]`, one per item that is not silent. An *empty* reply means that this item did not happen and is
    /// to be routed again: the slot had left the group when the item's turn came. `entry` is for the next chunk's `follows`.
    Replied { entry: u64, replies: Replies, ends: Vec<u32>, jobs: Vec<ChunkJob> },
    /// None of it happened, for certain: route it again, and plan it again.
    Reroute,
    /// Nothing is known. The connection must be closed without a reply: neither OK nor "did not happen" would be true.
    Unknown,
}

/// A read that rode along and took its values at its turn, but is long to compute: the connection does it.
#[derive(Debug)]
pub struct ChunkJob {
    /// Index among the items that are answered; its reply in the outcome is empty.
    pub item: usize,
    pub job: Box<LcsJob>,
}

impl Chunk {
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            ops: BytesMut::new(),
            room: 0,
            op_count: 0,
            items: Vec::new(),
            durable: false,
            read_bytes: 0,
            follows: None,
        }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Adds one op whose body `plan` writes; nothing is added when it errs. `bytes`: of the request, so that the op's memory is asked for once.
    pub fn push_op(
        &mut self,
        code: OpCode,
        key_slot: KeySlot,
        bytes: usize,
        plan: impl FnOnce(&mut OpWriter<'_>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let needed = bytes + OP_OVERHEAD_BYTES;
        if self.ops.is_empty() && bytes >= ENTRY_BYTES_MIN {
            self.room = batch::HEADER_BYTES;
            self.ops.reserve(self.room + needed);
            self.ops.resize(self.room, 0);
        } else {
            self.ops.reserve(needed);
        }
        op::encode(&mut self.ops, code, key_slot, plan)?;
        self.op_count += 1;
        self.items.push(Item::Op);
        Ok(())
    }

    /// Like `push_op`, without a reply.
    pub fn push_silent(&mut self, code: OpCode, key_slot: KeySlot, body: impl FnOnce(&mut OpWriter<'_>)) {
        let plan = |writer: &mut OpWriter<'_>| {
            body(writer);
            Ok(())
        };
        op::encode(&mut self.ops, code, key_slot, plan).expect("this body cannot be refused");
        self.op_count += 1;
        self.items.push(Item::Silent);
    }

    pub fn push_read(&mut self, row: &'static Row, args: OwnedArgs, key_slot: KeySlot, marking: Marking) {
        self.read_bytes += args.args().iter().map(<[u8]>::len).sum::<usize>();
        self.items.push(Item::Read { row, args, key_slot, marking });
    }

    /// Number of items, silent ones included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.op_bytes().len() + self.read_bytes
    }

    pub(super) fn op_bytes(&self) -> &[u8] {
        &self.ops[self.room..]
    }

    /// The ops behind room for an entry's header; `None` if there is none, or if memory that they do not need would stay with the entry.
    pub(super) fn take_roomy_ops(&mut self) -> Option<BytesMut> {
        let spare = self.ops.capacity() - self.ops.len();
        (self.room > 0 && spare <= self.ops.len() / 8).then(|| self.take_ops())
    }

    pub(super) fn take_ops(&mut self) -> BytesMut {
        self.room = 0;
        std::mem::take(&mut self.ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(chunk: &mut Chunk, value: &[u8]) {
        let plan = |op: &mut OpWriter<'_>| {
            op.bytes(b"key");
            op.bytes(value);
            op.optional_timestamp(None);
            op.u8(0);
            Ok(())
        };
        // As long as the shortest request for it.
        let bytes = "SET\r\n$3\r\nkey\r\n$1\r\n".len() + value.len();
        chunk.push_op(OpCode::SET, KeySlot::of_key(b"key"), bytes, plan).expect("is planned");
    }

    #[test]
    fn memory_of_a_large_op_is_asked_for_once_and_becomes_the_entrys() {
        let value = vec![7; ENTRY_BYTES_MIN];
        let (mut chunk, mut small) = (Chunk::new(Protocol::Resp2), Chunk::new(Protocol::Resp2));
        push(&mut chunk, &value);
        push(&mut small, &value[..100]);
        assert!(small.bytes() <= small.ops.capacity() && small.ops.capacity() < 150, "{}", small.ops.capacity());
        assert_eq!(chunk.bytes(), op::HEADER_BYTES + 4 + 3 + 4 + value.len() + 8 + 1);
        let (begin, bytes) = (chunk.ops.as_ptr(), chunk.op_bytes().to_vec());
        let ops = chunk.take_roomy_ops().expect("there is room");
        assert_eq!((ops.as_ptr(), &ops[batch::HEADER_BYTES..]), (begin, &bytes[..]));
        assert!(ops.capacity() <= ops.len() + OP_OVERHEAD_BYTES, "{} for {}", ops.capacity(), ops.len());
        assert!(chunk.bytes() == 0 && small.take_roomy_ops().is_none());
    }

    #[test]
    fn an_entry_is_a_copy_where_it_would_keep_much_more_memory_than_it_needs() {
        let mut chunk = Chunk::new(Protocol::Resp2);
        push(&mut chunk, &[7; ENTRY_BYTES_MIN]);
        push(&mut chunk, &[7; 100]);
        assert_eq!((chunk.take_roomy_ops(), chunk.op_count), (None, 2));
        assert!(chunk.bytes() > ENTRY_BYTES_MIN);
    }

    #[test]
    fn a_large_op_that_is_refused_leaves_nothing() {
        let mut chunk = Chunk::new(Protocol::Resp2);
        let refused = chunk.push_op(OpCode::SET, KeySlot::of_key(b"key"), ENTRY_BYTES_MIN, |_| Err(WireError::Syntax));
        assert!(refused.is_err() && chunk.is_empty() && chunk.bytes() == 0);
        push(&mut chunk, b"value");
        assert_eq!(op::decode(&mut chunk.op_bytes().to_vec().into()).expect("sound").expect("one").code, OpCode::SET);
    }
}
