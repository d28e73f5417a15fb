//! Faults in a row, each at its moment, that chance would hardly ever bring: where one is wanted of the cluster as it is, it is waited for.

use crate::cluster::GroupId;
use crate::config::ReadMode;
use crate::raft::Fsync;
use crate::simulation::growth::GROWTH;
use crate::simulation::load_scripts::HOT_SLOTS;
use crate::simulation::member_scripts::MEMBER_CRASHES;
use crate::simulation::move_scripts::{META_OUTAGE, MOVE_CRASHES, MOVE_CUT};
use crate::simulation::scenario::Scenario;
use crate::simulation::world::{Later, World};
use crate::slot::KeySlot;

/// All of them; without a planted bug none finds anything.
pub const SCRIPTS: [Scenario; 20] = [
    WIPE,
    LONE_LEADER,
    LOST_LEASE,
    READ_INDEX,
    DEAF_TRANSFERS,
    FIGURE_EIGHT,
    QUICK_RESTARTS,
    SOLE_VOTERS,
    DEPARTURES,
    CUT_LINK,
    LOST_QUORUM,
    LOSS_OF_ALL,
    EVERY_SECOND,
    FULL_DISKS,
    GROWTH,
    MEMBER_CRASHES,
    MOVE_CRASHES,
    META_OUTAGE,
    MOVE_CUT,
    HOT_SLOTS,
];

pub const FIRST: GroupId = GroupId(1);
pub const LEADER_WAIT_MS_MAX: u64 = 20_000;
/// A request waits so long.
pub const PARK_MS_MAX: u64 = 1_600;
/// Longer than a group is led elsewhere before its preferred leader gets it back.
const PREFERENCE_MS: u64 = 14_000;
/// A connection that is silent for 2 s is dropped.
const CUT_NOTICED_MS_MAX: u64 = 4_000;
const CUT_NAMED_MS_MAX: u64 = PARK_MS_MAX;
/// Longer than any node is doubted for.
const OUTAGE_MS: u64 = 12_000;
/// A sync begins a second after the first write that it is for, or when the disk has time for it.
const LOST_MS_MAX: u64 = 1_500;

/// A node loses all it has, and nothing else happens.
pub const WIPE: Scenario = Scenario { name: "wipe", disturb: wipe, ..Scenario::drawn() };
/// A voter is restarted beside a leader whose lease it has forgotten, while the third asks for its vote. Time-outs that are long beside
/// what connecting takes leave the third time to be elected within that lease.
pub const LOST_LEASE: Scenario =
    Scenario { name: "lost-lease", disturb: lost_lease, election_ms_max: 2000, ..Scenario::drawn() };
/// A leader is cut off from all others, and clients go on writing to it.
pub const LONE_LEADER: Scenario = Scenario { name: "lone-leader", disturb: lone_leader, ..Scenario::drawn() };
/// Reads ask a quorum each time, and a leader stands still while answers wait in its sockets and another one is elected.
pub const READ_INDEX: Scenario =
    Scenario { name: "read-index", disturb: read_index, read_mode: ReadMode::ReadIndex, ..Scenario::drawn() };
/// A leader hands over and hears nothing of its successor.
pub const DEAF_TRANSFERS: Scenario = Scenario { name: "deaf-transfers", disturb: deaf_transfers, ..Scenario::drawn() };
/// Raft's figure 8: a truncated entry survives elsewhere, and comes back.
pub const FIGURE_EIGHT: Scenario = Scenario {
    name: "figure-eight",
    disturb: figure_eight,
    nodes: 5,
    replicas: 5,
    groups: Some(1),
    ..Scenario::drawn()
};
/// Nodes are back before anybody has missed them.
pub const QUICK_RESTARTS: Scenario = Scenario { name: "quick-restarts", disturb: quick_restarts, ..Scenario::drawn() };
/// The same where each group has one voter, which asks nobody for its lease.
pub const SOLE_VOTERS: Scenario =
    Scenario { name: "sole-voters", disturb: quick_restarts, replicas: 1, ..Scenario::drawn() };
/// Nodes are about to stop, and take their time.
pub const DEPARTURES: Scenario = Scenario { name: "departures", disturb: departures, ..Scenario::drawn() };
/// One link is cut, and nothing else.
pub const CUT_LINK: Scenario = Scenario { name: "cut-link", disturb: cut_link, ..Scenario::drawn() };
/// Two of three nodes are gone, and nothing else happens for a while.
pub const LOST_QUORUM: Scenario = Scenario { name: "lost-quorum", disturb: lost_quorum, ..Scenario::drawn() };
/// All nodes lose power, and with it what they had acknowledged; the operator accepts that.
pub const LOSS_OF_ALL: Scenario =
    Scenario { name: "loss-of-all", disturb: loss_of_all, fsync: Fsync::No, ..Scenario::drawn() };
/// With a sync every second, a kill of all nodes takes nothing, and a power loss of all what was acknowledged in the last moments.
pub const EVERY_SECOND: Scenario =
    Scenario { name: "every-second", disturb: every_second, fsync: Fsync::EverySec, ..Scenario::drawn() };
/// All disks are full at once.
pub const FULL_DISKS: Scenario = Scenario { name: "full-disks", disturb: full_disks, ..Scenario::drawn() };

fn wipe(world: &mut World) -> Result<(), String> {
    world.pass(2000)?;
    world.wipe(0);
    world.later(50, 500, Later::Start(0));
    world.count("wiped node");
    world.pass(6000)
}

/// The nodes but these.
pub fn others(world: &World, known: &[usize]) -> Vec<usize> {
    (0..world.machines.len()).filter(|node| !known.contains(node)).collect()
}

fn await_leader(world: &mut World) -> Result<usize, String> {
    match world.pass_until(LEADER_WAIT_MS_MAX, |world| world.leader(FIRST).is_some())? {
        true => Ok(world.leader(FIRST).expect("it was there")),
        false => Err(format!("no leader within {LEADER_WAIT_MS_MAX} ms")),
    }
}

/// Somebody else is elected while `old` is away.
fn await_heir(world: &mut World, old: usize) -> Result<(), String> {
    let (term, rest) = (world.term(old, FIRST), others(world, &[old]));
    let has_heir = |world: &World| rest.iter().any(|node| world.elected(*node, FIRST) > term);
    match world.pass_until(LEADER_WAIT_MS_MAX, has_heir)? {
        true => Ok(()),
        false => Err("a majority elects no leader".into()),
    }
}

fn lone_leader(world: &mut World) -> Result<(), String> {
    for _ in 0..6 {
        world.pass(1000)?;
        let leader = await_leader(world)?;
        world.isolate(leader);
        world.count("lone leader");
        await_heir(world, leader)?;
        world.pass(500)?;
        world.network.mend();
        world.pass(2000)?;
    }
    Ok(())
}

fn lost_lease(world: &mut World) -> Result<(), String> {
    for _ in 0..3 {
        world.pass(1000)?;
        let leader = await_leader(world)?;
        let [third, voter] = others(world, &[leader])[..] else { unreachable!("there are three") };
        // Nobody votes for a third that lacks entries.
        world.rest()?;
        world.cut_both_ways(leader, third);
        // Until it has given the leader up and asks for votes, which the voter refuses for as long as it hears the leader.
        world.idle(3500)?;
        for _ in 0..4 {
            world.kill(voter);
            world.cut_both_ways(leader, voter);
            let back = world.now_ms + 5;
            world.at(back, Later::Start(voter));
            world.count("restart beside a lone leader");
            world.idle(900)?;
            world.heal_both_ways(leader, voter);
            world.idle(500)?;
        }
        world.network.mend();
        world.idle(5000)?;
    }
    Ok(())
}

fn read_index(world: &mut World) -> Result<(), String> {
    let is_of_first = |world: &World, key: &String| world.owner(KeySlot::of_key(key.as_bytes()).slot()) == Some(FIRST);
    for round in 0..10_u64 {
        world.pass(1000)?;
        let old = await_leader(world)?;
        let key =
            (0..).map(|number| format!("mark-{number}")).find(|key| is_of_first(world, key)).expect("one of many");
        world.ask(&[b"SET", key.as_bytes(), b"before"])?;
        let ms = world.chance.below(60);
        world.pass(ms)?;
        world.pause(old);
        // What is on the way arrives.
        world.pass(20)?;
        world.isolate(old);
        world.count("pause with answers in its sockets");
        await_heir(world, old)?;
        world.ask(&[b"SET", key.as_bytes(), b"after"])?;
        let answer = world.send(old, &[b"GET", key.as_bytes()]);
        world.resume(old);
        world.pass(PARK_MS_MAX)?;
        let replies = answer.lock().take().flatten();
        if replies.as_ref().is_some_and(|replies| replies.ends_with(b"before\r\n")) {
            return Err(format!(
                "{key}: stale: node {old} was cut off in round {round}, and read what was overwritten"
            ));
        }
        world.network.mend();
        world.pass(2000)?;
    }
    Ok(())
}

fn deaf_transfers(world: &mut World) -> Result<(), String> {
    for _ in 0..12 {
        let leader = await_leader(world)?;
        world.transfer(leader);
        world.count("transfer");
        let ms = world.chance.below(25);
        world.pass(ms)?;
        others(world, &[leader]).iter().for_each(|other| world.network.cut(*other, leader));
        world.pass(400)?;
        world.network.mend();
        world.pass(300)?;
    }
    Ok(())
}

fn figure_eight(world: &mut World) -> Result<(), String> {
    for _ in 0..3 {
        world.rest()?;
        let old = await_leader(world)?;
        let keeper = others(world, &[old])[world.chance.below(4) as usize];
        let rest = others(world, &[old, keeper]);
        for node in &rest {
            world.cut_both_ways(old, *node);
            world.cut_both_ways(keeper, *node);
        }
        world.count("figure 8");
        // An entry that two of five have. Then the others elect a leader, whose first entry is kept from all but the old one.
        let term = world.term(old, FIRST);
        let newer = |world: &World| rest.iter().copied().find(|node| world.elected(*node, FIRST) > term);
        if !world.pass_until(5000, |world| newer(world).is_some())? {
            return Err("a majority elects no leader".to_owned());
        }
        let new = newer(world).expect("it was there");
        world.isolate(new);
        world.heal_both_ways(old, new);
        let term = world.elected(new, FIRST);
        world.pass_until(2000, |world| world.term(old, FIRST) >= term)?;
        world.pass(200)?;
        // It is gone, and who has the old one's entry is elected and commits it.
        world.kill(new);
        world.isolate(old);
        rest.iter().for_each(|node| world.heal_both_ways(keeper, *node));
        world.pass_until(5000, |world| world.elected(keeper, FIRST) > term)?;
        world.pass(300)?;
        world.network.mend();
        world.start(new);
        world.pass(3000)?;
    }
    Ok(())
}

fn quick_restarts(world: &mut World) -> Result<(), String> {
    for _ in 0..10 {
        world.pass(600)?;
        let node = world.chance.below(world.machines.len() as u64) as usize;
        world.kill(node);
        world.later(1, 10, Later::Start(node));
        world.count("quick restart");
        world.pass(900)?;
    }
    Ok(())
}

/// The topology prefers each node for one group: whoever leads meanwhile would give that back after a while.
fn departures(world: &mut World) -> Result<(), String> {
    world.pass(1000)?;
    let node = await_leader(world)?;
    world.depart(node);
    world.count("departure");
    world.pass(1000)?;
    if world.pass_until(PREFERENCE_MS, |world| world.leads_any(node))? {
        return Err(format!("node {node}, which is about to stop, was handed a leadership"));
    }
    // The next one has but one heir.
    let second = await_leader(world)?;
    world.depart(second);
    world.count("departure");
    world.pass(1000)?;
    if let Some(heir) = [node, second].into_iter().find(|node| world.leads_any(*node)) {
        return Err(format!("node {heir}, which is about to stop, leads"));
    }
    for node in [node, second] {
        world.kill(node);
        world.start(node);
    }
    Ok(())
}

/// The leader lives, and the node that is cut off from it hears so from the third.
fn cut_link(world: &mut World) -> Result<(), String> {
    world.pass(1000)?;
    let leader = await_leader(world)?;
    let other = others(world, &[leader])[0];
    world.cut_both_ways(leader, other);
    world.count("cut link");
    if !world.pass_until(CUT_NOTICED_MS_MAX, |world| !world.names(other, FIRST, leader))? {
        return Err(format!("node {other} has not noticed that its link is cut"));
    }
    if !world.pass_until(CUT_NAMED_MS_MAX, |world| world.names(other, FIRST, leader))? {
        return Err(format!("node {other} sends nobody to the leader, node {leader}, which lives"));
    }
    world.network.mend();
    Ok(())
}

fn lost_quorum(world: &mut World) -> Result<(), String> {
    world.pass(1000)?;
    let leader = await_leader(world)?;
    let others = others(world, &[leader]);
    // The one that is left leads, then follows.
    for left in [leader, others[0]] {
        let all: Vec<usize> = (0..world.machines.len()).collect();
        let gone: Vec<usize> = all.iter().copied().filter(|node| *node != left).collect();
        gone.iter().for_each(|node| world.kill(*node));
        world.count("lost quorum");
        world.pass(OUTAGE_MS)?;
        let shared = world.machines[left].shared().expect("it runs");
        let groups: Vec<GroupId> = shared.replication.topology().groups_in_use().collect();
        for group in groups {
            if shared.replication.is_led(group) || gone.iter().any(|node| world.names(left, group, *node)) {
                return Err(format!("node {left}, which is alone, takes group {group} for led"));
            }
        }
        if world.machines[left].readiness().is_ok() {
            return Err(format!("node {left}, which is alone, is ready"));
        }
        gone.iter().for_each(|node| world.start(*node));
        let all_ready = |world: &World| all.iter().all(|node| world.machines[*node].readiness().is_ok());
        if !world.pass_until(LEADER_WAIT_MS_MAX, all_ready)? {
            return Err("nodes that are back are not ready".to_owned());
        }
    }
    Ok(())
}

fn loss_of_all(world: &mut World) -> Result<(), String> {
    for _ in 0..6 {
        for _ in 0..20 {
            world.move_slot();
            world.pass(100)?;
        }
        // Just when there is another snapshot, which may hold more than a log that is not synced.
        let before = world.snapshots();
        world.pass_until(5000, |world| world.snapshots() > before)?;
        // § Owned by one group afterwards, whatever else is lost.
        world.move_slot();
        let ms = world.chance.below(60);
        world.pass(ms)?;
        for node in 0..world.machines.len() {
            world.lose_power(node);
            // As few as make a quorum; the other joins anew.
            world.machines[node].accept_loss = node < 2;
            world.later(50, 500, Later::Start(node));
        }
        world.count("loss of all");
        world.forget();
        world.pass_until(LEADER_WAIT_MS_MAX, World::can_spare_one)?;
    }
    Ok(())
}

fn every_second(world: &mut World) -> Result<(), String> {
    for round in 0..6 {
        world.pass(1000)?;
        world.rest()?;
        // Few, since a segment that is full is synced as well.
        let (mut written, until) = (vec![(0, 0)], world.now_ms + 2500 + world.chance.below(2000));
        while world.now_ms < until {
            let mark = world.now_ms;
            world.ask(&[b"SET", b"mark", mark.to_string().as_bytes()])?;
            written.push((world.now_ms, mark));
            world.idle(20)?;
        }
        let (ended_ms, power) = (world.now_ms, round % 2 == 0);
        for node in 0..world.machines.len() {
            if power {
                world.lose_power(node);
                world.machines[node].accept_loss = node < 2;
            } else {
                world.kill(node);
            }
            world.later(50, 500, Later::Start(node));
        }
        world.count(if power { "power loss of all, synced every second" } else { "kill of all, synced every second" });
        if power {
            world.forget();
        }
        world.pass_until(LEADER_WAIT_MS_MAX, World::can_spare_one)?;
        let lost_ms_max = if power { LOST_MS_MAX } else { 0 };
        let kept = written.iter().rev().find(|(acknowledged_ms, _)| acknowledged_ms + lost_ms_max <= ended_ms);
        let (acknowledged_ms, mark) = *kept.expect("the first is none");
        let found = world.ask(&[b"GET", b"mark"])?.parse().unwrap_or(0);
        if found < mark {
            return Err(format!(
                "the mark is {found}: {mark} is gone, acknowledged at {acknowledged_ms} of {ended_ms} ms"
            ));
        }
    }
    Ok(())
}

fn full_disks(world: &mut World) -> Result<(), String> {
    for _ in 0..5 {
        world.pass(1000)?;
        for node in 0..world.machines.len() {
            world.fill_disk(node, 1000, 4000);
        }
        world.count("full disks");
        world.pass(6000)?;
    }
    Ok(())
}
