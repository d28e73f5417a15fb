//! Scripts of nodes that come and go: who carries the change out, or the node itself, is lost at each of its moments.

use std::collections::BTreeSet;

use crate::cluster::{GroupId, NodeId, Topology};
use crate::raft::MembershipStatus;
use crate::simulation::invariants::Seen;
use crate::simulation::scenario::Scenario;
use crate::simulation::world::{Later, World};

/// A fourth node joins and is removed again, over and over. At each moment of that the meta leader, the leader of the group that changes and
/// the node are lost, each alone and together.
pub const MEMBER_CRASHES: Scenario =
    Scenario { name: "member-crashes", disturb: member_crashes, spares: 1, groups: Some(2), ..Scenario::drawn() };

const MOMENT_WAIT_MS_MAX: u64 = 20_000;
const CHANGE_MS_MAX: u64 = 60_000;
/// Between two looks at whether it is over, which take longer than a step.
const LOOK_MS: u64 = 10;
const NEWCOMER: usize = 3;

/// What the change has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The meta group has written down that the node joins, or leaves.
    Known,
    /// It has written down that a replica is to move.
    Placed,
    /// The replica is there, without a vote.
    Learner,
    /// Two sets of voters must agree.
    Joint,
    /// The new voters have it; the old replica is not written off yet.
    Changed,
    /// Nothing is on its way any more; who leaves is not forgotten yet.
    Moved,
}

const MOMENTS: [Moment; 6] =
    [Moment::Known, Moment::Placed, Moment::Learner, Moment::Joint, Moment::Changed, Moment::Moved];

/// Who is lost, as bits.
const META: u8 = 1;
const LEADER: u8 = 2;
const NODE: u8 = 4;
const VICTIMS: [(u8, &str); 5] = [
    (META, "meta leader lost in a change of members"),
    (LEADER, "group leader lost in a change of members"),
    (NODE, "node lost that joins or leaves"),
    (META | LEADER, "both leaders lost in a change of members"),
    (META | LEADER | NODE, "both leaders and the node lost in a change of members"),
];

fn member_crashes(world: &mut World) -> Result<(), String> {
    world.network.repeat_requests();
    for (moment, (victims, name)) in MOMENTS.into_iter().flat_map(|moment| VICTIMS.map(|victims| (moment, victims))) {
        for joins in [true, false] {
            world.pass(200)?;
            let what = if joins { "joins" } else { "leaves" };
            change(world, joins, moment, victims)
                .map_err(|error| format!("node {NEWCOMER} {what}, {name} at {moment:?}: {error}"))?;
            world.count(name);
        }
    }
    Ok(())
}

fn change(world: &mut World, joins: bool, moment: Moment, victims: u8) -> Result<(), String> {
    if joins {
        world.join(NEWCOMER);
    } else {
        world.remove(NEWCOMER);
    }
    // An empty machine has no id before it has asked for one.
    let id = |world: &World| world.machines[NEWCOMER].shared().map(|shared| shared.replication.node());
    world.pass_until(MOMENT_WAIT_MS_MAX, |world| id(world).is_some())?;
    let id = id(world).ok_or("it is not taken in")?;
    let at = |world: &World| group_at(world, id, joins, moment);
    world.pass_until(MOMENT_WAIT_MS_MAX, |world| at(world).is_some())?;
    let group = at(world).ok_or("the moment does not come")?;
    let parts = [(META, world.meta_leader()), (LEADER, world.leader(group)), (NODE, Some(NEWCOMER))];
    let chosen = parts.into_iter().filter(|(part, _)| victims & part != 0);
    let nodes: BTreeSet<usize> = chosen.filter_map(|(_, node)| node).collect();
    for node in nodes {
        if world.chance.below(2) == 0 {
            world.kill(node)
        } else {
            world.lose_power(node)
        }
        world.later(50, 500, Later::Start(node));
    }
    match world.pass_until(CHANGE_MS_MAX, |world| is_over(world, joins))? {
        true => Ok(()),
        false => Err("the change is not over".to_owned()),
    }
}

fn is_over(world: &World, joins: bool) -> bool {
    world.now_ms.is_multiple_of(LOOK_MS) && world.machines[NEWCOMER].outside != joins && world.is_at_rest()
}

/// The group that is at this moment of the change; where no group is, the first.
fn group_at(world: &World, id: NodeId, joins: bool, moment: Moment) -> Option<GroupId> {
    let seen = world.seen();
    let leader = seen.iter().find(|seen| seen.replication.leads_meta())?;
    let topology = leader.replication.newest_topology();
    let is_known = topology.node(id).is_some() && (joins || topology.draining(id).is_some());
    if !is_known {
        return None;
    }
    match moment {
        Moment::Known => topology.groups().keys().next().copied(),
        Moment::Placed => moving(&topology).next(),
        Moment::Learner => moving(&topology).find(|group| {
            status(&seen, *group).is_some_and(|status| !status.joint && status.members.len() > status.voters.len())
        }),
        Moment::Joint => moving(&topology).find(|group| status(&seen, *group).is_some_and(|status| status.joint)),
        Moment::Changed => moving(&topology).find(|group| {
            let wished = &topology.groups()[group].replicas;
            status(&seen, *group).is_some_and(|status| !status.joint && status.voters.iter().eq(wished.keys()))
        }),
        Moment::Moved => {
            let holds = topology.replicas_on(id).next().is_some();
            let is_moved = moving(&topology).next().is_none() && holds == joins;
            topology.groups().keys().next().copied().filter(|_| is_moved)
        }
    }
}

/// Groups with a replica that is to go.
fn moving(topology: &Topology) -> impl Iterator<Item = GroupId> + '_ {
    topology.groups().iter().filter(|(_, info)| !info.departing.is_empty()).map(|(group, _)| *group)
}

/// As its leader sees it.
fn status(seen: &[Seen], id: GroupId) -> Option<MembershipStatus> {
    seen.iter().find_map(|seen| {
        let group = seen.replication.group(id).filter(|group| group.leads())?;
        Some(seen.replication.membership(&group))
    })
}
