//! Hot path. Frames between nodes: their layout, limits, and the incremental reader. Bodies are in `codec.rs`.
//!
//! ```text
//! frame     len u32 | kind u8 | group u32 | target replica u64 | request id u64 | body          little-endian
//! ```
//! `len` counts everything after itself. A message whose body is above `FRAGMENT_BYTES_MAX` travels as several frames
//! with equal header; all but the last have `MORE` set in `kind`, and their bodies begin with the message's whole length:
//! ```text
//! fragment  len u32 | kind|0x80 u8 | group | target | request id | total u32 | piece            (repeated)
//! last      len u32 | kind u8      | group | target | request id | piece
//! ```
//! Fragments of different groups interleave, those of one group never do, so a message is assembled per group.
//!
//! § Memory is allocated as bytes come, never by an announced length: a frame is at most 256 KiB, and a message's buffer
//! grows with what has arrived.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::errors::LinkError;
use crate::cluster::{GroupId, ReplicaId};
use crate::command::op::BODY_BYTES_MAX;
use crate::raft::chunk::CHUNK_BYTES_MAX;
use crate::raft::proposer::BATCH_BYTES_MAX;

/// Largest body of one frame; larger messages are cut.
pub const FRAGMENT_BYTES_MAX: usize = 256 * 1024;
/// Largest message: a 512 MB value, and slack for its key, the rest of its batch, and its neighbours in the request.
pub const MESSAGE_BYTES_MAX: usize = (512 + 64) * 1024 * 1024;
/// `kind | group | target | request id`.
pub const HEADER_BYTES: usize = 1 + 4 + 8 + 8;
/// The length field, and `total` of a fragment.
const LEN_BYTES: usize = 4;
const FRAME_BYTES_MAX: usize = HEADER_BYTES + LEN_BYTES + FRAGMENT_BYTES_MAX;
const READ_BYTES: usize = 64 * 1024;
/// Frames this large are read into a buffer of their own instead of through the shared one.
const OWN_BUFFER_BYTES_MIN: usize = 32 * 1024;
const MORE: u8 = 0x80;
/// An assembly buffer starts with this and doubles,
const ASSEMBLY_BYTES_MIN: usize = 1024 * 1024;
/// up to here; then it takes the rest at once, for moving more would hold up the control frames behind.
const ASSEMBLY_DOUBLING_BYTES_MAX: usize = 32 * 1024 * 1024;

const _: () = assert!(MESSAGE_BYTES_MAX <= u32::MAX as usize);
/// § An entry that a follower would refuse must never be proposed: the group could not commit anything behind it. The largest holds
/// a batch of small ops, a chunk that was not full, and the largest op.
const _: () = assert!(BATCH_BYTES_MAX + CHUNK_BYTES_MAX + BODY_BYTES_MAX + 1024 * 1024 < MESSAGE_BYTES_MAX);

/// Numbers are the wire's: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Append = 1,
    Heartbeat = 2,
    Vote = 3,
    PreVote = 4,
    TransferLeader = 5,
    SnapshotBegin = 6,
    SnapshotChunk = 7,
    SnapshotEnd = 8,
    Reply = 9,
    Hint = 10,
    Ask = 11,
    Ping = 12,
    Pong = 13,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Append,
            2 => Self::Heartbeat,
            3 => Self::Vote,
            4 => Self::PreVote,
            5 => Self::TransferLeader,
            6 => Self::SnapshotBegin,
            7 => Self::SnapshotChunk,
            8 => Self::SnapshotEnd,
            9 => Self::Reply,
            10 => Self::Hint,
            11 => Self::Ask,
            12 => Self::Ping,
            13 => Self::Pong,
            _ => return None,
        })
    }

    /// Control overtakes bulk; bulk of one group stays in order.
    pub fn lane(self) -> Lane {
        match self {
            Self::Append | Self::SnapshotBegin | Self::SnapshotChunk | Self::SnapshotEnd => Lane::Bulk,
            Self::Heartbeat
            | Self::Vote
            | Self::PreVote
            | Self::TransferLeader
            | Self::Reply
            | Self::Hint
            | Self::Ask
            | Self::Ping
            | Self::Pong => Lane::Control,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Control,
    Bulk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub group: GroupId,
    pub target: ReplicaId,
    pub request: u64,
}

impl Header {
    /// A header between nodes rather than replicas.
    pub fn of_node(kind: Kind, request: u64) -> Self {
        Self { kind, group: GroupId::META, target: ReplicaId(0), request }
    }

    /// Writes the frame's length and header, for `body` bytes that follow.
    pub fn encode_whole(&self, body: usize, out: &mut BytesMut) {
        self.encode(0, HEADER_BYTES + body, out);
    }

    /// Writes length, header and `total` of a fragment that is not the last, for `piece` bytes that follow.
    pub fn encode_fragment(&self, piece: usize, total: usize, out: &mut BytesMut) {
        self.encode(MORE, HEADER_BYTES + LEN_BYTES + piece, out);
        out.put_u32_le(u32::try_from(total).expect("a message is at most MESSAGE_BYTES_MAX"));
    }

    fn encode(&self, flag: u8, len: usize, out: &mut BytesMut) {
        assert!(len <= FRAME_BYTES_MAX);
        out.put_u32_le(len as u32);
        out.put_u8(self.kind as u8 | flag);
        out.put_u32_le(self.group.0);
        out.put_u64_le(self.target.0);
        out.put_u64_le(self.request);
    }
}

/// A whole message. `body` is an allocation of exactly its size, so that slices of it pin nothing else.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub body: Bytes,
}

struct Assembly {
    header: Header,
    total: usize,
    bytes: Vec<u8>,
}

/// Cuts a byte stream into messages. `fill` reads, `next` takes what is complete.
#[derive(Default)]
pub struct FrameReader {
    shared: BytesMut,
    /// A frame being read into its own buffer, and its length.
    own: Option<(BytesMut, usize)>,
    assemblies: BTreeMap<GroupId, Assembly>,
    /// What the open assemblies will come to.
    assemblies_total: usize,
}

impl FrameReader {
    /// Reads once; the number of bytes read, 0 at the end of the stream. Cancel-safe.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<usize, LinkError> {
        if let Some((bytes, len)) = &mut self.own {
            let missing = *len - bytes.len();
            return Ok(stream.read_buf(&mut bytes.limit(missing)).await?);
        }
        // Grown for a frame once, the buffer is kept: it is never frozen, so `reserve` only moves the rest to its front.
        self.shared.reserve(READ_BYTES);
        Ok(stream.read_buf(&mut self.shared).await?)
    }

    /// The next complete message; `None` if more bytes are needed. After an error the stream is useless.
    pub fn next_message(&mut self) -> Result<Option<Frame>, LinkError> {
        while let Some(frame) = self.next_frame()? {
            if let Some(message) = self.assemble(frame)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, LinkError> {
        if let Some((bytes, len)) = self.own.take() {
            if bytes.len() < len {
                self.own = Some((bytes, len));
                return Ok(None);
            }
            return Ok(Some(bytes.freeze()));
        }
        let Some(announced) = self.shared.first_chunk() else { return Ok(None) };
        let announced = u32::from_le_bytes(*announced);
        let len = announced as usize;
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&len) {
            return Err(LinkError::FrameLength(announced));
        }
        if let Some(frame) = self.shared.get(LEN_BYTES..LEN_BYTES + len) {
            let frame = Bytes::copy_from_slice(frame);
            self.shared.advance(LEN_BYTES + len);
            return Ok(Some(frame));
        }
        if len >= OWN_BUFFER_BYTES_MIN {
            // Bounded by FRAME_BYTES_MAX, so this may trust the announced length.
            let mut own = BytesMut::with_capacity(len);
            own.extend_from_slice(&self.shared[LEN_BYTES..]);
            self.shared.clear();
            self.own = Some((own, len));
        }
        Ok(None)
    }

    fn assemble(&mut self, mut frame: Bytes) -> Result<Option<Frame>, LinkError> {
        let kind_byte = frame.get_u8();
        let kind = Kind::from_byte(kind_byte & !MORE).ok_or(LinkError::FrameKind(kind_byte))?;
        let group = GroupId(frame.get_u32_le());
        let target = ReplicaId(frame.get_u64_le());
        let header = Header { kind, group, target, request: frame.get_u64_le() };
        if kind_byte & MORE != 0 {
            self.assemble_more(header, frame)?;
            return Ok(None);
        }
        if kind.lane() == Lane::Control {
            return Ok(Some(Frame { header, body: frame }));
        }
        let Some(mut assembly) = self.assemblies.remove(&group) else {
            return Ok(Some(Frame { header, body: frame }));
        };
        self.assemblies_total -= assembly.total;
        if assembly.header != header || assembly.bytes.len() + frame.len() != assembly.total {
            return Err(LinkError::Damaged("last fragment does not fit the ones before"));
        }
        assembly.append(&frame);
        Ok(Some(Frame { header, body: Bytes::from(assembly.bytes) }))
    }

    fn assemble_more(&mut self, header: Header, mut frame: Bytes) -> Result<(), LinkError> {
        if header.kind.lane() == Lane::Control {
            return Err(LinkError::Damaged("fragment of a control frame"));
        }
        let total = frame.try_get_u32_le().map_err(|_| LinkError::Damaged("fragment without its total"))? as usize;
        let assembly = match self.assemblies.entry(header.group) {
            MapEntry::Occupied(open) => open.into_mut(),
            MapEntry::Vacant(place) => {
                self.assemblies_total += total;
                // A sender queues at most one message above its queue's limit, so honest peers stay below this for all
                // groups together.
                if self.assemblies_total > MESSAGE_BYTES_MAX {
                    return Err(LinkError::MessageLength(self.assemblies_total as u64));
                }
                place.insert(Assembly { header, total, bytes: Vec::new() })
            }
        };
        let fits = assembly.header == header && assembly.total == total && assembly.bytes.len() + frame.len() < total;
        if !fits || frame.is_empty() {
            return Err(LinkError::Damaged("fragment does not fit the ones before"));
        }
        assembly.append(&frame);
        Ok(())
    }
}

impl Assembly {
    /// Doubles the buffer until the total is reached, and ends exactly there: a large value kept in the log must not
    /// pin twice its size.
    fn append(&mut self, piece: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < piece.len() {
            let rest = self.total - self.bytes.len();
            let step = self.bytes.len().max(ASSEMBLY_BYTES_MIN).max(piece.len());
            let doubling = self.bytes.len() < ASSEMBLY_DOUBLING_BYTES_MAX;
            self.bytes.reserve_exact(if doubling { step.min(rest) } else { rest });
        }
        self.bytes.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> Result<Vec<Frame>, LinkError> {
        let (mut reader, mut stream, mut frames) = (FrameReader::default(), bytes, Vec::new());
        loop {
            while let Some(frame) = reader.next_message()? {
                frames.push(frame);
            }
            if reader.fill(&mut stream).await? == 0 {
                return Ok(frames);
            }
        }
    }

    fn header(kind: Kind, group: u32) -> Header {
        Header { kind, group: GroupId(group), target: ReplicaId(7), request: 9 }
    }

    #[tokio::test]
    async fn frames_of_all_sizes_come_back_whole() {
        let mut wire = BytesMut::new();
        let sizes = [0, 1, 100, OWN_BUFFER_BYTES_MIN - 1, OWN_BUFFER_BYTES_MIN, FRAGMENT_BYTES_MAX, 5];
        for size in sizes {
            header(Kind::Append, 1).encode_whole(size, &mut wire);
            wire.put_bytes(size as u8, size);
        }
        let frames = read_all(&wire).await.unwrap();
        assert_eq!(frames.iter().map(|frame| frame.body.len()).collect::<Vec<_>>(), sizes);
        assert!(frames.iter().zip(sizes).all(|(frame, size)| frame.body.iter().all(|byte| *byte == size as u8)));
    }

    #[tokio::test]
    async fn fragments_of_two_groups_interleave_with_control_frames() {
        let (one, two, vote) = (header(Kind::Append, 1), header(Kind::Append, 2), header(Kind::Vote, 1));
        let mut wire = BytesMut::new();
        for (header, piece) in [(one, "ab"), (two, "xy"), (one, "cd")] {
            header.encode_fragment(2, 6, &mut wire);
            wire.put_slice(piece.as_bytes());
        }
        vote.encode_whole(1, &mut wire);
        wire.put_slice(b"v");
        one.encode_whole(2, &mut wire);
        wire.put_slice(b"ef");
        two.encode_whole(4, &mut wire);
        wire.put_slice(b"zzzz");
        let frames = read_all(&wire).await.unwrap();
        let got: Vec<_> = frames.iter().map(|frame| (frame.header, frame.body.as_ref())).collect();
        assert_eq!(got, [(vote, b"v".as_ref()), (one, b"abcdef"), (two, b"xyzzzz")]);
    }

    #[tokio::test]
    async fn damaged_streams_are_errors() {
        let mut oversized = BytesMut::new();
        oversized.put_u32_le(u32::MAX);
        assert!(matches!(read_all(&oversized).await, Err(LinkError::FrameLength(u32::MAX))));
        let mut short = BytesMut::new();
        short.put_u32_le(3);
        assert!(matches!(read_all(&short).await, Err(LinkError::FrameLength(3))));
        let mut huge = BytesMut::new();
        header(Kind::Append, 1).encode_fragment(1, u32::MAX as usize, &mut huge);
        huge.put_u8(0);
        assert!(matches!(read_all(&huge).await, Err(LinkError::MessageLength(_))));
        let mut misfit = BytesMut::new();
        header(Kind::Append, 1).encode_fragment(1, 4, &mut misfit);
        misfit.put_u8(0);
        header(Kind::Append, 1).encode_whole(1, &mut misfit);
        misfit.put_u8(0);
        assert!(matches!(read_all(&misfit).await, Err(LinkError::Damaged(_))));
        let mut control = BytesMut::new();
        header(Kind::Vote, 1).encode_fragment(1, 4, &mut control);
        control.put_u8(0);
        assert!(matches!(read_all(&control).await, Err(LinkError::Damaged(_))));
    }

    #[tokio::test]
    async fn an_announced_total_allocates_only_what_arrived() {
        let mut wire = BytesMut::new();
        header(Kind::Append, 1).encode_fragment(1, MESSAGE_BYTES_MAX, &mut wire);
        wire.put_u8(0);
        let mut reader = FrameReader::default();
        reader.fill(&mut wire.as_ref()).await.unwrap();
        assert_eq!(reader.next_message().unwrap(), None);
        assert!(reader.assemblies[&GroupId(1)].bytes.capacity() <= ASSEMBLY_BYTES_MIN);
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(read_all(&bytes)).ok();
        }
    }
}
