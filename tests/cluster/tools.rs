//! What Redis's tools send to move slots: a slot moves whole, at the first node that is told so, and the others find it done.

use std::time::Duration;

use super::harness::{Cluster, Node, Reply, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const KEYS: usize = 50;

struct Slots<'a> {
    cluster: &'a Cluster,
    source: usize,
    target: usize,
    other: usize,
    /// Of the keys `{t}0` and so on, and its neighbour in the same block.
    key_slot: String,
    sibling: String,
}

impl<'a> Slots<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let source = cluster.leader_of("{t}");
        let mut client = cluster.client();
        for index in 0..KEYS {
            let set = client.call(&["SET", &format!("{{t}}{index}"), &index.to_string()]).expect("answers");
            assert_eq!(set.text(), "OK");
        }
        let key_slot: u16 = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "{t}"]).text().parse().expect("a number");
        let (target, other) = ((source + 1) % 3, (source + 2) % 3);
        Self { cluster, source, target, other, key_slot: key_slot.to_string(), sibling: (key_slot ^ 1).to_string() }
    }

    fn node(&self, index: usize) -> &Node {
        &self.cluster.nodes[index]
    }

    fn id(&self, index: usize) -> String {
        self.node(index).ask(&["CLUSTER", "MYID"]).text()
    }

    /// CLUSTER SETSLOT, asked of a node, about another.
    fn set(&self, asked: usize, key_slot: &str, action: &str, named: usize) -> String {
        self.node(asked).ask(&["CLUSTER", "SETSLOT", key_slot, action, &self.id(named)]).text()
    }

    /// The keys of a slot in a node: how many it counts, and how many of at most ten it lists.
    fn keys(&self, asked: usize, key_slot: &str) -> (String, usize) {
        let listed = self.node(asked).ask(&["CLUSTER", "GETKEYSINSLOT", key_slot, "10"]);
        (self.node(asked).ask(&["CLUSTER", "COUNTKEYSINSLOT", key_slot]).text(), listed.items().len())
    }
}

#[test]
fn a_slot_is_moved_by_what_redis_cli_sends_and_its_siblings_are_found_moved() {
    let cluster = Cluster::start(3, &[]);
    let slots = Slots::new(&cluster);
    let (source, target, other) = (slots.source, slots.target, slots.other);
    let (key_slot, sibling) = (slots.key_slot.as_str(), slots.sibling.as_str());

    assert_eq!(slots.set(target, key_slot, "IMPORTING", source), "OK");
    assert_eq!(slots.keys(source, key_slot), (KEYS.to_string(), 10), "what is not announced here is told");
    assert_eq!(slots.set(source, key_slot, "MIGRATING", target), "OK");
    assert_eq!(slots.keys(source, key_slot), ("0".to_owned(), 0), "the tool has nothing to migrate");
    assert_eq!(cluster.client().call(&["GET", "{t}7"]).expect("answers").text(), "7");
    assert!(!slots.node(source).ask(&["CLUSTER", "NODES"]).text().contains('['), "no slot is shown as open");
    assert_eq!(slots.node(source).ask(&["CLUSTER", "SETSLOT", key_slot, "STABLE"]).text(), "OK");
    assert_eq!(slots.keys(source, key_slot), (KEYS.to_string(), 10));

    assert_eq!(slots.set(source, key_slot, "migrating", target), "OK");
    for asked in [target, source, other] {
        assert_eq!(slots.set(asked, key_slot, "NODE", target), "OK");
    }
    assert_eq!(slots.keys(target, key_slot), (KEYS.to_string(), 10));
    assert_eq!(slots.keys(source, key_slot), ("0".to_owned(), 0));
    for index in 0..KEYS {
        assert_eq!(slots.node(target).ask(&["GET", &format!("{{t}}{index}")]).text(), index.to_string());
    }
    // The rest of the block: to the same node, and, by a tool that has planned otherwise, to another.
    for named in [target, other] {
        assert_eq!(slots.set(named, sibling, "IMPORTING", source), "OK");
        assert_eq!(slots.set(source, sibling, "MIGRATING", named), "OK");
        assert_eq!(slots.keys(source, sibling), ("0".to_owned(), 0));
        for asked in [named, source, other, target] {
            assert_eq!(slots.set(asked, sibling, "NODE", named), "OK");
        }
        let found = || slots.node(named).ask(&["GET", "{t}7"]).text();
        eventually(LIMIT, || format!("it serves them: {}", found()), || found() == "7");
    }
    assert_eq!(slots.keys(other, key_slot), (KEYS.to_string(), 10));
    let sizes = cluster.nodes.iter().map(|node| node.ask(&["DBSIZE"]).text().parse::<usize>().expect("a number"));
    assert_eq!(sizes.sum::<usize>(), KEYS, "each key is in one node");
}

#[test]
fn an_intent_says_nothing_of_a_slot_that_has_left_and_come_back() {
    let cluster = Cluster::start(3, &[]);
    let slots = Slots::new(&cluster);
    let (source, target, key_slot) = (slots.source, slots.target, slots.key_slot.as_str());
    assert_eq!(slots.set(source, key_slot, "MIGRATING", target), "OK");
    // The tool ends before it tells the source.
    assert_eq!(slots.set(target, key_slot, "NODE", target), "OK");
    assert_eq!(slots.set(target, key_slot, "NODE", source), "OK");
    let found = || slots.keys(source, key_slot);
    // Well before the intent would have been too old.
    let limit = LIMIT / 3;
    eventually(limit, || format!("it is told: {:?}", found()), || found() == (KEYS.to_string(), 10));
}

#[test]
fn what_cannot_be_done_with_slots_is_refused_as_redis_does_or_says_what_to_do_instead() {
    let cluster = Cluster::start(3, &[]);
    let slots = Slots::new(&cluster);
    let (source, target, key_slot) = (slots.source, slots.target, slots.key_slot.as_str());
    let nobody = "f".repeat(40);
    let stay =
        "ERR each slot has an owner at all times: CLUSTER SETSLOT <slot> NODE <node-id> gives it to another node";
    let action = "ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP";
    let cases: &[(&[&str], &str)] = &[
        (&["SETSLOT", "16384", "STABLE"], "ERR Invalid or out of range slot"),
        (&["SETSLOT", "x", "STABLE"], "ERR Invalid or out of range slot"),
        (&["SETSLOT", key_slot, "STABLE", &nobody], action),
        (&["SETSLOT", key_slot, "MIGRATING"], action),
        (&["SETSLOT", key_slot, "MIGRATING", &nobody], &format!("ERR I don't know about node {nobody}")),
        (&["SETSLOT", key_slot, "IMPORTING", "x\r\ny"], "ERR I don't know about node x  y"),
        (&["SETSLOT", key_slot, "NODE", &nobody], &format!("ERR Unknown node {nobody}")),
        (&["ADDSLOTS", key_slot], &format!("ERR Slot {key_slot} is already busy")),
        (&["ADDSLOTS", "-1"], "ERR Invalid or out of range slot"),
        (&["ADDSLOTSRANGE", "5", "3"], "ERR start slot number 5 is greater than end slot number 3"),
        (&["ADDSLOTSRANGE", "3", "5"], "ERR Slot 3 is already busy"),
        (&["ADDSLOTSRANGE", "3", "5", "6"], "ERR wrong number of arguments for 'cluster|addslotsrange' command"),
        (&["DELSLOTS", key_slot], stay),
        (&["DELSLOTSRANGE", "3", "5"], stay),
        (&["DELSLOTSRANGE", "3", "16384"], "ERR Invalid or out of range slot"),
        (&["FLUSHSLOTS"], "ERR DB must be empty to perform CLUSTER FLUSHSLOTS."),
    ];
    for (words, expected) in cases {
        let answer = slots.node(source).ask(&[&["CLUSTER"], *words].concat()).text();
        assert_eq!(answer, *expected, "{words:?}");
    }
    let refused = slots.set(target, key_slot, "MIGRATING", source);
    assert_eq!(refused, "OK", "the node that is to have it has it");
    let refused = slots.set(target, key_slot, "MIGRATING", slots.other);
    assert_eq!(refused, format!("ERR I'm not the owner of hash slot {key_slot}"));
    let migrate = slots.node(source).ask(&["MIGRATE", "127.0.0.1", "7000", "{t}1", "0", "1000"]).text();
    assert!(migrate.starts_with("ERR MIGRATE is not needed: a slot moves as a whole"), "{migrate}");
    assert_eq!(slots.keys(source, key_slot), (KEYS.to_string(), 10), "all of it changed nothing");
}

#[test]
fn a_node_that_leads_no_group_is_given_no_slots() {
    let cluster = Cluster::start(3, &["--groups", "2"]);
    let slots = Slots::new(&cluster);
    let leads = |index: &usize| {
        let shown = slots.node(0).ask(&["CLUSTER", "NODES"]).text();
        let line = shown.lines().find(|line| line.starts_with(&slots.id(*index))).expect("a member").to_owned();
        line.split(' ').count() > 8
    };
    let idle = (0..3).find(|index| !leads(index)).expect("two groups have two leaders");
    for (asked, action, named) in
        [(slots.source, "MIGRATING", idle), (slots.source, "NODE", idle), (idle, "IMPORTING", slots.source)]
    {
        let refused = slots.set(asked, &slots.key_slot, action, named);
        let expected = format!("ERR node {} leads no group now, so it cannot be given slots", slots.id(idle));
        assert!(refused.starts_with(&expected), "{action}: {refused}");
    }
    assert_eq!(slots.keys(slots.source, &slots.key_slot), (KEYS.to_string(), 10));
    assert!(matches!(slots.node(slots.source).ask(&["GET", "{t}0"]), Reply::Bulk(_)));
}
