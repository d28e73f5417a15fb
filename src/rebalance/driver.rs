//! Drives memberships and leaderships towards the topology. Runs on every node and acts for the groups that node leads, so there
//! is one driver per group: openraft refuses a second change while one is under way, and every step is idempotent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::cluster::{GroupId, MetaRole, NodeId, ReplicaId, Topology};
use crate::raft::{ChangeError, Group, Heir, MembershipStatus, Replication};
use crate::rebalance::plan::{Desired, Step, next_step};

const INTERVAL: Duration = Duration::from_millis(500);
/// While a membership is being changed.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
/// A group goes back to its preferred leader when it has been led elsewhere this long without trouble: longer than a node may take
/// to stop, or a leadership that was just handed over would be handed back to it.
const PREFERENCE_DELAY: Duration = Duration::from_secs(12);

/// Leaderships go back to preferred nodes one at a time: each node has its turn by the wall clock, hands over one group in it, and begins in
/// its first part only. A wrong clock makes for two at a time, and for no harm.
const TURN_MS: i64 = 1000;
const TURN_BEGIN_MS: i64 = 600;
/// In a larger cluster some nodes share a turn, or the last would wait for long.
const TURNS_MAX: usize = 16;

/// One group that cannot commit must not hold up the others. What was proposed goes on, and half a change is finished later.
const STEP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Entries that a voter may lack when it is to lead: those under way, and those held back for some milliseconds (`raft/transport/pace.rs`).
const CLOSE_ENTRIES: u64 = 64;

/// Runs until aborted.
pub async fn drive(replication: Arc<Replication>) {
    let mut led_since = BTreeMap::new();
    let (mut busy, mut returned) = (false, None);
    loop {
        tokio::time::sleep(if busy { BUSY_INTERVAL } else { INTERVAL }).await;
        busy = replication.leads_meta() && !step_meta(&replication).await;
        let led = replication.led_groups();
        led_since.retain(|id, _| led.iter().any(|group| group.id() == *id));
        for group in led {
            let since = *led_since.entry(group.id()).or_insert_with(Instant::now);
            let done = step_group(&replication, &group).await;
            busy |= !done;
            let leaves = replication.topology().draining(replication.node()).is_some();
            if replication.space().is_short() || leaves {
                leave(&replication, group).await;
            } else if done && since.elapsed() > PREFERENCE_DELAY {
                let turn = turn_of(&replication.topology(), replication.node(), Timestamp::wall_now());
                if turn.is_some() && turn != returned {
                    return_leadership(&replication, group.clone()).await;
                    returned = if group.leads() { returned } else { turn };
                }
            }
        }
    }
}

/// The number of the turn in which this node may begin to hand leadership over now; `None` if it is another's.
fn turn_of(topology: &Topology, own: NodeId, now: Timestamp) -> Option<i64> {
    let position = topology.nodes().keys().position(|node| *node == own)?;
    let turns = topology.nodes().len().min(TURNS_MAX);
    let (turn, passed_ms) = (now.as_ms().div_euclid(TURN_MS), now.as_ms().rem_euclid(TURN_MS));
    let is_own = turn.rem_euclid(turns as i64) == (position % turns) as i64;
    (is_own && passed_ms < TURN_BEGIN_MS).then_some(turn)
}

/// True when the meta group has the membership it should have.
async fn step_meta(replication: &Replication) -> bool {
    let topology = replication.topology();
    let mut desired = Desired::default();
    for (replica, (node, role)) in topology.meta_members() {
        match role {
            MetaRole::Voter => desired.voters.insert(replica, node),
            MetaRole::Learner => desired.learners.insert(replica, node),
        };
    }
    let status = replication.meta_membership();
    let Some(own) = topology.meta_replica_on(replication.node()) else { return true };
    match succession_of(own, &mut desired, &status) {
        Succession::Stays => {
            take(replication, GroupId::META, next_step(&desired, &status, &replication.reachable())).await
        }
        Succession::HandsOver => {
            replication.hand_over_meta(|replica| desired.voters.contains_key(&replica)).await;
            false
        }
    }
}

enum Succession {
    Stays,
    HandsOver,
}

/// § openraft would have a leader that its own change removes step down only when others notice its silence. So it hands over first, to a voter that
/// stays; if there is none yet, it takes part until there is.
fn succession_of(own: ReplicaId, desired: &mut Desired, status: &MembershipStatus) -> Succession {
    if desired.voters.contains_key(&own) {
        return Succession::Stays;
    }
    if desired.voters.keys().any(|replica| status.voters.contains(replica)) {
        return Succession::HandsOver;
    }
    desired.learners.remove(&own);
    desired.voters.extend(status.members.get(&own).map(|node| (own, *node)));
    Succession::Stays
}

/// True when the group has the membership it should have.
async fn step_group(replication: &Replication, group: &Arc<Group>) -> bool {
    let topology = replication.topology();
    let Some(info) = topology.group(group.id()) else { return false };
    let mut desired = Desired { voters: info.replicas.clone(), learners: BTreeMap::new() };
    let status = replication.membership(group);
    match succession_of(group.replica(), &mut desired, &status) {
        Succession::Stays => {
            take(replication, group.id(), next_step(&desired, &status, &replication.reachable())).await
        }
        Succession::HandsOver => {
            let suits =
                |heir: &Heir| heir.able && heir.lag <= CLOSE_ENTRIES && desired.voters.contains_key(&heir.replica);
            replication.hand_over(group.clone(), Instant::now() + STEP_WAIT_MAX, suits).await;
            false
        }
    }
}

/// True when there is nothing to do.
async fn take(replication: &Replication, group: GroupId, step: Step) -> bool {
    if matches!(step, Step::Done | Step::Wait) {
        return step == Step::Done;
    }
    match tokio::time::timeout(STEP_WAIT_MAX, change(replication, group, &step)).await {
        Ok(Ok(())) => tracing::info!(%group, ?step, "membership changed"),
        // A lost leadership or a change under way: the next round looks again.
        Ok(Err(error)) => tracing::info!(%group, ?step, %error, "membership not changed"),
        Err(_) => tracing::warn!(%group, ?step, "membership not changed in time: is a quorum of the group connected?"),
    }
    false
}

async fn change(replication: &Replication, group: GroupId, step: &Step) -> Result<(), ChangeError> {
    match step {
        Step::Done | Step::Wait => Ok(()),
        Step::AddLearner(replica, node) => replication.add_learner(group, *replica, *node).await,
        Step::ChangeVoters(voters) => replication.change_voters(group, voters).await,
        Step::RemoveLearners(gone) => replication.remove_learners(group, gone).await,
    }
}

/// From a node that is short of disk space, or is to leave the cluster, to one that is neither. A voter far behind would only hold writes up.
async fn leave(replication: &Replication, group: Arc<Group>) {
    let topology = replication.topology();
    let suits = |heir: &Heir| {
        replication.space().is_at(heir.node) && heir.lag <= CLOSE_ENTRIES && topology.draining(heir.node).is_none()
    };
    replication.hand_over(group, Instant::now() + STEP_WAIT_MAX, suits).await;
}

/// Spreads leaders: the topology prefers one node per group, and this hands leadership back to it once it has caught up. Refused or late:
/// the next round tries again.
async fn return_leadership(replication: &Replication, group: Arc<Group>) {
    let suits = |heir: &Heir| heir.preferred && heir.able && heir.lag <= CLOSE_ENTRIES;
    replication.hand_over(group, Instant::now() + STEP_WAIT_MAX, suits).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{fixture_node, fixture_topology};

    fn members(ids: &[u64]) -> BTreeMap<ReplicaId, NodeId> {
        ids.iter().map(|id| (ReplicaId(*id), NodeId([*id as u8; 20]))).collect()
    }

    fn check(wished: &[u64], voters: &[u64]) -> (bool, Vec<u64>) {
        let mut desired = Desired { voters: members(wished), learners: BTreeMap::new() };
        let voters_now = voters.iter().copied().map(ReplicaId).collect();
        let status = MembershipStatus { voters: voters_now, members: members(voters), ..MembershipStatus::default() };
        let stays = matches!(succession_of(ReplicaId(1), &mut desired, &status), Succession::Stays);
        (stays, desired.voters.keys().map(|replica| replica.0).collect())
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_to_one_that_stays_and_waits_until_there_is_one() {
        assert_eq!(check(&[1, 2, 3], &[1, 2, 3]), (true, vec![1, 2, 3]));
        assert_eq!(check(&[2, 3, 4], &[1, 2, 3]), (false, vec![2, 3, 4]));
        assert_eq!(check(&[4], &[1]), (true, vec![1, 4]), "a sole voter first gets a second one");
        assert_eq!(check(&[4], &[1, 4]), (false, vec![4]));
    }

    #[test]
    fn nodes_return_leaderships_in_turns_with_a_pause_between_them() {
        let topology = fixture_topology(3, 3, 3);
        let mut last: Option<(usize, i64)> = None;
        let mut counts = [0; 3];
        for ms in (-3000..30_000).step_by(50) {
            let own = |index: &usize| turn_of(&topology, fixture_node(*index as u8 + 1), Timestamp(ms)).is_some();
            let nodes: Vec<usize> = (0..3).filter(own).collect();
            assert!(nodes.len() <= 1, "{nodes:?} at once");
            for node in nodes {
                counts[node] += 1;
                let apart = last.is_none_or(|(other, then)| other == node || ms - then > TURN_MS - TURN_BEGIN_MS);
                assert!(apart, "{last:?} and {node} at {ms}");
                last = Some((node, ms));
            }
        }
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        let turn = |ms| turn_of(&topology, fixture_node(1), Timestamp(ms));
        assert_eq!((turn(0), turn(599), turn(600), turn(3000)), (Some(0), Some(0), None, Some(3)));
    }
}
