//! Expire times: EXPIRE and kin, TTL and kin, PERSIST, and the leaders' op that deletes due keys.
//!
//! § Times are made absolute by `plan` with the group's clock and carried in the op, so no replica's own clock has a say.
//! Body of an EXPIRE op: `key bytes | expire time i64 | condition u8`; of PERSIST: `key bytes`; of EXPIRE_DUE: a run of
//! `key bytes`.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::keyspace::{Bucket, Entry, Lookup, Time, Value};
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::number::integer_argument;
use super::op::{Apply, DamagedBody, OpReader, OpWriter};
use super::row::ReadOutcome;

/// What a time argument counts, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpireUnit {
    Seconds,
    Milliseconds,
    UnixSeconds,
    UnixMilliseconds,
}

impl ExpireUnit {
    /// The unit of the option `name`, in lower case.
    pub fn of_option(name: &[u8]) -> Option<Self> {
        match name {
            b"ex" => Some(Self::Seconds),
            b"px" => Some(Self::Milliseconds),
            b"exat" => Some(Self::UnixSeconds),
            b"pxat" => Some(Self::UnixMilliseconds),
            _ => None,
        }
    }

    /// The absolute time that `amount` means; `None` on overflow.
    fn absolute(self, amount: i64, now: Timestamp) -> Option<Timestamp> {
        let (per_unit, base) = match self {
            Self::Seconds => (1000, now.as_ms()),
            Self::Milliseconds => (1, now.as_ms()),
            Self::UnixSeconds => (1000, 0),
            Self::UnixMilliseconds => (1, 0),
        };
        amount.checked_mul(per_unit)?.checked_add(base).map(Timestamp)
    }
}

/// The absolute expire time of a SET, SETEX, PSETEX or GETEX: the amount must be positive.
pub fn value_expire_at(
    text: &[u8],
    unit: ExpireUnit,
    now: Timestamp,
    command: &'static str,
) -> Result<Timestamp, WireError> {
    let amount = integer_argument(text)?;
    if amount <= 0 {
        return Err(WireError::InvalidExpire(command));
    }
    unit.absolute(amount, now).ok_or(WireError::InvalidExpire(command))
}

/// The whole value as a bulk; a large one by reference count.
pub fn reply_value(entry: &Entry<'_>, reply: &mut Reply) {
    reply_range(entry, 0..entry.value_len(), reply);
}

pub fn reply_range(entry: &Entry<'_>, range: Range<usize>, reply: &mut Reply) {
    match entry.value() {
        Value::Slice(bytes) => reply.bulk(&bytes[range]),
        Value::Shared(value) => reply.bulk_pieces(range.len(), value.pieces(range)),
    }
}

const IF_NONE: u8 = 1;
const IF_ANY: u8 = 2;
const IF_GREATER: u8 = 4;
const IF_LESS: u8 = 8;

pub fn plan_expire(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_expire_in(args, ExpireUnit::Seconds, now, "expire", op)
}

pub fn plan_pexpire(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_expire_in(args, ExpireUnit::Milliseconds, now, "pexpire", op)
}

pub fn plan_expireat(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_expire_in(args, ExpireUnit::UnixSeconds, now, "expireat", op)
}

pub fn plan_pexpireat(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_expire_in(args, ExpireUnit::UnixMilliseconds, now, "pexpireat", op)
}

fn plan_expire_in(
    args: &Args<'_>,
    unit: ExpireUnit,
    now: Timestamp,
    command: &'static str,
    op: &mut OpWriter<'_>,
) -> Result<(), WireError> {
    let mut conditions = 0;
    for word in args.iter().skip(3) {
        conditions |= match word.to_ascii_lowercase().as_slice() {
            b"nx" => IF_NONE,
            b"xx" => IF_ANY,
            b"gt" => IF_GREATER,
            b"lt" => IF_LESS,
            _ => return Err(WireError::unsupported_option(word)),
        };
    }
    if conditions & IF_NONE != 0 && conditions != IF_NONE {
        return Err(WireError::ExpireNxWithOthers);
    }
    if conditions & IF_GREATER != 0 && conditions & IF_LESS != 0 {
        return Err(WireError::ExpireGtWithLt);
    }
    let amount = integer_argument(&args[2])?;
    // Negative amounts are fine here: they delete the key.
    let expire_at = unit.absolute(amount, now).ok_or(WireError::InvalidExpire(command))?;
    op.bytes(&args[1]);
    op.i64(expire_at.as_ms());
    op.u8(conditions);
    Ok(())
}

pub fn apply_expire(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let expire_at = Timestamp(op.i64()?);
    let conditions = op.u8()?;

    let Some(entry) = apply.bucket.live(key, apply.stamp) else {
        reply.integer(0);
        return Ok(());
    };
    let old = entry.expire_at();
    // No expire time counts as an infinite one.
    let refused = (conditions & IF_NONE != 0 && old.is_some())
        || (conditions & IF_ANY != 0 && old.is_none())
        || (conditions & IF_GREATER != 0 && old.is_none_or(|old| expire_at <= old))
        || (conditions & IF_LESS != 0 && old.is_some_and(|old| expire_at >= old));
    if refused {
        reply.integer(0);
        return Ok(());
    }
    if expire_at <= apply.stamp {
        apply.bucket.remove(key, apply.stamp);
    } else {
        apply.bucket.set_expire(key, Some(expire_at));
    }
    reply.integer(1);
    Ok(())
}

pub fn plan_persist(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    op.bytes(&args[1]);
    Ok(())
}

pub fn apply_persist(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let had_one = apply.bucket.live(key, apply.stamp).is_some_and(|entry| entry.expire_at().is_some());
    if had_one {
        apply.bucket.set_expire(key, None);
    }
    reply.integer(i64::from(had_one));
    Ok(())
}

/// Writes the body of an EXPIRE_DUE op.
pub fn plan_expire_due<'a>(keys: impl IntoIterator<Item = &'a [u8]>, op: &mut OpWriter<'_>) {
    for key in keys {
        op.bytes(key);
    }
}

/// § Deletes by the entry's stamp alone: a key whose expire time was moved meanwhile stays. Looking a key up with
/// `live` is what deletes it when it is due.
pub fn apply_expire_due(op: &mut OpReader<'_>, apply: &mut Apply<'_>, _reply: &mut Reply) -> Result<(), DamagedBody> {
    while !op.is_empty() {
        let key = op.bytes()?;
        apply.bucket.live(key, apply.stamp);
    }
    Ok(())
}

pub fn read_ttl(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_time(args, bucket, time, reply, |at| to_seconds(remaining_ms(at, time)))
}

pub fn read_pttl(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_time(args, bucket, time, reply, |at| remaining_ms(at, time))
}

pub fn read_expiretime(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_time(args, bucket, time, reply, |at| to_seconds(at.as_ms()))
}

pub fn read_pexpiretime(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_time(args, bucket, time, reply, Timestamp::as_ms)
}

/// -2 without the key, -1 without an expire time, else what `show` makes of it.
fn read_time(
    args: &Args<'_>,
    bucket: &Bucket,
    time: Time,
    reply: &mut Reply,
    show: impl FnOnce(Timestamp) -> i64,
) -> ReadOutcome {
    match bucket.get(&args[1], time) {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.integer(-2),
        Lookup::Hit(entry) => reply.integer(entry.expire_at().map_or(-1, show)),
    }
    ReadOutcome::Done
}

fn remaining_ms(at: Timestamp, time: Time) -> i64 {
    at.as_ms().saturating_sub(time.clock.as_ms()).max(0)
}

/// Rounded as Redis does.
fn to_seconds(ms: i64) -> i64 {
    ms.saturating_add(500) / 1000
}
