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
//! § Memory is allocated as bytes come, never by an announced length: a frame is at most 256 KiB, and beyond its first 2 MiB a message's
//! buffer grows with what has arrived.

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
/// The bodies of frames this large are read to where they belong instead of through the shared buffer.
const OWN_BUFFER_BYTES_MIN: usize = 32 * 1024;
pub const MORE: u8 = 0x80;
/// An assembly buffer starts with the message's length, at most this, and doubles: most large values are not moved while they come,
const ASSEMBLY_BYTES_MIN: usize = 2 * 1024 * 1024;
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
    pub fn from_byte(byte: u8) -> Option<Self> {
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

    /// Takes the header off a frame of at least its length; and a fragment's `total`, if it is not the last one.
    fn decode(frame: &mut &[u8]) -> Result<(Self, Option<usize>), LinkError> {
        let kind_byte = frame.get_u8();
        let kind = Kind::from_byte(kind_byte & !MORE).ok_or(LinkError::FrameKind(kind_byte))?;
        let group = GroupId(frame.get_u32_le());
        let target = ReplicaId(frame.get_u64_le());
        let header = Self { kind, group, target, request: frame.get_u64_le() };
        if kind_byte & MORE == 0 {
            return Ok((header, None));
        }
        if kind.lane() == Lane::Control {
            return Err(LinkError::Damaged("fragment of a control frame"));
        }
        let total = frame.try_get_u32_le().map_err(|_| LinkError::Damaged("fragment without its total"))?;
        Ok((header, Some(total as usize)))
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

/// A frame whose body is read to where it belongs.
struct Own {
    header: Header,
    body: OwnBody,
    missing: usize,
}

enum OwnBody {
    Whole(BytesMut),
    /// Goes to the end of its group's assembly.
    Fragment,
    Last,
}

enum Begun {
    Message(Frame),
    Own(Own),
    /// More bytes are needed.
    Nothing,
}

/// Cuts a byte stream into messages. `fill` reads, `next_message` takes what is complete.
#[derive(Default)]
pub struct FrameReader {
    shared: BytesMut,
    own: Option<Own>,
    assemblies: BTreeMap<GroupId, Assembly>,
    /// What the open assemblies will come to.
    assemblies_total: usize,
}

impl FrameReader {
    /// Reads once; the number of bytes read, 0 at the end of the stream. Cancel-safe.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<usize, LinkError> {
        let Some(Own { header, body, missing }) = &mut self.own else {
            // Grown for a frame once, the buffer is kept: it is never frozen, so `reserve` only moves the rest to its front.
            self.shared.reserve(READ_BYTES);
            return Ok(stream.read_buf(&mut self.shared).await?);
        };
        let read = match body {
            OwnBody::Whole(bytes) => stream.read_buf(&mut bytes.limit(*missing)).await?,
            OwnBody::Fragment | OwnBody::Last => {
                let assembly = self.assemblies.get_mut(&header.group).expect("it is open until its last fragment");
                stream.read_buf(&mut (&mut assembly.bytes).limit(*missing)).await?
            }
        };
        *missing -= read;
        Ok(read)
    }

    /// The next complete message; `None` if more bytes are needed. After an error the stream is useless.
    pub fn next_message(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            if let Some(Own { header, body, .. }) = self.own.take_if(|own| own.missing == 0) {
                match body {
                    OwnBody::Whole(bytes) => return Ok(Some(Frame { header, body: bytes.freeze() })),
                    OwnBody::Fragment => (),
                    OwnBody::Last => return Ok(Some(self.close_assembly(header))),
                }
            }
            if self.own.is_some() {
                return Ok(None);
            }
            match self.begin()? {
                Begun::Message(frame) => return Ok(Some(frame)),
                Begun::Own(own) => self.own = Some(own),
                Begun::Nothing => return Ok(None),
            }
        }
    }

    /// Takes the next frame out of the shared buffer, or as much as has come of a large one.
    fn begin(&mut self) -> Result<Begun, LinkError> {
        let Some(announced) = self.shared.first_chunk() else { return Ok(Begun::Nothing) };
        let announced = u32::from_le_bytes(*announced);
        let len = announced as usize;
        if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&len) {
            return Err(LinkError::FrameLength(announced));
        }
        let taken = len.min(self.shared.len() - LEN_BYTES);
        if taken < len && (len < OWN_BUFFER_BYTES_MIN || taken < HEADER_BYTES + LEN_BYTES) {
            return Ok(Begun::Nothing);
        }
        let mut frame = &self.shared[LEN_BYTES..LEN_BYTES + taken];
        let (header, total) = Header::decode(&mut frame)?;
        let missing = len - taken;
        let goes_on = header.kind.lane() == Lane::Bulk && self.assemblies.contains_key(&header.group);
        let body = if total.is_some() || goes_on {
            let assembly = match self.assemblies.entry(header.group) {
                MapEntry::Occupied(open) => open.into_mut(),
                MapEntry::Vacant(place) => {
                    let total = total.expect("only a fragment that has more behind it opens an assembly");
                    self.assemblies_total += total;
                    // A sender queues at most one message above its queue's limit, so honest peers stay below this for all
                    // groups together.
                    if self.assemblies_total > MESSAGE_BYTES_MAX {
                        return Err(LinkError::MessageLength(self.assemblies_total as u64));
                    }
                    place.insert(Assembly { header, total, bytes: Vec::new() })
                }
            };
            assembly.check(&header, total, frame.len() + missing)?;
            assembly.reserve(frame.len() + missing);
            assembly.bytes.extend_from_slice(frame);
            if total.is_some() { OwnBody::Fragment } else { OwnBody::Last }
        } else if missing == 0 {
            let message = Frame { header, body: Bytes::copy_from_slice(frame) };
            self.shared.advance(LEN_BYTES + taken);
            return Ok(Begun::Message(message));
        } else {
            // Bounded by FRAME_BYTES_MAX, so this may trust the announced length.
            let mut bytes = BytesMut::with_capacity(frame.len() + missing);
            bytes.extend_from_slice(frame);
            OwnBody::Whole(bytes)
        };
        self.shared.advance(LEN_BYTES + taken);
        Ok(Begun::Own(Own { header, body, missing }))
    }

    fn close_assembly(&mut self, header: Header) -> Frame {
        let assembly = self.assemblies.remove(&header.group).expect("its last fragment was appended");
        self.assemblies_total -= assembly.total;
        Frame { header, body: Bytes::from(assembly.bytes) }
    }
}

impl Assembly {
    /// `total`: what a fragment says, if it is not the last one; `piece`: the bytes that it brings.
    fn check(&self, header: &Header, total: Option<usize>, piece: usize) -> Result<(), LinkError> {
        let end = self.bytes.len() + piece;
        let fits = match total {
            Some(total) => total == self.total && piece > 0 && end < total,
            None => end == self.total,
        };
        if self.header != *header || !fits {
            return Err(LinkError::Damaged("fragment does not fit the ones before"));
        }
        Ok(())
    }

    /// Doubles the buffer until the total is reached, and ends exactly there: a large value kept in the log must not
    /// pin twice its size.
    fn reserve(&mut self, piece: usize) {
        if self.bytes.capacity() - self.bytes.len() < piece {
            let rest = self.total - self.bytes.len();
            let step = self.bytes.len().max(ASSEMBLY_BYTES_MIN).max(piece);
            let doubling = self.bytes.len() < ASSEMBLY_DOUBLING_BYTES_MAX;
            self.bytes.reserve_exact(if doubling { step.min(rest) } else { rest });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

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

    /// What arrives in packets of one size.
    struct Packets<'a> {
        bytes: &'a [u8],
        packet: usize,
    }

    impl AsyncRead for Packets<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let (next, rest) = self.bytes.split_at(self.packet.min(into.remaining()).min(self.bytes.len()));
            into.put_slice(next);
            self.bytes = rest;
            Poll::Ready(Ok(()))
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
    async fn a_message_in_fragments_comes_back_whole_however_it_is_cut_on_the_way() {
        let message: Vec<u8> = (0..2 * FRAGMENT_BYTES_MAX + 100).map(|byte| (byte % 251) as u8).collect();
        let pieces: Vec<&[u8]> = message.chunks(FRAGMENT_BYTES_MAX).collect();
        let mut wire = BytesMut::new();
        for (number, piece) in pieces.iter().enumerate() {
            match number + 1 < pieces.len() {
                true => header(Kind::Append, 1).encode_fragment(piece.len(), message.len(), &mut wire),
                false => header(Kind::Append, 1).encode_whole(piece.len(), &mut wire),
            }
            wire.put_slice(piece);
            header(Kind::Vote, 2).encode_whole(1, &mut wire);
            wire.put_u8(number as u8);
        }
        for packet in [7, 1000, READ_BYTES, FRAGMENT_BYTES_MAX + 50, wire.len()] {
            let mut script = Packets { bytes: &wire, packet };
            let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
            while reader.fill(&mut script).await.unwrap() > 0 {
                while let Some(frame) = reader.next_message().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames.iter().filter(|frame| frame.header.kind == Kind::Vote).count(), pieces.len());
            let appends: Vec<&Frame> = frames.iter().filter(|frame| frame.header.kind == Kind::Append).collect();
            assert!(appends.len() == 1 && appends[0].body == message, "in packets of {packet}");
            assert_eq!((reader.assemblies.len(), reader.assemblies_total), (0, 0));
        }
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
