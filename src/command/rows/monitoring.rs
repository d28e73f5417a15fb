//! Rows of the command table: SLOWLOG and LATENCY. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::{LatencyCommand, NodeCommand, SlowlogCommand};
use crate::command::row::{ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&SLOWLOG, &LATENCY];

const SLOWLOG: Row = Row {
    name: "slowlog",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for slow log commands",
        since: "2.2.12",
        group: Group::Server,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[SLOWLOG_GET, SLOWLOG_LEN, SLOWLOG_RESET, SLOWLOG_HELP],
    run: Run::Container,
};

const SLOWLOG_GET: Row = Row {
    name: "slowlog|get",
    arity: -2,
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_nodes", "nondeterministic_output"],
    docs: Docs {
        summary: "Get the slow log's entries",
        since: "2.2.12",
        group: Group::Server,
        complexity: "O(N) where N is the number of entries returned",
        deprecated: None,
        history: &[("4.0.0", "Added client IP address, port and name to the reply.")],
        arguments: &[argument("count", ArgumentType::Integer).flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Slowlog(SlowlogCommand::Get)),
};

const SLOWLOG_LEN: Row = Row {
    name: "slowlog|len",
    arity: 2,
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"],
    docs: Docs {
        summary: "Get the slow log's length",
        since: "2.2.12",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Slowlog(SlowlogCommand::Len)),
};

const SLOWLOG_RESET: Row = Row {
    name: "slowlog|reset",
    arity: 2,
    flags: &[Flag::Admin, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Clear all entries from the slow log",
        since: "2.2.12",
        group: Group::Server,
        complexity: "O(N) where N is the number of entries in the slowlog",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Slowlog(SlowlogCommand::Reset)),
};

const SLOWLOG_HELP: Row = Row {
    name: "slowlog|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands",
        since: "6.2.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};

const LATENCY: Row = Row {
    name: "latency",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for latency diagnostics commands",
        since: "2.8.13",
        group: Group::Server,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[LATENCY_LATEST, LATENCY_HISTORY, LATENCY_RESET, LATENCY_DOCTOR, LATENCY_HISTOGRAM, LATENCY_HELP],
    run: Run::Container,
};

const LATENCY_LATEST: Row = Row {
    name: "latency|latest",
    arity: 2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
    docs: Docs {
        summary: "Return the latest latency samples for all events.",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Latency(LatencyCommand::Latest)),
};

const LATENCY_HISTORY: Row = Row {
    name: "latency|history",
    arity: 3,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
    docs: Docs {
        summary: "Return timestamp-latency samples for the event.",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("event", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Latency(LatencyCommand::History)),
};

const LATENCY_RESET: Row = Row {
    name: "latency|reset",
    arity: -2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Reset latency data for one or more events.",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("event", ArgumentType::String).flags(&[ArgumentFlag::Optional, ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Latency(LatencyCommand::Reset)),
};

const LATENCY_DOCTOR: Row = Row {
    name: "latency|doctor",
    arity: 2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
    docs: Docs {
        summary: "Return a human readable latency analysis report.",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Latency(LatencyCommand::Doctor)),
};

const LATENCY_HISTOGRAM: Row = Row {
    name: "latency|histogram",
    arity: -2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"],
    docs: Docs {
        summary: "Return the cumulative distribution of latencies of a subset of commands or all.",
        since: "7.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the number of commands with latency information being retrieved.",
        deprecated: None,
        history: &[],
        arguments: &[argument("command", ArgumentType::String).flags(&[ArgumentFlag::Optional, ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Latency(LatencyCommand::Histogram)),
};

const LATENCY_HELP: Row = Row {
    name: "latency|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands.",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};
