//! Decides where replicas and leaders should be, on the node that leads the meta group, and has it written down: one step at a time, each an
//! entry of the meta group with its reason. The leaders of the groups carry them out (`driver.rs`).
//!
//! § Each step names the epoch it was planned for: what a former leader of the meta group, or a late duplicate, still proposes does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, GroupInfo, MetaOp, NodeId, Topology};
use crate::planted::{self, Bug};
use crate::raft::{LedGroup, Replication};
use crate::rebalance::absence::Watch;
use crate::rebalance::balance::Balance;
use crate::rebalance::leaders::Leaders;
use crate::rebalance::placement::{Situation, next_placement};
use crate::rebalance::slots::{SlotWeights, next_slots, waits_for_moves};

const INTERVAL: Duration = Duration::from_millis(500);
/// While a step is under way.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);

/// Runs until aborted. `node_down_after` is how long a node may be away before its replicas are rebuilt elsewhere.
pub async fn schedule(replication: Arc<Replication>, node_down_after: Duration) {
    let mut watch = Watch::new(node_down_after);
    let mut looked = Instant::now();
    let (mut balance, mut leaders, mut led, mut busy) = (Balance::new(), Leaders::default(), false, false);
    loop {
        tokio::time::sleep(if busy { BUSY_INTERVAL } else { INTERVAL }).await;
        // § A process that stood still has watched nothing meanwhile.
        let passed = looked.elapsed().min(INTERVAL * 2);
        looked = Instant::now();
        let leads = replication.leads_meta() && replication.is_formed();
        let topology = replication.newest_topology();
        for op in watch.look(&topology, &replication.reachable(), leads, passed) {
            propose(&replication, &op).await;
        }
        if leads && !led {
            // What an earlier leadership knew is old.
            (balance, leaders) = (Balance::taken_over(&topology), Leaders::default());
        }
        if leads
            && let Some(op) = leaders.look(&replication.newest_topology(), &replication.hints(), Instant::now())
            && propose(&replication, &op).await
        {
            leaders.note(&op);
        }
        led = leads;
        if let Some(level) = replication.next_level().filter(|_| leads) {
            propose(&replication, &MetaOp::RaiseLevel { level }).await;
        }
        busy = leads && step(&replication, &mut balance).await;
    }
}

/// True while something is under way.
async fn step(replication: &Replication, balance: &mut Balance) -> bool {
    let led = replication.led_everywhere().await;
    let topology = replication.newest_topology();
    let finished = departures(&topology, &led).into_iter().chain(removals(replication, &topology));
    for op in finished.collect::<Vec<_>>() {
        propose(replication, &op).await;
    }
    // What was just proposed has changed the epoch, and with it the plan.
    let topology = replication.newest_topology();
    let mut now = situation(replication, &topology, &led);
    now.quiet = balance.is_quiet(&topology);
    if balance.rests(now.is_busy()) {
        return true;
    }
    let next = next_placement(&now);
    if let Some(op) = &next {
        propose(replication, op).await;
    }
    let placed = next.is_none() && !now.is_busy();
    // Groups that are to be dissolved are emptied beside the rest: nodes that leave wait for it.
    if placed || !topology.leaving_groups().is_empty() {
        let silent = topology.groups().keys().filter(|group| !led.contains_key(group)).copied().collect();
        place_slots(replication, balance, &silent).await;
    }
    !placed
}

/// Begins moves of slots if it is time for it.
async fn place_slots(replication: &Replication, balance: &mut Balance, silent: &BTreeSet<GroupId>) {
    let topology = replication.newest_topology();
    if waits_for_moves(&topology) || !balance.is_due(&topology) {
        return;
    }
    let weights = match balance.look(replication).await {
        Some(weights) => weights,
        // A node that leaves does not wait for a group that has nothing to do with it.
        None if !topology.leaving_groups().is_empty() => SlotWeights::equal(),
        None => return,
    };
    match next_slots(&topology, &weights, silent) {
        Some(op) if balance.may_move(&topology) => {
            // One that was not taken is planned anew: it has not failed.
            if propose(replication, &op).await
                && let MetaOp::StartMoves { to, slots, .. } = op
            {
                balance.note_moves(to, slots);
            }
        }
        Some(_) => (),
        // What they have cannot be told.
        None if !silent.is_empty() => (),
        None => balance.note_even(),
    }
}

/// What is known on this node, which need not lead the meta group if only a plan is to be shown.
pub fn situation<'a>(
    replication: &Replication,
    topology: &'a Topology,
    led: &BTreeMap<GroupId, LedGroup>,
) -> Situation<'a> {
    let connected = replication.reachable();
    let nodes = || topology.nodes().keys().copied();
    let (own, space) = (replication.node(), replication.space());
    let is_full = |node: NodeId| if node == own { space.is_crammed() } else { space.is_crammed_at(node) };
    let is_tight = |node: NodeId| if node == own { space.takes_nothing() } else { space.takes_nothing_at(node) };
    let answered = topology.groups().iter().filter_map(|(group, info)| Some((group, info, led.get(group)?)));
    let (settled, moving): (Vec<_>, Vec<_>) = answered
        .map(|(group, info, led)| (*group, info.departing.is_empty() && led.members.iter().eq(info.replicas.keys())))
        .partition(|(_, settled)| *settled);
    let ids = |groups: Vec<(GroupId, bool)>| groups.into_iter().map(|(group, _)| group).collect();
    Situation {
        topology,
        absent: nodes().filter(|node| !connected.contains(node)).collect(),
        full: nodes().filter(|node| is_full(*node)).collect(),
        tight: nodes().filter(|node| is_tight(*node)).collect(),
        voters: led.iter().map(|(group, led)| (*group, led.voters.clone())).collect(),
        settled: ids(settled),
        moving: ids(moving),
        weights: led.iter().filter_map(|(group, led)| Some((*group, led.keys?))).collect(),
        quiet: true,
    }
}

/// Replicas whose groups have committed a membership without them.
fn departures(topology: &Topology, led: &BTreeMap<GroupId, LedGroup>) -> Vec<MetaOp> {
    let is_done = |led: &LedGroup, info: &GroupInfo| {
        let has_left = led.members.iter().eq(info.replicas.keys()) && led.departing.iter().eq(info.departing.keys());
        has_left || planted::is(Bug::DepartsWithVote)
    };
    let done = topology.groups().iter().filter(|(group, info)| led.get(group).is_some_and(|led| is_done(led, info)));
    let replicas = done.flat_map(|(group, info)| info.departing.keys().map(|replica| (*group, *replica)));
    replicas.map(|(group, replica)| MetaOp::Departed { group, replica }).collect()
}

/// Nodes that are to leave and have nothing left, not even a vote in the meta group.
fn removals(replication: &Replication, topology: &Topology) -> Vec<MetaOp> {
    let meta = replication.meta_membership();
    let votes = |node: &NodeId| {
        let replica = topology.meta_replica_on(*node);
        meta.joint || replica.is_none_or(|replica| meta.voters.contains(&replica))
    };
    let leaves = |node: &NodeId| topology.draining(*node).is_some() && *node != replication.node();
    let empty = |node: &NodeId| {
        let holds = topology.replicas_on(*node).next().is_some() && !planted::is(Bug::ForgottenWithReplicas);
        !holds && !votes(node)
    };
    let gone = topology.nodes().keys().copied().filter(|node| leaves(node) && empty(node));
    gone.map(|node| MetaOp::Forget { node }).collect()
}

/// Whether it was taken.
async fn propose(replication: &Replication, op: &MetaOp) -> bool {
    let before = replication.newest_topology().epoch();
    match replication.propose(op).await {
        Ok(_) => {
            tell(replication, before);
            true
        }
        // Another leader, or another plan: the next round looks again.
        Err(error) => {
            tracing::info!(%error, ?op, "a step of the scheduler was not taken");
            false
        }
    }
}

/// What the entry has come to, in its own words.
fn tell(replication: &Replication, before: crate::cluster::Epoch) {
    let topology = replication.newest_topology();
    for event in topology.events().iter().filter(|event| event.epoch > before) {
        tracing::info!(what = event.what, why = event.why, "the cluster changes");
    }
}
