//! Hot path. When appends to one replica go: what can wait goes with what comes next, so that it takes one message, one sync and one answer together.
//!
//! A commit index waits for entries. And entries wait on the way to a follower whom nobody waits for: the leader and the *front*
//! (`raft/acks.rs`) commit without it. What an entry costs a node is little for its bytes and much for being one.
//!
//! § Such a follower is some milliseconds behind and no more: it is sent everything, and at once as soon as the front does not acknowledge
//! entries that this follower has itself. A front that dies or waits for its disk delays one entry by at most `ENTRIES_HOLD_STEPS` steps, and one more
//! by a step; those after it go as they come.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use tokio::time::Instant;

use super::codec::AppendRequest;
use crate::cluster::ReplicaId;
use crate::raft::acks::Acks;
use crate::raft::log::tail::entry_bytes;
use crate::raft::types::LeaderId;

/// How long a commit index may wait for entries to travel with. Followers only apply later by it: nobody waits for them.
const COMMIT_HOLD_MAX: Duration = Duration::from_millis(5);
/// How long entries may wait for others, and how often it is looked whether the front still commits.
const ENTRIES_HOLD_STEPS: u32 = 2;
const ENTRIES_HOLD_STEP: Duration = Duration::from_millis(3);
/// What is as large as this has waited enough.
const FULL_BYTES: u64 = 64 * 1024;

/// The requests of `input`, merged.
///
/// A request with nothing but a commit index that is overtaken here is never sent and never answered. openraft does not count answers: the answer
/// to a later request says all that an earlier one's would, and is credited with the time at which the last of them was made, which is before it
/// was sent. Entries are merged by openraft itself, which makes a request of all that there are when it is asked for the next one.
pub fn paced<S>(input: S, acks: Arc<Acks>, target: ReplicaId) -> impl Stream<Item = AppendRequest> + OptionalSend
where
    S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
{
    let pace = Pace { acks, target, last: 0, held: None };
    futures_util::stream::unfold((input.fuse(), pace), async |(mut input, mut pace)| {
        pace.hold().await;
        let mut request = input.next().await?;
        let until = Instant::now() + COMMIT_HOLD_MAX;
        while request.entries.is_empty() {
            match tokio::time::timeout_at(until, input.next()).await {
                Ok(Some(later)) => request = later,
                Ok(None) | Err(_) => break,
            }
        }
        pace.sends(&request);
        Some((request, (input, pace)))
    })
}

struct Pace {
    acks: Arc<Acks>,
    target: ReplicaId,
    /// The last entry sent; 0 before the first.
    last: u64,
    /// What others may wait behind: who sends it, the last entry of the request before it and its own.
    held: Option<(LeaderId, RangeInclusive<u64>)>,
}

impl Pace {
    fn sends(&mut self, request: &AppendRequest) {
        let Some(last) = request.entries.last().map(|entry| entry.log_id.index) else { return };
        let before = std::mem::replace(&mut self.last, last);
        let bytes: u64 = request.entries.iter().map(entry_bytes).sum();
        // The first may be all there is: openraft finds out with one request to a stream how far a follower is, and waits for the stream's end.
        self.held = (before > 0 && bytes < FULL_BYTES).then_some((request.vote.leader_id, before..=last));
    }

    /// Returns when the next request may be asked for.
    async fn hold(&mut self) {
        let Some((leader, sent)) = self.held.take() else { return };
        // A front that is ahead of all that this follower was sent says that it has to catch up.
        let acked = self.acks.acked_without(self.target, leader).filter(|acked| sent.contains(acked));
        let Some(mut acked) = acked else { return };
        for _ in 0..ENTRIES_HOLD_STEPS {
            tokio::time::sleep(ENTRIES_HOLD_STEP).await;
            match self.acks.acked_without(self.target, leader) {
                Some(now) if now > acked => acked = now,
                Some(_) | None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::stream;
    use openraft::{EntryPayload, LogId as RaftLogId};

    use super::*;
    use crate::clock::Boottime;
    use crate::raft::types::tests::membership;
    use crate::raft::types::{Batch, Entry, LeaderId, LogId, Vote};

    const LEADER: LeaderId = LeaderId { term: 1, node_id: 1 };
    const FRONT: ReplicaId = ReplicaId(2);
    const REAR: ReplicaId = ReplicaId(3);

    fn log_id(index: u64) -> LogId {
        RaftLogId::new(LEADER, index)
    }

    fn append_of(commit: u64, entries: &[u64], bytes: usize) -> AppendRequest {
        let batch = Batch(vec![0; bytes].into());
        let entry = |index: &u64| Entry { log_id: log_id(*index), payload: EntryPayload::Normal(batch.clone()) };
        let vote = Vote { leader_id: LEADER, committed: true };
        let entries = entries.iter().map(entry).collect();
        AppendRequest { vote, prev_log_id: None, entries, leader_commit: Some(log_id(commit)) }
    }

    fn append(commit: u64, entries: &[u64]) -> AppendRequest {
        append_of(commit, entries, 10)
    }

    /// Of a group of three whose front is the second.
    fn acks() -> Arc<Acks> {
        let acks = Acks::default();
        acks.form_front(&membership(&[&[1, 2, 3]]), vec![FRONT, REAR]);
        Arc::new(acks)
    }

    async fn sent(requests: Vec<AppendRequest>) -> Vec<(u64, usize)> {
        let told = |request: AppendRequest| (request.leader_commit.map_or(0, |id| id.index), request.entries.len());
        paced(stream::iter(requests), Arc::default(), FRONT).map(told).collect().await
    }

    #[tokio::test]
    async fn a_commit_index_travels_with_the_entries_after_it() {
        assert_eq!(
            sent(vec![append(1, &[2]), append(2, &[]), append(3, &[]), append(3, &[4])]).await,
            [(1, 1), (3, 1)]
        );
    }

    #[tokio::test]
    async fn without_entries_after_it_it_goes_alone() {
        assert_eq!(sent(vec![append(1, &[2]), append(2, &[])]).await, [(1, 1), (2, 0)], "at the end of the stream");
        let endless = Box::pin(stream::iter([append(2, &[])]).chain(stream::pending()));
        let first = Box::pin(paced(endless, Arc::default(), FRONT)).next().await.expect("one");
        assert_eq!(first.leader_commit, Some(log_id(2)), "after a moment");
    }

    /// Milliseconds until there is an entry, and this is noticed.
    const AT_ONCE: u128 = 2;

    /// How many milliseconds it took to get each of eight requests, while the leader appends an entry each millisecond and the front acknowledges
    /// it a millisecond later, up to entry `front`.
    async fn waits(target: ReplicaId, front: u64, bytes: usize) -> [u128; 8] {
        let (acks, appended) = (acks(), Arc::new(AtomicU64::new(1)));
        let (acknowledged, newest) = (acks.clone(), appended.clone());
        let input = stream::unfold(0, move |last| {
            let newest = newest.clone();
            async move {
                while newest.load(Ordering::Relaxed) == last {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                let last = newest.load(Ordering::Relaxed);
                Some((append_of(0, &[last], bytes), last))
            }
        });
        let mut requests = Box::pin(paced(Box::pin(input), acks, target));
        let leading = tokio::spawn(async move {
            for index in 1.. {
                tokio::time::sleep(Duration::from_millis(1)).await;
                appended.store(index + 1, Ordering::Relaxed);
                acknowledged.record(FRONT, LEADER, Boottime(1), Some(index.min(front)));
            }
        });
        let mut waits = [0; 8];
        for wait in &mut waits {
            let asked = Instant::now();
            requests.next().await.expect("it is endless");
            *wait = asked.elapsed().as_millis();
        }
        leading.abort();
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn entries_wait_for_others_on_the_way_to_a_follower_without_whom_they_are_committed() {
        let whole = (ENTRIES_HOLD_STEP * ENTRIES_HOLD_STEPS).as_millis();
        let [first, second, others @ ..] = waits(REAR, u64::MAX, 10).await;
        assert!(first.max(second) <= AT_ONCE, "the first may be all there is");
        assert!(others.iter().all(|wait| *wait >= whole), "{others:?}");
        let not_held = async |target, bytes| waits(target, u64::MAX, bytes).await.iter().all(|wait| *wait <= AT_ONCE);
        assert!(not_held(FRONT, 10).await, "the leader waits for it");
        assert!(not_held(REAR, FULL_BYTES as usize).await, "they are large");
    }

    #[tokio::test(start_paused = true)]
    async fn once_the_front_acknowledges_nothing_more_entries_wait_no_longer() {
        let waits = waits(REAR, 12, 10).await;
        let held = waits.iter().filter(|wait| **wait > AT_ONCE).count();
        assert!(held >= 2 && waits[5..].iter().all(|wait| *wait <= AT_ONCE), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_has_to_catch_up_is_not_held_back() {
        let acks = acks();
        acks.record(FRONT, LEADER, Boottime(1), Some(1000));
        let entries: Vec<_> = (1..100).map(|index| append(0, &[index])).collect();
        let began = Instant::now();
        assert_eq!(paced(stream::iter(entries), acks, REAR).count().await, 99);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
