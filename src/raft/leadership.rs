//! The task that turns openraft's view of leadership into the lease, the proposer's intake, the group clock and hints.
//!
//! § A leadership opens only when an entry of its own term has been applied: every earlier entry is applied then, so reads see
//! all that was ever acknowledged, and the group clock starts at or past the last stamp of the log.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftStateMachine;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clock::{Boottime, Timestamp, alarm_unless_near};
use crate::cluster::{GroupId, ReplicaId};
use crate::planted::{self, Bug};
use crate::raft::acks::Acks;
use crate::raft::group::{GroupState, TransferError, TransferRequest};
use crate::raft::lease::lease_of;
use crate::raft::machine::GroupRaft;
use crate::raft::proposer::{Intake, Leadership};
use crate::raft::replica::Reads;
use crate::raft::space::Space;
use crate::raft::succession::{self, Leaderships};
use crate::raft::types::{LeaderId, StoredMembership, TypeConfig};
use crate::raft::walls::Walls;

/// How often the lease is prolonged and the group clock slewed. A fraction of the lease (200 ms by default).
const TICK: Duration = Duration::from_millis(20);
/// How long a transfer waits for the target to catch up, with the intake paused.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_millis(500);
const CLOCK_WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// How long a leadership waits for the wall clocks of all voters' nodes once those of a quorum are known.
const WALLS_WAIT_MAX: Duration = Duration::from_secs(1);
const CATCH_UP_POLL: Duration = Duration::from_millis(1);

/// The leadership that this replica has won since its process started. `found_term`: of the vote that the log had then, 0 if none.
///
/// § openraft's `as_leader` looks at the stored vote alone, and after a restart that is the one of a leadership before: of a term whose entries the snapshot
/// may well end with, and of a time when this replica may have been the only voter. It must win an election, in a term above, before it leads.
pub fn won<SM: RaftStateMachine<TypeConfig>>(
    raft: &openraft::Raft<TypeConfig, SM>,
    found_term: u64,
) -> Option<LeaderId> {
    let leader = raft.as_leader().ok()?.to_committed_leader_id();
    let restored = planted::is(Bug::PendingKeyWithoutNonce) || planted::is(Bug::FormerLeadershipOpens);
    (leader.term > found_term || restored).then_some(leader)
}

/// The term, and who leads in it as far as this replica has seen. Leaderships that were before it was started are none: when all nodes are started at once
/// there is no leader, and commands over all keys must not take groups for led elsewhere. Of one that lives its node tells (`News`).
pub fn sighted<SM: RaftStateMachine<TypeConfig>>(
    raft: &openraft::Raft<TypeConfig, SM>,
    found_term: u64,
) -> (u64, Option<ReplicaId>) {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let term = metrics.vote.leader_id.term;
    (term, metrics.current_leader.map(ReplicaId).filter(|_| term > found_term))
}

/// Whether the term is still the one found at the start, and this replica led in it.
pub fn led_before<SM: RaftStateMachine<TypeConfig>>(
    raft: &openraft::Raft<TypeConfig, SM>,
    own: ReplicaId,
    found_term: u64,
) -> bool {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.vote.leader_id.term == found_term && metrics.current_leader == Some(own.0)
}

/// What this replica knows of its group's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderSighting {
    pub group: GroupId,
    /// Who saw it.
    pub replica: ReplicaId,
    pub term: u64,
    /// `None` while an election is on.
    pub leader: Option<ReplicaId>,
    /// The vote that the log had at the start is this replica's own: whoever still names it as the leader of that term is wrong.
    pub led_before: bool,
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
    pub walls: Arc<Walls>,
    pub leaderships: Arc<ArcSwap<Leaderships>>,
    pub current: Option<Arc<Leadership>>,
    pub last_sighting: Option<LeaderSighting>,
    pub clock_warned: Option<Instant>,
    /// The leadership that waits for wall clocks, and since when.
    pub waits_for_walls: Option<(LeaderId, Boottime)>,
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
        self.acks.dissolve_front();
        self.intake.send_replace(Intake::Closed);
        self.leads.send_replace(false);
    }

    async fn evaluate(&mut self) {
        let own = won(&self.raft, self.state.found_term);
        let applied = self.state.applied();
        let first_entry_applied = own.is_some() && applied.log_id.map(|log_id| log_id.leader_id) == own;
        let is_voter = applied.membership.voter_ids().any(|voter| voter == self.state.replica.0);
        match own {
            Some(own) if first_entry_applied && is_voter && self.knows_the_time(own, &applied.membership) => {
                self.open(own);
                self.prolong(own, &applied.membership);
                self.acks.form_front(&applied.membership, self.turns(&applied.membership));
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

    /// In which order the others would stand for election if this node were lost.
    fn turns(&self, membership: &StoredMembership) -> Vec<ReplicaId> {
        let others = membership.voter_ids().filter(|voter| *voter != self.state.replica.0);
        let node_of = |voter: &u64| membership.membership().get_node(voter).map(|member| member.node);
        let heirs: Vec<_> = others.map(|voter| (ReplicaId(voter), node_of(&voter))).collect();
        succession::turns(self.state.id, &heirs, &self.leaderships.load())
    }

    /// § Without a stamp that was seen in time, one clock must not decide, be it this node's, or, of two, the earlier: what is written by one that is behind
    /// expires early once it is put right. A leadership waits for all, so that the middle one of three is right; not for ever, for a node may be down, but
    /// then for those of a quorum. The nodes that have voted are connected, and tell it with their hints.
    fn knows_the_time(&mut self, own: LeaderId, membership: &StoredMembership) -> bool {
        let is_open = self.current.as_ref().is_some_and(|current| current.leader == own);
        if is_open || self.state.last_stamp().seen.is_some() || self.state.clock.has_led() {
            return true;
        }
        let others = membership.voter_ids().filter(|voter| *voter != self.state.replica.0).count();
        let are_known = |count| {
            let nodes =
                membership.nodes().filter(|(replica, _)| membership.voter_ids().any(|voter| voter == **replica));
            self.walls.are_known(nodes.map(|(_, member)| member.node), count)
        };
        let now = Boottime::now();
        let since = match self.waits_for_walls {
            Some((leader, since)) if leader == own => since,
            Some(_) | None => now,
        };
        self.waits_for_walls = Some((own, since));
        are_known(others) || (now.saturating_since(since) >= WALLS_WAIT_MAX && are_known(others.div_ceil(2)))
    }

    fn open(&mut self, own: LeaderId) {
        if self.current.as_ref().is_some_and(|current| current.leader == own) {
            return;
        }
        let alarm = self.state.clock.start(self.state.last_stamp(), self.walls.agreed(), Boottime::now());
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
        if self.current.is_none() {
            return;
        }
        let now = Boottime::now();
        let own_lead = Timestamp::wall_now().0 - self.state.clock.now(now).0;
        let alarm = self.state.clock.slew(self.walls.agreed(), now);
        if let Some(alarm) = alarm_unless_near(own_lead).or(alarm) {
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
        let GroupState { id: group, replica, found_term, .. } = *self.state;
        let (term, leader) = sighted(&self.raft, found_term);
        let led_before = led_before(&self.raft, replica, found_term);
        let sighting = LeaderSighting { group, replica, term, leader, led_before, leads_here: self.current.is_some() };
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
