//! The format of log segments.
//!
//! ```text
//! segment: "KVORUMWL" | version u32 | salt u64 | crc u32 | batch ... | zeros     file name: wal-<first LSN, 20 digits>.log
//! batch:   magic u32 | body length u32 | LSN u64 | previous batch's crc u32 | durable LSN u64 | crc u32 | body
//! body:    record ...
//! record:  length u32 | kind u8 | group u32 | replica u64 | content              length: of what follows it
//! log id:  term u64 | replica u64 | index u64
//! ```
//!
//! Integers are little-endian. The LSN counts batches. A batch's crc is CRC-32 of the segment's salt, the 28 header bytes before the crc and
//! the body; the segment's is of the 20 bytes before it. The salt is random, so that nobody can store a value that looks like a batch to
//! the search that recovery makes behind damage.
//!
//! § The durable LSN is that of the last batch known to be on disk when this one was written: damage at or past the last one recorded is
//! a torn tail, which nobody was told of; damage before it is corruption.
//!
//! Contents by kind:
//!
//! ```text
//!  1 vote      postcard(Vote)
//!  2 entry     log id | payload kind u8 | payload
//!                0 blank       -
//!                1 batch       the bytes
//!                2 membership  postcard(Membership)
//!                3 rest        offset u64 | the batch's bytes from there on; those before went ahead as parts
//!  3 part      log id | offset u64 | bytes of a batch that does not fit; other groups' records pass between
//!  4 truncate  first index to drop u64 | log id of the last entry kept, if any
//!  5 purge     log id
//!  6 snapshot  log id
//!  7 last      log id                     the group's last entry when a segment was begun
//!  8 remove    -                          the replica is gone
//!  9 start     flags u8 | boot id         at the beginning of each segment; flags: 1 synced before acknowledging, 2 loss suspected
//! 10 stop      -                          a clean stop: everything before it is on disk
//! ```
//!
//! Start and stop belong to no group; their group and replica are zero.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{EntryPayload, LogId as RaftLogId};

use crate::cluster::{GroupId, ReplicaId};
use crate::raft::types::{Batch, Entry, LeaderId, LogId, Vote};
use crate::random;

pub const VERSION: u32 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"KVORUMWL";
pub const SEGMENT_HEADER_BYTES: usize = 24;
const BATCH_MAGIC: [u8; 4] = *b"KVBA";
pub const BATCH_HEADER_BYTES: usize = 32;

const SYNCED: u8 = 1;
const SUSPECTED: u8 = 2;

/// One replica's log within the node's.
pub type LogKey = (GroupId, ReplicaId);

#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Vote(Vote),
    Entry(Entry),
    /// An entry of which the first `offset` bytes of the batch went ahead.
    Rest {
        entry: Entry,
        offset: u64,
    },
    Part {
        log_id: LogId,
        offset: u64,
        bytes: Bytes,
    },
    /// Drop entries from this index on; `last` is then the last one.
    Truncate {
        from: u64,
        last: Option<LogId>,
    },
    Purge(LogId),
    Snapshot(LogId),
    Last(LogId),
    Remove,
    Start(StartMark),
    Stop,
}

/// What a segment says of the node that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartMark {
    /// Entries are synced before they are acknowledged.
    pub synced: bool,
    /// § Entries acknowledged before this start may be missing. Once set it stays: the node must not come back as what it was only
    /// because it was started twice.
    pub loss_suspected: bool,
    /// Changes with every start of the kernel; empty if the kernel does not say.
    pub boot_id: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub lsn: u64,
    pub previous_crc: u32,
    pub durable_lsn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedBatch<'a> {
    pub header: BatchHeader,
    pub crc: u32,
    pub body: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub u64);

/// What the first bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentHeader {
    Sound(Salt),
    Version(u32),
    /// Cut short, zeros, or a header that does not match its checksum.
    Damaged,
    Foreign,
}

/// A record does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Salt {
    pub fn random() -> Self {
        Self(random::draw_u64())
    }
}

pub fn segment_header(salt: Salt) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let mut room = &mut header[..];
    room.put_slice(SEGMENT_MAGIC);
    room.put_u32_le(VERSION);
    room.put_u64_le(salt.0);
    let crc = crc32fast::hash(&header[..SEGMENT_HEADER_BYTES - 4]);
    header[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    header
}

pub fn read_segment_header(bytes: &[u8]) -> SegmentHeader {
    let magic = &bytes[..bytes.len().min(SEGMENT_MAGIC.len())];
    if !SEGMENT_MAGIC.starts_with(magic) {
        return if magic.iter().all(|byte| *byte == 0) { SegmentHeader::Damaged } else { SegmentHeader::Foreign };
    }
    let Some((checked, mut crc)) = bytes.get(..SEGMENT_HEADER_BYTES).and_then(|header| header.split_at_checked(20))
    else {
        return SegmentHeader::Damaged;
    };
    if crc32fast::hash(checked) != crc.get_u32_le() {
        return SegmentHeader::Damaged;
    }
    let mut fields = &checked[SEGMENT_MAGIC.len()..];
    match fields.get_u32_le() {
        VERSION => SegmentHeader::Sound(Salt(fields.get_u64_le())),
        other => SegmentHeader::Version(other),
    }
}

/// Writes the header of a batch over the first bytes of `batch`, which hold `BATCH_HEADER_BYTES` of room and the body. Returns the crc.
pub fn seal(batch: &mut [u8], salt: Salt, header: BatchHeader) -> u32 {
    let body_bytes = u32::try_from(batch.len() - BATCH_HEADER_BYTES).expect("a batch is far below 4 GiB");
    let mut room = &mut batch[..];
    room.put_slice(&BATCH_MAGIC);
    room.put_u32_le(body_bytes);
    room.put_u64_le(header.lsn);
    room.put_u32_le(header.previous_crc);
    room.put_u64_le(header.durable_lsn);
    let crc = checksum(salt, &batch[..BATCH_HEADER_BYTES - 4], &batch[BATCH_HEADER_BYTES..]);
    batch[BATCH_HEADER_BYTES - 4..BATCH_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The batch at the start of `bytes`; `None` if it is cut short or does not match its checksum.
pub fn unseal(bytes: &[u8], salt: Salt) -> Option<SealedBatch<'_>> {
    let (whole, rest) = bytes.split_at_checked(BATCH_HEADER_BYTES)?;
    let mut fields = whole.strip_prefix(&BATCH_MAGIC)?;
    let body = rest.get(..fields.get_u32_le() as usize)?;
    let header =
        BatchHeader { lsn: fields.get_u64_le(), previous_crc: fields.get_u32_le(), durable_lsn: fields.get_u64_le() };
    let crc = fields.get_u32_le();
    (checksum(salt, &whole[..BATCH_HEADER_BYTES - 4], body) == crc).then_some(SealedBatch { header, crc, body })
}

/// Offsets in `bytes` at which a batch may begin.
pub fn batch_offsets(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.windows(BATCH_MAGIC.len()).enumerate().filter(|(_, four)| *four == BATCH_MAGIC).map(|(offset, _)| offset)
}

fn checksum(salt: Salt, header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.0.to_le_bytes());
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

pub fn put_record(bytes: &mut BytesMut, key: LogKey, record: &Record) {
    match record {
        Record::Vote(vote) => framed(bytes, 1, key, |bytes| put_postcard(bytes, vote)),
        Record::Entry(entry) => put_entry(bytes, key, entry),
        Record::Rest { entry, offset } => put_rest(bytes, key, entry.log_id, *offset, payload(entry)),
        Record::Part { log_id, offset, bytes: part } => put_part(bytes, key, *log_id, *offset, part),
        Record::Truncate { from, last } => framed(bytes, 4, key, |bytes| {
            bytes.put_u64_le(*from);
            last.iter().for_each(|last| put_log_id(bytes, last));
        }),
        Record::Purge(log_id) => framed(bytes, 5, key, |bytes| put_log_id(bytes, log_id)),
        Record::Snapshot(log_id) => framed(bytes, 6, key, |bytes| put_log_id(bytes, log_id)),
        Record::Last(log_id) => framed(bytes, 7, key, |bytes| put_log_id(bytes, log_id)),
        Record::Remove => framed(bytes, 8, key, |_| ()),
        Record::Start(mark) => framed(bytes, 9, key, |bytes| {
            bytes.put_u8(if mark.synced { SYNCED } else { 0 } | if mark.loss_suspected { SUSPECTED } else { 0 });
            bytes.put_slice(&mark.boot_id);
        }),
        Record::Stop => framed(bytes, 10, key, |_| ()),
    }
}

pub fn put_entry(bytes: &mut BytesMut, key: LogKey, entry: &Entry) {
    framed(bytes, 2, key, |bytes| {
        put_log_id(bytes, &entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => bytes.put_u8(0),
            EntryPayload::Normal(batch) => {
                bytes.put_u8(1);
                bytes.put_slice(&batch.0);
            }
            EntryPayload::Membership(membership) => {
                bytes.put_u8(2);
                put_postcard(bytes, membership);
            }
        }
    });
}

pub fn put_part(bytes: &mut BytesMut, key: LogKey, log_id: LogId, offset: u64, part: &[u8]) {
    framed(bytes, 3, key, |bytes| {
        put_log_id(bytes, &log_id);
        bytes.put_u64_le(offset);
        bytes.put_slice(part);
    });
}

pub fn put_rest(bytes: &mut BytesMut, key: LogKey, log_id: LogId, offset: u64, rest: &[u8]) {
    framed(bytes, 2, key, |bytes| {
        put_log_id(bytes, &log_id);
        bytes.put_u8(3);
        bytes.put_u64_le(offset);
        bytes.put_slice(rest);
    });
}

/// A batch's bytes; empty for other payloads.
pub fn payload(entry: &Entry) -> &[u8] {
    match &entry.payload {
        EntryPayload::Normal(batch) => &batch.0,
        EntryPayload::Blank | EntryPayload::Membership(_) => &[],
    }
}

fn framed(bytes: &mut BytesMut, kind: u8, key: LogKey, content: impl FnOnce(&mut BytesMut)) {
    let start = bytes.len();
    bytes.put_u32_le(0);
    bytes.put_u8(kind);
    bytes.put_u32_le(key.0.0);
    bytes.put_u64_le(key.1.0);
    content(bytes);
    let length = u32::try_from(bytes.len() - start - 4).expect("a record is far below 4 GiB");
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_log_id(bytes: &mut BytesMut, log_id: &LogId) {
    bytes.put_u64_le(log_id.leader_id.term);
    bytes.put_u64_le(log_id.leader_id.node_id);
    bytes.put_u64_le(log_id.index);
}

fn put_postcard(bytes: &mut BytesMut, value: &impl serde::Serialize) {
    bytes.put_slice(&postcard::to_stdvec(value).expect("votes and memberships encode"));
}

/// The next record of a batch's body. Bytes are copied out: a segment is not kept in memory for one of them.
pub fn take_record(body: &mut &[u8]) -> Result<(LogKey, Record), Malformed> {
    let length = take_u32(body)? as usize;
    let (mut content, rest) = body.split_at_checked(length).ok_or(Malformed)?;
    *body = rest;
    let content = &mut content;
    let kind = take_u8(content)?;
    let key = (GroupId(take_u32(content)?), ReplicaId(take_u64(content)?));
    let record = match kind {
        1 => Record::Vote(take_postcard(content)?),
        2 => take_entry(content)?,
        3 => Record::Part { log_id: take_log_id(content)?, offset: take_u64(content)?, bytes: take_rest(content) },
        4 => {
            let from = take_u64(content)?;
            let last = if content.is_empty() { None } else { Some(take_log_id(content)?) };
            Record::Truncate { from, last }
        }
        5 => Record::Purge(take_log_id(content)?),
        6 => Record::Snapshot(take_log_id(content)?),
        7 => Record::Last(take_log_id(content)?),
        8 => Record::Remove,
        9 => {
            let flags = take_u8(content)?;
            let (synced, loss_suspected) = (flags & SYNCED != 0, flags & SUSPECTED != 0);
            Record::Start(StartMark { synced, loss_suspected, boot_id: take_rest(content).to_vec() })
        }
        10 => Record::Stop,
        _ => return Err(Malformed),
    };
    if content.is_empty() { Ok((key, record)) } else { Err(Malformed) }
}

fn take_entry(content: &mut &[u8]) -> Result<Record, Malformed> {
    let log_id = take_log_id(content)?;
    let entry = |payload| Entry { log_id, payload };
    Ok(match take_u8(content)? {
        0 => Record::Entry(entry(EntryPayload::Blank)),
        1 => Record::Entry(entry(EntryPayload::Normal(Batch(take_rest(content))))),
        2 => Record::Entry(entry(EntryPayload::Membership(take_postcard(content)?))),
        3 => {
            let offset = take_u64(content)?;
            Record::Rest { entry: entry(EntryPayload::Normal(Batch(take_rest(content)))), offset }
        }
        _ => return Err(Malformed),
    })
}

fn take_log_id(bytes: &mut &[u8]) -> Result<LogId, Malformed> {
    let leader = LeaderId { term: take_u64(bytes)?, node_id: take_u64(bytes)? };
    Ok(RaftLogId::new(leader, take_u64(bytes)?))
}

fn take_postcard<T: serde::de::DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, Malformed> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| Malformed)?;
    *bytes = rest;
    Ok(value)
}

fn take_rest(bytes: &mut &[u8]) -> Bytes {
    Bytes::copy_from_slice(std::mem::take(bytes))
}

fn take_u8(bytes: &mut &[u8]) -> Result<u8, Malformed> {
    bytes.try_get_u8().map_err(|_| Malformed)
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    bytes.try_get_u32_le().map_err(|_| Malformed)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    bytes.try_get_u64_le().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;

    use super::*;
    use crate::cluster::NodeId;
    use crate::raft::Member;

    const SALT: Salt = Salt(77);
    const KEY: LogKey = (GroupId(3), ReplicaId(9));

    fn every_kind_of_record() -> Vec<Record> {
        let log_id = RaftLogId::new(LeaderId { term: 2, node_id: 9 }, 17);
        let nodes = BTreeMap::from([(9, Member { node: NodeId([3; 20]) })]);
        let membership = Membership::new(vec![BTreeSet::from([9])], nodes).expect("valid");
        let batch = EntryPayload::Normal(Batch(Bytes::from_static(b"ops")));
        vec![
            Record::Vote(Vote::new_committed(2, 9)),
            Record::Entry(Entry { log_id, payload: EntryPayload::Blank }),
            Record::Entry(Entry { log_id, payload: batch.clone() }),
            Record::Entry(Entry { log_id, payload: EntryPayload::Membership(membership) }),
            Record::Rest { entry: Entry { log_id, payload: batch }, offset: 4 },
            Record::Part { log_id, offset: 0, bytes: Bytes::from_static(b"part") },
            Record::Truncate { from: 0, last: None },
            Record::Truncate { from: 5, last: Some(log_id) },
            Record::Purge(log_id),
            Record::Snapshot(log_id),
            Record::Last(log_id),
            Record::Remove,
            Record::Start(StartMark { synced: true, loss_suspected: true, boot_id: b"boot".to_vec() }),
            Record::Stop,
        ]
    }

    #[test]
    fn records_come_back_and_damage_is_an_error() {
        let records = every_kind_of_record();
        let mut bytes = BytesMut::zeroed(BATCH_HEADER_BYTES);
        records.iter().for_each(|record| put_record(&mut bytes, KEY, record));
        let header = BatchHeader { lsn: 7, previous_crc: 8, durable_lsn: 6 };
        let crc = seal(&mut bytes, SALT, header);
        let sealed = unseal(&bytes, SALT).expect("sound");
        assert_eq!((sealed.header, sealed.crc), (header, crc));
        let mut body = sealed.body;
        for record in &records {
            assert_eq!(take_record(&mut body).as_ref(), Ok(&(KEY, record.clone())));
        }
        assert!(body.is_empty());
        assert_eq!(unseal(&bytes, Salt(78)), None, "another segment's batch");
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 4;
            assert_eq!(unseal(&damaged, SALT), None, "flipped at {position}");
            assert_eq!(unseal(&bytes[..position], SALT), None, "cut at {position}");
        }
    }

    #[test]
    fn a_record_cut_short_is_malformed() {
        for record in every_kind_of_record() {
            let mut bytes = BytesMut::new();
            put_record(&mut bytes, KEY, &record);
            for length in 0..bytes.len() {
                assert_eq!(take_record(&mut &bytes[..length]), Err(Malformed), "{record:?} cut to {length}");
            }
        }
    }

    #[test]
    fn a_segment_header_is_told_from_damage_other_versions_and_other_files() {
        let header = segment_header(SALT);
        assert_eq!(read_segment_header(&header), SegmentHeader::Sound(SALT));
        for length in 0..header.len() {
            assert_eq!(read_segment_header(&header[..length]), SegmentHeader::Damaged, "cut to {length}");
        }
        assert_eq!(read_segment_header(&[0; 100]), SegmentHeader::Damaged);
        assert_eq!(read_segment_header(b"#!/bin/sh"), SegmentHeader::Foreign);
        let mut newer = header;
        newer[8] = 2;
        let crc = crc32fast::hash(&newer[..20]);
        newer[20..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_segment_header(&newer), SegmentHeader::Version(2));
    }
}
