//! Commands on keys whatever they hold: DEL, UNLINK, EXISTS, TOUCH, TYPE, RENAME, RENAMENX, COPY.

use crate::clock::Timestamp;
use crate::keyspace::{Bucket, Entry, Lookup, SharedValue, Time, Value, ValueType};
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::number::integer_argument;
use super::op::{Apply, DamagedBody, OpReader, OpWriter};
use super::row::ReadOutcome;

/// How many databases COPY's `DB` knows by number, as in Redis's default configuration; all but 0 are refused.
const DB_COUNT: i64 = 16;

/// Body of a DEL op: a run of `key bytes`.
pub fn plan_del(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    for key in args.iter().skip(1) {
        op.bytes(key);
    }
    Ok(())
}

/// The same as DEL: freeing is off the connection's path anyway.
pub fn plan_unlink(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_del(args, now, op)
}

pub fn apply_del(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let mut count = 0;
    while !op.is_empty() {
        let key = op.bytes()?;
        count += i64::from(apply.bucket.remove(key, apply.stamp));
    }
    reply.integer(count);
    Ok(())
}

/// Counts a key as often as it is named.
pub fn read_exists(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    count_keys(args, bucket, time, reply, |_| {})
}

pub fn read_touch(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    count_keys(args, bucket, time, reply, |entry| entry.touch(time.clock))
}

fn count_keys(
    args: &Args<'_>,
    bucket: &Bucket,
    time: Time,
    reply: &mut Reply,
    visit: impl Fn(&Entry<'_>),
) -> ReadOutcome {
    let mut count = 0;
    for key in args.iter().skip(1) {
        match bucket.get(key, time) {
            Lookup::Due => return ReadOutcome::Due,
            Lookup::Miss => {}
            Lookup::Hit(entry) => {
                visit(&entry);
                count += 1;
            }
        }
    }
    reply.integer(count);
    ReadOutcome::Done
}

pub fn read_type(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    match bucket.get(&args[1], time) {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.simple("none"),
        Lookup::Hit(entry) => match entry.value_type() {
            ValueType::String => reply.simple("string"),
        },
    }
    ReadOutcome::Done
}

/// Body of RENAME and RENAMENX: `source bytes | destination bytes`.
pub fn plan_rename(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    op.bytes(&args[1]);
    op.bytes(&args[2]);
    Ok(())
}

pub fn plan_renamenx(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    plan_rename(args, now, op)
}

pub fn apply_rename(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let source = op.bytes()?;
    let destination = op.bytes()?;
    let Some(moved) = apply.bucket.live(source, apply.stamp).map(Moved::of) else {
        WireError::NoSuchKey.reply(reply);
        return Ok(());
    };
    if source != destination {
        apply.bucket.remove(source, apply.stamp);
        moved.insert(destination, apply);
    }
    reply.ok();
    Ok(())
}

pub fn apply_renamenx(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let source = op.bytes()?;
    let destination = op.bytes()?;
    if apply.bucket.live(source, apply.stamp).is_none() {
        WireError::NoSuchKey.reply(reply);
        return Ok(());
    }
    // Also when both are one key.
    if apply.bucket.live(destination, apply.stamp).is_some() {
        reply.integer(0);
        return Ok(());
    }
    let moved = apply.bucket.live(source, apply.stamp).map(Moved::of).expect("the source was live at this stamp");
    apply.bucket.remove(source, apply.stamp);
    moved.insert(destination, apply);
    reply.integer(1);
    Ok(())
}

/// Body: `source bytes | destination bytes | replace u8`.
pub fn plan_copy(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let mut replace = false;
    let mut db = 0;
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if word.eq_ignore_ascii_case(b"db") {
            db = integer_argument(words.next().ok_or(WireError::Syntax)?)?;
            if i32::try_from(db).is_err() {
                return Err(WireError::OutOfRange { min: i64::from(i32::MIN), max: i64::from(i32::MAX) });
            }
            if !(0..DB_COUNT).contains(&db) {
                return Err(WireError::DbOutOfRange);
            }
        } else {
            return Err(WireError::Syntax);
        }
    }
    if db != 0 {
        return Err(WireError::CopyAcrossDbs);
    }
    if args[1] == args[2] {
        return Err(WireError::SameObject);
    }
    op.bytes(&args[1]);
    op.bytes(&args[2]);
    op.u8(u8::from(replace));
    Ok(())
}

pub fn apply_copy(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let source = op.bytes()?;
    let destination = op.bytes()?;
    let replace = op.u8()? != 0;
    let Some(copied) = apply.read(source, reply).map(Moved::of) else {
        reply.integer(0);
        return Ok(());
    };
    if !replace && apply.bucket.live(destination, apply.stamp).is_some() {
        reply.integer(0);
        return Ok(());
    }
    copied.insert(destination, apply);
    reply.integer(1);
    Ok(())
}

/// A value and its expire time on the way to another key. § A large value moves by reference count, not by copying it
/// under the bucket's lock.
struct Moved {
    value: SharedValue,
    expire_at: Option<Timestamp>,
}

impl Moved {
    fn of(entry: Entry<'_>) -> Self {
        Self { value: entry.value().into_shared(), expire_at: entry.expire_at() }
    }

    fn insert(self, key: &[u8], apply: &mut Apply<'_>) {
        apply.bucket.insert(key, Value::Shared(self.value), self.expire_at);
    }
}
