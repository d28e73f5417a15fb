//! `kvorum cluster status`: the cluster as one node sees it, for a tired person or, with --json, for a program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use super::client::NodeClient;
use crate::cluster::{ClusterStatus, GroupStatus, MoveProgress, NodeState};
use crate::config::HostPort;

const REPLY_TIME_MAX: Duration = Duration::from_secs(5);

/// The text to print.
pub fn cluster_status(node: &HostPort, password: Option<&str>, json: bool) -> Result<String, String> {
    let mut client = NodeClient::connect(node, password, REPLY_TIME_MAX).map_err(|error| error.to_string())?;
    let reply = client.request(&["CLUSTER", "KVORUM", "STATUS"]).map_err(|error| error.to_string())?;
    let status: ClusterStatus =
        serde_json::from_str(&reply).map_err(|error| format!("{node} is not a Kvorum of this version: {error}"))?;
    if json {
        return Ok(serde_json::to_string_pretty(&status).expect("a status has only string keys"));
    }
    Ok(table(&status))
}

/// First what is wrong, then the nodes, then the groups.
pub fn table(status: &ClusterStatus) -> String {
    let names = short_names(status);
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("writing into a String cannot fail");
    };
    let cluster = if status.cluster_id.is_empty() { "not formed yet" } else { status.cluster_id.as_str() };
    line(format_args!("cluster {cluster}   epoch {}   {}", status.epoch, verdict(status)));
    line(format_args!(""));

    let nodes = status.nodes.iter().map(|node| {
        let data = status.groups.iter().filter(|group| group.id != 0);
        let leads = data.filter(|group| group.leader.as_ref() == Some(&node.id)).count();
        let asked = if node.id == status.asked { "*" } else { "" };
        let id = node.id.chars().take(8).collect();
        vec![
            format!("{}{asked}", node.address),
            if node.leaves && node.state != NodeState::Leaving {
                format!("{}, leaving", word(node.state))
            } else {
                word(node.state).to_string()
            },
            leads.to_string(),
            node.peer_address.clone(),
            id,
        ]
    });
    line(format_args!("{}", columns(&["NODE", "STATE", "LEADS", "PEER ADDRESS", "ID"], nodes.collect()).trim_end()));
    for node in status.nodes.iter().filter(|node| node.leaves) {
        if let Some(hindrance) = hindrance(status, &node.id) {
            line(format_args!("{} leaves; {hindrance}", node.address));
        }
    }
    line(format_args!(""));

    let groups = status.groups.iter().map(|group| group_row(group, &names));
    let titles = ["GROUP", "LEADER", "TERM", "KEYS", "SLOTS", "REPLICAS (entries behind)"];
    line(format_args!("{}", columns(&titles, groups.collect()).trim_end()));
    if !status.moves.is_empty() {
        line(format_args!(""));
        line(format_args!("{}", columns(&["SLOTS", "FROM", "TO", "MOVE"], move_rows(status)).trim_end()));
        troubles(status).for_each(|trouble| line(format_args!("{trouble}")));
    }
    if status.paused {
        line(format_args!(""));
        line(format_args!("{PAUSED}"));
    }
    if let Some(held) = held(status.held_slots, &status.held_empty) {
        line(format_args!(""));
        line(format_args!("{held}"));
    }
    text
}

/// Nothing that is planned, asked for or needed begins.
pub const PAUSED: &str = "REBALANCING IS PAUSED: no replica is rebuilt, no node is drained, no slot moves by itself, until `kvorum cluster resume-rebalance`";

/// That an operator's moves bind the scheduler, and what ends that. `None`: they do not.
pub fn held(slots: usize, empty: &[u32]) -> Option<String> {
    let placed = (slots > 0).then(|| format!("{slots} slot(s) stay where an operator has moved them"));
    let emptied = (!empty.is_empty()).then(|| {
        let names: Vec<String> = empty.iter().map(u32::to_string).collect();
        format!("group(s) {} get no slots, since an operator has moved them all away", names.join(", "))
    });
    let all: Vec<String> = placed.into_iter().chain(emptied).collect();
    (!all.is_empty()).then(|| format!("{}, until `kvorum cluster rebalance` is run", all.join("; ")))
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "DOWN",
        NodeState::Full => "DISK FULL",
        NodeState::Joining => "joining",
        NodeState::Leaving => "leaving",
        NodeState::Lost => "LOST",
        NodeState::Returned => "returned",
    }
}

fn is_down(state: NodeState) -> bool {
    matches!(state, NodeState::Down | NodeState::Lost)
}

/// What keeps a node that leaves from giving its replicas to others. `None`: nothing that is seen here.
pub fn hindrance(status: &ClusterStatus, leaving: &str) -> Option<String> {
    let is_held = |group: &&GroupStatus| group.replicas.iter().any(|replica| replica.node == leaving);
    // A group whose slots are on their way out may be dissolved, and needs no other home.
    let is_emptied = |group: &&GroupStatus| status.moves.iter().any(|slot_move| slot_move.from == group.id);
    let (mut nodes, mut waits) = (BTreeSet::new(), Vec::new());
    for group in status.groups.iter().filter(|group| group.id != 0 && is_held(group) && !is_emptied(group)) {
        if group.leader.is_none() {
            waits.push(format!("for a leader of group {}", group.id));
        } else {
            nodes.extend(hindering(status, leaving, group));
        }
    }
    let named = status.nodes.iter().filter(|node| nodes.contains(node.id.as_str()));
    let named = named.map(|node| format!("for {} ({})", node.address, word(node.state)));
    let all: Vec<String> = named.chain(waits).collect();
    (!all.is_empty()).then(|| format!("it waits {}", all.join(", ")))
}

/// Nodes that are to catch up with the group, or that alone could take a replica of it, and cannot.
fn hindering<'a>(status: &'a ClusterStatus, leaving: &str, group: &GroupStatus) -> Vec<&'a str> {
    let is_able = |state| matches!(state, NodeState::Up | NodeState::Joining);
    let replica_on = |id: &str| group.replicas.iter().find(|replica| replica.node == id);
    let of = |takes: &dyn Fn(&str) -> bool| {
        let others = status.nodes.iter().filter(|node| node.id != leaving && !node.leaves);
        let taking = others.filter(|node| takes(&node.id));
        taking.partition::<Vec<_>, _>(|node| is_able(node.state))
    };
    let (_, late) = of(&|id| replica_on(id).is_some_and(|replica| !replica.voter && !replica.leaving));
    let (able, unable) = of(&|id| replica_on(id).is_none());
    let has_heir = replica_on(leaving).is_some_and(|replica| replica.leaving);
    let alone = if able.is_empty() && !has_heir { unable } else { Vec::new() };
    late.into_iter().chain(alone).map(|node| node.id.as_str()).collect()
}

fn group_row(group: &GroupStatus, names: &BTreeMap<&str, &str>) -> Vec<String> {
    let name = |id: &str| names.get(id).map_or_else(|| id.chars().take(8).collect(), |name| (*name).to_string());
    let replicas = group.replicas.iter().map(|replica| {
        let learner = match (replica.leaving, replica.voter) {
            (true, _) => " leaving",
            (false, true) => "",
            (false, false) => " learner",
        };
        let lag = replica.lag_entries.map_or_else(|| "?".to_string(), |lag| lag.to_string());
        let is_leader = group.leader.as_ref() == Some(&replica.node);
        if is_leader { name(&replica.node) } else { format!("{}{learner} ({lag})", name(&replica.node)) }
    });
    let ranges = group.slot_ranges.iter().map(|(first, last)| format!("{first}-{last}"));
    let ranges: Vec<_> = ranges.collect();
    let slots = match (group.slot_count, ranges.as_slice()) {
        (0, _) => "-".to_string(),
        (count, [first, second, third, _, ..]) => {
            format!("{count}: {first} {second} {third} and {} more", ranges.len() - 3)
        }
        (count, few) => format!("{count}: {}", few.join(" ")),
    };
    vec![
        if group.id == 0 { "meta".to_string() } else { group.id.to_string() },
        group.leader.as_deref().map_or_else(|| "NONE".to_string(), name),
        group.term.to_string(),
        group.keys.map_or_else(|| "-".to_string(), |keys| keys.to_string()),
        slots,
        replicas.collect::<Vec<_>>().join(", "),
    ]
}

/// Why slots that are to move do not.
pub fn troubles(status: &ClusterStatus) -> impl Iterator<Item = String> + '_ {
    let is_source = |id| {
        let is_open = |state| matches!(state, MoveProgress::Waiting | MoveProgress::Repeating);
        status.moves.iter().any(|slot_move| slot_move.from == id && is_open(slot_move.state))
    };
    let groups = status.groups.iter().filter(move |group| is_source(group.id));
    groups.filter_map(|group| {
        Some(format!("a move from group {} is tried again: {}", group.id, group.move_trouble.as_ref()?))
    })
}

/// Moves with the same groups and state in one row.
fn move_rows(status: &ClusterStatus) -> Vec<Vec<String>> {
    let mut rows = BTreeMap::<(u32, u32, &str), usize>::new();
    for slot_move in &status.moves {
        let state = match slot_move.state {
            MoveProgress::Waiting => "waiting or under way",
            MoveProgress::Done => "done, being cleaned up",
            MoveProgress::Repeating => "to be done again",
            MoveProgress::Cancelled => "cancelled, being cleaned up",
        };
        *rows.entry((slot_move.from, slot_move.to, state)).or_default() += 1;
    }
    let row = |((from, to, state), count): ((u32, u32, &str), usize)| {
        vec![count.to_string(), from.to_string(), to.to_string(), state.to_owned()]
    };
    rows.into_iter().map(row).collect()
}

/// One phrase: ok, or what to look at.
fn verdict(status: &ClusterStatus) -> String {
    let leaderless = status.groups.iter().filter(|group| group.leader.is_none()).count();
    let in_state = |state| status.nodes.iter().filter(|node| node.state == state).count();
    let (down, full) = (in_state(NodeState::Down) + in_state(NodeState::Lost), in_state(NodeState::Full));
    let slots: u32 = status.groups.iter().map(|group| group.slot_count).sum();
    let is_away = |id: &str| status.nodes.iter().any(|node| node.id == id && is_down(node.state));
    let lacks = |group: &&GroupStatus| {
        group.id != 0 && group.replicas.iter().any(|replica| !replica.leaving && is_away(&replica.node))
    };
    let lacking = status.groups.iter().filter(lacks).count();
    let mut troubles = Vec::new();
    if leaderless > 0 {
        troubles.push(format!("{leaderless} group(s) WITHOUT LEADER"));
    }
    if down > 0 {
        troubles.push(format!("{down} node(s) DOWN"));
    }
    if lacking > 0 {
        troubles.push(format!("{lacking} group(s) with a REPLICA DOWN"));
    }
    if full > 0 {
        troubles.push(format!("{full} node(s) with a FULL DISK"));
    }
    if slots as usize != crate::slot::SLOT_COUNT {
        troubles.push(format!("{slots} of {} slots assigned", crate::slot::SLOT_COUNT));
    }
    if troubles.is_empty() { "all well".to_string() } else { troubles.join(", ") }
}

fn short_names(status: &ClusterStatus) -> BTreeMap<&str, &str> {
    status.nodes.iter().map(|node| (node.id.as_str(), node.address.as_str())).collect()
}

/// Left-aligned columns, two blanks apart.
fn columns(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let titles = titles.iter().map(|title| (*title).to_string()).collect();
    let all: Vec<Vec<String>> = std::iter::once(titles).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..all[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
pub(super) fn example() -> ClusterStatus {
    use crate::cluster::{MoveStatus, NodeStatus, ReplicaStatus};
    let id = |number: u32| format!("{number:040x}");
    let node = |number: u32, state| NodeStatus {
        id: id(number),
        address: format!("10.0.0.{number}:7001"),
        peer_address: format!("10.0.0.{number}:17001"),
        state,
        leaves: state == NodeState::Leaving,
    };
    let replica = |number: u32, lag| ReplicaStatus {
        id: number.into(),
        node: id(number),
        voter: number != 3,
        leaving: false,
        lag_entries: lag,
    };
    let group = |number, leader: Option<u32>, slot_count, slot_ranges| GroupStatus {
        id: number,
        leader: leader.map(id),
        term: 4,
        replicas: vec![replica(1, Some(0)), replica(2, Some(12)), replica(3, None)],
        slot_count,
        slot_ranges,
        keys: (number > 0).then_some(1000),
        moved_keys: Some(0),
        moved_bytes: Some(0),
        move_trouble: (number > 0).then(|| "group 2 has no leader now".to_owned()),
    };
    ClusterStatus {
        cluster_id: "c0ffee".to_string(),
        epoch: 9,
        asked: id(1),
        nodes: vec![node(1, NodeState::Up), node(2, NodeState::Up), node(3, NodeState::Down)],
        groups: vec![
            group(0, Some(1), 0, vec![]),
            group(1, Some(1), 512, vec![(0, 511)]),
            group(2, None, 512, vec![(512, 600), (602, 700), (702, 800), (802, 1026)]),
        ],
        moves: (3..5)
            .map(|slot| MoveStatus { id: slot.into(), slot, from: 1, to: 2, state: MoveProgress::Waiting })
            .collect(),
        held_slots: 7,
        held_empty: vec![],
        paused: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_first_what_is_wrong() {
        let expected = "\
cluster c0ffee   epoch 9   1 group(s) WITHOUT LEADER, 1 node(s) DOWN, 2 group(s) with a REPLICA DOWN

NODE            STATE  LEADS  PEER ADDRESS    ID
10.0.0.1:7001*  up     1      10.0.0.1:17001  00000000
10.0.0.2:7001   up     0      10.0.0.2:17001  00000000
10.0.0.3:7001   DOWN   0      10.0.0.3:17001  00000000

GROUP  LEADER         TERM  KEYS  SLOTS                                     REPLICAS (entries behind)
meta   10.0.0.1:7001  4     -     -                                         10.0.0.1:7001, 10.0.0.2:7001 (12), 10.0.0.3:7001 learner (?)
1      10.0.0.1:7001  4     1000  512: 0-511                                10.0.0.1:7001, 10.0.0.2:7001 (12), 10.0.0.3:7001 learner (?)
2      NONE           4     1000  512: 512-600 602-700 702-800 and 1 more   10.0.0.1:7001 (0), 10.0.0.2:7001 (12), 10.0.0.3:7001 learner (?)

SLOTS  FROM  TO  MOVE
2      1     2   waiting or under way
a move from group 1 is tried again: group 2 has no leader now

7 slot(s) stay where an operator has moved them, until `kvorum cluster rebalance` is run
";
        let shown = table(&example());
        let squeezed = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&shown), squeezed(expected), "\n{shown}");
    }

    #[test]
    fn a_group_that_is_held_empty_is_told_of_also_when_no_slot_is_held() {
        let status = ClusterStatus { held_slots: 0, held_empty: vec![1, 3], ..example() };
        let last = "group(s) 1, 3 get no slots, since an operator has moved them all away, until `kvorum cluster rebalance` is run";
        assert_eq!(table(&status).lines().last(), Some(last));
        assert_eq!(held(0, &[]), None);
    }

    #[test]
    fn what_a_node_that_leaves_waits_for_is_named() {
        let mut status = example();
        status.moves.clear();
        status.groups.truncate(2);
        let id = status.nodes[0].id.clone();
        let late = "it waits for 10.0.0.3:7001 (DOWN)";
        assert_eq!(hindrance(&status, &id).as_deref(), Some(late), "it is to catch up");
        status.groups[1].replicas.pop();
        assert_eq!(hindrance(&status, &id).as_deref(), Some(late), "nobody else has a place");
        (status.nodes[0].state, status.nodes[0].leaves) = (NodeState::Leaving, true);
        assert!(table(&status).contains(&format!("10.0.0.1:7001 leaves; {late}\n")), "{}", table(&status));
        status.nodes[0].state = NodeState::Lost;
        let shown = table(&status);
        assert!(
            shown.contains("LOST, leaving") && shown.contains(&format!("10.0.0.1:7001 leaves; {late}\n")),
            "{shown}"
        );
        status.groups[1].replicas[0].leaving = true;
        assert_eq!(hindrance(&status, &id), None, "another is about to take its place");
        status.groups[1].replicas[0].leaving = false;
        status.nodes[2].state = NodeState::Returned;
        assert_eq!(hindrance(&status, &id).as_deref(), Some("it waits for 10.0.0.3:7001 (returned)"));
        status.nodes[2].state = NodeState::Up;
        assert_eq!(hindrance(&status, &id), None);
        status.groups[1].leader = None;
        assert_eq!(hindrance(&status, &id).as_deref(), Some("it waits for a leader of group 1"));
    }

    #[test]
    fn a_status_survives_its_json_form() {
        let json = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<ClusterStatus>(&json).unwrap(), example());
    }
}
