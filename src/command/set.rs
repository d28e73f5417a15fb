//! SET and the commands that are forms of it: SETNX, SETEX, PSETEX, GETSET; and GETEX, which shares SET's expiry options.
//!
//! Body of a SET op: `key bytes | value bytes | expire time | flags u8`. Body of a GETEX op:
//! `key bytes | expire time | flags u8`.

use crate::clock::Timestamp;
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::expiry::{ExpireUnit, reply_value, value_expire_at};
use super::op::{Apply, DamagedBody, OpReader, OpWriter};

/// Set only if the key does not exist.
const NX: u8 = 1;
/// Set only if the key exists.
const XX: u8 = 2;
/// Answer the old value.
const GET: u8 = 4;
/// Keep the old expire time.
const KEEP_TTL: u8 = 8;
/// Answer 1 if set, else 0.
const INTEGER_REPLY: u8 = 16;
/// Remove the expire time (GETEX).
const PERSIST: u8 = 32;
/// The expire time does not parse, or is not one (GETEX). Redis looks at it only if there is a key.
const NOT_INTEGER: u8 = 64;
const INVALID_EXPIRE: u8 = 128;

/// The options that SET and GETEX share, as far as they were given.
#[derive(Debug, Default)]
struct Options<'a> {
    flags: u8,
    expire: Option<(ExpireUnit, &'a [u8])>,
}

impl<'a> Options<'a> {
    /// Reads the words from `first` on; only flags in `allowed` are options of this command.
    fn parse(args: &Args<'a>, first: usize, allowed: u8) -> Result<Self, WireError> {
        let mut options = Self::default();
        let mut words = args.iter().skip(first);
        while let Some(word) = words.next() {
            let flag = match word.to_ascii_lowercase().as_slice() {
                b"nx" => NX,
                b"xx" => XX,
                b"get" => GET,
                b"keepttl" => KEEP_TTL,
                b"persist" => PERSIST,
                name => {
                    let unit = ExpireUnit::of_option(name).ok_or(WireError::Syntax)?;
                    let text = words.next().ok_or(WireError::Syntax)?;
                    // The same unit twice is no error in Redis: the last one counts.
                    let other_unit = options.expire.is_some_and(|(given, _)| given != unit);
                    if other_unit || options.flags & (KEEP_TTL | PERSIST) != 0 {
                        return Err(WireError::Syntax);
                    }
                    options.expire = Some((unit, text));
                    continue;
                }
            };
            options.flags |= flag;
            let contradicts = options.flags & (NX | XX) == NX | XX
                || (options.expire.is_some() && options.flags & (KEEP_TTL | PERSIST) != 0);
            if flag & allowed == 0 || contradicts {
                return Err(WireError::Syntax);
            }
        }
        Ok(options)
    }

    fn expire_at(&self, now: Timestamp, command: &'static str) -> Result<Option<Timestamp>, WireError> {
        self.expire.map(|(unit, text)| value_expire_at(text, unit, now, command)).transpose()
    }
}

pub fn plan_set(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let options = Options::parse(args, 3, NX | XX | GET | KEEP_TTL)?;
    let expire_at = options.expire_at(now, "set")?;
    write_set(op, &args[1], &args[2], expire_at, options.flags);
    Ok(())
}

pub fn plan_setnx(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    write_set(op, &args[1], &args[2], None, NX | INTEGER_REPLY);
    Ok(())
}

pub fn plan_setex(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let expire_at = value_expire_at(&args[2], ExpireUnit::Seconds, now, "setex")?;
    write_set(op, &args[1], &args[3], Some(expire_at), 0);
    Ok(())
}

pub fn plan_psetex(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let expire_at = value_expire_at(&args[2], ExpireUnit::Milliseconds, now, "psetex")?;
    write_set(op, &args[1], &args[3], Some(expire_at), 0);
    Ok(())
}

pub fn plan_getset(args: &Args<'_>, _now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    write_set(op, &args[1], &args[2], None, GET);
    Ok(())
}

fn write_set(op: &mut OpWriter<'_>, key: &[u8], value: &[u8], expire_at: Option<Timestamp>, flags: u8) {
    op.bytes(key);
    op.bytes(value);
    op.optional_timestamp(expire_at);
    op.u8(flags);
}

pub fn apply_set(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let value = op.value()?;
    let new_expire_at = op.optional_timestamp()?;
    let flags = op.u8()?;

    let stamp = apply.stamp;
    let old = if flags & GET != 0 { apply.read(key, reply) } else { apply.bucket.live(key, stamp) };
    let exists = old.is_some();
    let old_expire_at = old.as_ref().and_then(|entry| entry.expire_at());
    if flags & GET != 0 {
        match &old {
            Some(entry) => reply_value(entry, reply),
            None => reply.null(),
        }
    }
    let refused = (flags & NX != 0 && exists) || (flags & XX != 0 && !exists);
    if !refused {
        let expire_at = if flags & KEEP_TTL != 0 { old_expire_at } else { new_expire_at };
        // § Due at the stamp already (EXAT in the past): absent for every later op and read, so do not store it.
        if expire_at.is_some_and(|at| at <= apply.stamp) {
            apply.bucket.remove(key, apply.stamp);
        } else {
            apply.bucket.insert(key, value, expire_at);
        }
    }
    if flags & INTEGER_REPLY != 0 {
        reply.integer(i64::from(!refused));
    } else if flags & GET == 0 {
        if refused { reply.null() } else { reply.ok() }
    }
    Ok(())
}

pub fn plan_getex(args: &Args<'_>, now: Timestamp, op: &mut OpWriter<'_>) -> Result<(), WireError> {
    let options = Options::parse(args, 2, PERSIST)?;
    let (expire_at, refused) = match options.expire_at(now, "getex") {
        Ok(expire_at) => (expire_at, 0),
        Err(WireError::NotAnInteger) => (None, NOT_INTEGER),
        Err(_) => (None, INVALID_EXPIRE),
    };
    op.bytes(&args[1]);
    op.optional_timestamp(expire_at);
    op.u8(options.flags | refused);
    Ok(())
}

pub fn apply_getex(op: &mut OpReader<'_>, apply: &mut Apply<'_>, reply: &mut Reply) -> Result<(), DamagedBody> {
    let key = op.bytes()?;
    let expire_at = op.optional_timestamp()?;
    let flags = op.u8()?;

    let Some(entry) = apply.read(key, reply) else {
        reply.null();
        return Ok(());
    };
    if flags & (NOT_INTEGER | INVALID_EXPIRE) != 0 {
        let error = if flags & NOT_INTEGER != 0 { WireError::NotAnInteger } else { WireError::InvalidExpire("getex") };
        error.reply(reply);
        return Ok(());
    }
    reply_value(&entry, reply);
    match expire_at {
        Some(at) if at <= apply.stamp => {
            apply.bucket.remove(key, apply.stamp);
        }
        Some(at) => {
            apply.bucket.set_expire(key, Some(at));
        }
        None if flags & PERSIST != 0 => {
            apply.bucket.set_expire(key, None);
        }
        None => {}
    }
    Ok(())
}
