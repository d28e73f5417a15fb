//! Drives memberships and leaderships towards the topology. Runs on every node and acts for the groups that node leads, so there
//! is one driver per group: openraft refuses a second change while one is under way, and every step is idempotent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, MetaRole};
use crate::raft::{ChangeError, Group, Heir, Replication};
use crate::rebalance::plan::{Desired, Step, next_step};

const INTERVAL: Duration = Duration::from_millis(500);
/// A group goes back to its preferred leader when it has been led elsewhere this long without trouble: longer than a node may take
/// to stop, or a leadership that was just handed over would be handed back to it.
const PREFERENCE_DELAY: Duration = Duration::from_secs(12);

/// One group that cannot commit must not hold up the others. What was proposed goes on, and half a change is finished later.
const STEP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Entries that a voter may lack when it is to lead: those under way.
const CLOSE_ENTRIES: u64 = 8;

/// Runs until aborted.
pub async fn drive(replication: Arc<Replication>) {
    let mut led_since = BTreeMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        if replication.leads_meta() {
            step_meta(&replication).await;
        }
        let led = replication.led_groups();
        led_since.retain(|id, _| led.iter().any(|group| group.id() == *id));
        for group in led {
            let since = *led_since.entry(group.id()).or_insert_with(Instant::now);
            let done = step_group(&replication, &group).await;
            if replication.space().is_short() {
                leave(&replication, group).await;
            } else if done && since.elapsed() > PREFERENCE_DELAY {
                return_leadership(&replication, group).await;
            }
        }
    }
}

async fn step_meta(replication: &Replication) {
    let mut desired = Desired::default();
    for (replica, (node, role)) in replication.topology().meta_members() {
        match role {
            MetaRole::Voter => desired.voters.insert(replica, node),
            MetaRole::Learner => desired.learners.insert(replica, node),
        };
    }
    take(replication, GroupId::META, next_step(&desired, &replication.meta_membership())).await;
}

/// True when the group has the membership it should have.
async fn step_group(replication: &Replication, group: &Group) -> bool {
    let topology = replication.topology();
    let Some(info) = topology.group(group.id()) else { return false };
    let desired = Desired { voters: info.replicas.clone(), learners: BTreeMap::new() };
    let step = next_step(&desired, &replication.membership(group));
    let done = step == Step::Done;
    take(replication, group.id(), step).await;
    done
}

async fn take(replication: &Replication, group: GroupId, step: Step) {
    if matches!(step, Step::Done | Step::Wait) {
        return;
    }
    match tokio::time::timeout(STEP_WAIT_MAX, change(replication, group, &step)).await {
        Ok(Ok(())) => tracing::info!(%group, ?step, "membership changed"),
        // A lost leadership or a change under way: the next round looks again.
        Ok(Err(error)) => tracing::info!(%group, ?step, %error, "membership not changed"),
        Err(_) => tracing::warn!(%group, ?step, "membership not changed in time: is a quorum of the group connected?"),
    }
}

async fn change(replication: &Replication, group: GroupId, step: &Step) -> Result<(), ChangeError> {
    match step {
        Step::Done | Step::Wait => Ok(()),
        Step::AddLearner(replica, node) => replication.add_learner(group, *replica, *node).await,
        Step::ChangeVoters(voters) => replication.change_voters(group, voters).await,
        Step::RemoveLearners(gone) if group == GroupId::META => replication.remove_meta_learners(gone.clone()).await,
        // Changing the voters of a data group drops its learners.
        Step::RemoveLearners(_) => match replication.group(group) {
            Some(handle) => replication.change_voters(group, &replication.membership(&handle).voters).await,
            None => Ok(()),
        },
    }
}

/// From a node that is short of disk space to one that is not. A voter far behind would only hold writes up.
async fn leave(replication: &Replication, group: Arc<Group>) {
    let suits = |heir: &Heir| replication.space().is_at(heir.node) && heir.lag <= CLOSE_ENTRIES;
    replication.hand_over(group, Instant::now() + STEP_WAIT_MAX, suits).await;
}

/// Spreads leaders: the topology prefers one node per group, and this hands leadership back to it once it has caught up. Refused or late:
/// the next round tries again.
async fn return_leadership(replication: &Replication, group: Arc<Group>) {
    let suits = |heir: &Heir| heir.preferred && heir.able && heir.lag <= CLOSE_ENTRIES;
    replication.hand_over(group, Instant::now() + STEP_WAIT_MAX, suits).await;
}
