//! Who leads after a leader: to whom one that stops hands over, and elections that begin when a leader's connection ends, not only when it
//! has been silent for long.
//!
//! A killed process's connections end at once. openraft waits for the lease of the leader and then for a random time, so that
//! replicas do not stand against each other; here they know of the loss at the same moment, and take turns instead.
//!
//! § Nothing is cut short that a lease depends on: it is a pre-vote, which openraft refuses for as long as this replica, or any it
//! asks, has heard of a leader within the election timeout. A leader that is alive and has only lost this connection keeps its term.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::cluster::{GroupId, NodeId, ReplicaId};
use crate::raft::group::Group;
use crate::raft::leadership::sighted;
use crate::raft::machine::GroupRaft;
use crate::raft::membership;
use crate::raft::replica::Timers;

/// An heir this close to the leader's log catches up in no time.
const LAG_ENTRIES_MAX: u64 = 64;

/// A voter that a group may be handed over to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heir {
    pub replica: ReplicaId,
    pub node: NodeId,
    /// Entries of the leader's log that it is not known to have.
    pub lag: u64,
    /// The topology wants it to lead.
    pub preferred: bool,
    /// Its node is connected and has space on its disk.
    pub able: bool,
}

/// The best first: one that could serve at once, then the one that would be given the leadership anyway, then on the node that leads the fewest
/// groups. Leaders on one node alone are to be avoided: some clients know only of nodes that lead, and have nobody to ask when it dies.
pub fn rank(heirs: &mut [Heir], leaderships: &Leaderships) {
    let led_by = |node: &NodeId| leaderships.get(node).copied().unwrap_or(0);
    heirs.sort_by_key(|heir| (!heir.able, heir.lag > LAG_ENTRIES_MAX, !heir.preferred, led_by(&heir.node), heir.lag));
}

/// How many groups each node leads, of the nodes that are there.
pub type Leaderships = BTreeMap<NodeId, usize>;

/// Stands for election once every voter's lease for `lost` has run out, unless somebody was elected meanwhile.
pub async fn succeed(
    raft: GroupRaft,
    group: GroupId,
    own: ReplicaId,
    lost: ReplicaId,
    leaderships: Arc<Leaderships>,
    timers: Timers,
) {
    let status = membership::status(&raft);
    let heirs = status.voters.iter().filter(|voter| **voter != lost);
    let heirs: Vec<_> = heirs.map(|heir| (*heir, status.members.get(heir).copied())).collect();
    let turn = turns(group, &heirs, &leaderships).iter().position(|heir| *heir == own);
    let Some(turn) = turn.and_then(|turn| u32::try_from(turn).ok()) else { return };
    tokio::time::sleep(wait_of(turn, timers)).await;
    let leader = raft.server_metrics().borrow_watched().current_leader;
    if leader.is_none_or(|leader| leader == lost.0) {
        // A core that has stopped elects nobody.
        let _ = raft.trigger().elect(true).await;
    }
}

/// Stands for election at once in a group that has had no leader since this node was started, as often as others may need to start too. Of nodes
/// that are started together the replica that should lead is elected first: another would hand over to it later, while clients are at work.
pub async fn stand_first(group: Arc<Group>, timers: Timers) {
    let (raft, found_term) = (group.raft(), group.state().found_term);
    let began = Instant::now();
    while began.elapsed() < timers.election_min && sighted(raft, found_term) == (found_term, None) {
        let _ = raft.trigger().elect(true).await;
        tokio::time::sleep(timers.heartbeat).await;
    }
}

/// Who stands first when the leader is lost, of its other voters in the order of their ids and their nodes: by the groups that their nodes lead, the
/// fewest first, as in `rank`; those whose node is away last. Among equals another is the first in each group, or one node would lead all
/// groups of the lost one.
///
/// The leader itself sends entries in this order (`acks.rs`): an heir that lacked the last of them would stand in vain, for as long as a turn.
pub fn turns(group: GroupId, heirs: &[(ReplicaId, Option<NodeId>)], leaderships: &Leaderships) -> Vec<ReplicaId> {
    let mut order = heirs.to_vec();
    let first = group.0 as usize % order.len().max(1);
    order.rotate_left(first);
    let led = |node: &Option<NodeId>| node.and_then(|node| leaderships.get(&node).copied());
    order.sort_by_key(|(_, node)| (led(node).is_none(), led(node)));
    order.into_iter().map(|(heir, _)| heir).collect()
}

/// What the leader sent last may be read only after its connection has ended, so there is a little on top of the lease. The next in turn
/// waits for longer than an election takes: two that stand at a time may both lose.
fn wait_of(turn: u32, timers: Timers) -> Duration {
    let turns = (timers.heartbeat * 2).saturating_mul(turn);
    timers.election_max.saturating_add(timers.heartbeat / 2).saturating_add(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_in_turn_stands_after_the_lease_and_before_openraft_would() {
        let ms = Duration::from_millis;
        let timers = Timers { heartbeat: ms(60), election_min: ms(200), election_max: ms(400) };
        assert_eq!([wait_of(0, timers), wait_of(1, timers)], [ms(430), ms(550)]);
        assert!(wait_of(1, timers) < timers.election_max + timers.election_min);
        assert!(wait_of(u32::MAX, timers) > timers.election_max, "no overflow");
    }

    #[test]
    fn the_heir_is_ready_then_preferred_then_on_the_node_that_leads_least() {
        let node = |number: u8| NodeId([number; 20]);
        let heir = |number: u8, lag, preferred| {
            let replica = ReplicaId(number.into());
            Heir { replica, node: node(number), lag, preferred, able: true }
        };
        let leaderships = [(node(1), 2), (node(2), 1)].into();
        let first = |mut heirs: Vec<Heir>| {
            rank(&mut heirs, &leaderships);
            heirs[0].replica.0
        };
        assert_eq!(first(vec![heir(1, 0, false), heir(2, 5, false)]), 2);
        assert_eq!(first(vec![heir(1, 0, false), heir(2, 5, false), heir(3, 9, false)]), 3);
        assert_eq!(first(vec![heir(1, 9, true), heir(2, 0, false)]), 1);
        assert_eq!(first(vec![heir(1, 65, true), heir(2, 64, false)]), 2, "clients would wait until it has caught up");
        let unable = Heir { able: false, ..heir(3, 0, true) };
        assert_eq!(first(vec![unable, heir(1, 65, false)]), 1, "a dead node's log in a quiet group is as long as any");
    }

    #[test]
    fn heirs_take_turns_those_on_nodes_that_lead_least_first_and_groups_begin_with_different_ones() {
        let order = |group, led: [(u64, Option<usize>); 2]| {
            let node = |heir: u64| NodeId([heir as u8; 20]);
            let heirs = led.map(|(heir, _)| (ReplicaId(heir), Some(node(heir))));
            let leaderships = led.iter().filter_map(|(heir, led)| led.map(|led| (node(*heir), led))).collect();
            turns(GroupId(group), &heirs, &leaderships).iter().map(|heir| heir.0).collect::<Vec<_>>()
        };
        let equal = [(4, Some(1)), (9, Some(1))];
        assert_eq!([order(2, equal), order(3, equal)], [[4, 9], [9, 4]]);
        for group in 2..4 {
            assert_eq!(order(group, [(4, Some(1)), (9, Some(0))]), [9, 4], "it leads fewer groups");
            assert_eq!(order(group, [(4, None), (9, Some(7))]), [9, 4], "the other one is away");
        }
        let unknown = turns(GroupId(1), &[(ReplicaId(4), None), (ReplicaId(9), None)], &Leaderships::new());
        assert_eq!(unknown, [ReplicaId(9), ReplicaId(4)], "whose nodes are not known");
        assert_eq!(turns(GroupId(1), &[], &Leaderships::new()), []);
    }
}
