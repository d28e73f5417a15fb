//! What a key's storage looks like: OBJECT's subcommands and MEMORY USAGE. None of them marks the key as used.

use crate::keyspace::{Bucket, Encoding, Entry, Lookup, Time};
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::number::integer_argument;
use super::row::ReadOutcome;

pub fn read_encoding(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |entry, reply| {
        reply.bulk(match entry.encoding() {
            Encoding::Int => b"int",
            Encoding::Embstr => b"embstr",
            Encoding::Raw => b"raw",
        });
    })
}

/// What Redis shows for an integer that it shares between keys. None is shared here, but its tests and tools look for it.
const SHARED_REFCOUNT: i64 = 2_147_483_647;
/// Redis shares the integers from 0 to below this, whose texts have at most four digits.
const SHARED_DIGITS_MAX: usize = 4;

/// 1, or as in Redis for a small integer.
pub fn read_refcount(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |entry, reply| {
        let digits = entry.value_len() <= SHARED_DIGITS_MAX
            && entry.value().as_slice().is_some_and(|text| text.iter().all(u8::is_ascii_digit));
        let is_shared = digits && entry.encoding() == Encoding::Int;
        reply.integer(if is_shared { SHARED_REFCOUNT } else { 1 });
    })
}

pub fn read_idletime(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |entry, reply| {
        if time.marking.by_frequency {
            return WireError::LfuPolicy.reply(reply);
        }
        reply.integer(i64::from(entry.idle_seconds(time.clock)));
    })
}

/// An error for every key that exists while `maxmemory-policy` is not an LFU one, as IDLETIME is while it is.
pub fn read_freq(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |entry, reply| {
        if !time.marking.by_frequency {
            return WireError::NoLfuPolicy.reply(reply);
        }
        reply.integer(i64::from(entry.frequency_at(time.clock)));
    })
}

/// `MEMORY USAGE key [SAMPLES n]`: a string is one allocation, so the samples do not matter, but are checked.
pub fn read_memory_usage(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    if let Err(error) = check_samples(args) {
        error.reply(reply);
        return ReadOutcome::Done;
    }
    // As in Redis not counted as a read.
    show_found(bucket.peek(&args[2], time), reply, |entry, reply| {
        reply.integer(i64::try_from(entry.memory_bytes()).unwrap_or(i64::MAX));
    })
}

fn check_samples(args: &Args<'_>) -> Result<(), WireError> {
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        let samples = if word.eq_ignore_ascii_case(b"samples") { words.next() } else { None };
        if integer_argument(samples.ok_or(WireError::Syntax)?)? < 0 {
            return Err(WireError::Syntax);
        }
    }
    Ok(())
}

/// Null without the key, which is the third word.
fn read_entry(
    args: &Args<'_>,
    bucket: &Bucket,
    time: Time,
    reply: &mut Reply,
    show: impl FnOnce(&Entry<'_>, &mut Reply),
) -> ReadOutcome {
    show_found(bucket.get(&args[2], time), reply, show)
}

fn show_found(found: Lookup<'_>, reply: &mut Reply, show: impl FnOnce(&Entry<'_>, &mut Reply)) -> ReadOutcome {
    match found {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.null(),
        Lookup::Hit(entry) => show(&entry, reply),
    }
    ReadOutcome::Done
}
