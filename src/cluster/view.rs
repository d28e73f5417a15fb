//! What CLUSTER SLOTS, SHARDS, NODES and INFO show, computed from the topology and the hints alone, so that every node
//! answers the same as soon as the hints agree (`myself` apart). Replies are written by the server.
//!
//! Every key slot has an owner at all times: the leader, the last known one during an election, or before any was heard
//! of the one that creates the group. A leader whose connection was lost a moment ago is most likely dead, and a client that asks for
//! the map because it was refused there must not be sent back: another replica is named, where its requests wait for the
//! election and are redirected. A node may lead one group and follow in another, which clients cannot express (they
//! keep one role per node), so every node is shown as a master, with the key slots it leads, and none as a replica.
//! "Slot" in the names here is the wire's word and means a key slot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Epoch, GroupId, Hints, NodeId, NodeInfo, Topology};
use crate::slot::{KEY_SLOT_COUNT, KEY_SLOTS_PER_SLOT, KeySlot, Slot};

/// Neighbouring key slots, both ends included, that one node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    pub start: KeySlot,
    pub end: KeySlot,
    pub node: NodeId,
}

/// One node as CLUSTER SHARDS shows it: alone in its "shard", whose id is the node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterShard<'a> {
    pub node: NodeId,
    pub info: &'a NodeInfo,
    /// This node has long had no connection to it.
    pub failed: bool,
    /// Ascending; empty for a node that leads nothing.
    pub ranges: Vec<(KeySlot, KeySlot)>,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct ClusterView<'a> {
    topology: &'a Topology,
    absent: &'a Absent,
    ranges: Vec<SlotRange>,
    /// The greatest term in which a node leads a group; 0 for a node that leads none.
    config_epochs: BTreeMap<NodeId, u64>,
    /// Without a leader since a moment ago, and for long.
    key_slots_waiting: usize,
    key_slots_down: usize,
}

/// How long a group has been without a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaderless {
    /// As during an election: requests wait.
    Shortly,
    /// So long that more must be missing than a vote.
    Long,
}

/// Who is not there: nodes that this one has no connection to, and leaders.
#[derive(Debug, Clone, Default)]
pub struct Absent {
    /// Lost a moment ago; see the module's text.
    pub lost: BTreeSet<NodeId>,
    /// Away for so long that they are shown as failed, with the key slots they led last until others lead those.
    pub failed: BTreeSet<NodeId>,
    /// Groups that have no leader as far as this node can tell.
    pub leaderless: BTreeMap<GroupId, Leaderless>,
}

/// Frames to and from peers since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerTraffic {
    pub sent: u64,
    pub received: u64,
}

impl<'a> ClusterView<'a> {
    pub fn new(topology: &'a Topology, hints: &Hints, absent: &'a Absent) -> Self {
        let owners: BTreeMap<GroupId, NodeId> =
            topology.groups().keys().map(|group| (*group, owner(topology, hints, &absent.lost, *group))).collect();
        let mut ranges: Vec<SlotRange> = Vec::new();
        let (mut slots_waiting, mut slots_down) = (0, 0);
        // By slots, a sixteenth of the key slots: all clients ask at once when a leader has changed.
        for slot in Slot::by_key_slots() {
            let group = topology.group_of(slot);
            match absent.leaderless.get(&group) {
                Some(Leaderless::Shortly) => slots_waiting += 1,
                Some(Leaderless::Long) => slots_down += 1,
                None => (),
            }
            let (start, end) = slot.key_slot_bounds();
            let node = owners[&group];
            match ranges.last_mut() {
                Some(last) if last.node == node => last.end = end,
                Some(_) | None => ranges.push(SlotRange { start, end, node }),
            }
        }
        let (key_slots_waiting, key_slots_down) = (slots_waiting * KEY_SLOTS_PER_SLOT, slots_down * KEY_SLOTS_PER_SLOT);
        let mut config_epochs: BTreeMap<NodeId, u64> = topology.nodes().keys().map(|node| (*node, 0)).collect();
        for (group, node) in &owners {
            let term = hints.leader(*group).filter(|leader| leader.node == *node).map_or(0, |leader| leader.term);
            let epoch = config_epochs.entry(*node).or_default();
            *epoch = term.max(*epoch);
        }
        Self { topology, absent, ranges, config_epochs, key_slots_waiting, key_slots_down }
    }

    /// Ascending, without holes.
    pub fn slots(&self) -> &[SlotRange] {
        &self.ranges
    }

    /// The node that serves a key slot or, during an election, did last.
    pub fn owner(&self, key_slot: KeySlot) -> NodeId {
        let next = self.ranges.partition_point(|range| range.start <= key_slot);
        // The first range starts at key slot 0.
        self.ranges[next - 1].node
    }

    pub fn topology(&self) -> &'a Topology {
        self.topology
    }

    pub fn node(&self, node: NodeId) -> Option<&'a NodeInfo> {
        self.topology.node(node)
    }

    /// In the order of node ids, nodes that lead nothing included.
    pub fn shards(&self) -> Vec<ClusterShard<'a>> {
        let mut shards: BTreeMap<NodeId, ClusterShard<'a>> = (self.topology.nodes().iter())
            .map(|(node, info)| {
                (
                    *node,
                    ClusterShard { node: *node, info, failed: self.absent.failed.contains(node), ranges: Vec::new() },
                )
            })
            .collect();
        for SlotRange { start, end, node } in &self.ranges {
            let own = shards.get_mut(node).expect("owners are registered nodes");
            own.ranges.push((*start, *end));
        }
        shards.into_values().collect()
    }

    /// CLUSTER NODES: `id host:port@bus flags - 0 0 epoch connected ranges...` and a line feed per node; a failed one is
    /// `master,fail` and `disconnected`. There are no pings to give the times of, and zeros keep the nodes' answers equal.
    pub fn nodes_text(&self, myself: NodeId) -> String {
        let mut text = String::new();
        for ClusterShard { node, info, failed, ranges } in self.shards() {
            let (flags, link) = match (node == myself, failed) {
                (true, _) => ("myself,master", "connected"),
                (false, false) => ("master", "connected"),
                (false, true) => ("master,fail", "disconnected"),
            };
            let NodeInfo { host, port, peer_port, http_port: _ } = info;
            let epoch = self.config_epochs[&node];
            let head = format_args!("{node} {host}:{port}@{peer_port} {flags} - 0 0 {epoch} {link}");
            text.write_fmt(head).expect("writing to a string does not fail");
            for (start, end) in ranges {
                let range = if start == end { format!(" {start}") } else { format!(" {start}-{end}") };
                text.push_str(&range);
            }
            text.push('\n');
        }
        text
    }

    /// What CLUSTER NODES shows as a node's config epoch.
    pub fn my_epoch(&self, myself: NodeId) -> u64 {
        self.config_epochs.get(&myself).copied().unwrap_or(0)
    }

    /// CLUSTER INFO. `cluster_state` stays ok during an election: requests are parked then, not refused, and clients take `fail` for a
    /// reason to give up. Key slots whose group has no leader now show as pfail; those of a group that has long had none as fail, and so does the state.
    pub fn info_text(&self, myself: NodeId, traffic: PeerTraffic) -> String {
        let leaders: BTreeSet<NodeId> = self.ranges.iter().map(|range| range.node).collect();
        let Epoch(topology_epoch) = self.topology.epoch();
        let current_epoch = self.config_epochs.values().copied().fold(topology_epoch, u64::max);
        let fields = [
            ("cluster_slots_assigned", KEY_SLOT_COUNT as u64),
            ("cluster_slots_ok", (KEY_SLOT_COUNT - self.key_slots_waiting - self.key_slots_down) as u64),
            ("cluster_slots_pfail", self.key_slots_waiting as u64),
            ("cluster_slots_fail", self.key_slots_down as u64),
            ("cluster_known_nodes", self.topology.nodes().len() as u64),
            ("cluster_size", leaders.len() as u64),
            ("cluster_current_epoch", current_epoch),
            ("cluster_my_epoch", self.my_epoch(myself)),
            ("cluster_stats_messages_sent", traffic.sent),
            ("cluster_stats_messages_received", traffic.received),
            ("total_cluster_links_buffer_limit_exceeded", 0),
        ];
        let lines = fields.iter().map(|(name, value)| format!("{name}:{value}\r\n"));
        let state = if self.key_slots_down == 0 { "ok" } else { "fail" };
        std::iter::once(format!("cluster_state:{state}\r\n")).chain(lines).collect()
    }
}

/// Who is shown as a group's owner: always a registered node.
fn owner(topology: &Topology, hints: &Hints, lost: &BTreeSet<NodeId>, group: GroupId) -> NodeId {
    let heard = hints.leader(group).map(|leader| leader.node).filter(|node| topology.node(*node).is_some());
    let last =
        heard.or_else(|| topology.presumed_leader(group)).expect("a group's preferred replica is on a registered node");
    if !lost.contains(&last) {
        return last;
    }
    let mut homes = topology.group(group).into_iter().flat_map(|info| info.replicas.values());
    homes.find(|home| !lost.contains(home)).copied().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture::{node, topology};
    use crate::cluster::{Ballot, LeaderHint, ReplicaId};

    static NONE_ABSENT: Absent = Absent { lost: BTreeSet::new(), failed: BTreeSet::new(), leaderless: BTreeMap::new() };

    /// What redis-py and redis-cli read from CLUSTER NODES: id, host, port, bus port, flags, key slots.
    fn parse_nodes(text: &str) -> BTreeMap<String, (String, Vec<String>, BTreeSet<usize>)> {
        let parse_line = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [id, address, flags, replica_of, ping, pong, epoch, link] = fields[..8] else { panic!("{line}") };
            assert!(id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_eq!((replica_of, ping, pong, link), ("-", "0", "0", "connected"));
            epoch.parse::<u64>().unwrap();
            let (address, bus) = address.split_once('@').unwrap();
            bus.parse::<u16>().unwrap();
            let key_slots = fields[8..].iter().flat_map(|range| {
                let (start, end) = range.split_once('-').unwrap_or((range, range));
                start.parse::<usize>().unwrap()..=end.parse().unwrap()
            });
            let flags = flags.split(',').map(str::to_owned).collect();
            (id.to_owned(), (address.to_owned(), flags, key_slots.collect()))
        };
        assert!(text.ends_with('\n'));
        text.lines().map(parse_line).collect()
    }

    fn hint(topology: &Topology, group: u32, term: u64, position: usize) -> LeaderHint {
        let (replica, node) = topology.group(GroupId(group)).unwrap().replicas.iter().nth(position).unwrap();
        LeaderHint { term, replica: *replica, node: *node }
    }

    #[test]
    fn slots_cover_every_key_slot_once_whatever_was_heard() {
        for (nodes, groups) in [(1, 1), (3, 3), (5, 16), (3, 1), (2, 1024)] {
            let topology = topology(nodes, groups, 3);
            let mut hints = Hints::default();
            for round in 0..3 {
                let view = ClusterView::new(&topology, &hints, &NONE_ABSENT);
                let mut next = 0;
                for range in view.slots() {
                    assert_eq!(range.start.index(), next);
                    next = range.end.index() + 1;
                }
                assert_eq!(next, KEY_SLOT_COUNT);
                assert!(view.slots().windows(2).all(|pair| pair[0].node != pair[1].node), "neighbours are merged");
                for key_slot in KeySlot::all() {
                    let expected = owner(&topology, &hints, &NONE_ABSENT.lost, topology.group_of(key_slot.slot()));
                    assert_eq!(view.owner(key_slot), expected);
                }
                hints.learn(GroupId(1), hint(&topology, 1, round + 1, round as usize % nodes.min(3)));
                hints.learn_election(GroupId(1), Ballot { term: 9, replica: ReplicaId(1) });
            }
        }
    }

    #[test]
    fn nodes_parse_as_clients_parse_them_and_agree_but_for_myself() {
        let topology = topology(4, 3, 3);
        let mut hints = Hints::default();
        hints.learn(GroupId(1), hint(&topology, 1, 5, 1));
        let view = ClusterView::new(&topology, &hints, &NONE_ABSENT);
        let texts: Vec<String> = (1..=4).map(|own| view.nodes_text(node(own))).collect();
        for (own, text) in (1..).zip(&texts) {
            assert_eq!(text.matches("myself,").count(), 1);
            assert_eq!(text.replace("myself,", ""), texts[0].replace("myself,", ""));
            let nodes = parse_nodes(text);
            assert_eq!(nodes.len(), 4);
            assert!(nodes[&node(own).to_string()].1.contains(&"myself".to_owned()));
            let covered: usize = nodes.values().map(|(_, _, key_slots)| key_slots.len()).sum();
            assert_eq!(covered, KEY_SLOT_COUNT);
            assert!(nodes.values().all(|(_, flags, _)| flags.contains(&"master".to_owned())));
            // Group 1 moved from node 1 to node 2, and node 4 leads nothing: both are listed all the same.
            assert!(nodes[&node(1).to_string()].2.is_empty() && nodes[&node(4).to_string()].2.is_empty());
        }
    }

    #[test]
    fn a_line_of_nodes_is_exactly_as_redis_writes_it() {
        let topology = topology(1, 1, 1);
        let mut hints = Hints::default();
        hints.learn(GroupId(1), hint(&topology, 1, 3, 0));
        let view = ClusterView::new(&topology, &hints, &NONE_ABSENT);
        let id = node(1);
        let expected = format!("{id} 127.0.0.1:7001@17001 myself,master - 0 0 3 connected 0-16383\n");
        assert_eq!(view.nodes_text(id), expected);
    }

    #[test]
    fn a_failed_node_is_shown_as_such_with_the_key_slots_it_led_last() {
        let topology = topology(2, 2, 2);
        let mut hints = Hints::default();
        hints.learn(GroupId(1), hint(&topology, 1, 3, 0));
        let healthy = ClusterView::new(&topology, &hints, &NONE_ABSENT);
        let gone = Absent { failed: [node(1)].into(), ..Absent::default() };
        let view = ClusterView::new(&topology, &hints, &gone);
        let failed: Vec<NodeId> = view.shards().iter().filter(|shard| shard.failed).map(|shard| shard.node).collect();
        assert_eq!(failed, [node(1)]);
        let expected =
            healthy.nodes_text(node(2)).replacen(" master - 0 0 3 connected", " master,fail - 0 0 3 disconnected", 1);
        assert_eq!(view.nodes_text(node(2)), expected);
        assert_eq!(view.slots(), healthy.slots());
    }

    #[test]
    fn a_leader_lost_a_moment_ago_is_not_shown_as_an_owner_while_another_replica_is_here() {
        let topology = topology(3, 3, 3);
        let mut hints = Hints::default();
        hints.learn(GroupId(1), hint(&topology, 1, 3, 0));
        let key_slot = topology.slots_of(GroupId(1)).next().unwrap().key_slots().next().unwrap();
        let shown = |lost: &[u8]| {
            let lost = lost.iter().map(|number| node(*number)).collect();
            ClusterView::new(&topology, &hints, &Absent { lost, ..Absent::default() }).owner(key_slot)
        };
        assert_eq!([shown(&[]), shown(&[2, 3])], [node(1); 2]);
        assert_eq!([shown(&[1]), shown(&[1, 2])], [node(2), node(3)]);
        assert_eq!(shown(&[1, 2, 3]), node(1), "every key slot has an owner at all times");
    }

    #[test]
    fn shards_list_every_node_with_its_own_ranges() {
        let topology = topology(3, 2, 2);
        let view = ClusterView::new(&topology, &Hints::default(), &NONE_ABSENT);
        let shards = view.shards();
        assert!(shards.iter().map(|shard| shard.node).eq(topology.nodes().keys().copied()));
        assert!(shards.iter().any(|shard| shard.ranges.is_empty()));
        let listed: usize = shards.iter().map(|shard| shard.ranges.len()).sum();
        assert_eq!(listed, view.slots().len());
    }

    #[test]
    fn info_stays_ok_during_an_election_and_not_when_it_does_not_end() {
        let topology = topology(3, 1, 3);
        let mut hints = Hints::default();
        hints.learn(GroupId(1), hint(&topology, 1, 4, 0));
        let text =
            ClusterView::new(&topology, &hints, &NONE_ABSENT).info_text(node(1), PeerTraffic { sent: 6, received: 7 });
        let head =
            "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n";
        assert!(text.starts_with(head), "{text}");
        for line in [
            "cluster_known_nodes:3",
            "cluster_size:1",
            "cluster_current_epoch:4",
            "cluster_my_epoch:4",
            "cluster_stats_messages_sent:6",
            "cluster_stats_messages_received:7",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
        }
        for (since, state, pfail, fail) in [(Leaderless::Shortly, "ok", 16384, 0), (Leaderless::Long, "fail", 0, 16384)]
        {
            let absent = Absent { leaderless: [(GroupId(1), since)].into(), ..Absent::default() };
            let text =
                ClusterView::new(&topology, &hints, &absent).info_text(node(1), PeerTraffic { sent: 6, received: 7 });
            assert!(text.starts_with(&format!("cluster_state:{state}\r\n")), "{text}");
            let counts =
                format!("\r\ncluster_slots_ok:0\r\ncluster_slots_pfail:{pfail}\r\ncluster_slots_fail:{fail}\r\n");
            assert!(text.contains(&counts), "{text}");
        }
    }

    #[test]
    fn a_leader_that_is_no_member_any_more_is_not_shown() {
        let topology = topology(3, 1, 3);
        let mut hints = Hints::default();
        hints.learn(GroupId(1), LeaderHint { node: node(77), ..hint(&topology, 1, 4, 0) });
        let view = ClusterView::new(&topology, &hints, &NONE_ABSENT);
        assert_eq!(view.slots()[0].node, topology.presumed_leader(GroupId(1)).unwrap());
    }
}
