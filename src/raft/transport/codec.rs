//! Hot path. Bodies of frames (the frame itself is drawn in `frame.rs`). All integers little-endian.
//!
//! ```text
//! log id         term u64 | leader's replica u64 | index u64
//! log id?        0 u8  or  1 u8 | log id
//! vote           term u64 | replica u64 | committed u8
//! append,        vote | previous log id? | leader commit log id? | entries u32 | entry...
//! heartbeat
//! entry          log id | 0 u8                              blank
//!                log id | 1 u8 | length u32 | batch         normal: the log's bytes, not encoded again
//!                log id | 2 u8 | length u32 | postcard      membership
//! reply          0 u8 | answer      or      1 u8 | refusal u8
//!   to append    0 u8 | log id?  accepted up to;  1 u8 | log id  conflict;  2 u8 | vote  higher vote
//! snapshot begin transfer u64 | length u64 | postcard of (vote, meta)          answer: empty
//! snapshot chunk transfer u64 | offset u64 | bytes                             answer: empty
//! snapshot end   transfer u64 | crc32 of the file u32                          answer: postcard of SnapshotResponse
//! ask            kind u8 | bytes                                               answer: bytes
//! vote, pre-vote, transfer leader and their answers    postcard of openraft's types
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::raft::{StreamAppendError, StreamAppendResult};
use openraft::{EntryPayload, Membership};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::errors::{LinkError, Refusal};
use super::lanes::Body;
use crate::raft::{Batch, Entry, LogId, Member, TypeConfig, Vote};

pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type AppendResult = StreamAppendResult<TypeConfig>;

/// Batches from here on are sent from where they are, smaller ones copied into the message.
const SEPARATE_BYTES_MIN: usize = 16 * 1024;
/// Batches from here on keep a slice of the frame they came in, smaller ones are copied so as not to pin it.
const SLICE_BYTES_MIN: usize = 4 * 1024;
const LOG_ID_BYTES: usize = 24;
const ENTRY_BYTES_MIN: usize = LOG_ID_BYTES + 1;
const APPEND_HEAD_BYTES: usize = 17 + 2 * (1 + LOG_ID_BYTES) + 4;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub fn encode_append(request: &AppendRequest) -> Body {
    let copied = request.entries.iter().map(|entry| match &entry.payload {
        EntryPayload::Normal(batch) if batch.0.len() < SEPARATE_BYTES_MIN => ENTRY_BYTES_MIN + 4 + batch.0.len(),
        EntryPayload::Normal(_) | EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_BYTES_MIN + 4,
    });
    let mut out = BytesMut::with_capacity(APPEND_HEAD_BYTES + copied.sum::<usize>());
    let mut body = Body::default();
    put_vote(&request.vote, &mut out);
    put_optional_log_id(request.prev_log_id.as_ref(), &mut out);
    put_optional_log_id(request.leader_commit.as_ref(), &mut out);
    put_len(request.entries.len(), &mut out);
    for entry in &request.entries {
        put_log_id(&entry.log_id, &mut out);
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(BLANK),
            EntryPayload::Normal(Batch(bytes)) => {
                out.put_u8(NORMAL);
                put_len(bytes.len(), &mut out);
                if bytes.len() < SEPARATE_BYTES_MIN {
                    out.put_slice(bytes);
                } else {
                    body.push(out.split().freeze());
                    body.push(bytes.clone());
                }
            }
            EntryPayload::Membership(membership) => {
                out.put_u8(MEMBERSHIP);
                let bytes = encode_rare(membership);
                put_len(bytes.len(), &mut out);
                out.put_slice(&bytes);
            }
        }
    }
    body.push(out.freeze());
    body
}

pub fn decode_append(body: Bytes) -> Result<AppendRequest, LinkError> {
    let mut input = Input(body);
    let vote = input.vote()?;
    let prev_log_id = input.optional_log_id()?;
    let leader_commit = input.optional_log_id()?;
    let count = input.u32()? as usize;
    // Bounded by what is there, not by what is announced.
    let mut entries = Vec::with_capacity(count.min(input.0.len() / ENTRY_BYTES_MIN));
    for _ in 0..count {
        let log_id = input.log_id()?;
        let payload = match input.u8()? {
            BLANK => EntryPayload::Blank,
            NORMAL => {
                let len = input.u32()? as usize;
                EntryPayload::Normal(Batch(input.payload(len)?))
            }
            MEMBERSHIP => {
                let len = input.u32()? as usize;
                EntryPayload::Membership(decode_rare::<Membership<u64, Member>>(&input.take(len)?)?)
            }
            _ => return Err(LinkError::Damaged("unknown entry payload")),
        };
        entries.push(Entry { log_id, payload });
    }
    input.end()?;
    Ok(AppendRequest { vote, prev_log_id, entries, leader_commit })
}

pub fn encode_append_answer(result: &AppendResult) -> Bytes {
    let mut out = BytesMut::with_capacity(2 + 1 + LOG_ID_BYTES);
    out.put_u8(0);
    match result {
        Ok(log_id) => {
            out.put_u8(0);
            put_optional_log_id(log_id.as_ref(), &mut out);
        }
        Err(StreamAppendError::Conflict(log_id)) => {
            out.put_u8(1);
            put_log_id(log_id, &mut out);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(vote, &mut out);
        }
    }
    out.freeze()
}

pub fn decode_append_answer(answer: Bytes) -> Result<AppendResult, LinkError> {
    let mut input = Input(answer);
    let result = match input.u8()? {
        0 => Ok(input.optional_log_id()?),
        1 => Err(StreamAppendError::Conflict(input.log_id()?)),
        2 => Err(StreamAppendError::HigherVote(input.vote()?)),
        _ => return Err(LinkError::Damaged("unknown append answer")),
    };
    input.end()?;
    Ok(result)
}

/// A reply's body: the answer behind its mark.
pub fn encode_answer(answer: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + answer.len());
    out.put_u8(0);
    out.put_slice(answer);
    out.freeze()
}

pub fn encode_refusal(refusal: Refusal) -> Bytes {
    Bytes::copy_from_slice(&[1, refusal as u8])
}

/// Takes a reply's body apart.
pub fn decode_reply(body: Bytes) -> Result<Result<Bytes, Refusal>, LinkError> {
    let mut input = Input(body);
    match input.u8()? {
        0 => Ok(Ok(input.0)),
        1 => Refusal::from_byte(input.u8()?).map(Err).ok_or(LinkError::Damaged("unknown refusal")),
        _ => Err(LinkError::Damaged("unknown reply")),
    }
}

pub fn encode_rare(message: &impl Serialize) -> Bytes {
    postcard::to_stdvec(message).expect("openraft's messages have serializable fields only").into()
}

pub fn decode_rare<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LinkError> {
    postcard::from_bytes(bytes).map_err(|_| LinkError::Damaged("message is not what its kind says"))
}

/// The three frames of a snapshot transfer.
#[derive(Debug, PartialEq, Eq)]
pub struct SnapshotBegin {
    pub transfer: u64,
    pub len: u64,
    pub vote: Vote,
    pub meta: crate::raft::SnapshotMeta,
}

impl SnapshotBegin {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64_le(self.transfer);
        out.put_u64_le(self.len);
        out.put_slice(&encode_rare(&(&self.vote, &self.meta)));
        out.freeze()
    }

    pub fn decode(body: Bytes) -> Result<Self, LinkError> {
        let mut input = Input(body);
        let (transfer, len) = (input.u64()?, input.u64()?);
        let (vote, meta) = decode_rare(&input.0)?;
        Ok(Self { transfer, len, vote, meta })
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    pub transfer: u64,
    pub offset: u64,
    pub bytes: Bytes,
}

impl SnapshotChunk {
    pub const HEAD_BYTES: usize = 16;

    pub fn encode(&self) -> Body {
        let mut head = BytesMut::with_capacity(Self::HEAD_BYTES);
        head.put_u64_le(self.transfer);
        head.put_u64_le(self.offset);
        let mut body = Body::from(head.freeze());
        body.push(self.bytes.clone());
        body
    }

    pub fn decode(body: Bytes) -> Result<Self, LinkError> {
        let mut input = Input(body);
        Ok(Self { transfer: input.u64()?, offset: input.u64()?, bytes: input.0 })
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct SnapshotEnd {
    pub transfer: u64,
    pub crc32: u32,
}

impl SnapshotEnd {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(12);
        out.put_u64_le(self.transfer);
        out.put_u32_le(self.crc32);
        out.freeze()
    }

    pub fn decode(body: Bytes) -> Result<Self, LinkError> {
        let mut input = Input(body);
        let end = Self { transfer: input.u64()?, crc32: input.u32()? };
        input.end()?;
        Ok(end)
    }
}

fn put_len(len: usize, out: &mut BytesMut) {
    out.put_u32_le(u32::try_from(len).expect("an entry is smaller than MESSAGE_BYTES_MAX"));
}

fn put_log_id(log_id: &LogId, out: &mut BytesMut) {
    out.put_u64_le(log_id.leader_id.term);
    out.put_u64_le(log_id.leader_id.node_id);
    out.put_u64_le(log_id.index);
}

fn put_optional_log_id(log_id: Option<&LogId>, out: &mut BytesMut) {
    out.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        put_log_id(log_id, out);
    }
}

fn put_vote(vote: &Vote, out: &mut BytesMut) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.node_id);
    out.put_u8(u8::from(vote.committed));
}

/// A body being taken apart, bounds-checked: what came from a peer never panics.
struct Input(Bytes);

const TRUNCATED: LinkError = LinkError::Damaged("body ends too early");

impl Input {
    fn u8(&mut self) -> Result<u8, LinkError> {
        self.0.try_get_u8().map_err(|_| TRUNCATED)
    }

    fn u32(&mut self) -> Result<u32, LinkError> {
        self.0.try_get_u32_le().map_err(|_| TRUNCATED)
    }

    fn u64(&mut self) -> Result<u64, LinkError> {
        self.0.try_get_u64_le().map_err(|_| TRUNCATED)
    }

    fn flag(&mut self) -> Result<bool, LinkError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(LinkError::Damaged("flag is neither 0 nor 1")),
        }
    }

    fn take(&mut self, len: usize) -> Result<Bytes, LinkError> {
        if self.0.len() < len {
            return Err(TRUNCATED);
        }
        Ok(self.0.split_to(len))
    }

    /// A batch's bytes. § A small slice would pin the whole frame for as long as the log keeps the entry.
    fn payload(&mut self, len: usize) -> Result<Bytes, LinkError> {
        let bytes = self.take(len)?;
        Ok(if len < SLICE_BYTES_MIN { Bytes::copy_from_slice(&bytes) } else { bytes })
    }

    fn log_id(&mut self) -> Result<LogId, LinkError> {
        let leader_id = LeaderId { term: self.u64()?, node_id: self.u64()? };
        Ok(LogId { leader_id, index: self.u64()? })
    }

    fn optional_log_id(&mut self) -> Result<Option<LogId>, LinkError> {
        self.flag()?.then(|| self.log_id()).transpose()
    }

    fn vote(&mut self) -> Result<Vote, LinkError> {
        let leader_id = LeaderId { term: self.u64()?, node_id: self.u64()? };
        Ok(Vote { leader_id, committed: self.flag()? })
    }

    fn end(&self) -> Result<(), LinkError> {
        if self.0.is_empty() { Ok(()) } else { Err(LinkError::Damaged("bytes after the body's end")) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::StoredMembership;
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::NodeId;
    use crate::raft::SnapshotMeta;
    use crate::raft::transport::lanes::{Lanes, Outgoing};

    fn bytes_of(body: Body) -> Bytes {
        let (mut lanes, mut out) = (Lanes::default(), Outgoing::default());
        let header = super::super::frame::Header::of_node(super::super::frame::Kind::Append, 0);
        let len = body.len();
        lanes.push(header, body).unwrap();
        lanes.gather(&mut out);
        out.seal();
        let wire: Vec<u8> = out.chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
        assert_eq!(wire.len(), len + 25, "tests here stay below one fragment");
        Bytes::from(wire).slice(25..)
    }

    fn log_id() -> impl Strategy<Value = LogId> {
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(term, node_id, index)| LogId { leader_id: LeaderId { term, node_id }, index })
    }

    fn vote() -> impl Strategy<Value = Vote> {
        (any::<u64>(), any::<u64>(), any::<bool>())
            .prop_map(|(term, node_id, committed)| Vote { leader_id: LeaderId { term, node_id }, committed })
    }

    fn membership() -> impl Strategy<Value = Membership<u64, Member>> {
        proptest::collection::btree_map(any::<u64>(), any::<[u8; 20]>(), 1..4).prop_map(|nodes| {
            let ids: BTreeSet<u64> = nodes.keys().copied().collect();
            let nodes: BTreeMap<u64, Member> =
                nodes.into_iter().map(|(id, node)| (id, Member { node: NodeId(node) })).collect();
            Membership::new(vec![ids], nodes).unwrap()
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| EntryPayload::Normal(Batch(bytes.into()))),
            (any::<u8>(), 4000_usize..20_000)
                .prop_map(|(byte, len)| EntryPayload::Normal(Batch(vec![byte; len].into()))),
            membership().prop_map(EntryPayload::Membership),
        ];
        (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    fn append() -> impl Strategy<Value = AppendRequest> {
        let log_ids = (proptest::option::of(log_id()), proptest::option::of(log_id()));
        (vote(), log_ids, proptest::collection::vec(entry(), 0..6)).prop_map(
            |(vote, (prev_log_id, leader_commit), entries)| AppendRequest { vote, prev_log_id, entries, leader_commit },
        )
    }

    fn append_result() -> impl Strategy<Value = AppendResult> {
        prop_oneof![
            proptest::option::of(log_id()).prop_map(Ok),
            log_id().prop_map(|log_id| Err(StreamAppendError::Conflict(log_id))),
            vote().prop_map(|vote| Err(StreamAppendError::HigherVote(vote))),
        ]
    }

    proptest! {
        #[test]
        fn append_requests_survive_the_wire(request in append()) {
            let decoded = decode_append(bytes_of(encode_append(&request))).unwrap();
            prop_assert_eq!(format!("{request:?}"), format!("{decoded:?}"));
            for (sent, got) in request.entries.iter().zip(&decoded.entries) {
                prop_assert_eq!(&sent.payload, &got.payload);
            }
        }

        #[test]
        fn append_answers_survive_the_wire(result in append_result()) {
            let answer = decode_reply(encode_append_answer(&result)).unwrap().unwrap();
            prop_assert_eq!(decode_append_answer(answer).unwrap(), result);
        }

        #[test]
        fn damaged_append_requests_are_errors(
            request in append(), cut in any::<proptest::sample::Index>(), flip in any::<proptest::sample::Index>()
        ) {
            let whole = bytes_of(encode_append(&request));
            prop_assert!(decode_append(whole.slice(..cut.index(whole.len()))).is_err());
            let mut flipped = whole.to_vec();
            flipped[flip.index(whole.len())] ^= 0x55;
            decode_append(flipped.into()).ok();
        }

        #[test]
        fn snapshot_frames_survive_the_wire(vote in vote(), last in proptest::option::of(log_id()), m in membership()) {
            let meta = SnapshotMeta { last_log_id: last, last_membership: StoredMembership::new(last, m) };
            let begin = SnapshotBegin { transfer: 3, len: 9, vote, meta };
            prop_assert_eq!(SnapshotBegin::decode(begin.encode()).unwrap(), begin);
        }

        #[test]
        fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(body);
            decode_append(body.clone()).ok();
            decode_append_answer(body.clone()).ok();
            decode_reply(body.clone()).ok();
            SnapshotBegin::decode(body.clone()).ok();
            SnapshotChunk::decode(body.clone()).ok();
            SnapshotEnd::decode(body.clone()).ok();
            decode_rare::<openraft::raft::VoteRequest<TypeConfig>>(&body).ok();
        }
    }

    #[test]
    fn small_batches_do_not_pin_their_frame() {
        let batch = |len| Entry {
            log_id: LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index: 1 },
            payload: EntryPayload::Normal(Batch(vec![1; len].into())),
        };
        let vote = Vote { leader_id: LeaderId { term: 1, node_id: 1 }, committed: true };
        let entries = vec![batch(SLICE_BYTES_MIN - 1), batch(SLICE_BYTES_MIN)];
        let frame = bytes_of(encode_append(&AppendRequest { vote, prev_log_id: None, entries, leader_commit: None }));
        let range = frame.as_ptr_range();
        let pins = decode_append(frame).unwrap().entries.into_iter().map(|entry| match entry.payload {
            EntryPayload::Normal(batch) => range.contains(&batch.0.as_ptr()),
            EntryPayload::Blank | EntryPayload::Membership(_) => panic!("a batch was sent"),
        });
        assert_eq!(pins.collect::<Vec<_>>(), [false, true]);
    }
}
