//! KEYS, RANDOMKEY, DBSIZE, FLUSHALL, FLUSHDB: commands over all keys of the groups that this node leads.
//!
//! § None of them says "expired" by a clock: a key past due is shown until the log has deleted it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::GroupId;
use crate::command::{WireError, glob_matches};
use crate::keyspace::Time;
use crate::protocol::{Args, Protocol, Reply};
use crate::raft::{Chunk, ChunkOutcome, Group};
use crate::random;
use crate::server::commands::CommandContext;
use crate::server::commands::led::{ReadAllError, read_all, read_led, settled_groups};
use crate::server::commands::scan::{SLICE_KEYS, read_slice};
use crate::server::session::Flow;
use crate::server::shared::Shared;

/// Not a picture of one instant: keys written meanwhile may or may not be there, all others are.
pub async fn keys(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let protocol = context.reply.protocol();
    let found = read_all(context.shared, |groups| find_keys(&args[1], groups, protocol)).await;
    match found {
        Ok((count, found)) => {
            context.reply.array(count);
            context.reply.append_raw(found.buffer());
        }
        Err(error) => error.reply(context.reply),
    }
}

/// The keys, and how many they are.
async fn find_keys(
    pattern: &[u8],
    groups: Vec<Arc<Group>>,
    protocol: Protocol,
) -> Result<(usize, Reply), ReadAllError> {
    let departures = departures(&groups);
    let mut found = Reply::new(protocol);
    let mut count = 0;
    let mut cursor = 0;
    loop {
        let slice = read_slice(&groups, cursor, SLICE_KEYS, &|key| glob_matches(pattern, key)).await?;
        count += slice.keys.len();
        slice.keys.iter().for_each(|key| found.bulk(key));
        cursor = slice.next;
        if cursor == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    // § The keys of a slot that has left meanwhile may be missing.
    if departures != self::departures(&groups) {
        return Err(WireError::LeadershipMoved.into());
    }
    Ok((count, found))
}

fn departures(groups: &[Arc<Group>]) -> u64 {
    groups.iter().map(|group| group.departures()).sum()
}

pub async fn database_size(context: &mut CommandContext<'_>) {
    match count_keys(context.shared).await {
        Ok(count) => context.reply.integer(i64::try_from(count).unwrap_or(i64::MAX)),
        Err(error) => error.reply(context.reply),
    }
}

async fn count_keys(shared: &Shared) -> Result<u64, WireError> {
    let give_up = Instant::now() + shared.config.park_time_max();
    loop {
        let counted = read_all(shared, |groups| async move {
            let departures = departures(&groups);
            let mut count = 0;
            for group in &groups {
                count += read_led(group, |group| group.keyspace().counters().keys).await?;
            }
            // § A slot that has left meanwhile was counted in both groups, or in none.
            Ok((departures == self::departures(&groups)).then_some(count))
        });
        if let Some(count) = counted.await? {
            return Ok(count);
        }
        if Instant::now() >= give_up {
            return Err(WireError::LeadershipMoved);
        }
        tokio::task::yield_now().await;
    }
}

pub async fn random_key(context: &mut CommandContext<'_>) {
    match draw_key(context.shared).await {
        Ok(Some(key)) => context.reply.bulk(&key),
        Ok(None) => context.reply.null(),
        Err(error) => error.reply(context.reply),
    }
}

/// Groups are drawn by their number of keys.
async fn draw_key(shared: &Shared) -> Result<Option<Bytes>, WireError> {
    let seed = random::draw_u64();
    let drawn = read_all(shared, |groups| async move {
        let counts: Vec<u64> = groups.iter().map(|group| group.keyspace().counters().keys).collect();
        let (before, from) = groups.split_at(drawn_index(&counts, seed));
        // The others only if the drawn one had no key left.
        for group in from.iter().chain(before) {
            if let Some(key) = read_led(group, |group| draw_from(group, seed)).await? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    });
    drawn.await
}

/// The index of one of `counts`, each as likely as its count.
fn drawn_index(counts: &[u64], seed: u64) -> usize {
    let total: u64 = counts.iter().sum();
    let mut left = seed.checked_rem(total).unwrap_or(0);
    for (index, count) in counts.iter().enumerate() {
        if left < *count {
            return index;
        }
        left -= count;
    }
    0
}

/// § Keys past due are passed over while there are others, but if there is nothing else one is given rather than claimed gone.
fn draw_from(group: &Group, seed: u64) -> Option<Bytes> {
    let time = group.time();
    let drawn = group.keyspace().random_key(seed, time);
    drawn.or_else(|| group.keyspace().random_key(seed, Time { clock: time.stamp, ..time }))
}

/// FLUSHALL and FLUSHDB; there is one database. ASYNC and SYNC are the same: memory is given back in the background.
pub async fn flush(args: &Args<'_>, context: &mut CommandContext<'_>) -> Flow {
    let known = |word: &[u8]| word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async");
    if args.len() > 2 || args.get(1).is_some_and(|word| !known(word)) {
        WireError::Syntax.reply(context.reply);
        return Flow::Continue;
    }
    match flush_led(context.shared, context.session.protocol).await {
        Flush::Done => context.reply.ok(),
        Flush::Refused(error) => error.reply(context.reply),
        // § Neither OK nor an error would be true.
        Flush::Unknown => return Flow::Close,
    }
    Flow::Continue
}

enum Flush {
    Done,
    /// Nothing was emptied.
    Refused(WireError),
    Unknown,
}

/// Empties every group led here, each of them once: those whose op did nothing get another.
///
/// § A group that is emptied is written to again at once, and a second op would take with it what was acknowledged since: per key there is one moment at
/// which it goes. So whether a slot has changed its group must be known before an op is submitted, and is: with nothing unsettled and
/// no departure, one that moves is frozen, and adopted by a group of this node, by ops that are queued behind.
async fn flush_led(shared: &Shared, protocol: Protocol) -> Flush {
    let give_up = Instant::now() + shared.config.park_time_max();
    // Of each group, how many slots had left it when the first was to be emptied.
    let mut departed: BTreeMap<GroupId, u64> = BTreeMap::new();
    let mut emptied: BTreeSet<GroupId> = BTreeSet::new();
    loop {
        // § An error says that nothing happened: once a group is emptied there can be none.
        let refused = |error| if emptied.is_empty() { Flush::Refused(error) } else { Flush::Unknown };
        let groups = match settled_groups(shared, give_up).await {
            Ok(groups) => groups,
            Err(error) => return refused(error),
        };
        // A group that is led elsewhere by now may hold what was not emptied, and OK would claim it.
        let is_led = |id: &GroupId| groups.iter().any(|group| group.id() == *id);
        if !departed.keys().all(is_led) {
            return refused(WireError::LeadershipMoved);
        }
        let stayed = |group: &Group| departed.get(&group.id()).is_none_or(|departed| *departed == group.departures());
        // § A slot that was not emptied where it was may be in a group that was emptied without it, or on another node; one that was may
        // be in a group that is to be emptied.
        if !emptied.is_empty() && !groups.iter().all(|group| stayed(group)) {
            return Flush::Unknown;
        }
        // § As any write is; see `dispatch.rs`.
        if groups.iter().any(|group| group.refuses_writes()) {
            return refused(WireError::DiskFull);
        }
        if emptied.is_empty() {
            departed = groups.iter().map(|group| (group.id(), group.departures())).collect();
        }
        let is_left = |group: &&Arc<Group>| departed.contains_key(&group.id()) && !emptied.contains(&group.id());
        let submitted = groups.iter().filter(is_left).map(|group| empty(group, protocol));
        for (group, outcome) in join_all(submitted).await {
            match outcome {
                // § A slot may have left before the op.
                Emptied::Now { departures } if departed.get(&group) != Some(&departures) => return Flush::Unknown,
                Emptied::Now { .. } => drop(emptied.insert(group)),
                Emptied::Not => (),
                Emptied::Unknown => return Flush::Unknown,
            }
        }
        if departed.len() == emptied.len() {
            return Flush::Done;
        }
        if Instant::now() >= give_up {
            return if emptied.is_empty() { Flush::Refused(WireError::ClusterDown) } else { Flush::Unknown };
        }
        tokio::task::yield_now().await;
    }
}

/// What an op that was to empty a group came to.
enum Emptied {
    /// `departures`: of slots, until about then.
    Now {
        departures: u64,
    },
    Not,
    Unknown,
}

async fn empty(group: &Group, protocol: Protocol) -> (GroupId, Emptied) {
    let mut chunk = Chunk::new(protocol);
    chunk.push_flush();
    let outcome = match group.submit(chunk).await {
        // § The empty reply: a slot waited for a move's outcome, and nothing was emptied.
        ChunkOutcome::Replied { ends, .. } if ends.last() == Some(&0) => Emptied::Not,
        ChunkOutcome::Replied { .. } => Emptied::Now { departures: group.departures() },
        ChunkOutcome::Reroute => Emptied::Not,
        ChunkOutcome::Unknown => Emptied::Unknown,
    };
    (group.id(), outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_drawn_by_their_number_of_keys() {
        let counts = [2, 0, 3];
        let drawn: Vec<usize> = (0..5).map(|seed| drawn_index(&counts, seed)).collect();
        assert_eq!(drawn, [0, 0, 2, 2, 2]);
        assert_eq!(drawn_index(&[], 7), 0);
        assert_eq!(drawn_index(&[0, 0], 7), 0);
    }
}
