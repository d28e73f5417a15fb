//! Carries out moves of slots; what a move is and why it is safe is told in `raft/slots.rs`. Runs on every node and acts for the groups it leads, so a move
//! has one driver at its source and one that cleans up at its target, whichever nodes lead.
//!
//! Nothing is remembered but in the logs: a driver looks at the moves in the topology and at what its group holds, and takes the next step. Steps that
//! fail, or whose outcome is not known, are tried again; each is made to be logged twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cluster::{GroupId, MetaOp, Move, MoveEnd, MoveId, MoveState, Topology};
use crate::planted::{self, Bug};
use crate::raft::{Attempt, Group, Held, MoveOp, NoLeader, Outcome, Replication};
use crate::rebalance::sending::{Sending, SendingError};
use crate::slot::Slot;

/// How long a driver waits for a change before it looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// After a step that failed.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// § How long a slot may be frozen for its last page. A target that does not take it must not keep the slot from its clients: the move is aborted,
/// to be done again.
const FROZEN_MAX: Duration = Duration::from_secs(2);
/// Slots that a group sends beside each other: each of them waits mostly, for commits of its steps.
const SENT_AT_ONCE: usize = 4;
const CLEANED_UP_AT_ONCE: usize = 16;
/// For what was decided to be seen here.
const SEEN_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a group has to do for a move, and that one task at a time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// Its outcome is known.
    CleanUp(MoveId, MoveEnd),
    Send(MoveId),
}

/// Runs until aborted. `bytes_per_second`: of one group, at most.
pub async fn drive_moves(replication: Arc<Replication>, bytes_per_second: u64) {
    let mut tasks = JoinSet::new();
    let mut busy = BTreeSet::<(GroupId, Work)>::new();
    // The last move of each group that was begun to be sent: the others have their turn first.
    let mut last = BTreeMap::<GroupId, MoveId>::new();
    let bytes_per_second = (bytes_per_second / SENT_AT_ONCE as u64).max(1);
    let attempts = Arc::new(AtomicU64::new(1));
    let mut topologies = replication.newest_topologies();
    loop {
        tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => if let Ok(work) = ended {
                busy.remove(&work);
            },
            // A closed channel is the node's end.
            _ = topologies.changed() => (),
            () = tokio::time::sleep(LOOK_INTERVAL) => (),
        }
        let topology = replication.newest_topology();
        for group in replication.led_groups() {
            let id = group.id();
            while let Some((work, slot_move)) = next_work(&topology, &group, &busy, &mut last) {
                busy.insert((id, work));
                let (replication, attempts) = (replication.clone(), attempts.clone());
                let driver = Driver { replication, group: group.clone(), bytes_per_second, attempts };
                tasks.spawn(async move {
                    driver.carry_out(work, &slot_move).await;
                    (id, work)
                });
            }
        }
    }
}

fn next_work(
    topology: &Topology,
    group: &Group,
    busy: &BTreeSet<(GroupId, Work)>,
    last: &mut BTreeMap<GroupId, MoveId>,
) -> Option<(Work, Move)> {
    let own = group.id();
    let count = |wanted: fn(&Work) -> bool| busy.iter().filter(|(id, work)| *id == own && wanted(work)).count();
    let is_free = |work: &Work| !busy.contains(&(own, *work));
    if count(|work| matches!(work, Work::CleanUp(..))) < CLEANED_UP_AT_ONCE {
        let ends = topology.moves().filter(|(_, slot_move)| slot_move.state != MoveState::Started).flat_map(
            |(id, slot_move)| [MoveEnd::Source, MoveEnd::Target].map(|end| (Work::CleanUp(id, end), end, slot_move)),
        );
        let mut due = ends
            .filter(|(work, end, slot_move)| slot_move.group(*end) == own && !slot_move.is_done(*end) && is_free(work));
        if let Some((work, _, slot_move)) = due.next() {
            return Some((work, slot_move.clone()));
        }
    }
    if count(|work| matches!(work, Work::Send(_))) >= SENT_AT_ONCE {
        return None;
    }
    let due = |(id, slot_move): &(MoveId, &Move)| {
        let held = || group.held(slot_move.slot);
        slot_move.from == own
            && slot_move.state == MoveState::Started
            && is_free(&Work::Send(*id))
            && (held() == Some(Held::Frozen { id: *id }) || (held() == Some(Held::Owned) && !group.refuses_writes()))
    };
    let before = last.get(&own).copied().unwrap_or_default();
    let next = topology.moves().filter(due).find(|(id, _)| *id > before).or_else(|| topology.moves().find(due));
    let (id, slot_move) = next?;
    last.insert(own, id);
    Some((Work::Send(id), slot_move.clone()))
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
    /// Of this node, numbered.
    attempts: Arc<AtomicU64>,
}

impl Driver {
    async fn carry_out(&self, work: Work, slot_move: &Move) {
        let outcome = match work {
            Work::CleanUp(id, end) => self.clean_up(id, slot_move, end).await,
            // § Another leader has frozen it: sending all of it anew would take longer than its clients should wait.
            Work::Send(id) if self.group.held(slot_move.slot) == Some(Held::Frozen { id }) => {
                self.give_up(id, slot_move.slot).await
            }
            Work::Send(id) => self.send(id, slot_move.slot, slot_move.to).await,
        };
        if let Err(error) = outcome {
            self.group.note_move_trouble(Some(&error));
            tracing::info!(group = %self.group.id(), slot = %slot_move.slot, %error, "a move's step is tried again");
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Logs the outcome here, then tells the meta group that this group is done with the move.
    async fn clean_up(&self, id: MoveId, slot_move: &Move, end: MoveEnd) -> Result<(), StepError> {
        let slot = slot_move.slot;
        let outcome = match slot_move.state {
            MoveState::Started => return Ok(()),
            MoveState::Committed => Outcome::Committed,
            MoveState::Aborted { .. } => Outcome::Aborted,
        };
        if self.group.ended(slot) < id {
            self.group.log_move(slot, &MoveOp::Settle { id, outcome }, &[]).await?;
            if self.group.ended(slot) < id {
                return Err(StepError::Unexpected { slot, id, held: self.group.held(slot) });
            }
        }
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
        let attempt = Attempt {
            term: self.group.term(),
            replica: self.group.replica().0,
            number: self.attempts.fetch_add(1, Ordering::Relaxed),
        };
        let (replication, group) = (&self.replication, &self.group);
        let mut sending = Sending::begin(replication, group, to, slot, id, attempt, self.bytes_per_second).await?;
        match sending.until_little_is_left().await {
            Ok(()) => (),
            // Over meanwhile: the next step cleans up.
            Err(SendingError::Over(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        group.log_move(slot, &MoveOp::Freeze { id }, &[]).await?;
        if group.held(slot) != Some(Held::Frozen { id }) {
            return Err(StepError::Unexpected { slot, id, held: group.held(slot) });
        }
        match tokio::time::timeout(FROZEN_MAX, sending.finish()).await {
            Ok(Ok(())) => self.commit(id, slot, to).await,
            Ok(Err(error)) => {
                tracing::warn!(%slot, to = %to, %error, "a move did not come to its end");
                group.note_move_trouble(Some(&error));
                self.give_up(id, slot).await
            }
            Err(_) => {
                tracing::warn!(%slot, to = %to, "a move did not come to its end in time");
                group.note_move_trouble(Some(&"its last page was not taken in time"));
                self.give_up(id, slot).await
            }
        }
    }

    /// The target has adopted the slot.
    async fn commit(&self, id: MoveId, slot: Slot, to: GroupId) -> Result<(), StepError> {
        if let Err(error) = self.propose(&MetaOp::CommitMove { id }).await {
            // Refused, or not known: the next step goes by what the meta group says.
            return if self.see_over(id).await { Ok(()) } else { Err(error) };
        }
        // § The meta group has it: nothing can change the outcome any more. The target need not wait until its own node hears of it.
        let settle = MoveOp::Settle { id, outcome: Outcome::Committed };
        let (told, logged) =
            tokio::join!(self.replication.call_move(to, slot, &settle, &[]), self.group.log_move(slot, &settle, &[]));
        if let Err(error) = told {
            tracing::info!(%slot, %error, "the new group hears of the slot by the topology");
        }
        tracing::info!(%slot, from = %self.group.id(), %to, "moved a slot");
        self.group.note_move_trouble(None);
        Ok(logged?)
    }

    /// For this time: the move begins anew. § The slot is the source's again only when the meta group says so; until then it stays frozen.
    async fn give_up(&self, id: MoveId, slot: Slot) -> Result<(), StepError> {
        if planted::is(Bug::UnfreezeUnasked) {
            let settle = MoveOp::Settle { id, outcome: Outcome::Aborted };
            return Ok(self.group.log_move(slot, &settle, &[]).await?);
        }
        let aborted = self.propose(&MetaOp::AbortMove { id, again: true }).await;
        if self.see_over(id).await { Ok(()) } else { aborted }
    }

    async fn see_over(&self, id: MoveId) -> bool {
        self.see(|topology| topology.slot_move(id).is_none_or(|kept| kept.state != MoveState::Started)).await
    }
}
