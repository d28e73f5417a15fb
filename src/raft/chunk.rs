//! A chunk: a run of one connection's commands for one group, proposed together and answered together. Hot path.

use bytes::BytesMut;

use crate::command::op::{self, OpWriter};
use crate::command::{LcsJob, OpCode, Row, WireError};
use crate::protocol::{OwnedArgs, Protocol, Replies};
use crate::slot::KeySlot;

/// A connection closes its chunks of a turn when they hold this many bytes; one larger command makes a larger chunk.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// What one position of a chunk stands for.
#[derive(Debug)]
pub enum Item {
    /// The next logged op; its reply is the client's.
    Op,
    /// The next logged op; nobody reads its reply (due keys that a read or the background found).
    Silent,
    /// A read that rides along unlogged and is answered at apply, after the ops before it.
    Read { row: &'static Row, args: OwnedArgs, key_slot: KeySlot },
}

#[derive(Debug)]
pub struct Chunk {
    pub(super) protocol: Protocol,
    /// Encoded ops, back to back.
    pub(super) ops: BytesMut,
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

    /// Adds one op whose body `plan` writes; nothing is added when it errs.
    pub fn push_op(
        &mut self,
        code: OpCode,
        key_slot: KeySlot,
        plan: impl FnOnce(&mut OpWriter<'_>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
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

    pub fn push_read(&mut self, row: &'static Row, args: OwnedArgs, key_slot: KeySlot) {
        self.read_bytes += args.args().iter().map(<[u8]>::len).sum::<usize>();
        self.items.push(Item::Read { row, args, key_slot });
    }

    /// Number of items, silent ones included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.ops.len() + self.read_bytes
    }
}
