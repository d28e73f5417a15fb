//! SCAN over the groups that this node leads, and the slices that KEYS is made of too.
//!
//! All groups are passed side by side in the order of key slots, so one cursor serves them all. Positions are the same on
//! every replica of a group, so a scan survives leadership that leaves and comes back.
//!
//! ```text
//! 0 (1 bit) | mark of the groups led at the start (17 bits) | key slot (14 bits) | hash of the next key (32 bits)
//! ```
//!
//! § A scan never ends early: the cursor names the groups led when the scan began, and if one of them is led elsewhere by now,
//! so that its keys would be missing, or a slot of one has left, the answer is an error. Groups that have joined since are passed from the cursor on.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{WireError, glob_matches, integer_argument};
use crate::keyspace::ScanCursor;
use crate::protocol::Args;
use crate::raft::{Group, NoLeader};
use crate::server::commands::CommandContext;
use crate::server::commands::led::{ReadAllError, read_all, read_led};
use crate::slot::KeySlot;

/// Keys looked at without letting other tasks run.
pub const SLICE_KEYS: usize = 1_000;
/// Keys looked at per SCAN, whatever COUNT says: it is a hint, and one call must not hold a worker and memory at will.
const SCAN_KEYS_MAX: usize = 100_000;
const COUNT_DEFAULT: usize = 10;

const MARK_SHIFT: u32 = 46;
/// Groups with ids up to this are marked by a bit each.
const MARKED_GROUPS_MAX: u32 = 16;
/// Set when the other sixteen bits are a checksum of the groups' ids.
const MARK_IS_SUM: u64 = 1 << 16;
/// The topmost bit of a cursor, which none has that was given here.
const MARK_OF_NONE: u64 = 1 << 17;

/// A run of keys, in the order of key slots.
#[derive(Debug, PartialEq, Eq)]
pub struct Slice {
    pub keys: Vec<Bytes>,
    /// Zero at the end.
    pub next: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct ScanOptions<'a> {
    mark: u64,
    position: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
    /// False when TYPE names a type that no key has.
    any_type: bool,
}

pub async fn scan(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let outcome = async {
        let options = parse(args)?;
        read_all(context.shared, |groups| collect(&options, groups)).await
    };
    match outcome.await {
        Ok(Slice { keys, next }) => {
            context.reply.array(2);
            context.reply.bulk(next.to_string().as_bytes());
            context.reply.array(keys.len());
            keys.iter().for_each(|key| context.reply.bulk(key));
        }
        Err(error) => error.reply(context.reply),
    }
}

async fn collect(options: &ScanOptions<'_>, groups: Vec<Arc<Group>>) -> Result<Slice, ReadAllError> {
    // As Redis does at -1.
    if options.mark & MARK_OF_NONE != 0 {
        return Ok(Slice { keys: Vec::new(), next: 0 });
    }
    let led = led_now(&groups);
    let mark = mark_on(options.mark, &led).ok_or(WireError::LeadershipMoved)?;
    let mut all = collect_from(options, &groups).await?;
    // § A slot that has left meanwhile may be in none of the slices: not in its group's any more, and not yet in that of where it went.
    if led != led_now(&groups) {
        return Err(WireError::LeadershipMoved.into());
    }
    if all.next != 0 {
        all.next |= mark << MARK_SHIFT;
    }
    Ok(all)
}

fn led_now(groups: &[Arc<Group>]) -> Vec<Led> {
    groups.iter().map(|group| Led { id: group.id().0, departures: group.departures() }).collect()
}

async fn collect_from(options: &ScanOptions<'_>, groups: &[Arc<Group>]) -> Result<Slice, NoLeader> {
    let wanted = |key: &[u8]| options.any_type && options.pattern.is_none_or(|pattern| glob_matches(pattern, key));
    let mut all = Slice { keys: Vec::new(), next: options.position };
    let mut left = options.count;
    while left > 0 {
        let step = left.min(SLICE_KEYS);
        let slice = read_slice(groups, all.next, step, &wanted).await?;
        all.keys.extend(slice.keys);
        all.next = slice.next;
        if all.next == 0 {
            break;
        }
        left -= step;
        if left > 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(all)
}

/// Looks at about `count` keys from a position on, keeping those wanted, each group under its lease.
pub async fn read_slice(
    groups: &[Arc<Group>],
    position: u64,
    count: usize,
    wanted: &impl Fn(&[u8]) -> bool,
) -> Result<Slice, NoLeader> {
    let mut parts = Vec::with_capacity(groups.len());
    for group in groups {
        parts.push(read_led(group, |group| read_part(group, position, count, wanted)).await?);
    }
    Ok(merge(parts))
}

fn read_part(group: &Group, position: u64, count: usize, wanted: &impl Fn(&[u8]) -> bool) -> Slice {
    // § Dead are only keys that the log has passed, not those past due by the clock alone.
    let stamp = group.time().stamp;
    let mut keys = Vec::new();
    let next = group.keyspace().scan(ScanCursor(position), |_| true, count, &mut |_, entry| {
        let dead = entry.expire_at().is_some_and(|at| at <= stamp);
        if !dead {
            keys.push(entry.shared_key());
        }
    });
    // § Not under the bucket's lock: a pattern may be long at work on a long key.
    keys.retain(|key| wanted(key));
    Slice { keys, next: next.0 }
}

/// Ends where the first of the groups' runs ends; what others found behind that is found again by the next slice. A key slot
/// belongs to one group, so key slots decide.
fn merge(parts: Vec<Slice>) -> Slice {
    let end = |next: u64| if next == 0 { u64::MAX } else { next };
    let first = parts.iter().map(|part| end(part.next)).min().unwrap_or(u64::MAX);
    let mut keys = Vec::new();
    for part in parts {
        let whole = end(part.next) == first;
        keys.extend(part.keys.into_iter().filter(|key| whole || u64::from(KeySlot::of_key(key).get()) < first >> 32));
    }
    Slice { keys, next: if first == u64::MAX { 0 } else { first } }
}

/// A group, and how many slots have left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Led {
    id: u32,
    departures: u64,
}

/// Names a set of groups in 17 bits: exactly when all ids are small and no slot has ever left one, else by a checksum.
fn mark_of(groups: &[Led]) -> u64 {
    if groups.iter().all(|group| (1..=MARKED_GROUPS_MAX).contains(&group.id) && group.departures == 0) {
        return groups.iter().fold(0, |bits, group| bits | 1 << (group.id - 1));
    }
    let numbers = |group: &Led| [u64::from(group.id), group.departures];
    let bytes: Vec<u8> = groups.iter().flat_map(numbers).flat_map(u64::to_be_bytes).collect();
    MARK_IS_SUM | u64::from(crc32fast::hash(&bytes) & 0xFFFF)
}

/// The mark to go on with, or `None` if a group of the old mark is missing. Zero is a new scan's.
fn mark_on(mark: u64, groups: &[Led]) -> Option<u64> {
    let now = mark_of(groups);
    if mark == 0 {
        return Some(now);
    }
    let exact = (mark | now) & MARK_IS_SUM == 0;
    // The old mark is kept: only the groups led at the start are owed to the client.
    (mark == now || (exact && mark & now == mark)).then_some(mark)
}

fn parse<'a>(args: &Args<'a>) -> Result<ScanOptions<'a>, WireError> {
    // Negative ones wrap, as in C's strtoul.
    let parse = |text: &str| text.parse().or_else(|_| text.parse::<i64>().map(i64::cast_unsigned)).ok();
    let cursor: u64 = std::str::from_utf8(&args[1]).ok().and_then(parse).ok_or(WireError::InvalidCursor)?;
    let position = cursor & ((1 << MARK_SHIFT) - 1);
    // The topmost bit is never set, so that clients may keep a cursor as a signed number.
    let mark = cursor >> MARK_SHIFT;
    let mut options = ScanOptions { mark, position, pattern: None, count: COUNT_DEFAULT, any_type: true };
    let mut index = 2;
    while let Some(word) = args.get(index) {
        let Some(value) = args.get(index + 1) else { return Err(WireError::Syntax) };
        if word.eq_ignore_ascii_case(b"count") {
            let count = integer_argument(value)?;
            options.count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(WireError::Syntax)?;
            options.count = options.count.min(SCAN_KEYS_MAX);
        } else if word.eq_ignore_ascii_case(b"match") {
            options.pattern = Some(value);
        } else if word.eq_ignore_ascii_case(b"type") {
            options.any_type = value.eq_ignore_ascii_case(b"string");
        } else {
            return Err(WireError::Syntax);
        }
        index += 2;
    }
    Ok(options)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
