//! Rows of the command table: commands over the whole keyspace: SCAN, KEYS, DBSIZE, FLUSHALL and kin. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::NodeCommand;
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, one_of, token,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&KEYS, &SCAN, &RANDOMKEY, &DBSIZE, &FLUSHALL, &FLUSHDB];

const KEYS: Row = Row {
    name: "keys",
    arity: 2,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "nondeterministic_output_order"],
    docs: Docs {
        summary: "Find all keys matching the given pattern",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(N) with N being the number of keys in the database, under the assumption that the key names in the database and the given pattern have limited length.",
        deprecated: None,
        history: &[],
        arguments: &[argument("pattern", ArgumentType::Pattern)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Keys),
};

const SCAN: Row = Row {
    name: "scan",
    arity: -2,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output", "request_policy:special"],
    docs: Docs {
        summary: "Incrementally iterate the keys space",
        since: "2.8.0",
        group: Group::Generic,
        complexity: "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to return back to 0. N is the number of elements inside the collection.",
        deprecated: None,
        history: &[("6.0.0", "Added the `TYPE` subcommand.")],
        arguments: &[
            argument("cursor", ArgumentType::Integer),
            argument("pattern", ArgumentType::Pattern).token("MATCH").flags(&[ArgumentFlag::Optional]),
            argument("count", ArgumentType::Integer).token("COUNT").flags(&[ArgumentFlag::Optional]),
            argument("type", ArgumentType::String).token("TYPE").since("6.0.0").flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Scan),
};

const RANDOMKEY: Row = Row {
    name: "randomkey",
    arity: 1,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "response_policy:special", "nondeterministic_output"],
    docs: Docs {
        summary: "Return a random key from the keyspace",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Randomkey),
};

const DBSIZE: Row = Row {
    name: "dbsize",
    arity: 1,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "response_policy:agg_sum"],
    docs: Docs {
        summary: "Return the number of keys in the selected database",
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Dbsize),
};

const FLUSHALL: Row = Row {
    name: "flushall",
    arity: -1,
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Write, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Remove all keys from all databases",
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the total number of keys in all databases",
        deprecated: None,
        history: &[
            ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
            ("6.2.0", "Added the `SYNC` flushing mode modifier."),
        ],
        arguments: &[one_of("async", &[token("async", "ASYNC").since("4.0.0"), token("sync", "SYNC").since("6.2.0")])
            .flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Flushall),
};

const FLUSHDB: Row = Row {
    name: "flushdb",
    arity: -1,
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Write, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Remove all keys from the current database",
        since: "1.0.0",
        group: Group::Server,
        complexity: "O(N) where N is the number of keys in the selected database",
        deprecated: None,
        history: &[
            ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
            ("6.2.0", "Added the `SYNC` flushing mode modifier."),
        ],
        arguments: &[one_of("async", &[token("async", "ASYNC").since("4.0.0"), token("sync", "SYNC").since("6.2.0")])
            .flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Flushdb),
};
