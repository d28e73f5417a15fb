//! Rows of the command table: INFO, CONFIG, MEMORY and the server's other commands. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::{ConfigCommand, MemoryCommand, NodeCommand};
use crate::command::object;
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyBegin, KeyFind, KeyFlag, KeyRange, KeySpec, Row, Run,
    argument, block, key, one_of, token,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&INFO, &CONFIG, &TIME, &LASTSAVE, &WAIT, &MEMORY, &DEBUG, &SHUTDOWN];

const INFO: Row = Row {
    name: "info",
    arity: -1,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    docs: Docs {
        summary: "Get information and statistics about the server",
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[("7.0.0", "Added support for taking multiple section arguments.")],
        arguments: &[argument("section", ArgumentType::String).flags(&[ArgumentFlag::Optional, ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Info),
};

const CONFIG: Row = Row {
    name: "config",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for server configuration commands",
        since: "2.0.0",
        group: Group::Server,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[CONFIG_GET, CONFIG_SET, CONFIG_RESETSTAT, CONFIG_REWRITE, CONFIG_HELP],
    run: Run::Container,
};

const CONFIG_GET: Row = Row {
    name: "config|get",
    arity: -3,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Get the values of configuration parameters",
        since: "2.0.0",
        group: Group::Server,
        complexity: "O(N) when N is the number of configuration parameters provided",
        deprecated: None,
        history: &[("7.0.0", "Added the ability to pass multiple pattern parameters in one call")],
        arguments: &[
            block("parameter", &[argument("parameter", ArgumentType::String)]).flags(&[ArgumentFlag::Multiple])
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Config(ConfigCommand::Get)),
};

const CONFIG_SET: Row = Row {
    name: "config|set",
    arity: -4,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Set configuration parameters to the given values",
        since: "2.0.0",
        group: Group::Server,
        complexity: "O(N) when N is the number of configuration parameters provided",
        deprecated: None,
        history: &[("7.0.0", "Added the ability to set multiple parameters in one call.")],
        arguments: &[block(
            "parameter_value",
            &[argument("parameter", ArgumentType::String), argument("value", ArgumentType::String)],
        )
        .flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Config(ConfigCommand::Set)),
};

const CONFIG_RESETSTAT: Row = Row {
    name: "config|resetstat",
    arity: 2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Reset the stats returned by INFO",
        since: "2.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Config(ConfigCommand::Resetstat)),
};

const CONFIG_REWRITE: Row = Row {
    name: "config|rewrite",
    arity: 2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Rewrite the configuration file with the in memory configuration",
        since: "2.8.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Config(ConfigCommand::Rewrite)),
};

const CONFIG_HELP: Row = Row {
    name: "config|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands",
        since: "5.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};

const TIME: Row = Row {
    name: "time",
    arity: 1,
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Fast],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Return the current server time",
        since: "2.6.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Time),
};

const LASTSAVE: Row = Row {
    name: "lastsave",
    arity: 1,
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Admin, Category::Fast, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the UNIX time stamp of the last successful save to disk",
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Lastsave),
};

const WAIT: Row = Row {
    name: "wait",
    arity: 3,
    flags: &[Flag::Blocking],
    categories: &[Category::Slow, Category::Blocking, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    docs: Docs {
        summary: "Wait for the synchronous replication of all the write commands sent in the context of the current connection",
        since: "3.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("numreplicas", ArgumentType::Integer), argument("timeout", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Wait),
};

const MEMORY: Row = Row {
    name: "memory",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for memory diagnostics commands",
        since: "4.0.0",
        group: Group::Server,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[MEMORY_USAGE, MEMORY_STATS, MEMORY_DOCTOR, MEMORY_HELP],
    run: Run::Container,
};

const MEMORY_USAGE: Row = Row {
    name: "memory|usage",
    arity: -3,
    flags: &[Flag::Readonly],
    categories: &[Category::Read, Category::Slow],
    keys: KeyRange { first: 2, last: 2, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(2),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Estimate the memory usage of a key",
        since: "4.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the number of samples.",
        deprecated: None,
        history: &[],
        arguments: &[
            key("key", 0),
            argument("count", ArgumentType::Integer).token("SAMPLES").flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Read(object::read_memory_usage),
};

const MEMORY_STATS: Row = Row {
    name: "memory|stats",
    arity: 2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    docs: Docs {
        summary: "Show memory usage details",
        since: "4.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Memory(MemoryCommand::Stats)),
};

const MEMORY_DOCTOR: Row = Row {
    name: "memory|doctor",
    arity: 2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    docs: Docs {
        summary: "Outputs memory problems report",
        since: "4.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Memory(MemoryCommand::Doctor)),
};

const MEMORY_HELP: Row = Row {
    name: "memory|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands",
        since: "4.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};

const DEBUG: Row = Row {
    name: "debug",
    arity: -2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for debugging commands",
        since: "1.0.0",
        group: Group::Server,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Debug),
};

const SHUTDOWN: Row = Row {
    name: "shutdown",
    arity: -1,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale, Flag::NoMulti, Flag::AllowBusy],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Synchronously save the dataset to disk and then shut down the server",
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(N) when saving, where N is the total number of keys in all databases when saving data, otherwise O(1)",
        deprecated: None,
        history: &[("7.0.0", "Added the `NOW`, `FORCE` and `ABORT` modifiers.")],
        arguments: &[
            one_of("nosave_save", &[token("nosave", "NOSAVE"), token("save", "SAVE")]).flags(&[ArgumentFlag::Optional]),
            token("now", "NOW").since("7.0.0").flags(&[ArgumentFlag::Optional]),
            token("force", "FORCE").since("7.0.0").flags(&[ArgumentFlag::Optional]),
            token("abort", "ABORT").since("7.0.0").flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Shutdown),
};
