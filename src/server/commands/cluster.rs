//! CLUSTER: the topology as clients and tools read it.

use crate::cluster::{ClusterView, NodeId, NodeInfo};
use crate::command::{ClusterCommand, WireError};
use crate::protocol::{Args, Reply};
use crate::server::commands::CommandContext;
use crate::slot::KeySlot;

pub async fn run(command: ClusterCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    let replication = context.shared.replication.clone();
    let (topology, hints) = (replication.topology(), replication.hints());
    let view = ClusterView::new(&topology, &hints);
    let reply = &mut *context.reply;
    match command {
        ClusterCommand::Info => {
            let text = view.info_text(replication.node());
            let text = if replication.is_formed() { text } else { text.replacen("state:ok", "state:fail", 1) };
            reply.verbatim("txt", text.as_bytes());
        }
        ClusterCommand::Nodes => reply.verbatim("txt", view.nodes_text(replication.node()).as_bytes()),
        ClusterCommand::Slots => slots(&view, reply),
        ClusterCommand::Shards => shards(&view, reply),
        ClusterCommand::Myid => reply.bulk(replication.node().to_string().as_bytes()),
        ClusterCommand::Keyslot => reply.integer(i64::from(KeySlot::of_key(&args[2]).get())),
        ClusterCommand::Failover => match replication.take_leadership().await {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(&format!("ERR {error}")),
        },
        ClusterCommand::Kvorum => kvorum(args, context).await,
        ClusterCommand::Myshardid
        | ClusterCommand::Countkeysinslot
        | ClusterCommand::Getkeysinslot
        | ClusterCommand::Replicas
        | ClusterCommand::Links
        | ClusterCommand::CountFailureReports
        | ClusterCommand::Hashslot => WireError::unknown_command(args).reply(reply),
    }
}

async fn kvorum(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let replication = context.shared.replication.clone();
    match (args[2].to_ascii_uppercase().as_slice(), args.get(3)) {
        (b"PROBE", None) => context.reply.bulk(&replication.probe()),
        (b"JOIN", Some(op)) => match replication.join(op).await {
            Ok(topology) => context.reply.bulk(&topology),
            Err(error) => context.reply.error(&format!("ERR {error}")),
        },
        (b"STATUS", None) => {
            let status = serde_json::to_vec(&replication.status()).expect("a status is plain values");
            context.reply.bulk(&status);
        }
        _ => context.reply.error("ERR unknown question"),
    }
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
    // No hostname beside the preferred endpoint.
    reply.array(0);
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
        reply.bulk(b"online");
    }
}
