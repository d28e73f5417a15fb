//! Rows of the command table: connection commands. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::NodeCommand;
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, block,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&PING, &ECHO, &HELLO, &AUTH, &SELECT, &QUIT, &RESET];

const PING: Row = Row {
    name: "ping",
    arity: -1,
    flags: &[Flag::Fast],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Ping the server",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("message", ArgumentType::String).flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Ping),
};

const ECHO: Row = Row {
    name: "echo",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Echo the given string",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("message", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Echo),
};

const HELLO: Row = Row {
    name: "hello",
    arity: -1,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Handshake with Redis",
        since: "6.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[(
            "6.2.0",
            "`protover` made optional; when called without arguments the command reports the current connection's context.",
        )],
        arguments: &[block(
            "arguments",
            &[
                argument("protover", ArgumentType::Integer),
                block(
                    "username_password",
                    &[argument("username", ArgumentType::String), argument("password", ArgumentType::String)],
                )
                .token("AUTH")
                .flags(&[ArgumentFlag::Optional]),
                argument("clientname", ArgumentType::String).token("SETNAME").flags(&[ArgumentFlag::Optional]),
            ],
        )
        .flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Hello),
};

const AUTH: Row = Row {
    name: "auth",
    arity: -2,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Authenticate to the server",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(N) where N is the number of passwords defined for the user",
        deprecated: None,
        history: &[("6.0.0", "Added ACL style (username and password).")],
        arguments: &[
            argument("username", ArgumentType::String).since("6.0.0").flags(&[ArgumentFlag::Optional]),
            argument("password", ArgumentType::String),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Auth),
};

const SELECT: Row = Row {
    name: "select",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Change the selected database for the current connection",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("index", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Select),
};

const QUIT: Row = Row {
    name: "quit",
    arity: -1,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Close the connection",
        since: "1.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Quit),
};

const RESET: Row = Row {
    name: "reset",
    arity: 1,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Reset the connection",
        since: "6.2.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Reset),
};
