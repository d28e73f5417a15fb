//! Rows of the command table: CLIENT. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::{ClientCommand, NodeCommand};
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, block, one_of, token,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&CLIENT];

const CLIENT: Row = Row {
    name: "client",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for client connection commands",
        since: "2.4.0",
        group: Group::Connection,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[
        CLIENT_ID,
        CLIENT_INFO,
        CLIENT_LIST,
        CLIENT_SETNAME,
        CLIENT_GETNAME,
        CLIENT_SETINFO,
        CLIENT_REPLY,
        CLIENT_KILL,
        CLIENT_PAUSE,
        CLIENT_UNPAUSE,
        CLIENT_NO_EVICT,
        CLIENT_NO_TOUCH,
        CLIENT_MAINT_NOTIFICATIONS,
        CLIENT_UNBLOCK,
        CLIENT_HELP,
    ],
    run: Run::Container,
};

const CLIENT_ID: Row = Row {
    name: "client|id",
    arity: 2,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Returns the client ID for the current connection",
        since: "5.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Id)),
};

const CLIENT_INFO: Row = Row {
    name: "client|info",
    arity: 2,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Returns information about the current client connection.",
        since: "6.2.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Info)),
};

const CLIENT_LIST: Row = Row {
    name: "client|list",
    arity: -2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the list of client connections",
        since: "2.4.0",
        group: Group::Connection,
        complexity: "O(N) where N is the number of client connections",
        deprecated: None,
        history: &[
            ("2.8.12", "Added unique client `id` field."),
            ("5.0.0", "Added optional `TYPE` filter."),
            ("6.0.0", "Added `user` field."),
            ("6.2.0", "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and the optional `ID` filter."),
            ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."),
            ("7.0.3", "Added `ssub` field."),
        ],
        arguments: &[
            one_of(
                "normal_master_replica_pubsub",
                &[
                    token("normal", "NORMAL"),
                    token("master", "MASTER"),
                    token("replica", "REPLICA"),
                    token("pubsub", "PUBSUB"),
                ],
            )
            .token("TYPE")
            .since("5.0.0")
            .flags(&[ArgumentFlag::Optional]),
            block("id", &[argument("client-id", ArgumentType::Integer).flags(&[ArgumentFlag::Multiple])])
                .token("ID")
                .since("6.2.0")
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::List)),
};

const CLIENT_SETNAME: Row = Row {
    name: "client|setname",
    arity: 3,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Set the current connection name",
        since: "2.6.9",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("connection-name", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Setname)),
};

const CLIENT_GETNAME: Row = Row {
    name: "client|getname",
    arity: 2,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Get the current connection name",
        since: "2.6.9",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Getname)),
};

const CLIENT_SETINFO: Row = Row {
    name: "client|setinfo",
    arity: 4,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Set client or connection specific info",
        since: "7.2.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[one_of(
            "attr",
            &[
                argument("libname", ArgumentType::String).token("LIB-NAME"),
                argument("libver", ArgumentType::String).token("LIB-VER"),
            ],
        )],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Setinfo)),
};

const CLIENT_REPLY: Row = Row {
    name: "client|reply",
    arity: 3,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Instruct the server whether to reply to commands",
        since: "3.2.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[one_of("on_off_skip", &[token("on", "ON"), token("off", "OFF"), token("skip", "SKIP")])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Reply)),
};

const CLIENT_KILL: Row = Row {
    name: "client|kill",
    arity: -3,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Kill the connection of a client",
        since: "2.4.0",
        group: Group::Connection,
        complexity: "O(N) where N is the number of client connections",
        deprecated: None,
        history: &[
            ("2.8.12", "Added new filter format."),
            ("2.8.12", "`ID` option."),
            ("3.2.0", "Added `master` type in for `TYPE` option."),
            ("5.0.0", "Replaced `slave` `TYPE` with `replica`. `slave` still supported for backward compatibility."),
            ("6.2.0", "`LADDR` option."),
        ],
        arguments: &[one_of(
            "filter",
            &[
                argument("ip:port", ArgumentType::String).deprecated("2.8.12"),
                one_of(
                    "new-format",
                    &[
                        argument("client-id", ArgumentType::Integer)
                            .token("ID")
                            .since("2.8.12")
                            .flags(&[ArgumentFlag::Optional]),
                        one_of(
                            "normal_master_slave_pubsub",
                            &[
                                token("normal", "NORMAL"),
                                token("master", "MASTER").since("3.2.0"),
                                token("slave", "SLAVE"),
                                token("replica", "REPLICA").since("5.0.0"),
                                token("pubsub", "PUBSUB"),
                            ],
                        )
                        .token("TYPE")
                        .since("2.8.12")
                        .flags(&[ArgumentFlag::Optional]),
                        argument("username", ArgumentType::String).token("USER").flags(&[ArgumentFlag::Optional]),
                        argument("ip:port", ArgumentType::String).token("ADDR").flags(&[ArgumentFlag::Optional]),
                        argument("ip:port", ArgumentType::String)
                            .token("LADDR")
                            .since("6.2.0")
                            .flags(&[ArgumentFlag::Optional]),
                        argument("yes/no", ArgumentType::String).token("SKIPME").flags(&[ArgumentFlag::Optional]),
                    ],
                )
                .flags(&[ArgumentFlag::Multiple]),
            ],
        )],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Kill)),
};

const CLIENT_PAUSE: Row = Row {
    name: "client|pause",
    arity: -3,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Stop processing commands from clients for some time",
        since: "2.9.50",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option.")],
        arguments: &[
            argument("timeout", ArgumentType::Integer),
            one_of("mode", &[token("write", "WRITE"), token("all", "ALL")])
                .since("6.2.0")
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Pause)),
};

const CLIENT_UNPAUSE: Row = Row {
    name: "client|unpause",
    arity: 2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Resume processing of clients that were paused",
        since: "6.2.0",
        group: Group::Connection,
        complexity: "O(N) Where N is the number of paused clients",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Unpause)),
};

const CLIENT_NO_EVICT: Row = Row {
    name: "client|no-evict",
    arity: 3,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Set client eviction mode for the current connection",
        since: "7.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[one_of("enabled", &[token("on", "ON"), token("off", "OFF")])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::NoEvict)),
};

const CLIENT_NO_TOUCH: Row = Row {
    name: "client|no-touch",
    arity: 3,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Controls whether commands sent by the client will alter the LRU/LFU of the keys they access.",
        since: "7.2.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[one_of("enabled", &[token("on", "ON"), token("off", "OFF")])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::NoTouch)),
};

const CLIENT_MAINT_NOTIFICATIONS: Row = Row {
    name: "client|maint_notifications",
    arity: -3,
    flags: &[Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Controls whether the client is told of slots that move.",
        since: "8.4.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[one_of("enabled", &[token("on", "ON"), token("off", "OFF")])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::MaintNotifications)),
};

const CLIENT_UNBLOCK: Row = Row {
    name: "client|unblock",
    arity: -3,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Loading, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Unblock a client blocked in a blocking command from a different connection",
        since: "5.0.0",
        group: Group::Connection,
        complexity: "O(log N) where N is the number of client connections",
        deprecated: None,
        history: &[],
        arguments: &[
            argument("client-id", ArgumentType::Integer),
            one_of("timeout_error", &[token("timeout", "TIMEOUT"), token("error", "ERROR")])
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Client(ClientCommand::Unblock)),
};

const CLIENT_HELP: Row = Row {
    name: "client|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands",
        since: "5.0.0",
        group: Group::Connection,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};
