//! MEMORY STATS and DOCTOR; MEMORY USAGE is a read like any other, in `command`.

use std::collections::BTreeSet;

use crate::command::MemoryCommand;
use crate::protocol::Reply;
use crate::server::commands::CommandContext;
use crate::server::commands::info_figures::Figures;

/// Below this there is nothing to diagnose; Redis's number.
const DATASET_BYTES_MIN: u64 = 5 << 20;

pub fn run(command: MemoryCommand, context: &mut CommandContext<'_>) {
    let figures = Figures::gather(&BTreeSet::new(), context.shared);
    match command {
        MemoryCommand::Stats => stats(&figures, context.reply),
        MemoryCommand::Doctor => context.reply.verbatim("txt", doctor(&figures).as_bytes()),
    }
}

enum Value {
    Bytes(u64),
    Ratio(f64),
}

/// Names and order of Redis 7.2.
fn stats(figures: &Figures, reply: &mut Reply) {
    let values = values(figures);
    let keys: u64 = figures.led().map(|group| group.keys).sum();
    reply.map(values.len() + usize::from(keys > 0));
    for (name, value) in values {
        // Redis puts the database before its sum of overheads.
        if name == "overhead.total" && keys > 0 {
            reply.bulk(b"db.0");
            reply.map(2);
            // Tables hold keys and values in one piece here: what a table costs beside them is in the overhead.
            for field in ["overhead.hashtable.main", "overhead.hashtable.expires"] {
                reply.bulk(field.as_bytes());
                reply.integer(0);
            }
        }
        reply.bulk(name.as_bytes());
        match value {
            Value::Bytes(bytes) => reply.integer(i64::try_from(bytes).unwrap_or(i64::MAX)),
            Value::Ratio(ratio) => reply.double(ratio),
        }
    }
}

fn values(figures: &Figures) -> Vec<(&'static str, Value)> {
    let (used, most) = (figures.used_bytes(), figures.used_bytes_max());
    let resident = figures.process.resident_bytes;
    let dataset = figures.keyspace_bytes();
    // All replicas' keys: it is their bytes that are counted.
    let keys: u64 = figures.groups.iter().map(|group| group.keys).sum();
    let since_start = used.saturating_sub(figures.startup_bytes).max(dataset);
    let ratio = |part: u64, whole: u64| Value::Ratio(if whole == 0 { 0.0 } else { part as f64 / whole as f64 });
    let percent = |part: u64, whole: u64| ratio(part.saturating_mul(100), whole);
    vec![
        ("peak.allocated", Value::Bytes(most)),
        ("total.allocated", Value::Bytes(used)),
        ("startup.allocated", Value::Bytes(figures.startup_bytes)),
        ("replication.backlog", Value::Bytes(0)),
        ("clients.slaves", Value::Bytes(0)),
        ("clients.normal", Value::Bytes(figures.clients.bytes)),
        ("cluster.links", Value::Bytes(0)),
        ("aof.buffer", Value::Bytes(figures.groups.iter().map(|group| group.log_bytes).sum())),
        ("lua.caches", Value::Bytes(0)),
        ("functions.caches", Value::Bytes(0)),
        ("overhead.total", Value::Bytes(figures.overhead_bytes())),
        ("keys.count", Value::Bytes(keys)),
        ("keys.bytes-per-key", Value::Bytes(dataset.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", Value::Bytes(dataset)),
        ("dataset.percentage", percent(dataset, since_start)),
        ("peak.percentage", percent(used, most)),
        ("allocator.allocated", Value::Bytes(used)),
        ("allocator.active", Value::Bytes(used)),
        ("allocator.resident", Value::Bytes(resident)),
        // What the allocator holds free is not known apart from what the program does not use.
        ("allocator-fragmentation.ratio", Value::Ratio(1.0)),
        ("allocator-fragmentation.bytes", Value::Bytes(0)),
        ("allocator-rss.ratio", ratio(resident, used)),
        ("allocator-rss.bytes", Value::Bytes(resident.saturating_sub(used))),
        ("rss-overhead.ratio", Value::Ratio(1.0)),
        ("rss-overhead.bytes", Value::Bytes(0)),
        ("fragmentation", ratio(resident, used)),
        ("fragmentation.bytes", Value::Bytes(resident.saturating_sub(used))),
    ]
}

fn doctor(figures: &Figures) -> String {
    let (dataset, used) = (figures.keyspace_bytes(), figures.used_bytes());
    let log: u64 = figures.groups.iter().map(|group| group.log_bytes).sum();
    let replicas = figures.groups.len();
    let mut text = format!(
        "{dataset} bytes of keys and values in {replicas} replicas, {log} bytes of log for replicas that are behind (at most \
         twice log-bytes-max per group), {used} bytes allocated in all.\n",
    );
    if dataset < DATASET_BYTES_MIN {
        text.push_str("There is too little data to find anything wrong with it.\n");
    } else if figures.used_bytes_max() > used.saturating_mul(3) / 2 {
        text.push_str("This node once used more than 150 % of the memory that it uses now.\n");
    } else {
        text.push_str("Nothing looks wrong.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::types::OwnedFrame as Frame;

    use super::*;
    use crate::protocol::Protocol;
    use crate::server::commands::info_figures::GroupFigures;

    fn figures(keys: u64, bytes: u64) -> Figures {
        let group = GroupFigures { leads: true, keys, keyspace_bytes: bytes, ..GroupFigures::default() };
        let mut figures = Figures { groups: vec![group], startup_bytes: 1 << 20, ..Figures::default() };
        figures.process.allocated_bytes = 100 << 20;
        figures.process.resident_bytes = 110 << 20;
        figures.process.resident_bytes_max = 120 << 20;
        figures
    }

    #[test]
    fn stats_are_one_whole_reply_with_and_without_keys() {
        for (keys, pairs) in [(0, 27), (10, 28)] {
            let mut reply = Reply::new(Protocol::Resp2);
            stats(&figures(keys, keys * 100), &mut reply);
            let bytes = reply.take().freeze();
            let (frame, length) = redis_protocol::resp2::decode::decode(&bytes).unwrap().unwrap();
            let Frame::Array(values) = frame else { panic!("{frame:?}") };
            assert_eq!((length, values.len()), (bytes.len(), 2 * pairs));
            let per_key =
                values.iter().position(|value| *value == Frame::BulkString(b"keys.bytes-per-key".to_vec())).unwrap();
            let expected = if keys > 0 { 100 } else { 0 };
            assert_eq!(values[per_key + 1], Frame::Integer(expected));
        }
    }

    #[test]
    fn the_doctor_tells_a_past_peak() {
        assert!(doctor(&figures(1, 100)).contains("too little data"));
        let mut figures = figures(1_000_000, 50 << 20);
        assert!(doctor(&figures).contains("Nothing looks wrong"));
        figures.process.resident_bytes_max = 400 << 20;
        assert!(doctor(&figures).contains("150 %"));
    }
}
