//! What Redis's tools send to move slots: a slot moves whole, at the first node that is told so, and the others find it done.

use std::time::Duration;

use super::harness::{Cluster, Node, Reply, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const KEYS: usize = 50;
/// Elections for want of processor time are not what these tests are about.
const AT_EASE: [&str; 6] =
    ["--heartbeat-ms", "200", "--election-timeout-min-ms", "1000", "--election-timeout-max-ms", "2000"];

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
    fn new(cluster: &'a Cluster, groups: usize) -> Self {
        // Each group's leader is on the node that it prefers.
        let leaders = |node: &Node| {
            let shown = node.ask(&["CLUSTER", "NODES"]).text();
            shown.lines().filter(|line| line.split(' ').count() > 8).count()
        };
        let is_spread = || cluster.nodes.iter().all(|node| leaders(node) == groups);
        eventually(LIMIT, || format!("{groups} nodes lead"), is_spread);
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
    let cluster = Cluster::start(3, &AT_EASE);
    let slots = Slots::new(&cluster, 3);
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
    let sizes = || cluster.nodes.iter().map(|node| node.ask(&["DBSIZE"]).text()).collect::<Vec<_>>();
    let all = || sizes().iter().map(|size| size.parse::<usize>().ok()).sum::<Option<usize>>();
    eventually(LIMIT, || format!("each key is in one node: {:?}", sizes()), || all() == Some(KEYS));
}

#[test]
fn an_intent_says_nothing_of_a_slot_that_has_left_and_come_back() {
    let cluster = Cluster::start(3, &AT_EASE);
    let slots = Slots::new(&cluster, 3);
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
    let cluster = Cluster::start(3, &AT_EASE);
    let slots = Slots::new(&cluster, 3);
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
    let cluster = Cluster::start(3, &[&["--groups", "2"], &AT_EASE[..]].concat());
    let slots = Slots::new(&cluster, 2);
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

#[test]
fn a_node_that_has_only_just_joined_is_given_slots_as_soon_as_it_leads_a_group() {
    let mut cluster = Cluster::start(3, &AT_EASE);
    let member = format!("127.0.0.1:{}", cluster.nodes[0].port);
    let joined = cluster.add(&[&["--join", &member], &AT_EASE[..]].concat());
    cluster.nodes[joined].start();
    let holder = cluster.leader_of("k");
    let source = &cluster.nodes[holder];
    let address = format!(" 127.0.0.1:{}@", cluster.nodes[joined].port);
    let shown = || source.ask(&["CLUSTER", "NODES"]).text();
    eventually(LIMIT, shown, || shown().contains(&address));
    let node = &cluster.nodes[joined];
    eventually(LIMIT, || node.log(), || node.is_ready());
    let line = shown().lines().find(|line| line.contains(&address)).expect("it is there").to_owned();
    let id = line.split(' ').next().expect("it begins with the id").to_owned();
    let key_slot = source.ask(&["CLUSTER", "KEYSLOT", "k"]).text();
    // As redis-cli --cluster reshard does right after add-node.
    for (node, action) in [(joined, "IMPORTING"), (holder, "MIGRATING"), (joined, "NODE")] {
        let mut connection = cluster.nodes[node].connect();
        connection.set_timeout(LIMIT);
        let named = if action == "IMPORTING" { source.ask(&["CLUSTER", "MYID"]).text() } else { id.clone() };
        let told = connection.call(&["CLUSTER", "SETSLOT", &key_slot, action, &named]).expect("answers").text();
        // Whoever has it by now is not the one that was planned with.
        let is_other = action == "MIGRATING" && told.starts_with("ERR I'm not the owner of hash slot");
        assert!(told == "OK" || is_other, "{action}: {told}");
    }
    let group = || source.ask(&["CLUSTER", "HASHSLOT", "k"]).items()[3].text();
    eventually(LIMIT, || format!("k is in group {}", group()), || group() == "4");
}

/// The answer of CLUSTER GETSLOTMIGRATIONS, or of CLUSTER MIGRATION STATUS: each job as pairs of a name and a value.
fn jobs(node: &Node, words: &[&str]) -> Vec<Vec<(String, String)>> {
    let reply = node.ask(&[&["CLUSTER"], words].concat());
    let texts = |job: &Reply| job.items().iter().map(Reply::text).collect::<Vec<_>>();
    let pairs = |texts: Vec<String>| texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    reply.items().iter().map(texts).map(pairs).collect()
}

fn field(job: &[(String, String)], name: &str) -> String {
    job.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn wait_last(node: &Node, words: &[&str], state: &str) -> Vec<(String, String)> {
    let last = || jobs(node, words).pop().expect("a job");
    eventually(LIMIT, || format!("{state}: {:?}", last()), || field(&last(), "state") == state);
    last()
}

/// First and last of the block of a key slot.
fn block_of(key_slot: &str) -> (String, String) {
    let first = key_slot.parse::<u16>().expect("a number") & !15;
    (first.to_string(), (first + 15).to_string())
}

#[test]
fn the_commands_of_valkey_9_and_redis_8_4_start_the_same_moves_and_tell_what_became_of_them() {
    let cluster = Cluster::start(3, &AT_EASE);
    let slots = Slots::new(&cluster, 3);
    let (source, target, key_slot) = (slots.node(slots.source), slots.node(slots.target), slots.key_slot.as_str());
    let (source_id, target_id) = (slots.id(slots.source), slots.id(slots.target));
    let list = &["GETSLOTMIGRATIONS"][..];
    assert!(jobs(source, list).is_empty());
    // Its block comes along, and is found there.
    for named in [key_slot, slots.sibling.as_str()] {
        let words = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", named, named, "NODE", &target_id];
        assert_eq!(source.ask(&words).text(), "OK");
        let job = wait_last(source, list, "success");
        for (name, value) in [
            ("operation", "EXPORT"),
            ("slot_ranges", &format!("{named}-{named}")),
            ("source_node", &source_id),
            ("target_node", &target_id),
            ("message", ""),
            ("cow_size", "0"),
        ] {
            assert_eq!(field(&job, name), value, "{job:?}");
        }
        assert_eq!((job.len(), field(&job, "name").len()), (11, 40), "{job:?}");
    }
    assert_eq!(jobs(source, list).len(), 2);
    assert_eq!(slots.keys(slots.target, key_slot), (KEYS.to_string(), 10));

    let (first, last) = block_of(key_slot);
    let id = source.ask(&["CLUSTER", "MIGRATION", "IMPORT", key_slot, &last, &first, key_slot]).text();
    let words = ["MIGRATION", "STATUS", "ID", &id];
    let job = wait_last(source, &words, "completed");
    for (name, value) in [
        ("id", id.as_str()),
        ("slots", &format!("{key_slot}-{last} {first}-{key_slot}")),
        ("source", &target_id),
        ("dest", &source_id),
        ("operation", "import"),
        ("last_error", ""),
    ] {
        assert_eq!(field(&job, name), value, "{job:?}");
    }
    assert_eq!(job.len(), 12, "{job:?}");
    assert_eq!(slots.keys(slots.source, key_slot), (KEYS.to_string(), 10));
    assert_eq!(jobs(source, &["MIGRATION", "STATUS", "ALL"]).len(), 3);
    assert!(jobs(source, &["MIGRATION", "STATUS", "ID", "none"]).is_empty());
    assert_eq!(source.ask(&["CLUSTER", "MIGRATION", "CANCEL", "ALL"]).text(), "0");
    assert!(jobs(target, list).is_empty(), "each node lists what it was asked for");
}

#[test]
fn migrations_under_way_are_shown_and_cancelled() {
    let cluster = Cluster::start(3, &[&["--move-rate-max", "1mb"], &AT_EASE[..]].concat());
    let slots = Slots::new(&cluster, 3);
    let (source, target_id) = (slots.node(slots.source), slots.id(slots.target));
    // Its move would take 12 s.
    let large = "x".repeat(12_000_000);
    let set = || source.ask(&["SET", "{t}large", &large]).text();
    eventually(LIMIT, || "it is written".to_owned(), || set() == "OK");
    let (first, last) = block_of(&slots.key_slot);
    let words = ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", &first, &last, "NODE", &target_id];
    for cancel in [&["CANCELSLOTMIGRATIONS"][..], &["MIGRATION", "CANCEL", "ALL"]] {
        assert_eq!(source.ask(&words).text(), "OK");
        let job = wait_last(source, &["GETSLOTMIGRATIONS"], "migrating");
        assert_eq!(field(&job, "message"), "0 of 1 blocks have moved");
        assert_eq!(slots.keys(slots.source, &slots.key_slot), ("0".to_owned(), 0), "no tool is to migrate its keys");
        assert_eq!(source.ask(&words).text(), format!("ERR I am already migrating slot {first}."));
        let elsewhere = slots.set(slots.other, &slots.key_slot, "NODE", slots.other);
        assert!(elsewhere.contains("is on its way to group"), "{elsewhere}");
        let told = source.ask(&[&["CLUSTER"], cancel].concat()).text();
        assert!(["OK", "1"].contains(&told.as_str()), "{told}");
        wait_last(source, &["GETSLOTMIGRATIONS"], "cancelled");
    }
    assert_eq!(source.ask(&["CLUSTER", "CANCELSLOTMIGRATIONS"]).text(), "ERR No migrations ongoing.");
    assert_eq!(source.ask(&["STRLEN", "{t}large"]).text(), large.len().to_string());
    assert_eq!(slots.keys(slots.source, &slots.key_slot), ((KEYS + 1).to_string(), 10));
}

#[test]
fn migrations_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(3, &AT_EASE);
    let slots = Slots::new(&cluster, 3);
    let source = slots.node(slots.source);
    let [own, target, other] = [slots.source, slots.target, slots.other].map(|index| slots.id(index));
    let nobody = "f".repeat(40);
    let of = |node: usize, key: &str| (slots.cluster.leader_of(key) == node).then(|| key.to_owned());
    let foreign = (0..100).find_map(|number| of(slots.target, &format!("k{number}"))).expect("it leads some");
    let foreign = source.ask(&["CLUSTER", "KEYSLOT", &foreign]).text();
    let (slot, sibling) = (slots.key_slot.as_str(), slots.sibling.as_str());
    let (first, last) = block_of(slot);
    let cases: &[(&[&str], &str)] = &[
        (&["a", "0"], "ERR No slot ranges specified"),
        (&["0", "a"], "ERR Invalid or out of range slot"),
        (&["0", "16384"], "ERR Invalid or out of range slot"),
        (&["1", "0"], "ERR Start slot number 1 is greater than end slot number 0"),
        (&["0", "5", "3", "6"], "ERR Slot range 3-6 overlaps with previous range 0-5"),
        (&["3", "6", "0", "5"], "ERR Slot range 0-5 overlaps with previous range 3-6"),
        (&["0", "0"], "ERR syntax error"),
        (&["0", "0", "NODE"], "ERR syntax error"),
        (&["0", "0", "NODE", "x"], "ERR Invalid node name: x"),
        (&["0", "0", "NODE", &nobody], &format!("ERR Unknown node name: {nobody}")),
        (&[slot, slot, "NODE", &own], "ERR Target node can not be this node"),
        (&[&foreign, &foreign, "NODE", &other], "ERR Slots are not served by this node."),
        (&[slot, slot, "NODE", &target, "x"], "ERR syntax error"),
        (
            &[slot, slot, "NODE", &target, "SLOTSRANGE", sibling, sibling, "NODE", &other],
            &format!("ERR Slot ranges in migrations overlap: slots {first}-{last} move together"),
        ),
    ];
    for (words, expected) in cases {
        let answer = source.ask(&[&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"], *words].concat()).text();
        assert_eq!(answer, *expected, "{words:?}");
    }
    let arity = "ERR wrong number of arguments for 'cluster|migration' command";
    let cases: &[(&[&str], &str)] = &[
        (&["IMPORT", "5"], arity),
        (&["IMPORT", "5", "3"], "ERR start slot number 5 is greater than end slot number 3"),
        (&["IMPORT", "0", "16383"], "ERR slots belong to different source nodes"),
        (&["STATUS", "x"], "ERR unknown argument"),
        (&["CANCEL", "ID"], "ERR unknown argument"),
        (&["x", "ALL"], "ERR unknown argument"),
    ];
    for (words, expected) in cases {
        assert_eq!(source.ask(&[&["CLUSTER", "MIGRATION"], *words].concat()).text(), *expected, "{words:?}");
    }
    assert!(jobs(source, &["GETSLOTMIGRATIONS"]).is_empty());
}
