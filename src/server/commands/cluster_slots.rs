//! The commands by which Redis's tools give slots to nodes: CLUSTER SETSLOT moves one, with all its keys, at one instant.
//!
//! `redis-cli --cluster reshard` moves key slot by key slot: IMPORTING on the new node, MIGRATING on the old one, then it asks the old one for the slot's keys and
//! migrates them until there are none, then NODE on all nodes, the new one first. Here the first two are taken as an intent, of which nothing is
//! shown; of an announced slot the tool is told that it has no keys; and the first NODE moves the slot and returns when it has moved.
//!
//! A slot is a block of 16 key slots: the fifteen others come along, and what a tool then says about them finds them there. A tool that has planned
//! with the block's old place goes on as well: see `check_source`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{GroupId, Move, MoveId, NodeId, Topology};
use crate::command::{ClusterSlots, WireError, integer_argument};
use crate::protocol::Args;
use crate::raft::{Group, Held, Replication};
use crate::server::commands::CommandContext;
use crate::server::migrations::KeySlotRange;
use crate::server::slot_intents::Stay;
use crate::slot::{KeySlot, Slot};

/// How moves are told of that a command of an operator started.
pub const BY_OPERATOR: &str = "an operator asked for it";
/// How long a node that is to lead a group is waited for, and how often it is looked for.
const RECEIVER_WAIT_MAX: Duration = Duration::from_secs(60);
const RECEIVER_POLL: Duration = Duration::from_millis(100);
/// A slot of many gigabytes at a low `--move-rate-max` takes minutes, and redis-cli waits for as long as it takes.
const MOVE_WAIT_MAX: Duration = Duration::from_secs(3600);

pub async fn run(command: ClusterSlots, args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    match command {
        ClusterSlots::Setslot => set_slot(args, context).await,
        ClusterSlots::Addslots => Err(WireError::SlotBusy(key_slot(&args[2])?)),
        ClusterSlots::Addslotsrange => Err(WireError::SlotBusy(ranges(args, 2, "cluster|addslotsrange")?[0].0)),
        ClusterSlots::Delslots => key_slot(&args[2]).and(Err(WireError::SlotsStayOwned)),
        ClusterSlots::Delslotsrange => ranges(args, 2, "cluster|delslotsrange").and(Err(WireError::SlotsStayOwned)),
        ClusterSlots::Flushslots => {
            let led = context.shared.replication.led_groups();
            let keys: u64 = led.iter().map(|group| group.keyspace().counters().keys).sum();
            Err(if keys > 0 { WireError::FlushslotsWithKeys } else { WireError::SlotsStayOwned })
        }
    }
}

/// Not a number is answered like a number that is none of a key slot.
pub fn key_slot(text: &[u8]) -> Result<KeySlot, WireError> {
    let index = integer_argument(text).ok().and_then(|index| u16::try_from(index).ok());
    index.and_then(KeySlot::new).ok_or(WireError::SlotOutOfRange)
}

/// `start end [start end ...]` from this word on; at least one.
pub fn ranges(args: &Args<'_>, from: usize, name: &'static str) -> Result<Vec<KeySlotRange>, WireError> {
    if args.len() < from + 2 || !(args.len() - from).is_multiple_of(2) {
        return Err(WireError::WrongArity(name));
    }
    let range = |at: usize| {
        let (start, end) = (key_slot(&args[at])?, key_slot(&args[at + 1])?);
        if start <= end { Ok((start, end)) } else { Err(WireError::RangeReversed(start, end)) }
    };
    (from..args.len()).step_by(2).map(range).collect()
}

async fn set_slot(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let key_slot = key_slot(&args[2])?;
    let shared = context.shared;
    let topology = shared.replication.newest_topology();
    let node = |error: fn(String) -> WireError| {
        let named = NodeId::parse(&args[4]).filter(|node| topology.node(*node).is_some());
        named.ok_or_else(|| error(WireError::echo(&args[4])))
    };
    match (args[3].to_ascii_lowercase().as_slice(), args.len()) {
        (b"importing", 5) => {
            node(WireError::NodeNotKnown)?;
            receiver(key_slot.slot(), shared.replication.node(), &shared.replication).await?;
        }
        (b"migrating", 5) => {
            let target = node(WireError::NodeNotKnown)?;
            receiver(key_slot.slot(), target, &shared.replication).await?;
            let topology = shared.replication.newest_topology();
            match check_source(key_slot, target, &topology, &shared.replication)? {
                Some(group) => shared.slot_intents.note(key_slot, stay(&group, key_slot.slot()), Instant::now()),
                None => shared.slot_intents.forget(key_slot),
            }
        }
        (b"stable", 4) => shared.slot_intents.forget(key_slot),
        (b"node", 5) => {
            let target = node(WireError::UnknownNode)?;
            let given = give(key_slot.slot(), target, &shared.replication).await;
            shared.slot_intents.forget(key_slot);
            if let Err(reason) = given? {
                context.reply.error(&format!("ERR {}", reason.replace(['\r', '\n'], " ")));
                return Ok(());
            }
        }
        _ => return Err(WireError::SetslotAction),
    }
    context.reply.ok();
    Ok(())
}

/// The group that the node leads and that gets the slot. A tool is told before it begins that there is none; for a node that has only just joined one is on
/// its way, since a tool that adds a node may give it slots at once.
async fn receiver(slot: Slot, node: NodeId, replication: &Replication) -> Result<GroupId, WireError> {
    let give_up = Instant::now() + RECEIVER_WAIT_MAX;
    loop {
        let topology = replication.newest_topology();
        if let Some(receivers) = topology.receivers([slot], node, &replication.hints()) {
            return Ok(*receivers.keys().next().expect("one slot has one receiver"));
        }
        let is_to_lead = topology.missing_groups() > 0
            || topology.groups().keys().any(|group| topology.preferred_node(*group) == Some(node));
        let stays = topology.staying().any(|staying| staying == node) && !topology.is_given_up(node);
        if !(is_to_lead && stays) || topology.is_paused() || Instant::now() > give_up {
            return Err(WireError::LeadsNothing(node));
        }
        tokio::time::sleep(RECEIVER_POLL).await;
    }
}

/// The group here that has the slot. `None`: it has left this node already, when others of its block were moved. They may have gone to another node than
/// the one that is named: a tool that takes slots from one node for two others knows of no blocks, and goes on with what it had planned.
fn check_source(
    key_slot: KeySlot,
    target: NodeId,
    topology: &Topology,
    replication: &Replication,
) -> Result<Option<Arc<Group>>, WireError> {
    let (slot, led) = (key_slot.slot(), replication.led_groups());
    if let Some(group) = holder(&led, slot) {
        return Ok(Some(group.clone()));
    }
    let is_there = topology.groups_led_by(target, &replication.hints()).any(|group| group == topology.group_of(slot));
    let has_left = led.iter().any(|group| group.ended(slot) > MoveId::default());
    if is_there || has_left { Ok(None) } else { Err(WireError::NotTheOwner(key_slot)) }
}

fn holder(led: &[Arc<Group>], slot: Slot) -> Option<&Arc<Group>> {
    led.iter().find(|group| matches!(group.held(slot), Some(Held::Owned | Held::Frozen { .. })))
}

fn stay(group: &Group, slot: Slot) -> Stay {
    Stay { group: group.id(), since: group.ended(slot) }
}

/// Whether a tool that asks for the keys of a key slot is to be told that there are none.
pub fn is_announced(key_slot: KeySlot, context: &CommandContext<'_>) -> bool {
    let slot = key_slot.slot();
    // Whoever has started the move: what such a tool migrates by itself would be in two groups.
    let moves = |(_, moved): (MoveId, &Move)| moved.slot == slot && moved.is_open();
    if context.shared.replication.newest_topology().moves().any(moves) {
        return true;
    }
    let led = context.shared.replication.led_groups();
    holder(&led, slot)
        .is_some_and(|group| context.shared.slot_intents.is_open(key_slot, stay(group, slot), Instant::now()))
}

/// Moves the slot to a group that the node leads, unless it is there. Any node can be asked, and several can be at once.
async fn give(slot: Slot, node: NodeId, replication: &Replication) -> Result<Result<(), String>, WireError> {
    let to = receiver(slot, node, replication).await?;
    Ok(replication.move_slots(to, &[slot].into(), BY_OPERATOR, MOVE_WAIT_MAX).await)
}
