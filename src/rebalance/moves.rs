//! Carries out moves of slots; what a move is and why it is safe is told in `raft/slots.rs`. Runs on every node and acts for the groups it leads, so a move
//! has one driver at its source and one that cleans up at its target, whichever nodes lead.
//!
//! Nothing is remembered but in the logs: a driver looks at the moves in the topology and at what its group holds, and takes the next step. Steps that
//! fail, or whose outcome is not known, are tried again; each is made to be logged twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{GroupId, MetaOp, Move, MoveEnd, MoveId, MoveState, Topology};
use crate::planted::{self, Bug};
use crate::raft::{Attempt, Group, Held, MoveOp, NoLeader, Outcome, Replication, STEP_WAIT_MAX};
use crate::rebalance::sending::{Sending, SendingError};
use crate::rebalance::turns::{Turns, View, Work};
use crate::slot::Slot;

/// How long a driver waits for a change before it looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Slots of this node that wait for their new group's and the meta group's commits at the same time. A client that has many requests under way meets each
/// of them, and the commits of one delay those of another.
const FROZEN_AT_ONCE: usize = 1;
/// After a step that failed.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// For what was decided to be seen here.
const SEEN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Runs until aborted. `bytes_per_second`: of one group, at most. `park_time_max`: how long requests wait.
pub async fn drive_moves(replication: Arc<Replication>, bytes_per_second: u64, park_time_max: Duration) {
    let mut tasks = JoinSet::new();
    let mut turns = Turns::default();
    let bytes_per_second = bytes_per_second.max(1);
    // § A request that comes as its slot is frozen must see the move's outcome, and be answered, within its patience.
    let frozen_max = park_time_max / 3;
    let attempts = Arc::new(AtomicU64::new(1));
    let freezing = Arc::new(Semaphore::new(FROZEN_AT_ONCE));
    let mut topologies = replication.newest_topologies();
    loop {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => if let Ok((group, work)) = ended {
                turns.ended(group, work);
            },
            // A closed channel is the node's end.
            _ = topologies.changed() => (),
            () = tokio::time::sleep(LOOK_INTERVAL) => (),
        }
        let topology = replication.newest_topology();
        turns.forget(&topology);
        for group in replication.led_groups() {
            let id = group.id();
            while let Some((work, slot_move)) = next_work(&mut turns, &topology, &group) {
                let (replication, attempts, freezing) = (replication.clone(), attempts.clone(), freezing.clone());
                let driver =
                    Driver { replication, group: group.clone(), bytes_per_second, frozen_max, attempts, freezing };
                tasks.spawn(async move {
                    driver.carry_out(work, &slot_move).await;
                    (id, work)
                });
            }
        }
    }
}

fn next_work(turns: &mut Turns, topology: &Topology, group: &Group) -> Option<(Work, Move)> {
    let view = View {
        topology,
        group: group.id(),
        is_founded: group.is_founded(),
        refuses_writes: group.refuses_writes(),
        held: &|slot| group.held(slot),
        ended: &|slot| group.ended(slot),
    };
    turns.next(&view, Instant::now())
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    NoLeader(#[from] NoLeader),
    #[error(transparent)]
    Sending(#[from] SendingError),
    #[error("the meta group does not answer: {0}")]
    Meta(String),
    #[error("slot {slot} is {held:?} here, which does not fit move {id}")]
    Unexpected { slot: Slot, id: MoveId, held: Option<Held> },
}

struct Driver {
    replication: Arc<Replication>,
    group: Arc<Group>,
    bytes_per_second: u64,
    /// § How long a slot may be frozen for its last page, and how fast the meta group has to answer before one is frozen. A target that does not take it must
    /// not keep the slot from its clients: the move is aborted, to be done again.
    frozen_max: Duration,
    /// Of this node, numbered.
    attempts: Arc<AtomicU64>,
    freezing: Arc<Semaphore>,
}

impl Driver {
    async fn carry_out(&self, work: Work, slot_move: &Move) {
        let outcome = match work {
            Work::GiveUp(id) => self.give_up(id, slot_move.slot, true).await,
            Work::Settle(id) => self.settle(id, slot_move).await,
            Work::Finish(id, end) => self.finish(id, end).await,
            Work::Send(id) => self.send(id, slot_move.slot, slot_move.to).await,
        };
        if let Err(error) = outcome {
            self.group.note_move_trouble(Some(&error));
            tracing::info!(group = %self.group.id(), slot = %slot_move.slot, %error, "a move's step is tried again");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn settle(&self, id: MoveId, slot_move: &Move) -> Result<(), StepError> {
        let slot = slot_move.slot;
        let outcome = match slot_move.state {
            MoveState::Started => return Ok(()),
            MoveState::Committed => Outcome::Committed,
            MoveState::Aborted { .. } => Outcome::Aborted,
        };
        self.group.log_move(slot, &MoveOp::Settle { id, outcome }, &[]).await?;
        if self.group.ended(slot) < id {
            return Err(StepError::Unexpected { slot, id, held: self.group.held(slot) });
        }
        Ok(())
    }

    /// The outcome is logged here.
    async fn finish(&self, id: MoveId, end: MoveEnd) -> Result<(), StepError> {
        self.propose(&MetaOp::FinishMove { id, end }).await?;
        self.see(|topology| topology.slot_move(id).is_none_or(|kept| kept.is_done(end))).await;
        Ok(())
    }

    async fn propose(&self, op: &MetaOp) -> Result<(), StepError> {
        self.replication.propose_anywhere(op).await.map_err(StepError::Meta)
    }

    /// Waits a moment for the topology known here to follow.
    async fn see(&self, condition: impl Fn(&Topology) -> bool) -> bool {
        let mut topologies = self.replication.newest_topologies();
        let seen = topologies.wait_for(|topology| topology.as_ref().is_some_and(|topology| condition(topology)));
        matches!(tokio::time::timeout(SEEN_WAIT_MAX, seen).await, Ok(Ok(_)))
    }

    async fn send(&self, id: MoveId, slot: Slot, to: GroupId) -> Result<(), StepError> {
        let (term, replica) = self.group.leadership().ok_or(NoLeader)?;
        let attempt = Attempt { term, replica, number: self.attempts.fetch_add(1, Ordering::Relaxed) };
        let mut sending = Sending::new(&self.replication, &self.group, to, slot, id, attempt, self.bytes_per_second);
        let _permit = match self.send_most(&mut sending, id).await {
            Ok(permit) => permit,
            // Over meanwhile: the next step cleans up.
            Err(SendingError::Over(_)) => return Ok(()),
            Err(error) if error.is_final() => {
                tracing::warn!(%slot, to = %to, %error, "a slot cannot be moved");
                self.group.note_move_trouble(Some(&error));
                return self.give_up(id, slot, false).await;
            }
            Err(error) => return Err(error.into()),
        };
        self.group.log_move(slot, &MoveOp::Freeze { id }, &[]).await?;
        if self.group.held(slot) != Some(Held::Frozen { id }) {
            return Err(StepError::Unexpected { slot, id, held: self.group.held(slot) });
        }
        match sending.finish(self.frozen_max).await {
            Ok(()) => self.commit(id, slot, to).await,
            Err(error) => {
                tracing::warn!(%slot, to = %to, %error, "a move did not come to its end");
                self.group.note_move_trouble(Some(&error));
                self.give_up(id, slot, !error.is_final()).await
            }
        }
    }

    /// All but what changes until the slot is frozen.
    ///
    /// § No slot is frozen unless the meta group has just answered: without it none that is frozen is ever served again, by either group.
    async fn send_most(&self, sending: &mut Sending<'_>, id: MoveId) -> Result<SemaphorePermit<'_>, SendingError> {
        sending.begin().await?;
        loop {
            sending.until_little_is_left().await?;
            // Given back where the meta group is too slow: other slots are not to wait for this one.
            let permit = self.freezing.acquire().await.expect("it is never closed");
            sending.until_little_is_left().await?;
            let asked = Instant::now();
            match self.replication.propose_anywhere(&MetaOp::ConfirmMove { id }).await {
                Ok(()) if asked.elapsed() <= self.frozen_max => return sending.check().map(|()| permit),
                Ok(()) => {
                    self.group.note_move_trouble(Some(&"the meta group answers too slowly for a slot to be frozen"))
                }
                Err(error) => {
                    tracing::info!(%id, error, "a slot is not frozen yet: the meta group does not confirm its move");
                }
            }
            drop(permit);
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// The target has adopted the slot. § Nothing but the meta group's word is missing, so it is asked until that is known: a move given up now would
    /// keep the slot frozen no shorter, and be sent once more.
    async fn commit(&self, id: MoveId, slot: Slot, to: GroupId) -> Result<(), StepError> {
        while let Err(error) = self.propose(&MetaOp::CommitMove { id }).await {
            if self.see_over(id).await {
                return Ok(());
            }
            if !self.group.leads() {
                return Err(error);
            }
            tracing::info!(%slot, %error, "a slot that its new group has is still frozen");
        }
        // § The meta group has it: nothing can change the outcome any more. The target need not wait until its own node hears of it.
        let settle = MoveOp::Settle { id, outcome: Outcome::Committed };
        let told = self.replication.call_move(to, slot, &settle, &[], STEP_WAIT_MAX);
        let (told, logged) = tokio::join!(told, self.group.log_move(slot, &settle, &[]));
        if let Err(error) = told {
            tracing::info!(%slot, %error, "the new group hears of the slot by the topology");
        }
        tracing::info!(%slot, from = %self.group.id(), %to, "moved a slot");
        self.group.note_move_trouble(None);
        Ok(logged?)
    }

    /// § The slot is the source's again only when the meta group says so; until then it stays frozen.
    async fn give_up(&self, id: MoveId, slot: Slot, again: bool) -> Result<(), StepError> {
        if planted::is(Bug::UnfreezeUnasked) {
            let settle = MoveOp::Settle { id, outcome: Outcome::Aborted };
            return Ok(self.group.log_move(slot, &settle, &[]).await?);
        }
        let aborted = self.propose(&MetaOp::AbortMove { id, again }).await;
        if self.see_over(id).await { Ok(()) } else { aborted }
    }

    async fn see_over(&self, id: MoveId) -> bool {
        self.see(|topology| topology.slot_move(id).is_none_or(|kept| kept.state != MoveState::Started)).await
    }
}
