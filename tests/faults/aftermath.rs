//! What must hold when nothing is broken any more: every move is over, every slot has one owner, every key is there once, on all replicas alike.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::moves::status;
use super::nodes::{BULK_PREFIX, Nodes};
use crate::cluster::harness::{Node, Reply};
use crate::host::Stopwatch;

/// For moves to finish or to be undone, and for nodes to agree.
const WAIT: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const KEY_SLOTS: i64 = 16384;

/// The first thing that does not hold; `Ok` is what to say about the state that does.
type Check<'a> = &'a dyn Fn() -> Result<String, String>;

/// What does not come true in time.
pub fn troubles(nodes: &Nodes, keys: &BTreeSet<Arc<str>>) -> Vec<String> {
    let checks: [Check<'_>; 3] = [&|| one_owner(nodes), &|| each_key_once(nodes, keys), &|| same_everywhere(nodes)];
    checks.into_iter().filter_map(wait).collect()
}

/// A move that is neither finished nor undone in time.
pub fn unfinished_move(nodes: &Nodes) -> Option<String> {
    wait(&|| {
        for node in &nodes.nodes {
            let status = status(node.address()).ok_or_else(|| format!("{} tells no status", node.address()))?;
            if !status.moves.is_empty() {
                return Err(format!("moves are left under way: {:?}", status.moves));
            }
        }
        Ok("no move is left under way".to_owned())
    })
}

fn wait(check: Check<'_>) -> Option<String> {
    let waited = Stopwatch::start();
    loop {
        match check() {
            Ok(told) => {
                println!("{told}");
                return None;
            }
            Err(trouble) if waited.is_over(WAIT) => return Some(trouble),
            Err(_) => std::thread::sleep(LOOK_PAUSE),
        }
    }
}

/// First and last key slot of each run and the id of the node that answers for it.
fn owners(node: &Node) -> Result<Vec<(i64, i64, String)>, String> {
    let Reply::Array(runs) = node.ask(&["CLUSTER", "SLOTS"]) else {
        return Err(format!("{} does not tell who has which slot", node.address()));
    };
    let run = |run: &Reply| match run.items() {
        [Reply::Integer(first), Reply::Integer(last), owner, ..] => (*first, *last, owner.items()[2].text()),
        other => panic!("CLUSTER SLOTS: {other:?}"),
    };
    Ok(runs.iter().map(run).collect())
}

fn one_owner(nodes: &Nodes) -> Result<String, String> {
    let all = nodes.nodes.iter().map(owners).collect::<Result<Vec<_>, _>>()?;
    if all.iter().any(|owners| *owners != all[0]) {
        return Err(format!("nodes differ on who has which slot: {all:?}"));
    }
    check_runs(all[0].clone()).map(|()| "every key slot has one owner".to_owned())
}

fn check_runs(mut runs: Vec<(i64, i64, String)>) -> Result<(), String> {
    runs.sort();
    let mut next = 0;
    for (first, last, _) in &runs {
        if *first != next {
            return Err(format!("key slots from {} on have no owner or two: {runs:?}", next.min(*first)));
        }
        next = last + 1;
    }
    if next == KEY_SLOTS { Ok(()) } else { Err(format!("key slots from {next} on have no owner: {runs:?}")) }
}

/// Each node tells the keys of the groups that it leads. All of `keys` exist, and beside them what was written in bulk.
fn each_key_once(nodes: &Nodes, keys: &BTreeSet<Arc<str>>) -> Result<String, String> {
    let (mut listed, mut counted) = (Vec::new(), 0);
    for node in &nodes.nodes {
        let (Reply::Array(own), Reply::Integer(count)) = (node.ask(&["KEYS", "*"]), node.ask(&["DBSIZE"])) else {
            return Err(format!("{} does not tell its keys", node.address()));
        };
        listed.extend(own.iter().map(Reply::text));
        counted += count;
    }
    check_keys(&listed, counted, keys).map(|()| format!("{counted} keys, each once"))
}

fn check_keys(listed: &[String], counted: i64, keys: &BTreeSet<Arc<str>>) -> Result<(), String> {
    let mut found = BTreeSet::new();
    if let Some(key) = listed.iter().find(|key| !found.insert(key.as_str())) {
        return Err(format!("{key} is there twice"));
    }
    if counted != found.len() as i64 {
        return Err(format!("{counted} keys are counted, {} are there", found.len()));
    }
    let known: BTreeSet<&str> = keys.iter().map(|key| &**key).collect();
    let lost: Vec<_> = known.difference(&found).collect();
    let unknown: Vec<_> = found.difference(&known).filter(|key| !key.starts_with(BULK_PREFIX)).collect();
    if lost.is_empty() && unknown.is_empty() { Ok(()) } else { Err(format!("lost: {lost:?}, unknown: {unknown:?}")) }
}

/// Each node has a replica of every group: once nothing is written any more, and all of it applied, all say the same.
fn same_everywhere(nodes: &Nodes) -> Result<String, String> {
    let said: Vec<Reply> = nodes.nodes.iter().map(|node| node.ask(&["DEBUG", "DIGEST"])).collect();
    if said.iter().all(|reply| *reply == said[0] && matches!(reply, Reply::Simple(_))) {
        Ok(format!("every replica has the same data: {}", said[0].text()))
    } else {
        Err(format!("the replicas' data differ: {said:?}"))
    }
}

#[test]
fn a_slot_without_an_owner_or_with_two_is_noticed() {
    let run = |(first, last): (i64, i64)| (first, last, "node".to_owned());
    let check = |runs: &[(i64, i64)]| check_runs(runs.iter().copied().map(run).collect());
    assert_eq!(check(&[(8000, 16383), (0, 7999)]), Ok(()));
    for (runs, from) in
        [(&[][..], 0), (&[(0, 7999), (8001, 16383)], 8000), (&[(0, 8000), (8000, 16383)], 8000), (&[(0, 16367)], 16368)]
    {
        let told = check(runs).unwrap_err();
        assert!(told.starts_with(&format!("key slots from {from} on have no owner")), "{told}");
    }
}

#[test]
fn a_key_that_is_lost_or_twice_or_nobodys_is_noticed() {
    let keys = BTreeSet::from(["a".into(), "b".into()]);
    let check = |listed: &[&str], counted| {
        check_keys(&listed.iter().map(ToString::to_string).collect::<Vec<_>>(), counted, &keys)
    };
    assert_eq!(check(&["b", "bulk:1", "a"], 3), Ok(()));
    assert_eq!(check(&["b", "a", "b"], 3).unwrap_err(), "b is there twice");
    assert_eq!(check(&["b", "a"], 3).unwrap_err(), "3 keys are counted, 2 are there");
    assert_eq!(check(&["b", "c"], 2).unwrap_err(), r#"lost: ["a"], unknown: ["c"]"#);
}
