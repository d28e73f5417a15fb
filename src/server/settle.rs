//! Waiting for what a pass could not finish: ReadIndex, commits, and routing again what did not happen.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::cluster::GroupId;
use crate::command::WireError;
use crate::protocol::{Replies, Reply};
use crate::raft::{self, ChunkJob, ChunkOutcome, Group, Route};
use crate::server::dispatch::moved;
use crate::server::latency::LatencyEvent;
use crate::server::places::Place;
use crate::server::session::Session;
use crate::server::shared::Shared;
use crate::server::stretch::{Job, Pass, Stretch, Task, Trust, is_of_load};
use crate::slot::KeySlot;

/// First wait before a request is routed again while the route has not changed; doubles up to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(50);

/// How long a turn may go on trying. Set when it first has to, so that a hundred parked requests do not wait a hundred
/// times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// When to give up.
    pub fn until(&mut self, shared: &Shared) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + shared.config.park_time_max())
    }

    /// For ReadIndexes, of which one that is refused was a part of the wait. Groups are asked also when the turn's patience is over.
    fn of_reads(self) -> Self {
        Self { until: self.until.filter(|until| Instant::now() < *until) }
    }
}

impl Stretch {
    /// Afterwards every step has its reply, or an unknown outcome.
    pub async fn settle(&mut self, pass: &mut Pass<'_>, patience: &mut Patience) {
        let mut backoff = BACKOFF_MIN;
        let mut of_reads = patience.of_reads();
        loop {
            if self.dispel_doubts(pass, &mut of_reads).await {
                // One that was answered is none of the next one's wait.
                of_reads = patience.of_reads();
            } else {
                patience.until = patience.until.or(of_reads.until);
            }
            self.submit(pass.session).await;
            self.finish_jobs(pass).await;
            let mut again: Vec<usize> = Vec::new();
            again.extend((0..self.steps.len()).filter(|step| self.steps[*step].place == Place::Pending));
            if again.is_empty() {
                return;
            }
            self.route_again(&again, pass, patience, backoff).await;
            again.retain(|step| self.steps[*step].place == Place::Pending);
            self.execute_all(&again, pass);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// § One ReadIndex per doubtful group, *before* its chunk is submitted: reads that stand before the turn's own writes must
    /// not see them. False if a group has refused it.
    async fn dispel_doubts(&mut self, pass: &mut Pass<'_>, patience: &mut Patience) -> bool {
        let doubtful: Vec<usize> =
            (0..self.loads.len()).filter(|load| self.loads[*load].trust == Trust::Doubtful).collect();
        if doubtful.is_empty() {
            return true;
        }
        let groups: Vec<Arc<Group>> = doubtful.iter().map(|load| self.loads[*load].group.clone()).collect();
        let give_up = patience.until(pass.shared);
        let indexes = join_all(groups.iter().map(|group| tokio::time::timeout_at(give_up, group.read_index()))).await;
        let mut all = true;
        for (load, result) in doubtful.iter().zip(indexes) {
            // Without a leader the group's steps stay pending and are routed again.
            if matches!(result, Ok(Ok(()))) {
                self.loads[*load].trust = Trust::Indexed;
            } else {
                all = false;
            }
        }
        let indexed = |load: usize| self.loads[load].trust == Trust::Indexed;
        let steps: Vec<usize> = (0..self.steps.len())
            .filter(|step| {
                let step = &self.steps[*step];
                step.place == Place::Pending && doubtful.iter().any(|load| indexed(*load) && is_of_load(step, *load))
            })
            .collect();
        self.execute_all(&steps, pass);
        all
    }

    /// Long computations run where they block nobody.
    async fn finish_jobs(&mut self, pass: &Pass<'_>) {
        let protocol = pass.session.protocol;
        for job in std::mem::take(&mut self.jobs) {
            let computed = raft::blocking(move || {
                let mut reply = Reply::new(protocol);
                job.job.run(&mut reply);
                reply.take()
            });
            // A panic there is a bug that has been reported; to the client the outcome of a read is simply not known.
            self.steps[job.step].place = match computed.await {
                Ok(bytes) => {
                    let end = u32::try_from(bytes.len()).expect("a reply is below 4 GiB");
                    self.buffers.push(bytes.into());
                    Place::Foreign { buffer: self.buffers.len() as u32 - 1, start: 0, end }
                }
                Err(_) => Place::Unknown,
            };
        }
    }

    /// Submits all chunks at once and takes in what became of them.
    async fn submit(&mut self, session: &mut Session) {
        let mut waiting = Vec::new();
        for load in &mut self.loads {
            if load.chunk.is_empty() {
                continue;
            }
            let empty = load.new_chunk();
            let mut chunk = std::mem::replace(&mut load.chunk, empty);
            chunk.follows = session.answered_by(load.group.id());
            waiting.push((load.group.clone(), chunk, std::mem::take(&mut load.items)));
        }
        if waiting.len() == 1 {
            let (group, chunk, items) = waiting.swap_remove(0);
            let outcome = group.submit(chunk).await;
            self.take_in(group.id(), outcome, &items, session);
            return;
        }
        let outcomes = join_all(
            waiting
                .into_iter()
                .map(|(group, chunk, items)| async move { (group.id(), group.submit(chunk).await, items) }),
        );
        for (group, outcome, items) in outcomes.await {
            self.take_in(group, outcome, &items, session);
        }
    }

    fn take_in(&mut self, group: GroupId, outcome: ChunkOutcome, items: &[usize], session: &mut Session) {
        match outcome {
            ChunkOutcome::Replied { entry, replies, ends, jobs } => {
                session.note_answer(group, entry);
                debug_assert_eq!(ends.len(), items.len());
                self.place_replies(replies, &ends, items);
                self.jobs.extend(jobs.into_iter().map(|ChunkJob { item, job }| Job { step: items[item], job }));
            }
            // § None of it happened: all of the chunk stays pending and is routed again, in order, and planned again.
            ChunkOutcome::Reroute => (),
            ChunkOutcome::Unknown => items.iter().for_each(|step| self.steps[*step].place = Place::Unknown),
        }
    }

    fn place_replies(&mut self, replies: Replies, ends: &[u32], items: &[usize]) {
        let buffer = self.buffers.len() as u32;
        let mut start = 0;
        for (step, end) in items.iter().zip(ends.iter().copied()) {
            // An empty reply: the slot had left the group, so this one did not happen and stays pending.
            if end > start {
                self.steps[*step].place = Place::Foreign { buffer, start, end };
            }
            start = end;
        }
        self.buffers.push(replies);
    }

    /// Gives each of these steps a new route, waiting where there is none yet. A step that now belongs elsewhere is answered.
    async fn route_again(&mut self, again: &[usize], pass: &mut Pass<'_>, patience: &mut Patience, backoff: Duration) {
        let give_up = patience.until(pass.shared);
        let mut changes = pass.shared.replication.changes();
        let pause = give_up.min(Instant::now() + backoff);
        // Either a change of leadership or the back-off: the route may be the same and yet work now.
        let _ = tokio::time::timeout_at(pause, changes.changed()).await;
        self.close_loads();
        // § All by the same routes; see `Turn::collect`.
        loop {
            let version = pass.shared.replication.version();
            self.give_routes(again, pass, give_up).await;
            if version == pass.shared.replication.version() {
                return;
            }
        }
    }

    async fn give_routes(&mut self, again: &[usize], pass: &mut Pass<'_>, give_up: Instant) {
        for step in again.iter().filter(|step| self.steps[**step].place == Place::Pending).copied().collect::<Vec<_>>()
        {
            let Task::Keyed { key_slot, .. } = self.steps[step].task else { continue };
            let routed = wait_for_route(key_slot, pass.bytes.len(), pass.shared, give_up).await;
            let error = match routed {
                Routed::Local(group) if Instant::now() < give_up => {
                    let routed_to = self.load_of(group, pass.shared, pass.session);
                    if let Task::Keyed { load, .. } = &mut self.steps[step].task {
                        *load = routed_to;
                    }
                    continue;
                }
                Routed::Local(_) | Routed::Down => WireError::ClusterDown,
                Routed::Elsewhere(error) => error,
            };
            let start = pass.reply.len();
            error.reply(pass.reply);
            self.steps[step].place = Place::Own { start, end: pass.reply.len() };
        }
    }
}

/// Where a request that could not be routed goes in the end.
#[derive(Debug)]
pub enum Routed {
    Local(Arc<Group>),
    /// MOVED.
    Elsewhere(WireError),
    /// No leader was found in time, or too much waits already.
    Down,
}

/// Parks a request until its key slot has a route, at most until `give_up`.
pub async fn wait_for_route(key_slot: KeySlot, bytes: usize, shared: &Shared, give_up: Instant) -> Routed {
    // Subscribed before the route is looked at, so no change in between is missed.
    let mut changes = shared.replication.changes();
    let mut parked = None;
    loop {
        match shared.replication.route(key_slot) {
            Route::Local(group) => return Routed::Local(group),
            Route::Moved(address) => return Routed::Elsewhere(moved(key_slot, &address)),
            Route::Down => return Routed::Down,
            Route::Park => (),
        }
        if parked.is_none() {
            parked = shared.parking.enter(bytes, &shared.stats.node);
            if parked.is_none() {
                return Routed::Down;
            }
        }
        if let Ok(Ok(())) = tokio::time::timeout_at(give_up, changes.changed()).await {
            continue;
        }
        if let Some(parked) = &parked {
            shared.latency.record(LatencyEvent::Parked, parked.waited_ms());
        }
        return Routed::Down;
    }
}
