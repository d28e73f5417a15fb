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

/// Always 1: unlike Redis's small integers, no value is an object shared between keys.
pub fn read_refcount(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |_, reply| reply.integer(1))
}

pub fn read_idletime(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |entry, reply| {
        reply.integer(i64::from(entry.idle_seconds(time.clock)));
    })
}

/// An error for every key that exists, as in Redis while `maxmemory-policy` is not an LFU one.
pub fn read_freq(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    read_entry(args, bucket, time, reply, |_, reply| WireError::NoLfuPolicy.reply(reply))
}

/// `MEMORY USAGE key [SAMPLES n]`: a string is one allocation, so the samples do not matter, but are checked.
pub fn read_memory_usage(args: &Args<'_>, bucket: &Bucket, time: Time, reply: &mut Reply) -> ReadOutcome {
    if let Err(error) = check_samples(args) {
        error.reply(reply);
        return ReadOutcome::Done;
    }
    read_entry(args, bucket, time, reply, |entry, reply| {
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
    match bucket.get(&args[2], time) {
        Lookup::Due => return ReadOutcome::Due,
        Lookup::Miss => reply.null(),
        Lookup::Hit(entry) => show(&entry, reply),
    }
    ReadOutcome::Done
}
