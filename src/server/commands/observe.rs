//! SLOWLOG, LATENCY, MEMORY, DEBUG SLEEP and SHUTDOWN.

use std::time::Duration;

use crate::command::{LatencyCommand, MemoryCommand, SlowlogCommand, WireError, integer_argument};
use crate::protocol::Args;
use crate::server::commands::CommandContext;
use crate::server::latency::{LatencyEvent, LatencySeries};
use crate::server::process;
use crate::server::session::Flow;

const SLOWLOG_ENTRIES_DEFAULT: usize = 10;
/// DEBUG SLEEP holds up its own connection only, and not for ever.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

pub fn slowlog(command: SlowlogCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    match command {
        SlowlogCommand::Len => context.reply.integer(context.shared.slowlog.len() as i64),
        SlowlogCommand::Reset => {
            context.shared.slowlog.reset();
            context.reply.ok();
        }
        SlowlogCommand::Get => match args.get(2).map(integer_argument).transpose() {
            Ok(None) => slowest(SLOWLOG_ENTRIES_DEFAULT, context),
            Ok(Some(-1)) => slowest(usize::MAX, context),
            Ok(Some(count)) if count >= 0 => slowest(usize::try_from(count).unwrap_or(usize::MAX), context),
            Ok(Some(_)) => context.reply.error("ERR count should be greater than or equal to -1"),
            Err(error) => error.reply(context.reply),
        },
    }
}

fn slowest(count: usize, context: &mut CommandContext<'_>) {
    let entries = context.shared.slowlog.newest(count);
    context.reply.array(entries.len());
    for entry in entries {
        context.reply.array(6);
        context.reply.integer(entry.id as i64);
        context.reply.integer(entry.at.as_ms() / 1000);
        context.reply.integer(entry.usec as i64);
        context.reply.array(entry.args.len());
        entry.args.iter().for_each(|arg| context.reply.bulk(arg));
        context.reply.bulk(entry.addr.to_string().as_bytes());
        context.reply.bulk(&entry.name);
    }
}

pub fn latency(command: LatencyCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    match command {
        LatencyCommand::Latest => latest(context),
        LatencyCommand::History => {
            let event = LatencyEvent::of_name(&args[2]);
            let series = event.map(|event| context.shared.latency.history(event)).unwrap_or_default();
            context.reply.array(series.samples.len());
            for sample in series.samples {
                context.reply.array(2);
                context.reply.integer(sample.at_seconds);
                context.reply.integer(sample.ms as i64);
            }
        }
        LatencyCommand::Reset => {
            let latency = &context.shared.latency;
            let reset = match args.len() {
                2 => latency.reset(None),
                _ => {
                    args.iter().skip(2).filter_map(LatencyEvent::of_name).map(|event| latency.reset(Some(event))).sum()
                }
            };
            context.reply.integer(reset as i64);
        }
        LatencyCommand::Doctor => doctor(context),
        LatencyCommand::Histogram => histogram(args, context),
    }
}

fn latest(context: &mut CommandContext<'_>) {
    let events = context.shared.latency.all();
    context.reply.array(events.len());
    for (event, series) in events {
        let last = series.samples.back().copied();
        context.reply.array(4);
        context.reply.bulk(event.name().as_bytes());
        context.reply.integer(last.map_or(0, |sample| sample.at_seconds));
        context.reply.integer(last.map_or(0, |sample| sample.ms as i64));
        context.reply.integer(series.max_ms as i64);
    }
}

fn doctor(context: &mut CommandContext<'_>) {
    let threshold_ms = context.shared.parameters.tunables().latency_monitor_threshold_ms;
    let events = context.shared.latency.all();
    let text = if threshold_ms == 0 && events.is_empty() {
        "Latency monitoring is off. Turn it on with CONFIG SET latency-monitor-threshold <milliseconds>.\n".to_owned()
    } else if events.is_empty() {
        format!("No event took {threshold_ms} ms or longer so far.\n")
    } else {
        let line = |(event, series): (&LatencyEvent, &LatencySeries)| {
            format!("{}: {} events, worst {} ms\n", event.name(), series.samples.len(), series.max_ms)
        };
        events.iter().map(line).collect()
    };
    context.reply.verbatim("txt", text.as_bytes());
}

/// Calls per power-of-two bucket of microseconds, cumulative, as Redis prints them.
fn histogram(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let wanted: Vec<String> =
        args.iter().skip(2).map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let all: Vec<_> = context.shared.stats.commands.used().collect();
    let matches = |name: &str| {
        wanted.is_empty() || wanted.iter().any(|word| name == word || name.split('|').next() == Some(word.as_str()))
    };
    let shown: Vec<_> = all.into_iter().filter(|(name, counts)| counts.latency.total() > 0 && matches(name)).collect();
    context.reply.map(shown.len());
    for (name, counts) in shown {
        context.reply.bulk(name.as_bytes());
        context.reply.map(2);
        context.reply.bulk(b"calls");
        context.reply.integer(counts.latency.total() as i64);
        context.reply.bulk(b"histogram_usec");
        let octaves: Vec<(u64, u64)> = counts.latency.cumulative_by_octave().collect();
        context.reply.map(octaves.len());
        for (bound_us, count) in octaves {
            context.reply.integer(bound_us as i64);
            context.reply.integer(count as i64);
        }
    }
}

pub fn memory(command: MemoryCommand, context: &mut CommandContext<'_>) {
    let groups = context.shared.replication.groups();
    let counters: Vec<_> = groups.iter().map(|group| group.keyspace().counters()).collect();
    let keys: u64 = counters.iter().map(|counters| counters.keys).sum();
    let data: u64 = counters.iter().map(|counters| counters.bytes).sum();
    let resident = process::resident_bytes();
    match command {
        MemoryCommand::Stats => {
            let figures = [
                ("peak.allocated", resident),
                ("total.allocated", resident),
                ("clients.normal", context.shared.output_bytes.load(std::sync::atomic::Ordering::Relaxed) as u64),
                ("keys.count", keys),
                ("keys.bytes-per-key", data.checked_div(keys).unwrap_or(0)),
                ("dataset.bytes", data),
                ("overhead.total", resident.saturating_sub(data)),
            ];
            context.reply.map(figures.len());
            for (name, value) in figures {
                context.reply.bulk(name.as_bytes());
                context.reply.integer(value as i64);
            }
        }
        MemoryCommand::Doctor => {
            let text = format!(
                "{keys} keys in {} replicas take {data} bytes; the process holds {resident}. Beside the data this is the log's tail \
                 (up to log-bytes-max per group) and buffers.\n",
                groups.len()
            );
            context.reply.verbatim("txt", text.as_bytes());
        }
    }
}

pub async fn debug(args: &Args<'_>, context: &mut CommandContext<'_>) {
    match (args[1].to_ascii_lowercase().as_slice(), args.get(2)) {
        (b"sleep", Some(seconds)) => {
            let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<f64>().ok());
            match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                Some(duration) => {
                    tokio::time::sleep(duration.min(SLEEP_MAX)).await;
                    context.reply.ok();
                }
                None => context.reply.error("ERR value is not a valid float"),
            }
        }
        _ => WireError::unknown_subcommand("debug", &args[1]).reply(context.reply),
    }
}

/// Answers nothing, as Redis does: the connection ends with the node.
pub fn shutdown(args: &Args<'_>, context: &mut CommandContext<'_>) -> Flow {
    let known =
        |word: &[u8]| [&b"nosave"[..], b"save", b"now", b"force"].iter().any(|known| word.eq_ignore_ascii_case(known));
    let words = || args.iter().skip(1);
    if words().any(|word| word.eq_ignore_ascii_case(b"abort")) {
        context.reply.error("ERR No shutdown in progress.");
        return Flow::Continue;
    }
    if !words().all(known) {
        WireError::Syntax.reply(context.reply);
        return Flow::Continue;
    }
    context.shared.stop_requested.send_replace(true);
    Flow::Close
}
