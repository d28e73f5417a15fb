//! CLUSTER: the topology as clients and tools read it, and what nodes ask of each other.
//!
//! Everything but LINKS and the two commands about a key slot's keys is written from the topology, the leader hints and which
//! nodes have long been without a connection, so every node that sees the same answers the same, `myself` apart.

use crate::cluster::{ClusterView, GroupId, NodeId, NodeInfo, PeerTraffic, Topology};
use crate::command::{ClusterCommand, WireError, integer_argument};
use crate::keyspace::Keyspace;
use crate::protocol::{Args, Reply};
use crate::raft::{NoLeader, PeerState, Replication};
use crate::server::commands::led::{read_led, route_in_time};
use crate::server::commands::{CommandContext, cluster_change, cluster_migrations, cluster_slots};
use crate::server::node_questions::answer_node;
use crate::slot::{KeySlot, Slots};

/// Each of them waits for a leader.
const READ_TRIES_MAX: usize = 5;

pub async fn run(command: ClusterCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    let replication = context.shared.replication.clone();
    let (topology, hints) = (replication.topology(), replication.hints());
    let absent = replication.absent();
    let view = || ClusterView::new(&topology, &hints, &absent);
    let reply = &mut *context.reply;
    let outcome = match command {
        ClusterCommand::Info => {
            let text = view().info_text(replication.node(), traffic(&replication.peers()));
            // Clients wait while a cluster forms; afterwards it is never "fail", see `info_text`.
            let text = if replication.is_formed() { text } else { text.replacen("state:ok", "state:fail", 1) };
            reply.verbatim("txt", text.as_bytes());
            Ok(())
        }
        ClusterCommand::Nodes => {
            reply.verbatim("txt", view().nodes_text(replication.node()).as_bytes());
            Ok(())
        }
        ClusterCommand::Slots => {
            slots(&view(), reply);
            Ok(())
        }
        ClusterCommand::Shards => {
            shards(&view(), reply);
            Ok(())
        }
        // A node is alone in what clients call its shard, which carries its id.
        ClusterCommand::Myid | ClusterCommand::Myshardid => {
            reply.bulk(replication.node().to_string().as_bytes());
            Ok(())
        }
        ClusterCommand::Keyslot => {
            reply.integer(i64::from(KeySlot::of_key(&args[2]).get()));
            Ok(())
        }
        ClusterCommand::Hashslot => {
            hash_slot(&args[2], &view(), reply);
            Ok(())
        }
        ClusterCommand::Replicas => registered(&args[2], &topology).map(|_| reply.array(0)),
        // Nodes do not accuse each other: a silent leader is replaced by its own group's vote.
        ClusterCommand::CountFailureReports => registered(&args[2], &topology).map(|_| reply.integer(0)),
        ClusterCommand::Links => {
            links(&replication.peers(), reply);
            Ok(())
        }
        ClusterCommand::Countkeysinslot => count_keys(args, context).await,
        ClusterCommand::Getkeysinslot => list_keys(args, context).await,
        ClusterCommand::Failover => failover(args, &replication, reply).await,
        ClusterCommand::Change(change) => cluster_change::run(change, args, context).await,
        ClusterCommand::Assign(which) => cluster_slots::run(which, args, context).await,
        ClusterCommand::Migrate(which) => cluster_migrations::run(which, args, context).await,
        ClusterCommand::Kvorum => {
            kvorum(args, context).await;
            Ok(())
        }
    };
    if let Err(error) = outcome {
        error.reply(context.reply);
    }
}

/// Both words mean the same here: leadership never moves without a vote, whatever the client would rather force.
async fn failover(args: &Args<'_>, replication: &Replication, reply: &mut Reply) -> Result<(), WireError> {
    check_failover(args)?;
    match replication.take_leadership().await {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(&format!("ERR {error}")),
    }
    Ok(())
}

fn check_failover(args: &Args<'_>) -> Result<(), WireError> {
    let known = |word: &[u8]| word.eq_ignore_ascii_case(b"force") || word.eq_ignore_ascii_case(b"takeover");
    match args.get(2) {
        Some(_) if args.len() > 3 => Err(WireError::subcommand_or_arity("CLUSTER", &args[1])),
        Some(word) if !known(word) => Err(WireError::Syntax),
        Some(_) | None => Ok(()),
    }
}

async fn kvorum(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let replication = context.shared.replication.clone();
    if answer_node(args, &replication, context.reply).await {
        return;
    }
    match (args[2].to_ascii_uppercase().as_slice(), args.get(3)) {
        (b"MOVE", Some(slots)) => {
            let outcome = match (std::str::from_utf8(slots).ok().and_then(Slots::parse), args.get(4).map(parse_group)) {
                (Some(Slots(slots)), Some(Some(to))) => {
                    replication.start_moves(to, slots, cluster_slots::BY_OPERATOR).await.map(|_| ())
                }
                (Some(Slots(slots)), None) => replication.cancel_moves(|moved| slots.contains(&moved.slot)).await,
                _ => Err("slots are given as in 0-99,200, then the group's number".to_owned()),
            };
            match outcome {
                Ok(()) => context.reply.ok(),
                Err(error) => context.reply.error(&format!("ERR {error}")),
            }
        }
        (b"SIZE", Some(slots)) => {
            let slots = std::str::from_utf8(slots).ok().and_then(Slots::parse);
            let loads = replication.slot_loads().await;
            // `null` while a leader does not answer, or for what are no slots.
            let bytes: Option<u64> = slots.zip(loads).map(|(Slots(slots), loads)| {
                slots.iter().filter_map(|slot| loads.get(slot)).map(|load| load.bytes).sum()
            });
            context.reply.bulk(&serde_json::to_vec(&bytes).expect("a number is a plain value"));
        }
        (b"STATUS", None) => {
            let status = serde_json::to_vec(&replication.status().await).expect("a status is plain values");
            context.reply.bulk(&status);
        }
        (question, _) => {
            let words: Vec<&[u8]> = (3..args.len()).map(|index| &args[index]).collect();
            if cluster_change::operate(question, &words, context).await.is_none() {
                context.reply.error("ERR unknown question");
            }
        }
    }
}

fn parse_group(text: &[u8]) -> Option<GroupId> {
    std::str::from_utf8(text).ok()?.parse().ok().map(GroupId)
}

/// The node that a client names by its id.
pub(super) fn registered(id: &[u8], topology: &Topology) -> Result<NodeId, WireError> {
    let node = NodeId::parse(id).filter(|node| topology.node(*node).is_some());
    node.ok_or_else(|| WireError::UnknownNode(String::from_utf8_lossy(id).replace(['\r', '\n'], " ")))
}

fn key_slot_argument(text: &[u8]) -> Result<Option<KeySlot>, WireError> {
    Ok(u16::try_from(integer_argument(text)?).ok().and_then(KeySlot::new))
}

/// Reads the keyspace of a key slot, as it is when this node has its lease; `None` if another node serves it. As in Redis, there are no keys here then,
/// nor in one that a tool has announced to move. A tool would stop halfway at an error, so a change of leaders in between is waited for.
async fn read_key_slot<T>(
    key_slot: KeySlot,
    context: &CommandContext<'_>,
    read: impl Fn(&Keyspace) -> T,
) -> Result<Option<T>, WireError> {
    let mut tries_left = READ_TRIES_MAX;
    loop {
        let group = match route_in_time(key_slot, context.shared).await? {
            Some(group) if !cluster_slots::is_announced(key_slot, context) => group,
            Some(_) | None => return Ok(None),
        };
        tries_left -= 1;
        match read_led(&group, |group| read(group.keyspace())).await {
            Ok(value) => return Ok(Some(value)),
            Err(NoLeader) if tries_left > 0 => (),
            Err(NoLeader) => return Err(WireError::ClusterDown),
        }
    }
}

async fn count_keys(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let key_slot = key_slot_argument(&args[2])?.ok_or(WireError::InvalidSlot)?;
    let count = read_key_slot(key_slot, context, |keyspace| keyspace.keys_in_slot(key_slot)).await?.unwrap_or(0);
    context.reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

async fn list_keys(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let key_slot = key_slot_argument(&args[2])?;
    let count = usize::try_from(integer_argument(&args[3])?).ok();
    let (Some(key_slot), Some(count)) = (key_slot, count) else { return Err(WireError::InvalidSlotOrCount) };
    let keys = read_key_slot(key_slot, context, |keyspace| keyspace.list_slot(key_slot, count)).await?;
    let keys = keys.unwrap_or_default();
    context.reply.array(keys.len());
    keys.iter().for_each(|key| context.reply.bulk(key));
    Ok(())
}

fn slots(view: &ClusterView<'_>, reply: &mut Reply) {
    reply.array(view.slots().len());
    for range in view.slots() {
        reply.array(3);
        reply.integer(i64::from(range.start.get()));
        reply.integer(i64::from(range.end.get()));
        let info = view.node(range.node).expect("owners are registered");
        node(range.node, info, reply);
    }
}

fn node(id: NodeId, info: &NodeInfo, reply: &mut Reply) {
    reply.array(4);
    reply.bulk(info.host.as_bytes());
    reply.integer(i64::from(info.port));
    reply.bulk(id.to_string().as_bytes());
    // No hostname beside the preferred endpoint: Redis writes an empty map, which is an empty array in RESP2.
    reply.map(0);
}

fn shards(view: &ClusterView<'_>, reply: &mut Reply) {
    let shards = view.shards();
    reply.array(shards.len());
    for shard in shards {
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(2 * shard.ranges.len());
        for (start, end) in &shard.ranges {
            reply.integer(i64::from(start.get()));
            reply.integer(i64::from(end.get()));
        }
        reply.bulk(b"nodes");
        reply.array(1);
        reply.map(7);
        reply.bulk(b"id");
        reply.bulk(shard.node.to_string().as_bytes());
        reply.bulk(b"port");
        reply.integer(i64::from(shard.info.port));
        for (name, value) in [("ip", &shard.info.host), ("endpoint", &shard.info.host)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"role");
        reply.bulk(b"master");
        reply.bulk(b"replication-offset");
        reply.integer(0);
        reply.bulk(b"health");
        reply.bulk(if shard.failed { b"fail" } else { b"online" });
    }
}

/// Slot, group and the client address of the last known leader.
fn hash_slot(key: &[u8], view: &ClusterView<'_>, reply: &mut Reply) {
    let slot = KeySlot::of_key(key).slot();
    let GroupId(group) = view.topology().group_of(slot);
    let leader = view.owner(KeySlot::of_key(key));
    reply.map(3);
    reply.bulk(b"slot");
    reply.integer(i64::from(slot.get()));
    reply.bulk(b"group");
    reply.integer(i64::from(group));
    reply.bulk(b"leader");
    match view.node(leader) {
        Some(info) => reply.bulk(info.address().to_string().as_bytes()),
        None => reply.null(),
    }
}

fn traffic(peers: &[PeerState]) -> PeerTraffic {
    let sum = |count: fn(&PeerState) -> u64| peers.iter().map(count).sum();
    PeerTraffic { sent: sum(|peer| peer.frames_sent), received: sum(|peer| peer.frames_received) }
}

/// One connection per peer carries both directions; it is listed once, as the side that dialled sees it.
fn links(peers: &[PeerState], reply: &mut Reply) {
    let now_ms = crate::clock::Timestamp::wall_now().as_ms();
    let up = || peers.iter().filter_map(|peer| Some((peer, peer.connected_for?)));
    reply.array(up().count());
    for (peer, connected_for) in up() {
        let age_ms = i64::try_from(connected_for.as_millis()).unwrap_or(i64::MAX);
        let queued = i64::try_from(peer.queue_bytes).unwrap_or(i64::MAX);
        reply.map(6);
        reply.bulk(b"direction");
        reply.bulk(if peer.dialled_here { b"to" } else { b"from" });
        reply.bulk(b"node");
        reply.bulk(peer.node.to_string().as_bytes());
        reply.bulk(b"create-time");
        reply.integer(now_ms.saturating_sub(age_ms));
        reply.bulk(b"events");
        reply.bulk(if queued > 0 { b"rw" } else { b"r" });
        reply.bulk(b"send-buffer-allocated");
        reply.integer(queued);
        reply.bulk(b"send-buffer-used");
        reply.integer(queued);
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
