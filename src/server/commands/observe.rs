//! SLOWLOG, LATENCY, DEBUG SLEEP and DIGEST, and SHUTDOWN.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::{self, LatencyCommand, SlowlogCommand, WireError, integer_argument};
use crate::metrics::LatencyCounts;
use crate::protocol::{Args, Reply};
use crate::raft;
use crate::server::commands::CommandContext;
use crate::server::latency::{LatencyEvent, LatencySeries};
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
        SlowlogCommand::Get => match slowlog_count(args) {
            Ok(count) => slowest(count, context),
            Err(error) => error.reply(context.reply),
        },
    }
}

fn slowlog_count(args: &Args<'_>) -> Result<usize, WireError> {
    if args.len() > 3 {
        return Err(WireError::subcommand_or_arity("SLOWLOG", &args[1]));
    }
    let Some(word) = args.get(2) else { return Ok(SLOWLOG_ENTRIES_DEFAULT) };
    match integer_argument(word).map_err(|_| WireError::SlowlogCount)? {
        -1 => Ok(usize::MAX),
        count => usize::try_from(count).map_err(|_| WireError::SlowlogCount),
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
    context.reply.verbatim("txt", diagnosis(threshold_ms, &context.shared.latency.all()).as_bytes());
}

fn diagnosis(threshold_ms: u64, events: &BTreeMap<LatencyEvent, LatencySeries>) -> String {
    // Without events in Redis's words, which tools look for.
    if threshold_ms == 0 && events.is_empty() {
        return "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You may use \
                \"CONFIG SET latency-monitor-threshold <milliseconds>.\" in order to enable it. If we weren't in a deep \
                space mission I'd suggest to take a look at https://redis.io/topics/latency-monitor.\n"
            .to_owned();
    }
    if events.is_empty() {
        return "Dave, no latency spike was observed during the lifetime of this Redis instance, not in the slightest \
                bit. I honestly think you ought to sit down calmly, take a stress pill, and think things over.\n"
            .to_owned();
    }
    let line = |(event, series): (&LatencyEvent, &LatencySeries)| {
        format!("{}: {} events, worst {} ms\n", event.name(), series.samples.len(), series.max_ms)
    };
    events.iter().map(line).collect()
}

/// Of the commands asked for, subcommands included, those that ran.
fn histogram(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let wanted: Vec<String> =
        args.iter().skip(2).map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let matches = |name: &str| {
        wanted.is_empty() || wanted.iter().any(|word| name == word || name.split('|').next() == Some(word.as_str()))
    };
    let used = context.shared.stats.commands.used();
    let shown: Vec<_> = used.filter(|(name, counts)| counts.latency.total() > 0 && matches(name)).collect();
    context.reply.map(shown.len());
    for (name, counts) in shown {
        context.reply.bulk(name.as_bytes());
        histogram_of(&counts.latency, context.reply);
    }
}

/// Calls below each power of two of microseconds, cumulative; as in Redis only the steps at which the number grows.
fn histogram_of(counts: &LatencyCounts, reply: &mut Reply) {
    let total = counts.total();
    let mut steps: Vec<(u64, u64)> = Vec::new();
    for (bound_us, below) in counts.cumulative_by_octave() {
        if below > steps.last().map_or(0, |(_, last)| *last) {
            steps.push((bound_us, below));
        }
    }
    // Calls longer than the last octave are counted, but how long they took is not known.
    if steps.last().map_or(0, |(_, last)| *last) < total {
        let last_us = counts.cumulative_by_octave().map(|(bound_us, _)| bound_us).last().unwrap_or(1);
        steps.push((2 * last_us, total));
    }
    let integer = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    reply.map(2);
    reply.bulk(b"calls");
    reply.integer(integer(total));
    reply.bulk(b"histogram_usec");
    reply.map(steps.len());
    for (bound_us, below) in steps {
        reply.integer(integer(bound_us));
        reply.integer(integer(below));
    }
}

/// SLEEP holds up its own connection only: a node that stood still would lose its leaderships.
pub async fn debug(args: &Args<'_>, context: &mut CommandContext<'_>) {
    match parse_debug(args) {
        Ok(Debug::Sleep(duration)) => {
            tokio::time::sleep(duration).await;
            context.reply.ok();
        }
        Ok(Debug::Digest) => digest(context).await,
        Ok(Debug::Help) => command::help_reply(args, context.reply),
        Err(error) => error.reply(context.reply),
    }
}

/// Of all that is stored here, led or not: nodes with replicas of the same groups that have applied the same entries say the same.
async fn digest(context: &mut CommandContext<'_>) {
    let groups = context.shared.replication.groups();
    let sum = move || groups.iter().fold(0u64, |sum, group| sum.wrapping_add(group.keyspace().digest()));
    match raft::blocking(sum).await {
        // As many digits as Redis's SHA-1 has.
        Ok(digest) => context.reply.simple(&format!("{digest:040x}")),
        // A panic ends the process; a runtime that is being stopped leaves the work.
        Err(_) => WireError::ClusterDown.reply(context.reply),
    }
}

#[derive(Debug, PartialEq)]
enum Debug {
    Sleep(Duration),
    Digest,
    Help,
}

/// As in Redis, what is no number, or none that can be slept, is zero.
fn parse_debug(args: &Args<'_>) -> Result<Debug, WireError> {
    match (args[1].to_ascii_lowercase().as_slice(), args.len()) {
        (b"sleep", 3) => {
            let seconds = str::from_utf8(&args[2]).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
            Ok(Debug::Sleep(Duration::from_secs_f64(seconds.max(0.0).min(SLEEP_MAX.as_secs_f64()))))
        }
        (b"digest", 2) => Ok(Debug::Digest),
        (b"help", 2) => Ok(Debug::Help),
        _ => Err(WireError::subcommand_or_arity("DEBUG", &args[1])),
    }
}

/// What SHUTDOWN asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    /// SAVE, NOSAVE, NOW and FORCE change nothing here: every acknowledged write is on disk, and the stop has a deadline.
    Stop,
    Abort,
}

fn parse_shutdown(args: &Args<'_>) -> Result<Shutdown, WireError> {
    let (mut save, mut nosave, mut hurry, mut abort) = (false, false, false, false);
    for word in args.iter().skip(1) {
        match word.to_ascii_lowercase().as_slice() {
            b"save" => save = true,
            b"nosave" => nosave = true,
            b"now" | b"force" => hurry = true,
            b"abort" => abort = true,
            _ => return Err(WireError::Syntax),
        }
    }
    if (save && nosave) || (abort && (save || nosave || hurry)) {
        return Err(WireError::Syntax);
    }
    Ok(if abort { Shutdown::Abort } else { Shutdown::Stop })
}

/// Answers nothing, as Redis does: the connection ends, and the node.
pub fn shutdown(args: &Args<'_>, context: &mut CommandContext<'_>) -> Flow {
    let stopping = *context.shared.stop_requested.borrow();
    match parse_shutdown(args) {
        Ok(Shutdown::Stop) => {
            context.shared.stop_requested.send_replace(true);
            return Flow::Close;
        }
        Ok(Shutdown::Abort) if stopping => WireError::ShutdownUnderWay.reply(context.reply),
        Ok(Shutdown::Abort) => WireError::NoShutdown.reply(context.reply),
        Err(error) => error.reply(context.reply),
    }
    Flow::Continue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LatencyHistogram;
    use crate::protocol::Protocol;
    use crate::server::commands::fixture::args;

    fn words(line: &str) -> crate::protocol::OwnedArgs {
        args(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn a_histogram_has_a_step_where_the_number_of_calls_grows() {
        let histogram = LatencyHistogram::new();
        [3, 5, 100].iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
        let mut reply = Reply::new(Protocol::Resp3);
        histogram_of(&histogram.counts(), &mut reply);
        let expected = "%2\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n\
                        %3\r\n:4\r\n:1\r\n:8\r\n:2\r\n:128\r\n:3\r\n";
        assert_eq!(String::from_utf8_lossy(reply.buffer()), expected);
    }

    #[test]
    fn a_call_longer_than_any_octave_is_in_the_last_step() {
        let histogram = LatencyHistogram::new();
        histogram.record(Duration::from_secs(3600));
        let mut reply = Reply::new(Protocol::Resp3);
        histogram_of(&histogram.counts(), &mut reply);
        assert!(String::from_utf8_lossy(reply.buffer()).ends_with("%1\r\n:67108864\r\n:1\r\n"));
    }

    #[test]
    fn the_doctor_says_whether_there_is_anything_to_look_at() {
        let mut events = BTreeMap::new();
        assert!(diagnosis(0, &events).starts_with("I'm sorry, Dave, I can't do that. Latency monitoring is disabled"));
        assert!(diagnosis(10, &events).starts_with("Dave, no latency spike was observed"));
        events.insert(LatencyEvent::Command, LatencySeries { max_ms: 30, ..LatencySeries::default() });
        assert_eq!(diagnosis(0, &events), "command: 0 events, worst 30 ms\n");
    }

    #[test]
    fn the_slow_log_is_asked_for_in_redis_words() {
        assert_eq!(slowlog_count(&words("slowlog get").args()), Ok(10));
        assert_eq!(slowlog_count(&words("slowlog get -1").args()), Ok(usize::MAX));
        assert_eq!(slowlog_count(&words("slowlog get 0").args()), Ok(0));
        for line in ["slowlog get -2", "slowlog get x"] {
            let error = slowlog_count(&words(line).args()).unwrap_err().to_string();
            assert_eq!(error, "ERR count should be greater than or equal to -1");
        }
        assert_eq!(
            slowlog_count(&words("SLOWLOG GET 1 2").args()).unwrap_err().to_string(),
            "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."
        );
    }

    #[test]
    fn debug_sleeps_within_bounds_and_digests_and_does_nothing_else() {
        for (line, seconds) in
            [("debug sleep 1.5", 1.5), ("DEBUG SLEEP x", 0.0), ("debug sleep -1", 0.0), ("debug sleep nan", 0.0)]
        {
            assert_eq!(parse_debug(&words(line).args()), Ok(Debug::Sleep(Duration::from_secs_f64(seconds))), "{line}");
        }
        assert_eq!(parse_debug(&words("debug sleep 1e300").args()), Ok(Debug::Sleep(SLEEP_MAX)));
        assert_eq!(parse_debug(&words("DEBUG digest").args()), Ok(Debug::Digest));
        assert_eq!(parse_debug(&words("debug HELP").args()), Ok(Debug::Help));
        for line in ["debug segfault", "debug digest x", "debug sleep", "debug sleep 1 2"] {
            let error = parse_debug(&words(line).args()).unwrap_err().to_string();
            assert!(error.starts_with("ERR unknown subcommand or wrong number of arguments for "), "{error}");
        }
    }

    #[test]
    fn contradictory_shutdowns_are_refused() {
        for line in ["shutdown", "shutdown NOSAVE", "shutdown save now force"] {
            assert_eq!(parse_shutdown(&words(line).args()), Ok(Shutdown::Stop));
        }
        assert_eq!(parse_shutdown(&words("shutdown abort").args()), Ok(Shutdown::Abort));
        for line in ["shutdown save nosave", "shutdown abort now", "shutdown please"] {
            assert_eq!(parse_shutdown(&words(line).args()), Err(WireError::Syntax));
        }
    }
}
