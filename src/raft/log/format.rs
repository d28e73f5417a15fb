//! The format of log segments.
//!
//! ```text
//! segment: "KVLOG001" | batch ... | zeros               file name: wal-<first LSN, 20 digits>.log
//! batch:   magic u32 | body length u32 | LSN u64 | previous batch's crc u32 | durable LSN u64 | crc u32 | body
//! body:    record ...
//! record:  length u32 | kind u8 | group u32 | replica u64 | content
//! ```
//!
//! Integers are little-endian. The LSN counts batches. The crc is CRC-32 of the 28 header bytes before it and the body.
//! § The durable LSN is that of the last batch known to be on disk when this one was written: damage at or past the last one recorded is
//! a torn tail, which nobody was told of; damage before it is corruption.
//!
//! Contents by kind:
//!
//! ```text
//! 1 vote      postcard(Vote)
//! 2 entry     term u64 | replica u64 | index u64 | payload kind u8 | payload     (0 blank, 1 batch, 2 membership in postcard)
//! 3 part      bytes of the next entry's payload of this group, which did not fit one batch
//! 4 truncate  first index to drop u64
//! 5 purge     log id
//! 6 snapshot  log id
//! 7 last      log id                     the group's last entry when a segment was begun
//! 8 remove    -                          the replica is gone
//! 9 start     fsync mode u8 | kernel boot id                       written at every start and segment
//! 10 stop     -                          a clean stop: everything before it is on disk
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{EntryPayload, LogId as RaftLogId};

use crate::cluster::{GroupId, ReplicaId};
use crate::raft::types::{Batch, Entry, LeaderId, LogId, Vote};

pub const SEGMENT_MAGIC: &[u8; 8] = b"KVLOG001";
const BATCH_MAGIC: u32 = 0x4b56_4241;
pub const HEADER_BYTES: usize = 32;
/// Body bytes of one batch; a larger entry is cut into parts so that votes and other groups pass between.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// One replica's log within the node's.
pub type LogKey = (GroupId, ReplicaId);

#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Vote(Vote),
    Entry(Entry),
    Part(Bytes),
    /// Drop entries from this index on.
    Truncate(u64),
    Purge(LogId),
    Snapshot(LogId),
    Last(LogId),
    Remove,
    Start {
        synced: bool,
        boot_id: Vec<u8>,
    },
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub lsn: u64,
    pub previous_crc: u32,
    pub durable_lsn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("a batch is cut short or does not match its checksum")]
    Batch,
    #[error("a record does not decode")]
    Record,
}

/// Writes the header of a batch over the first bytes of `bytes`, which hold `HEADER_BYTES` of room and the body. Returns the crc.
pub fn seal(bytes: &mut [u8], header: BatchHeader) -> u32 {
    let body_bytes = (bytes.len() - HEADER_BYTES) as u32;
    let mut room = &mut bytes[..];
    room.put_u32_le(BATCH_MAGIC);
    room.put_u32_le(body_bytes);
    room.put_u64_le(header.lsn);
    room.put_u32_le(header.previous_crc);
    room.put_u64_le(header.durable_lsn);
    let crc = checksum(&bytes[..HEADER_BYTES - 4], &bytes[HEADER_BYTES..]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// The batch at the start of `bytes`: header, crc, body.
pub fn unseal(bytes: &[u8]) -> Result<(BatchHeader, u32, &[u8]), FormatError> {
    let (mut header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(FormatError::Batch)?;
    let whole = header;
    if header.get_u32_le() != BATCH_MAGIC {
        return Err(FormatError::Batch);
    }
    let body = rest.get(..header.get_u32_le() as usize).ok_or(FormatError::Batch)?;
    let fields =
        BatchHeader { lsn: header.get_u64_le(), previous_crc: header.get_u32_le(), durable_lsn: header.get_u64_le() };
    let crc = header.get_u32_le();
    if checksum(&whole[..HEADER_BYTES - 4], body) != crc {
        return Err(FormatError::Batch);
    }
    Ok((fields, crc, body))
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

pub fn put_record(bytes: &mut BytesMut, key: LogKey, record: &Record) {
    match record {
        Record::Entry(entry) => put_entry(bytes, key, entry, None),
        other => put_small(bytes, key, other),
    }
}

fn put_small(bytes: &mut BytesMut, key: LogKey, record: &Record) {
    let start = begin(bytes, key, kind_of(record));
    match record {
        Record::Vote(vote) => bytes.put_slice(&postcard::to_stdvec(vote).expect("a vote encodes")),
        Record::Part(part) => bytes.put_slice(part),
        Record::Truncate(index) => bytes.put_u64_le(*index),
        Record::Purge(log_id) | Record::Snapshot(log_id) | Record::Last(log_id) => put_log_id(bytes, log_id),
        Record::Remove | Record::Stop | Record::Entry(_) => (),
        Record::Start { synced, boot_id } => {
            bytes.put_u8(u8::from(*synced));
            bytes.put_slice(boot_id);
        }
    }
    end(bytes, start);
}

/// `rest` replaces the payload's bytes when its beginning went ahead in parts.
pub fn put_entry(bytes: &mut BytesMut, key: LogKey, entry: &Entry, rest: Option<&[u8]>) {
    let start = begin(bytes, key, 2);
    put_log_id(bytes, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => bytes.put_u8(0),
        EntryPayload::Normal(batch) => {
            bytes.put_u8(1);
            bytes.put_slice(rest.unwrap_or(&batch.0));
        }
        EntryPayload::Membership(membership) => {
            bytes.put_u8(2);
            bytes.put_slice(&postcard::to_stdvec(membership).expect("a membership encodes"));
        }
    }
    end(bytes, start);
}

fn kind_of(record: &Record) -> u8 {
    match record {
        Record::Vote(_) => 1,
        Record::Entry(_) => 2,
        Record::Part(_) => 3,
        Record::Truncate(_) => 4,
        Record::Purge(_) => 5,
        Record::Snapshot(_) => 6,
        Record::Last(_) => 7,
        Record::Remove => 8,
        Record::Start { .. } => 9,
        Record::Stop => 10,
    }
}

fn begin(bytes: &mut BytesMut, key: LogKey, kind: u8) -> usize {
    let start = bytes.len();
    bytes.put_u32_le(0);
    bytes.put_u8(kind);
    bytes.put_u32_le(key.0.0);
    bytes.put_u64_le(key.1.0);
    start
}

fn end(bytes: &mut BytesMut, start: usize) {
    let length = (bytes.len() - start - 4) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_log_id(bytes: &mut BytesMut, log_id: &LogId) {
    bytes.put_u64_le(log_id.leader_id.term);
    bytes.put_u64_le(log_id.leader_id.node_id);
    bytes.put_u64_le(log_id.index);
}

/// The next record of a batch's body. Bytes are copied out: a segment is not kept in memory for one of them.
pub fn take_record(body: &mut &[u8]) -> Result<(LogKey, Record), FormatError> {
    let length = try_u32(body)? as usize;
    let mut record = body.get(..length).ok_or(FormatError::Record)?;
    body.advance(length);
    let kind = try_u8(&mut record)?;
    let key = (GroupId(try_u32(&mut record)?), ReplicaId(try_u64(&mut record)?));
    let record = match kind {
        1 => Record::Vote(postcard::from_bytes(record).map_err(|_| FormatError::Record)?),
        2 => Record::Entry(take_entry(record)?),
        3 => Record::Part(Bytes::copy_from_slice(record)),
        4 => Record::Truncate(try_u64(&mut record)?),
        5 => Record::Purge(take_log_id(&mut record)?),
        6 => Record::Snapshot(take_log_id(&mut record)?),
        7 => Record::Last(take_log_id(&mut record)?),
        8 => Record::Remove,
        9 => Record::Start { synced: try_u8(&mut record)? != 0, boot_id: record.to_vec() },
        10 => Record::Stop,
        _ => return Err(FormatError::Record),
    };
    Ok((key, record))
}

fn take_entry(mut record: &[u8]) -> Result<Entry, FormatError> {
    let log_id = take_log_id(&mut record)?;
    let payload = match try_u8(&mut record)? {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Batch(Bytes::copy_from_slice(record))),
        2 => EntryPayload::Membership(postcard::from_bytes(record).map_err(|_| FormatError::Record)?),
        _ => return Err(FormatError::Record),
    };
    Ok(Entry { log_id, payload })
}

fn take_log_id(bytes: &mut &[u8]) -> Result<LogId, FormatError> {
    let leader = LeaderId { term: try_u64(bytes)?, node_id: try_u64(bytes)? };
    Ok(RaftLogId::new(leader, try_u64(bytes)?))
}

fn try_u8(bytes: &mut &[u8]) -> Result<u8, FormatError> {
    bytes.try_get_u8().map_err(|_| FormatError::Record)
}

fn try_u32(bytes: &mut &[u8]) -> Result<u32, FormatError> {
    bytes.try_get_u32_le().map_err(|_| FormatError::Record)
}

fn try_u64(bytes: &mut &[u8]) -> Result<u64, FormatError> {
    bytes.try_get_u64_le().map_err(|_| FormatError::Record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damage_is_an_error() {
        let key = (GroupId(3), ReplicaId(9));
        let log_id = RaftLogId::new(LeaderId { term: 2, node_id: 9 }, 17);
        let entry = |payload| Record::Entry(Entry { log_id, payload });
        let records = [
            Record::Vote(Vote::new_committed(2, 9)),
            entry(EntryPayload::Blank),
            entry(EntryPayload::Normal(Batch(Bytes::from_static(b"ops")))),
            Record::Part(Bytes::from_static(b"part")),
            Record::Truncate(5),
            Record::Purge(log_id),
            Record::Snapshot(log_id),
            Record::Last(log_id),
            Record::Remove,
            Record::Start { synced: true, boot_id: b"boot".to_vec() },
            Record::Stop,
        ];
        let mut bytes = BytesMut::zeroed(HEADER_BYTES);
        records.iter().for_each(|record| put_record(&mut bytes, key, record));
        let header = BatchHeader { lsn: 7, previous_crc: 8, durable_lsn: 6 };
        let crc = seal(&mut bytes, header);
        let (found, found_crc, mut body) = unseal(&bytes).expect("sound");
        assert_eq!((found, found_crc), (header, crc));
        for record in &records {
            assert_eq!(take_record(&mut body).as_ref(), Ok(&(key, record.clone())));
        }
        assert!(body.is_empty());
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 4;
            assert!(unseal(&damaged).is_err(), "flipped at {position}");
            assert!(unseal(&bytes[..position]).is_err(), "cut at {position}");
        }
    }
}
