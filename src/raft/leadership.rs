//! The task that turns openraft's view of leadership into the lease, the proposer's intake, the group clock and hints.
//!
//! § A leadership opens only when an entry of its own term has been applied: every earlier entry is applied then, so reads see
//! all that was ever acknowledged, and the group clock starts at or past the last stamp of the log.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::{Boottime, Timestamp};
use crate::cluster::{GroupId, ReplicaId};
use crate::planted::{self, Bug};
use crate::raft::acks::Acks;
use crate::raft::group::{GroupState, TransferError, TransferRequest};
use crate::raft::lease::lease_of;
use crate::raft::machine::GroupRaft;
use crate::raft::proposer::{Intake, Leadership};
use crate::raft::replica::Reads;
use crate::raft::space::Space;
use crate::raft::types::{LeaderId, StoredMembership};

/// How often the lease is prolonged and the group clock slewed. A fraction of the lease (200 ms by default).
const TICK: Duration = Duration::from_millis(20);
/// How long a transfer waits for the target to catch up, with the intake paused.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_millis(500);
const CLOCK_WARNING_INTERVAL: Duration = Duration::from_secs(60);
const CATCH_UP_POLL: Duration = Duration::from_millis(1);

/// What this replica knows of its group's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderSighting {
    pub group: GroupId,
    /// Who saw it.
    pub replica: ReplicaId,
    pub term: u64,
    /// `None` while an election is on.
    pub leader: Option<ReplicaId>,
    /// This replica leads, with its first entry applied.
    pub leads_here: bool,
}

pub struct LeadershipTask {
    pub state: Arc<GroupState>,
    pub raft: GroupRaft,
    pub intake: watch::Sender<Intake>,
    pub leads: watch::Sender<bool>,
    pub transfers: mpsc::Receiver<TransferRequest>,
    pub sightings: mpsc::Sender<LeaderSighting>,
    pub election_timeout_max: Duration,
    pub reads: Reads,
    pub acks: Arc<Acks>,
    pub space: Arc<Space>,
    pub current: Option<Arc<Leadership>>,
    pub last_sighting: Option<LeaderSighting>,
    pub clock_warned: Option<Instant>,
}

impl LeadershipTask {
    /// Runs until the group's handle is dropped.
    pub async fn run(mut self) {
        let mut changes = self.raft.server_metrics();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.evaluate().await;
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return self.close() },
                () = self.state.leader_applied.notified() => (),
                _ = tick.tick() => self.slew(),
                request = self.transfers.recv() => match request {
                    Some(request) => self.serve_transfer(request).await,
                    None => return self.close(),
                },
            }
        }
    }

    fn close(&mut self) {
        self.current = None;
        if planted::is(Bug::LostLeadershipIsRefused) {
            self.state.pending.discard_older(LeaderId { term: u64::MAX, node_id: 0 });
        }
        self.state.lease.clear();
        self.intake.send_replace(Intake::Closed);
        self.leads.send_replace(false);
    }

    async fn evaluate(&mut self) {
        let own = self.raft.as_leader().ok().map(|leader| leader.to_committed_leader_id());
        let applied = self.state.applied();
        let first_entry_applied = own.is_some() && applied.log_id.map(|log_id| log_id.leader_id) == own;
        let is_voter = applied.membership.voter_ids().any(|voter| voter == self.state.replica.0);
        match own {
            Some(own) if first_entry_applied && is_voter => {
                self.open(own);
                self.prolong(own, &applied.membership);
                self.state.take_note_of_space(self.space.of_group(self.state.replica, &applied.membership));
            }
            Some(_) | None => {
                if self.current.is_some() {
                    self.close();
                }
            }
        }
        self.report().await;
    }

    fn open(&mut self, own: LeaderId) {
        if self.current.as_ref().is_some_and(|current| current.leader == own) {
            return;
        }
        let alarm = self.state.clock.start(self.state.last_stamp(), Timestamp::wall_now(), Boottime::now());
        if let Some(alarm) = alarm {
            self.warn_of_clock(alarm);
        }
        let leadership = Arc::new(Leadership::new(own));
        self.current = Some(leadership.clone());
        self.intake.send_replace(Intake::Open(leadership));
        self.leads.send_replace(true);
        self.state.metrics.leader_changes.increment(1);
        tracing::info!(group = %self.state.id, term = own.term, "this node leads the group");
    }

    /// § The applied membership is the one to ask: openraft proposes the last part of a change only when its joint part is
    /// applied here, so whoever may elect another leader shares a voter with this quorum.
    fn prolong(&mut self, own: LeaderId, membership: &StoredMembership) {
        if self.reads == Reads::ByReadIndex || self.state.extend_endless_lease(own) {
            return;
        }
        if let Some(acked) = self.acks.quorum(own, self.state.replica, membership) {
            let until = if planted::is(Bug::LeaseWithoutMargin) {
                Boottime::now().saturating_add(self.election_timeout_max)
            } else {
                acked.saturating_add(lease_of(self.election_timeout_max))
            };
            self.state.lease.extend(own, Some(until));
        }
    }

    fn slew(&mut self) {
        if self.current.is_some()
            && let Some(alarm) = self.state.clock.slew(Timestamp::wall_now(), Boottime::now())
        {
            self.warn_of_clock(alarm);
        }
    }

    fn warn_of_clock(&mut self, alarm: crate::clock::ClockAlarm) {
        self.state.metrics.stamps_clamped.increment(1);
        let now = Instant::now();
        if self.clock_warned.is_none_or(|warned| now - warned > CLOCK_WARNING_INTERVAL) {
            self.clock_warned = Some(now);
            tracing::warn!(group = %self.state.id, wall_lead_ms = alarm.0, "the wall clock and the group's clock disagree: check NTP on this machine");
        }
    }

    async fn report(&mut self) {
        let (term, leader) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote.leader_id.term, metrics.current_leader.map(ReplicaId))
        };
        let GroupState { id: group, replica, .. } = *self.state;
        let sighting = LeaderSighting { group, replica, term, leader, leads_here: self.current.is_some() };
        if self.last_sighting != Some(sighting) && self.sightings.send(sighting).await.is_ok() {
            self.last_sighting = Some(sighting);
        }
    }

    /// § Pause the intake, wait until the target has caught up, revoke our lease, transfer. openraft has no time-out for
    /// a transfer, so the waits here have ours.
    async fn serve_transfer(&mut self, request: TransferRequest) {
        let result = self.transfer(request.target).await;
        if let Err(error) = result {
            tracing::info!(group = %self.state.id, target = %request.target, %error, "leadership was not handed over");
        }
        // Before the asker hears of it: nobody who knows that it was handed over may find that this replica leads.
        self.evaluate().await;
        // The asker may have given up; the transfer stands either way.
        let _ = request.done.send(result);
        if result.is_err()
            && let Some(current) = &self.current
        {
            self.intake.send_replace(Intake::Open(current.clone()));
        }
    }

    async fn transfer(&mut self, target: ReplicaId) -> Result<(), TransferError> {
        let Some(current) = self.current.clone() else { return Err(TransferError::NotLeader) };
        if !self.state.applied().membership.voter_ids().any(|voter| voter == target.0) {
            return Err(TransferError::NotVoter);
        }
        if target == self.state.replica {
            return Ok(());
        }
        self.intake.send_replace(Intake::Paused);
        self.wait_until_caught_up(target).await?;
        if !planted::is(Bug::LeaseKeptAcrossTransfer) {
            self.state.lease.revoke(current.leader);
        }
        self.raft.trigger().transfer_leader(target.0).await.map_err(|_| TransferError::NotLeader)?;
        let raft = self.raft.clone();
        let took_over = async {
            let mut changes = raft.server_metrics();
            loop {
                if changes.borrow_watched().current_leader == Some(target.0) {
                    return true;
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        match tokio::time::timeout(self.election_timeout_max, took_over).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(TransferError::TimedOut),
        }
    }

    async fn wait_until_caught_up(&self, target: ReplicaId) -> Result<(), TransferError> {
        let deadline = Instant::now() + CATCH_UP_WAIT_MAX;
        loop {
            let caught_up = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                let matched = metrics.replication.as_ref().and_then(|peers| peers.get(&target.0).copied().flatten());
                matched.map(|log_id| log_id.index) == metrics.last_log_index
            };
            if caught_up {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(TransferError::Lagging);
            }
            tokio::time::sleep(CATCH_UP_POLL).await;
        }
    }
}
