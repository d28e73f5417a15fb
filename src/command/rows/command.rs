//! Rows of the command table: COMMAND. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::{CommandCommand, NodeCommand};
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, one_of,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&COMMAND];

const COMMAND: Row = Row {
    name: "command",
    arity: -1,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output_order"],
    docs: Docs {
        summary: "Get array of Redis command details",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(N) where N is the total number of Redis commands",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[
        COMMAND_COUNT,
        COMMAND_INFO,
        COMMAND_DOCS,
        COMMAND_LIST,
        COMMAND_GETKEYS,
        COMMAND_GETKEYSANDFLAGS,
        COMMAND_HELP,
    ],
    run: Run::Node(NodeCommand::Command(CommandCommand::All)),
};

const COMMAND_COUNT: Row = Row {
    name: "command|count",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Get total number of Redis commands",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Command(CommandCommand::Count)),
};

const COMMAND_INFO: Row = Row {
    name: "command|info",
    arity: -2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output_order"],
    docs: Docs {
        summary: "Get array of specific Redis command details, or all when no argument is given.",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(N) where N is the number of commands to look up",
        deprecated: None,
        history: &[("7.0.0", "Allowed to be called with no argument to get info on all commands.")],
        arguments: &[
            argument("command-name", ArgumentType::String).flags(&[ArgumentFlag::Optional, ArgumentFlag::Multiple])
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Command(CommandCommand::Info)),
};

const COMMAND_DOCS: Row = Row {
    name: "command|docs",
    arity: -2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output_order"],
    docs: Docs {
        summary: "Get array of specific Redis command documentation",
        since: "7.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the number of commands to look up",
        deprecated: None,
        history: &[],
        arguments: &[
            argument("command-name", ArgumentType::String).flags(&[ArgumentFlag::Optional, ArgumentFlag::Multiple])
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Command(CommandCommand::Docs)),
};

const COMMAND_LIST: Row = Row {
    name: "command|list",
    arity: -2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output_order"],
    docs: Docs {
        summary: "Get an array of Redis command names",
        since: "7.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the total number of Redis commands",
        deprecated: None,
        history: &[],
        arguments: &[one_of(
            "filterby",
            &[
                argument("module-name", ArgumentType::String).token("MODULE"),
                argument("category", ArgumentType::String).token("ACLCAT"),
                argument("pattern", ArgumentType::Pattern).token("PATTERN"),
            ],
        )
        .token("FILTERBY")
        .flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Command(CommandCommand::List)),
};

const COMMAND_GETKEYS: Row = Row {
    name: "command|getkeys",
    arity: -4,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Extract keys given a full Redis command",
        since: "2.8.13",
        group: Group::Server,
        complexity: "O(N) where N is the number of arguments to the command",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Command(CommandCommand::Getkeys)),
};

const COMMAND_GETKEYSANDFLAGS: Row = Row {
    name: "command|getkeysandflags",
    arity: -4,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Extract keys and access flags given a full Redis command",
        since: "7.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the number of arguments to the command",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Command(CommandCommand::Getkeysandflags)),
};

const COMMAND_HELP: Row = Row {
    name: "command|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
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
