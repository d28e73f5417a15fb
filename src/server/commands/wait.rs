//! WAIT: how many other replicas truly hold what this connection wrote.
//!
//! An acknowledged write is on a majority already; WAIT tells of the rest. It runs when everything before it on its connection
//! is answered, so what a ReadIndex covers in the groups that the connection has written to covers its writes. Of a group that is led
//! elsewhere by now nothing is known, so the answer is 0. A connection that has written nothing asks for all groups led here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::cluster::ReplicaId;
use crate::command::{WireError, integer_argument, parse_integer};
use crate::protocol::Args;
use crate::raft::{Group, MembershipStatus};
use crate::server::clients::{Signal, Unblocked};
use crate::server::commands::CommandContext;
use crate::server::session::Session;
use crate::server::shared::Shared;

/// Between two looks at how far the replicas are; nobody announces it.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What one group's replicas must hold to count.
struct Target {
    group: Arc<Group>,
    index: u64,
}

pub async fn wait(args: &Args<'_>, context: &mut CommandContext<'_>) {
    match parse(args) {
        Ok((wanted, timeout)) => match wait_for(wanted, timeout, context.shared, context.session).await {
            Ok(count) => context.reply.integer(count),
            Err(error) => error.reply(context.reply),
        },
        Err(error) => error.reply(context.reply),
    }
}

fn parse(args: &Args<'_>) -> Result<(i64, Duration), WireError> {
    let wanted = integer_argument(&args[1])?;
    Ok((wanted, timeout_argument(&args[2])?))
}

/// Milliseconds from now on, whose end must be a time that can be told.
pub fn timeout_argument(word: &[u8]) -> Result<Duration, WireError> {
    let timeout_ms = parse_integer(word).ok_or(WireError::TimeoutNotAnInteger)?;
    if timeout_ms > i64::MAX.saturating_sub(Timestamp::wall_now().as_ms()) {
        return Err(WireError::TimeoutOutOfRange);
    }
    u64::try_from(timeout_ms).map(Duration::from_millis).map_err(|_| WireError::TimeoutNegative)
}

/// A zero timeout waits as long as the client and the leadership last. An error only if CLIENT UNBLOCK asks for one.
async fn wait_for(wanted: i64, timeout: Duration, shared: &Shared, session: &Session) -> Result<i64, WireError> {
    let blocked = session.client.block();
    let deadline = if timeout.is_zero() { None } else { Instant::now().checked_add(timeout) };
    let mut groups = shared.replication.led_groups();
    if !session.written.is_empty() {
        groups.retain(|group| session.written.iter().any(|(written, _)| *written == group.id()));
        // What was written to a group that was dissolved since went to others with its slots.
        let topology = shared.replication.topology();
        if groups.len() < session.written.iter().filter(|(written, _)| topology.group(*written).is_some()).count() {
            return Ok(0);
        }
    }
    let Some(targets) = join_all(groups.into_iter().map(target)).await.into_iter().collect::<Option<Vec<Target>>>()
    else {
        return Ok(0);
    };
    loop {
        let counts = targets.iter().map(|target| count_here(target, shared));
        let Some(count) = counts.min().flatten() else { return Ok(0) };
        let over =
            deadline.is_some_and(|deadline| Instant::now() >= deadline) || session.client.signal() >= Signal::Drain;
        match blocked.unblocked() {
            _ if count >= wanted || over => return Ok(count),
            Some(Unblocked::TimedOut) => return Ok(count),
            Some(Unblocked::Refused) => return Err(WireError::Unblocked),
            None => (),
        }
        let pause = Instant::now() + LOOK_INTERVAL;
        tokio::time::sleep_until(deadline.map_or(pause, |deadline| deadline.min(pause))).await;
    }
}

/// § The applied index alone is not enough: a chunk is answered before its entry counts as applied. After a ReadIndex it
/// covers everything acknowledged before. `None` if this node has ceased to lead.
async fn target(group: Arc<Group>) -> Option<Target> {
    group.read_index().await.ok()?;
    Some(Target { index: group.applied_index(), group })
}

/// `None` on a replica that no longer leads: it does not know how far the others are. The smallest of all counts.
fn count_here(target: &Target, shared: &Shared) -> Option<i64> {
    let leads = target.group.leads();
    leads.then(|| count_holding(&shared.replication.membership(&target.group), target.group.replica(), target.index))
}

/// Members other than `own` whose log reaches `index`.
fn count_holding(status: &MembershipStatus, own: ReplicaId, index: u64) -> i64 {
    let holds = |member: &&ReplicaId| **member != own && status.matched.get(member).is_some_and(|at| *at >= index);
    i64::try_from(status.members.keys().filter(holds).count()).expect("few replicas")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeId;
    use crate::protocol::ArgRange;

    fn parsed(words: [&[u8]; 3]) -> Result<(i64, Duration), WireError> {
        let bytes = words.concat();
        let mut start = 0;
        let ranges = words.map(|word| {
            let range = ArgRange { start, end: start + word.len() as u32 };
            start = range.end;
            range
        });
        parse(&Args::new(&bytes, &ranges))
    }

    #[test]
    fn arguments_are_refused_as_redis_refuses_them() {
        assert_eq!(parsed([b"WAIT", b"2", b"100"]), Ok((2, Duration::from_millis(100))));
        assert_eq!(parsed([b"WAIT", b"x", b"100"]), Err(WireError::NotAnInteger));
        assert_eq!(parsed([b"WAIT", b"1", b"x"]), Err(WireError::TimeoutNotAnInteger));
        assert_eq!(parsed([b"WAIT", b"1", b"-1"]), Err(WireError::TimeoutNegative));
        assert_eq!(parsed([b"WAIT", b"1", b"9223372036854775807"]), Err(WireError::TimeoutOutOfRange));
    }

    #[test]
    fn only_other_members_whose_log_reaches_the_write_count() {
        let node = NodeId::default();
        let status = MembershipStatus {
            members: [(ReplicaId(1), node), (ReplicaId(2), node), (ReplicaId(3), node)].into(),
            // Replica 4 is no member any more.
            matched: [(ReplicaId(1), 9), (ReplicaId(2), 9), (ReplicaId(3), 8), (ReplicaId(4), 9)].into(),
            ..MembershipStatus::default()
        };
        assert_eq!(count_holding(&status, ReplicaId(1), 9), 1);
        assert_eq!(count_holding(&status, ReplicaId(1), 8), 2);
        assert_eq!(count_holding(&status, ReplicaId(1), 10), 0);
    }
}
