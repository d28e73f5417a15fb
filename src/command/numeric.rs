//! Counters: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT. All keep the key's expire time.
//!
//! Body of the integer ops: `key bytes | increment i64`; of INCRBYFLOAT: `key bytes | increment text bytes`.

use crate::clock::Timestamp;
use crate::keyspace::Value;
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::float80::Float80;
use super::number::{IntegerText, integer_argument, parse_integer};
use super::op::{Apply, DamagedBody, OpReader, OpWriter};

pub fn plan_incr(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    write_increment(op, &args[1], 1);
    Ok(())
}

pub fn plan_decr(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    write_increment(op, &args[1], -1);
    Ok(())
}

pub fn plan_incrby(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    write_increment(op, &args[1], integer_argument(&args[2])?);
    Ok(())
}

pub fn plan_decrby(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let decrement = integer_argument(&args[2])?;
    let increment = decrement.checked_neg().ok_or(WireError::DecrementOverflow)?;
    write_increment(op, &args[1], increment);
    Ok(())
}

fn write_increment(op: &mut OpWriter<'_>, key: &[u8], increment: i64) {
    op.bytes(key);
    op.i64(increment);
}

pub fn apply_incrby(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let increment = op.i64()?;

    let (old, expire_at) = match apply.bucket.live(key, apply.stamp) {
        None => (Some(0), None),
        Some(entry) => (entry.value().as_slice().and_then(parse_integer), entry.expire_at()),
    };
    let Some(old) = old else {
        WireError::NotAnInteger.reply(reply);
        return Ok(());
    };
    let Some(new) = old.checked_add(increment) else {
        WireError::IncrementOverflow.reply(reply);
        return Ok(());
    };
    apply.bucket.insert(key, Value::Slice(IntegerText::new(new).as_bytes()), expire_at);
    reply.integer(new);
    Ok(())
}

pub fn plan_incrbyfloat(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    if Float80::parse(&args[2]).is_none() {
        return Err(WireError::NotAFloat);
    }
    op.bytes(&args[1]);
    op.bytes(&args[2]);
    Ok(())
}

pub fn apply_incrbyfloat(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let increment = Float80::parse(op.bytes()?).ok_or(DamagedBody)?;

    let (old, expire_at) = match apply.bucket.live(key, apply.stamp) {
        None => (Float80::parse(b"0"), None),
        Some(entry) => (entry.value().as_slice().and_then(Float80::parse), entry.expire_at()),
    };
    let Some(old) = old else {
        WireError::NotAFloat.reply(reply);
        return Ok(());
    };
    let Some(new) = old.add(increment) else {
        WireError::IncrementNotFinite.reply(reply);
        return Ok(());
    };
    let text = new.format();
    apply.bucket.insert(key, Value::Slice(&text), expire_at);
    reply.bulk(&text);
    Ok(())
}
