//! String commands without options to speak of: GET, MGET, GETRANGE, STRLEN; GETDEL, MSET, MSETNX, APPEND, SETRANGE.

use crate::clock::Timestamp;
use crate::keyspace::{Bucket, Keyspace, Lookup, Patch, Time, Value};
use crate::protocol::{Args, REPLY_BYTES_MAX, Reply};

use super::errors::WireError;
use super::expiry::{reply_range, reply_value};
use super::number::integer_argument;
use super::op::{Apply, DamagedBody, Op, OpCode, OpReader, OpWriter};
use super::row::ReadOutcome;

/// Longest string, Redis's default `proto-max-bulk-len`. A constant, not the setting: apply must give the same result
/// on every replica.
pub const STRING_BYTES_MAX: u64 = 512 * 1024 * 1024;

pub fn read_get(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    match bucket.get(&args[1], time) {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.null(),
        Lookup::Hit(entry) => {
            entry.note_read(time);
            reply_value(&entry, reply);
        }
    }
    ReadOutcome::Done
}

pub fn read_mget(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    let (mark, before) = (reply.len(), reply.total_len());
    reply.array(args.len() - 1);
    for key in args.iter().skip(1) {
        match bucket.get(key, time) {
            Lookup::Due => return ReadOutcome::Due,
            Lookup::Miss => reply.null(),
            Lookup::Hit(entry) => {
                entry.note_read(time);
                reply_value(&entry, reply);
                if reply.total_len() - before > REPLY_BYTES_MAX {
                    reply.truncate(mark);
                    WireError::ReplyTooLarge.reply(reply);
                    return ReadOutcome::Done;
                }
            }
        }
    }
    ReadOutcome::Done
}

pub fn read_strlen(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    match bucket.get(&args[1], time) {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.integer(0),
        Lookup::Hit(entry) => {
            entry.note_read(time);
            reply.integer(entry.value_len() as i64);
        }
    }
    ReadOutcome::Done
}

/// GETRANGE and its old name SUBSTR.
pub fn read_getrange(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    let bounds = integer_argument(&args[2]).and_then(|start| Ok((start, integer_argument(&args[3])?)));
    let (start, end) = match bounds {
        Ok(bounds) => bounds,
        Err(error) => {
            error.reply(reply);
            return ReadOutcome::Done;
        }
    };
    match bucket.get(&args[1], time) {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.bulk(b""),
        Lookup::Hit(entry) => {
            entry.note_read(time);
            let range = clamp_range(start, end, entry.value_len());
            reply_range(&entry, range, reply);
        }
    }
    ReadOutcome::Done
}

/// Redis's inclusive, possibly negative bounds as a range within `length`.
fn clamp_range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = length as i64;
    if length == 0 || (start < 0 && end < 0 && start > end) {
        return 0..0;
    }
    let from_end = |bound: i64| if bound < 0 { length.saturating_add(bound).max(0) } else { bound };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

pub fn plan_getdel(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    op.bytes(&args[1]);
    Ok(())
}

pub fn apply_getdel(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    match apply.read(key, reply) {
        None => reply.null(),
        Some(entry) => {
            reply_value(&entry, reply);
            apply.bucket.remove(key, apply.stamp);
        }
    }
    Ok(())
}

pub fn plan_mset(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_pairs(args, "mset", op)
}

pub fn plan_msetnx(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_pairs(args, "msetnx", op)
}

/// Body: a run of `key bytes | value bytes`.
fn plan_pairs(args: &Args<'_>, command: &'static str, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    if args.len().is_multiple_of(2) {
        return Err(WireError::WrongArity(command));
    }
    for word in args.iter().skip(1) {
        op.bytes(word);
    }
    Ok(())
}

pub fn apply_mset(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    insert_pairs(op, apply)?;
    reply.ok();
    Ok(())
}

pub fn apply_msetnx(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let mut keys = op.clone();
    while !keys.is_empty() {
        let key = keys.bytes()?;
        keys.bytes()?;
        if apply.bucket.live(key, apply.stamp).is_some() {
            reply.integer(0);
            return Ok(());
        }
    }
    insert_pairs(op, apply)?;
    reply.integer(1);
    Ok(())
}

fn insert_pairs(op: &mut OpReader<'_>, apply: &mut Apply<'_>) -> Result<(), DamagedBody> {
    while !op.is_empty() {
        let key = op.bytes()?;
        let value = op.value()?;
        apply.bucket.insert(key, value, None);
    }
    Ok(())
}

/// Body: `key bytes | value bytes`.
pub fn plan_append(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    op.bytes(&args[1]);
    op.bytes(&args[2]);
    Ok(())
}

pub fn apply_append(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let value = op.bytes()?;
    let old_length = apply.bucket.live(key, apply.stamp).map_or(0, |entry| entry.value_len());
    let length = old_length as u64 + value.len() as u64;
    if length > STRING_BYTES_MAX {
        WireError::StringTooLong.reply(reply);
        return Ok(());
    }
    let patch = apply.patch(old_length, value);
    reply.integer(apply.bucket.write(key, apply.stamp, patch) as i64);
    Ok(())
}

/// Body: `key bytes | offset u32 | value bytes`.
pub fn plan_setrange(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let offset = integer_argument(&args[2])?;
    let offset = u64::try_from(offset).map_err(|_| WireError::OffsetOutOfRange)?;
    let value = &args[3];
    // Writing nothing is allowed at any offset.
    let offset = if value.is_empty() { 0 } else { offset };
    if offset.saturating_add(value.len() as u64) > STRING_BYTES_MAX {
        return Err(WireError::StringTooLong);
    }
    op.bytes(&args[1]);
    op.u32(u32::try_from(offset).expect("offsets are at most 512 MB"));
    op.bytes(value);
    Ok(())
}

pub fn apply_setrange(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let offset = op.u32()? as usize;
    let value = op.bytes()?;
    if (offset + value.len()) as u64 > STRING_BYTES_MAX {
        return Err(DamagedBody);
    }
    let old_length = apply.bucket.live(key, apply.stamp).map(|entry| entry.value_len());
    // An empty value changes nothing and creates no key.
    let length = if value.is_empty() {
        old_length.unwrap_or(0)
    } else {
        // As in Redis a new key's value is an edited one, too, which OBJECT ENCODING shows.
        if old_length.is_none() {
            apply.bucket.insert(key, Value::Slice(b""), None);
        }
        let patch = apply.patch(offset, value);
        apply.bucket.write(key, apply.stamp, patch)
    };
    reply.integer(length as i64);
    Ok(())
}

/// What an APPEND or SETRANGE will write; `None` for other ops and what is refused. Apply alone changes values, so the length that an APPEND finds here it will find again.
pub fn large_patch<'a>(op: &'a Op, stamp: Timestamp, keyspace: &Keyspace) -> Option<Patch<'a>> {
    let mut body = OpReader::new(&op.body);
    let (offset, value) = match op.code {
        OpCode::APPEND => {
            let key = body.bytes().ok()?;
            (keyspace.read(op.key_slot, |bucket| bucket.value_len(key, stamp)), body.bytes().ok()?)
        }
        OpCode::SETRANGE => {
            body.bytes().ok()?;
            (body.u32().ok()? as usize, body.bytes().ok()?)
        }
        _ => return None,
    };
    let fits = (offset + value.len()) as u64 <= STRING_BYTES_MAX;
    fits.then(|| Patch::new(offset, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_clamped_as_in_redis() {
        for (start, end, expected) in [
            (0, 3, 0..4),
            (-3, -1, 7..10),
            (0, -1, 0..10),
            (5, 100, 5..10),
            (10, 20, 0..0),
            (-1, -5, 0..0),
            (-100, -50, 0..1),
            (-100, 2, 0..3),
            (i64::MIN, i64::MAX, 0..10),
        ] {
            assert_eq!(clamp_range(start, end, 10), expected, "{start} {end}");
        }
        assert_eq!(clamp_range(0, 0, 0), 0..0);
    }
}
