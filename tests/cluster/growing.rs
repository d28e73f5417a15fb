//! Clusters that grow, shrink and have nodes replaced while clients write: no error, nothing lost, and no command but the one that says so.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::failures::{Written, check_nothing_lost, write_at_ease};
use super::harness::{Cluster, Node, eventually};

/// Steps that no machine is too slow for.
const LIMIT: Duration = Duration::from_secs(240);
/// Elections for want of processor time, where many nodes share two cores, are not what these tests are about.
const AT_EASE: [&str; 6] =
    ["--heartbeat-ms", "200", "--election-timeout-min-ms", "1000", "--election-timeout-max-ms", "2000"];

fn address(node: &Node) -> String {
    format!("127.0.0.1:{}", node.port)
}

/// `kvorum cluster` with these words, asked of `member`: its output, or its error.
fn operate(member: &Node, words: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kvorum"))
        .arg("cluster")
        .args(words)
        .args(["--node", &address(member)])
        .output()
        .expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Data replicas on each of the nodes, by the topology that `member` knows; none while a replica is still to go.
fn replicas(member: &Node, nodes: &[&Node]) -> Option<Vec<usize>> {
    let text = member.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    let ids: Option<Vec<String>> = nodes
        .iter()
        .map(|node| {
            let known = status["nodes"].as_array()?.iter().find(|known| known["address"] == address(node).as_str())?;
            (known["state"] == "up").then(|| known["id"].as_str().map(str::to_owned))?
        })
        .collect();
    let groups = status["groups"].as_array()?;
    let all: Vec<_> = groups
        .iter()
        .filter(|group| group["id"] != 0)
        .flat_map(|group| group["replicas"].as_array())
        .flatten()
        .collect();
    let settled = all.iter().all(|replica| replica["voter"] == true && replica["leaving"] == false);
    settled.then(|| {
        ids.map(|ids| {
            ids.iter().map(|id| all.iter().filter(|replica| replica["node"] == id.as_str()).count()).collect()
        })
    })?
}

fn wait_spread(member: &Node, nodes: &[&Node], expected: &[usize]) {
    let found = || {
        let mut counts = replicas(member, nodes)?;
        counts.sort_unstable();
        Some(counts)
    };
    eventually(
        LIMIT,
        || {
            let logs: Vec<String> = nodes.iter().map(|node| node.log()).collect();
            format!("replicas are {:?}, wanted {expected:?}\n{}", found(), logs.join("\n----\n"))
        },
        || found().as_deref() == Some(expected),
    );
}

/// Each of as many groups as there are nodes has its share of the slots, within a tenth, and none is on its way.
fn wait_even(member: &Node, groups: usize) {
    let status = || member.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    let is_even = || {
        let status: serde_json::Value = serde_json::from_str(&status()).ok()?;
        let counts = status["groups"].as_array()?.iter().filter(|group| group["id"] != 0);
        let counts: Vec<u64> = counts.filter_map(|group| group["slot_count"].as_u64()).collect();
        let share = 1024 / groups as u64;
        let even = counts.iter().all(|count| (share * 9 / 10..=share * 11 / 10 + 1).contains(count));
        Some(counts.len() == groups && even && status["moves"].as_array()?.is_empty())
    };
    eventually(LIMIT, || format!("{groups} groups share the slots: {}", status()), || is_even() == Some(true));
}

fn finish(cluster: &Cluster, stop: &AtomicBool, clients: Vec<std::thread::JoinHandle<Written>>) {
    stop.store(true, Ordering::Relaxed);
    let written: Vec<Written> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    check_nothing_lost(cluster, &written);
    let errors: Vec<&String> = written.iter().flat_map(|written| &written.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(
        written.iter().map(|written| written.unknown).sum::<usize>(),
        0,
        "no connection ended with a request on it"
    );
    let gap = written.iter().map(|written| written.longest_gap).max().expect("clients");
    println!("longest gap: {gap:?}");
}

#[test]
fn three_nodes_grow_to_five_shrink_to_three_and_one_is_replaced_under_load() {
    let mut cluster = Cluster::start(3, &AT_EASE);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = write_at_ease(&stop, &cluster.ports(), Duration::from_millis(2));
    let join = format!("127.0.0.1:1,{}", address(&cluster.nodes[1]));
    for _ in 0..2 {
        let index = cluster.add(&[&["--join", &join], &AT_EASE[..]].concat());
        cluster.nodes[index].start();
    }
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    wait_spread(all[0], &all, &[3; 5]);
    wait_even(all[0], 5);

    // Whoever it is: the last one added, then a founding node.
    for index in [4, 0] {
        let leaving = address(&cluster.nodes[index]);
        let told = operate(&cluster.nodes[1], &["remove-node", &leaving]).unwrap_or_else(|error| panic!("{error}"));
        assert!(told.contains("has left the cluster"), "{told}");
        assert_eq!(cluster.nodes[index].wait(LIMIT), Some(0), "{}", cluster.nodes[index].log());
        let log = cluster.nodes[index].log();
        assert!(log.contains("this node was removed from its cluster and stops"), "{log}");
    }
    let left = [&cluster.nodes[1], &cluster.nodes[2], &cluster.nodes[3]];
    wait_spread(left[0], &left, &[3, 3, 3]);
    wait_even(left[0], 3);
    let refusal = operate(left[0], &["remove-node", &address(left[2])]).unwrap_err();
    assert!(refusal.contains("2 node(s) that are up would be left for 3 replicas"), "{refusal}");

    let index = cluster.add(&[&["--join", &join], &AT_EASE[..]].concat());
    cluster.nodes[index].start();
    let (old, new) = (address(&cluster.nodes[2]), address(&cluster.nodes[index]));
    let joins = [&cluster.nodes[index]];
    eventually(LIMIT, || "it joins".to_owned(), || replicas(&cluster.nodes[1], &joins).is_some());
    operate(&cluster.nodes[1], &["replace-node", &old, &new]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(cluster.nodes[2].wait(LIMIT), Some(0));
    let left = [&cluster.nodes[1], &cluster.nodes[3], &cluster.nodes[index]];
    wait_spread(left[0], &left, &[3, 3, 3]);
    wait_even(left[0], 3);
    let story = operate(left[0], &["events"]).expect("answers");
    for part in [
        "the cluster was founded",
        &format!("{new} joined, node 4 of the cluster"),
        &format!("{old} is to be replaced by {new}, because an operator asked for it"),
        &format!("{old} left the cluster"),
    ] {
        assert!(story.contains(part), "{part} is missing in\n{story}");
    }
    // Clients that were given only nodes that have left since find the others by those that they know.
    let survivors = [1, 3, index];
    cluster.nodes =
        cluster.nodes.into_iter().enumerate().filter(|(at, _)| survivors.contains(at)).map(|(_, node)| node).collect();
    finish(&cluster, &stop, clients);
}

#[test]
fn a_node_that_stays_away_is_rebuilt_elsewhere_and_is_brought_up_to_date_when_it_is_back() {
    let flags = [&["--node-down-after", "3"], &AT_EASE[..]].concat();
    let mut cluster = Cluster::start(4, &flags);
    let mut client = cluster.client();
    let keys: Vec<String> = (0..100).map(|index| format!("k{index}")).collect();
    for key in &keys {
        let mut set = || client.call(&["SET", key, "v"]).is_ok_and(|reply| reply.text() == "OK");
        eventually(LIMIT, || format!("{key} is written"), &mut set);
    }
    cluster.nodes[3].kill();
    let rest: Vec<&Node> = cluster.nodes[..3].iter().collect();
    wait_spread(rest[0], &rest, &[4, 4, 4]);
    let story = operate(rest[0], &["events"]).expect("answers");
    assert!(story.contains(" s: its replicas are rebuilt elsewhere"), "{story}");
    assert!(operate(rest[0], &["status"]).expect("answers").contains("LOST"));
    let nodes = rest[0].ask(&["CLUSTER", "NODES"]).text();
    assert!(nodes.lines().any(|line| line.contains("master,fail")), "{nodes}");
    cluster.nodes[3].start();
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    wait_spread(all[0], &all, &[3, 3, 3, 3]);
    assert!(operate(all[0], &["events"]).expect("answers").contains(&format!("{} is back", address(all[3]))));
    let mut client = cluster.client();
    keys.iter().for_each(|key| assert_eq!(client.call(&["GET", key]).expect("answers").text(), "v", "{key}"));
}

#[test]
fn a_dead_node_is_removed_by_force_and_told_so_when_it_is_back() {
    let mut cluster = Cluster::start(4, &AT_EASE);
    cluster.nodes[2].kill();
    let dead = address(&cluster.nodes[2]);
    let refusal = |cluster: &Cluster| operate(&cluster.nodes[0], &["remove-node", &dead]).unwrap_err();
    eventually(
        LIMIT,
        || "it is missed".to_owned(),
        || refusal(&cluster).contains("use --force if it will not come back"),
    );
    let refusal = operate(&cluster.nodes[0], &["remove-node", &address(&cluster.nodes[1])]).unwrap_err();
    let expected = format!("{dead} is not connected; 2 node(s) that are up would be left for 3 replicas");
    assert!(refusal.contains(&expected), "{refusal}");
    let told = operate(&cluster.nodes[0], &["remove-node", &dead, "--force"]).unwrap_or_else(|error| panic!("{error}"));
    assert!(told.contains("has left the cluster"), "{told}");
    cluster.nodes[2].start();
    assert_eq!(cluster.nodes[2].wait(LIMIT), Some(0), "{}", cluster.nodes[2].log());
    assert!(cluster.nodes[2].log().contains("this node was removed from its cluster and stops"));
    // Its place is free again once its directory is.
    cluster.nodes[2].wipe();
    cluster.nodes[2].start();
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    wait_spread(all[0], &all, &[3, 3, 3, 3]);
}

#[test]
fn a_removal_that_is_taken_back_leaves_the_cluster_as_it_was() {
    let cluster = Cluster::start(4, &AT_EASE);
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    wait_spread(all[0], &all, &[3, 3, 3, 3]);
    let leaving = address(all[3]);
    for words in [&["REMOVE", &leaving][..], &["PAUSE"]] {
        let reply = all[0].ask(&[&["CLUSTER", "KVORUM"], words].concat());
        assert_eq!(reply.text(), "OK", "{words:?}");
    }
    assert!(operate(all[1], &["status"]).expect("answers").contains("leaving"));
    let refusal = all[0].ask(&["CLUSTER", "KVORUM", "MOVE", "0", "4"]).text();
    assert!(refusal.contains("group 4 is to be dissolved, as there are more groups than nodes"), "{refusal}");
    let cancel = || operate(all[0], &["remove-node", &leaving, "--cancel"]);
    let told = cancel().unwrap_or_else(|error| panic!("{error}"));
    assert!(told.contains(&format!("{leaving} stays")), "{told}");
    let refusal = cancel().unwrap_err();
    assert!(refusal.contains(&format!("{leaving} is not to leave")), "{refusal}");
    operate(all[0], &["resume-rebalance"]).unwrap_or_else(|error| panic!("{error}"));
    wait_spread(all[0], &all, &[3, 3, 3, 3]);
    wait_even(all[0], 4);
    let story = operate(all[0], &["events"]).expect("answers");
    assert!(story.contains(&format!("{leaving} is to stay after all, because an operator asked for it")), "{story}");

    let told = operate(all[0], &["add-node", &leaving]).unwrap_or_else(|error| panic!("{error}"));
    assert!(told.contains(&format!("{leaving} is a member already")), "{told}");
    let refusal = operate(all[0], &["replace-node", &leaving, &leaving]).unwrap_err();
    assert!(refusal.contains("cannot take its own place"), "{refusal}");
}

#[test]
fn a_node_that_is_alone_and_empty_is_taken_in_and_one_that_holds_a_key_is_not() {
    let mut cluster = Cluster::start(1, &AT_EASE);
    let index = cluster.add(&AT_EASE);
    cluster.nodes[index].start();
    cluster.wait_ready();
    let [member, fresh] = &cluster.nodes[..] else { unreachable!("two nodes") };
    // On a machine with much else to do a first write may have no known outcome.
    for (node, key) in [(member, "kept"), (fresh, "k")] {
        eventually(LIMIT, || format!("{key} is written"), || node.ask(&["SET", key, "v"]).text() == "OK");
    }
    let refusal = operate(member, &["add-node", &address(fresh)]).unwrap_err();
    assert!(refusal.contains("holds 1 keys: it joins no other cluster until it is empty"), "{refusal}");
    assert_eq!(
        fresh.ask(&["CLUSTER", "RESET"]).text(),
        "ERR CLUSTER RESET can't be called with master nodes containing keys"
    );
    let is_gone = || fresh.ask(&["DEL", "k"]).text() == "0";
    eventually(LIMIT, || "the key is deleted".to_owned(), is_gone);
    let told =
        operate(member, &["add-node", &address(fresh)]).unwrap_or_else(|error| panic!("{error}\n{}", fresh.log()));
    assert!(told.contains("is a member"), "{told}");
    wait_spread(member, &[member, fresh], &[2, 2]);
    wait_even(member, 2);
    assert!(fresh.directory.join("set-aside").is_dir());
    assert_eq!(cluster.client().call(&["GET", "kept"]).expect("answers").text(), "v");
    // Once more is no error; a node that has others is no node to be taken in.
    assert_eq!(member.ask(&["CLUSTER", "MEET", "127.0.0.1", &fresh.port.to_string()]).text(), "OK");
    for (words, refusal) in
        [(&["x"][..], "ERR Invalid TCP base port specified: x"), (&["1", "y"], "ERR Invalid TCP bus port specified: y")]
    {
        assert_eq!(member.ask(&[&["CLUSTER", "MEET", "127.0.0.1"], words].concat()).text(), refusal);
    }
    assert_eq!(
        fresh.ask(&["CLUSTER", "RESET"]).text().split(':').next(),
        Some("ERR CLUSTER RESET can't be called with members of a cluster")
    );
    assert_eq!(
        fresh.ask(&["CLUSTER", "FORGET", &fresh.ask(&["CLUSTER", "MYID"]).text()]).text(),
        "ERR I tried hard but I can't forget myself..."
    );
}

/// Whoever decides about members asks the leaders, which prove without a lease that they lead.
#[test]
fn without_leases_a_node_joins_gets_its_share_and_leaves_too() {
    let flags = [&["--read-mode", "read-index", "--replicas", "2"], &AT_EASE[..]].concat();
    let mut cluster = Cluster::start(2, &flags);
    let join = address(&cluster.nodes[1]);
    let index = cluster.add(&[&["--join", &join], &flags[..]].concat());
    cluster.nodes[index].start();
    let all: Vec<&Node> = cluster.nodes.iter().collect();
    wait_spread(all[0], &all, &[2, 2, 2]);
    wait_even(all[0], 3);
    let status = operate(all[0], &["status"]).expect("answers");
    assert!(!status.contains('?'), "a leader is not heard: {status}");
    let leaving = address(all[index]);
    assert_eq!(all[0].ask(&["CLUSTER", "KVORUM", "REMOVE", &leaving]).text(), "OK");
    assert_eq!(cluster.nodes[index].wait(LIMIT), Some(0));
}

/// Addresses of the nodes with a replica of the first group, voters or not as asked.
fn homes(member: &Node, voters: bool) -> Vec<String> {
    let text = member.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let address = |id: &serde_json::Value| {
        let nodes = status["nodes"].as_array().expect("nodes");
        nodes.iter().find(|node| node["id"] == *id).expect("a member")["address"].as_str().expect("text").to_owned()
    };
    let group =
        status["groups"].as_array().expect("groups").iter().find(|group| group["id"] == 1).expect("it is there");
    let replicas = group["replicas"].as_array().expect("replicas").iter();
    replicas.filter(|replica| replica["voter"] == voters).map(|replica| address(&replica["node"])).collect()
}

#[test]
fn a_node_is_drained_also_when_the_one_that_was_to_take_its_place_dies() {
    let flags = [&["--groups", "1", "--replicas", "3", "--node-down-after", "2"], &AT_EASE[..]].concat();
    let mut cluster = Cluster::start(5, &flags);
    let set = || cluster.client().call(&["SET", "k", "v"]).is_ok_and(|reply| reply.text() == "OK");
    eventually(LIMIT, || "k is written".to_owned(), set);
    let (leader, voters) = (cluster.leader_of("k"), homes(&cluster.nodes[0], true));
    let is_home = |index: &usize| voters.contains(&address(&cluster.nodes[*index]));
    let (with, free): (Vec<usize>, Vec<usize>) = (0..5).partition(is_home);
    let [one, other] = free[..] else { panic!("three of five have it: {voters:?}") };
    let drained = *with.iter().find(|index| **index != leader).expect("two follow");
    // Both nodes without a replica are silent, but not yet missed, when one of them is chosen.
    for index in [one, other] {
        cluster.nodes[index].signal("STOP");
        cluster.nodes[index].wait_stopped();
    }
    let id = cluster.nodes[drained].ask(&["CLUSTER", "MYID"]).text();
    let asked = || cluster.nodes[leader].ask(&["CLUSTER", "FORGET", &id]).text();
    eventually(LIMIT, || format!("it is to leave: {}", asked()), || asked() == "OK");
    let chosen = || homes(&cluster.nodes[leader], false);
    eventually(LIMIT, || format!("a successor is chosen: {:?}", chosen()), || !chosen().is_empty());
    let (dead, left) = if chosen()[0] == address(&cluster.nodes[one]) { (one, other) } else { (other, one) };
    cluster.nodes[dead].kill();
    cluster.nodes[left].signal("CONT");
    assert_eq!(cluster.nodes[drained].wait(LIMIT), Some(0), "{}", cluster.nodes[leader].log());
    assert_eq!(cluster.client().call(&["GET", "k"]).expect("answers").text(), "v");
}

#[test]
fn a_node_that_dies_as_it_gets_its_first_replica_holds_nobody_up_and_can_be_removed() {
    let flags = [&["--node-down-after", "2"], &AT_EASE[..]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let order = |cluster: &Cluster, words: &[&str]| {
        eventually(LIMIT, || format!("{words:?} is taken"), || operate(&cluster.nodes[0], words).is_ok());
    };
    order(&cluster, &["pause-rebalance"]);
    let join = address(&cluster.nodes[1]);
    let index = cluster.add(&[&["--join", &join], &flags[..]].concat());
    cluster.nodes[index].start();
    cluster.wait_ready();
    // Silent, but not yet missed, when it is chosen.
    cluster.nodes[index].signal("STOP");
    cluster.nodes[index].wait_stopped();
    order(&cluster, &["resume-rebalance"]);
    let fourth = address(&cluster.nodes[index]);
    let on_its_way = || operate(&cluster.nodes[0], &["status"]).is_ok_and(|status| status.contains(" leaving ("));
    eventually(LIMIT, || "a replica is to move".to_owned(), on_its_way);
    cluster.nodes[index].kill();
    let told =
        operate(&cluster.nodes[0], &["remove-node", &fourth, "--force"]).unwrap_or_else(|error| panic!("{error}"));
    assert!(told.contains("has left the cluster"), "{told}");
    let events = operate(&cluster.nodes[0], &["events"]).expect("answers");
    assert!(events.contains("a replica of group ") && events.contains(&format!("none comes to {fourth}")), "{events}");
    let rest: Vec<&Node> = cluster.nodes[..index].iter().collect();
    wait_spread(rest[0], &rest, &[3; 3]);
}

/// Slots of each data group, by the topology that `member` knows, once no slot is on its way.
fn slot_counts(member: &Node) -> Option<Vec<u64>> {
    let text = member.ask(&["CLUSTER", "KVORUM", "STATUS"]).text();
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    let groups = status["groups"].as_array()?.iter().filter(|group| group["id"] != 0);
    status["moves"].as_array()?.is_empty().then(|| groups.map(|group| group["slot_count"].as_u64()).collect())?
}

#[test]
fn rebalance_shows_what_it_would_do_and_why_and_then_does_it() {
    let cluster = Cluster::start(3, &AT_EASE);
    cluster.wait_ready();
    let member = &cluster.nodes[0];
    let told = |words: &[&str]| operate(member, words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let groups = slot_counts(member).expect("nothing moves").len();
    // Half of the first group's slots go to the last group by hand, so they stay there.
    let status: serde_json::Value = serde_json::from_str(&told(&["status", "--json"])).expect("it is JSON");
    let (first, last) = (&status["groups"][1]["slot_ranges"][0], &status["groups"][groups]["id"]);
    let (from, to) = (first[0].as_u64().expect("a slot"), first[1].as_u64().expect("a slot"));
    let half = format!("{from}-{}", from.midpoint(to));
    told(&["move-slots", "--slots", &half, "--to", &last.to_string()]);
    let uneven = slot_counts(member).expect("the command waits until all have moved");
    assert!(uneven.iter().max() > uneven.iter().min().map(|count| 2 * count).as_ref(), "{uneven:?}");
    let held = told(&["status"]);
    assert!(held.contains("stay where an operator has moved them, until `kvorum cluster rebalance` is run"), "{held}");

    let plan = told(&["rebalance", "--dry-run"]);
    assert!(plan.contains("   1. ") && plan.contains(" slot(s) ") && plan.contains(", because "), "{plan}");
    assert!(plan.contains("this plan is what that does"), "{plan}");
    assert_eq!(slot_counts(member), Some(uneven), "it was shown only");
    told(&["pause-rebalance"]);
    let refused = operate(member, &["rebalance"]).expect_err("it would wait for ever");
    assert!(refused.contains("REBALANCING IS PAUSED"), "{refused}");
    told(&["resume-rebalance"]);
    let done = told(&["rebalance"]);
    assert!(done.ends_with("Done.\n"), "{done}");
    let even = slot_counts(member).expect("the command waits until all have moved");
    let share = even.iter().sum::<u64>() as f64 / groups as f64;
    assert!(even.iter().all(|count| (0.9..=1.1).contains(&(*count as f64 / share))), "{even:?}");
    assert!(told(&["rebalance", "--dry-run"]).contains("Nothing is to be moved"));
    let events = told(&["events"]);
    assert!(events.contains("slots are to be evened out, because an operator asked for it"), "{events}");
}

#[test]
fn nobody_takes_the_place_of_a_lost_node_that_has_what_no_other_has() {
    let flags = [&["--replicas", "1", "--node-down-after", "2"], &AT_EASE[..]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let keys: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    let mut client = cluster.client();
    keys.iter().for_each(|key| assert_eq!(client.call(&["SET", key, key]).expect("answers").text(), "OK"));
    cluster.nodes[2].kill();
    let lost = address(&cluster.nodes[2]);
    let status = || operate(&cluster.nodes[0], &["status"]).unwrap_or_default();
    let is_lost = || status().lines().any(|line| line.starts_with(&lost) && line.contains(" LOST "));
    eventually(LIMIT, status, is_lost);
    let (port, directory) = (cluster.nodes[2].port, cluster.directory().join("another"));
    let member = address(&cluster.nodes[0]);
    let words = ["--port", &port.to_string(), "--data-dir", &directory.display().to_string(), "--join", &member];
    let mut stranger =
        Node::new(port, directory, [&words[..], &flags].concat().iter().map(|word| (*word).to_owned()).collect());
    stranger.start();
    let waits = || stranger.log().contains("whose address this is, no quorum goes on in group");
    eventually(LIMIT, || stranger.log(), waits);
    stranger.kill();
    cluster.nodes[2].start();
    cluster.wait_ready();
    let mut client = cluster.client();
    keys.iter().for_each(|key| assert_eq!(client.call(&["GET", key]).expect("answers").text(), **key));
}
