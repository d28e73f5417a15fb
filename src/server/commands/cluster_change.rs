//! CLUSTER's subcommands that change the cluster's nodes: Redis's own, where they mean something here, and what the `kvorum` program asks for.
//!
//! MEET takes a node in, FORGET has one leave after what it holds has moved to the others. Replicas, epochs and the configuration file
//! look after themselves here, so what Redis offers for them is answered as a Redis in the same state would.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Address, ClusterView, MetaOp, NodeId, Topology};
use crate::command::{ClusterChange, WireError, integer_argument};
use crate::protocol::Args;
use crate::raft::Replication;
use crate::rebalance;
use crate::server::Shared;
use crate::server::commands::CommandContext;
use crate::server::commands::cluster::registered;

const LEAVING_SEEN_WAIT: Duration = Duration::from_secs(1);

pub async fn run(change: ClusterChange, args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let replication = context.shared.replication.clone();
    match change {
        ClusterChange::Meet => return meet(args, context).await,
        ClusterChange::Forget => return forget(args, context).await,
        ClusterChange::Reset => check_reset(args, &replication).await?,
        ClusterChange::Replicate => check_replicate(&args[2], &replication)?,
        ClusterChange::SetConfigEpoch => check_config_epoch(args, &replication)?,
        // Epochs rise by themselves, and never to settle a dispute.
        ClusterChange::Bumpepoch => {
            let (topology, hints) = (replication.topology(), replication.hints());
            let absent = replication.absent();
            let epoch = ClusterView::new(&topology, &hints, &absent).my_epoch(replication.node());
            context.reply.simple(&format!("STILL {epoch}"));
            return Ok(());
        }
        // It is on disk before it is followed.
        ClusterChange::Saveconfig => (),
    }
    context.reply.ok();
    Ok(())
}

/// `CLUSTER MEET host port [bus port]`: the other joins this node's cluster; or, if this node is alone and empty, this one joins the other's.
async fn meet(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    if args.len() > 5 {
        return Err(WireError::subcommand_or_arity("CLUSTER", &args[1]));
    }
    let text = |index: usize| String::from_utf8_lossy(&args[index]).replace(['\r', '\n'], " ");
    if integer_argument(&args[3]).is_err() {
        return Err(WireError::InvalidBasePort(text(3)));
    }
    // A node says itself where its peers connect.
    if args.get(4).is_some_and(|port| integer_argument(port).is_err()) {
        return Err(WireError::InvalidBusPort(text(4)));
    }
    let address = format!("{}:{}", text(2), text(3));
    let Some(parsed) = Address::parse(&address) else {
        return Err(WireError::InvalidNodeAddress(address));
    };
    let replication = context.shared.replication.clone();
    let met = match replication.check_meeting(&parsed).await {
        Ok(()) => {
            begin_meeting(context.shared, &parsed);
            Ok(())
        }
        // This node stays what it is. The other may be the one that is alone and empty.
        Err(_) => replication.take_in(&parsed).await,
    };
    answer(met, context);
    Ok(())
}

fn begin_meeting(shared: &Shared, address: &Address) {
    shared.meeting.send_replace(Some(address.clone()));
}

fn answer(outcome: Result<(), String>, context: &mut CommandContext<'_>) {
    match outcome {
        Ok(()) => context.reply.ok(),
        Err(reason) => context.reply.error(&format!("ERR {}", reason.replace(['\r', '\n'], " "))),
    }
}

/// `CLUSTER FORGET id`: returns when it is decided; the node goes when it holds nothing any more.
async fn forget(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let replication = context.shared.replication.clone();
    let topology = replication.newest_topology();
    if NodeId::parse(&args[2]).is_some_and(|node| topology.was_forgotten(node)) {
        context.reply.ok();
        return Ok(());
    }
    let node = registered(&args[2], &topology)?;
    if node == replication.node() {
        return Err(WireError::ForgetMyself);
    }
    // Whoever forgets a node that is not there means that it will not be back.
    let gone = replication.absent().failed.contains(&node);
    answer(replication.drain(node, None, gone).await, context);
    Ok(())
}

/// A node that is to leave, or is alone and empty, has nothing to be reset. That it is to leave others may know a moment before it does: redis-cli sends
/// this right after they have answered CLUSTER FORGET.
async fn check_reset(args: &Args<'_>, replication: &Replication) -> Result<(), WireError> {
    check_reset_words(args)?;
    let node = replication.node();
    let leaves = |topology: &Topology| topology.draining(node).is_some() || topology.was_forgotten(node);
    let is_over = || replication.check_alone().is_ok() || replication.newest_topology().nodes().len() == 1;
    if !is_over() {
        let mut topologies = replication.newest_topologies();
        let told = topologies.wait_for(|now| now.as_ref().is_some_and(|now| leaves(now)));
        let _ = tokio::time::timeout(LEAVING_SEEN_WAIT, told).await;
    }
    let topology = replication.newest_topology();
    if leaves(&topology) || replication.check_alone().is_ok() {
        return Ok(());
    }
    Err(if topology.nodes().len() == 1 { WireError::ResetWithKeys } else { WireError::ResetMember })
}

/// Before anything is waited for.
fn check_reset_words(args: &Args<'_>) -> Result<(), WireError> {
    let known = |word: &[u8]| word.eq_ignore_ascii_case(b"hard") || word.eq_ignore_ascii_case(b"soft");
    match args.get(2) {
        Some(_) if args.len() > 3 => Err(WireError::subcommand_or_arity("CLUSTER", &args[1])),
        Some(word) if !known(word) => Err(WireError::Syntax),
        Some(_) | None => Ok(()),
    }
}

/// Which nodes hold copies is the cluster's own business.
fn check_replicate(id: &[u8], replication: &Replication) -> Result<(), WireError> {
    let node = registered(id, &replication.topology())?;
    Err(if node == replication.node() { WireError::ReplicateMyself } else { WireError::ReplicaOfOther })
}

/// Config epochs are Raft's terms, which nobody else may set.
fn check_config_epoch(args: &Args<'_>, replication: &Replication) -> Result<(), WireError> {
    let epoch = integer_argument(&args[2])?;
    Err(match replication.newest_topology().nodes().len() {
        _ if epoch < 0 => WireError::InvalidConfigEpoch(epoch),
        1 => WireError::ConfigEpochSet,
        _ => WireError::ConfigEpochWithOthers,
    })
}

/// What the `kvorum` program and other nodes ask for; see `admin/operate.rs`. Answers as JSON or OK. `None`: not a question of this file.
pub async fn operate(question: &[u8], words: &[&[u8]], context: &mut CommandContext<'_>) -> Option<()> {
    let replication = context.shared.replication.clone();
    let texts: Vec<&str> = words.iter().map(|word| std::str::from_utf8(word)).collect::<Result<_, _>>().ok()?;
    let outcome = match (question, texts.as_slice()) {
        (b"EVENTS", []) => {
            let events = serde_json::to_vec(&replication.events()).expect("events are plain values");
            context.reply.bulk(&events);
            return Some(());
        }
        (b"PLAN", []) => {
            match plan(&replication).await {
                Ok(plan) => context.reply.bulk(&plan),
                Err(error) => answer(Err(error), context),
            }
            return Some(());
        }
        (b"PAUSE", []) => replication.propose_anywhere(&MetaOp::PauseRebalance).await,
        (b"RESUME", []) => replication.propose_anywhere(&MetaOp::ResumeRebalance).await,
        (b"EVEN", []) => replication.propose_anywhere(&MetaOp::EvenSlots).await,
        (b"REMOVE", [node]) => remove(&replication, node, None, false).await,
        (b"REMOVE", [node, "force"]) => remove(&replication, node, None, true).await,
        (b"REMOVE", [node, "cancel"]) => match replication.member_named(node) {
            Ok(node) => replication.stay(node).await,
            Err(error) => Err(error),
        },
        (b"REPLACE", [old, new]) => remove(&replication, old, Some(new), true).await,
        (b"ADD", [address]) => match Address::parse(address) {
            Some(address) => replication.take_in(&address).await,
            None => Err(format!("'{address}' is not HOST:PORT")),
        },
        (b"MEET", [address]) => match Address::parse(address) {
            Some(address) => {
                let alone = replication.check_meeting(&address).await;
                alone.map(|()| begin_meeting(context.shared, &address))
            }
            None => Err(format!("'{address}' is not HOST:PORT")),
        },
        _ => return None,
    };
    answer(outcome, context);
    Some(())
}

async fn remove(replication: &Replication, node: &str, successor: Option<&str>, gone: bool) -> Result<(), String> {
    let node = replication.member_named(node)?;
    let successor = successor.map(|new| replication.member_named(new)).transpose()?;
    replication.drain(node, successor, gone).await
}

/// What `kvorum cluster rebalance` would do, as JSON: whether it is paused, and what each step does and why.
async fn plan(replication: &Arc<Replication>) -> Result<Vec<u8>, String> {
    let led = replication.led_everywhere().await;
    let weights = rebalance::slot_weights_now(replication).await;
    let (topology, replication) = (replication.newest_topology(), replication.clone());
    // A thousand steps of many groups take a while.
    let planned = tokio::task::spawn_blocking(move || {
        let situation = rebalance::situation(&replication, &topology, &led);
        rebalance::Plan {
            paused: topology.is_paused(),
            held_slots: topology.held_count(),
            held_empty: topology.groups_held_empty().map(|group| group.0).collect(),
            moving_slots: topology.moves().count(),
            moving_groups: situation.busy_groups(),
            steps: rebalance::whole_plan(&situation, &weights),
        }
    });
    let plan = planned.await.map_err(|error| error.to_string())?;
    Ok(serde_json::to_vec(&plan).expect("a plan is plain values"))
}
