//! Rows of the command table: commands on keys of any type, key by key. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::NodeCommand;
use crate::command::op::OpCode;
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyBegin, KeyFind, KeyFlag, KeyRange, KeySpec, Row, Run,
    argument, key, token,
};
use crate::command::{keys, object};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&DEL, &UNLINK, &EXISTS, &TOUCH, &TYPE, &RENAME, &RENAMENX, &COPY, &OBJECT];

const DEL: Row = Row {
    name: "del",
    arity: -2,
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Write, Category::Slow],
    keys: KeyRange { first: 1, last: -1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Remove, KeyFlag::Delete],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 1, limit: 0 },
    }],
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    docs: Docs {
        summary: "Delete a key",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(N) where N is the number of keys that will be removed. When a key to remove holds a value other than a string, the individual complexity for this key is O(M) where M is the number of elements in the list, set, sorted set or hash. Removing a single key that holds a string value is O(1).",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::DEL, plan: keys::plan_del, apply: keys::apply_del },
};

const UNLINK: Row = Row {
    name: "unlink",
    arity: -2,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: -1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Remove, KeyFlag::Delete],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 1, limit: 0 },
    }],
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    docs: Docs {
        summary: "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking.",
        since: "4.0.0",
        group: Group::Generic,
        complexity: "O(1) for each key removed regardless of its size. Then the command does O(N) work in a different thread in order to reclaim memory, where N is the number of allocations the deleted objects where composed of.",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::UNLINK, plan: keys::plan_unlink, apply: keys::apply_del },
};

const EXISTS: Row = Row {
    name: "exists",
    arity: -2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: -1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 1, limit: 0 },
    }],
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    docs: Docs {
        summary: "Determine if a key exists",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(N) where N is the number of keys to check.",
        deprecated: None,
        history: &[("3.0.3", "Accepts multiple `key` arguments.")],
        arguments: &[key("key", 0).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Read(keys::read_exists),
};

const TOUCH: Row = Row {
    name: "touch",
    arity: -2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: -1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 1, limit: 0 },
    }],
    tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
    docs: Docs {
        summary: "Alters the last access time of a key(s). Returns the number of existing keys specified.",
        since: "3.2.1",
        group: Group::Generic,
        complexity: "O(N) where N is the number of keys that will be touched.",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Read(keys::read_touch),
};

const TYPE: Row = Row {
    name: "type",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Determine the type stored at key",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(keys::read_type),
};

const RENAME: Row = Row {
    name: "rename",
    arity: 3,
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Write, Category::Slow],
    keys: KeyRange { first: 1, last: 2, step: 1 },
    key_specs: &[
        KeySpec {
            notes: None,
            flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Delete],
            begin: KeyBegin::Index(1),
            find: KeyFind::Range { last: 0, step: 1, limit: 0 },
        },
        KeySpec {
            notes: None,
            flags: &[KeyFlag::Overwrite, KeyFlag::Update],
            begin: KeyBegin::Index(2),
            find: KeyFind::Range { last: 0, step: 1, limit: 0 },
        },
    ],
    tips: &[],
    docs: Docs {
        summary: "Rename a key",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), key("newkey", 1)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::RENAME, plan: keys::plan_rename, apply: keys::apply_rename },
};

const RENAMENX: Row = Row {
    name: "renamenx",
    arity: 3,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: 2, step: 1 },
    key_specs: &[
        KeySpec {
            notes: None,
            flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Delete],
            begin: KeyBegin::Index(1),
            find: KeyFind::Range { last: 0, step: 1, limit: 0 },
        },
        KeySpec {
            notes: None,
            flags: &[KeyFlag::Overwrite, KeyFlag::Insert],
            begin: KeyBegin::Index(2),
            find: KeyFind::Range { last: 0, step: 1, limit: 0 },
        },
    ],
    tips: &[],
    docs: Docs {
        summary: "Rename a key, only if the new key does not exist",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("3.2.0", "The command no longer returns an error when source and destination names are the same.")],
        arguments: &[key("key", 0), key("newkey", 1)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::RENAMENX, plan: keys::plan_renamenx, apply: keys::apply_renamenx },
};

const COPY: Row = Row {
    name: "copy",
    arity: -3,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Keyspace, Category::Write, Category::Slow],
    keys: KeyRange { first: 1, last: 2, step: 1 },
    key_specs: &[
        KeySpec {
            notes: None,
            flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
            begin: KeyBegin::Index(1),
            find: KeyFind::Range { last: 0, step: 1, limit: 0 },
        },
        KeySpec {
            notes: None,
            flags: &[KeyFlag::Overwrite, KeyFlag::Update],
            begin: KeyBegin::Index(2),
            find: KeyFind::Range { last: 0, step: 1, limit: 0 },
        },
    ],
    tips: &[],
    docs: Docs {
        summary: "Copy a key",
        since: "6.2.0",
        group: Group::Generic,
        complexity: "O(N) worst case for collections, where N is the number of nested items. O(1) for string values.",
        deprecated: None,
        history: &[],
        arguments: &[
            key("source", 0),
            key("destination", 1),
            argument("destination-db", ArgumentType::Integer).token("DB").flags(&[ArgumentFlag::Optional]),
            token("replace", "REPLACE").flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::COPY, plan: keys::plan_copy, apply: keys::apply_copy },
};

const OBJECT: Row = Row {
    name: "object",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for object introspection commands",
        since: "2.2.3",
        group: Group::Generic,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[OBJECT_ENCODING, OBJECT_REFCOUNT, OBJECT_IDLETIME, OBJECT_FREQ, OBJECT_HELP],
    run: Run::Container,
};

const OBJECT_ENCODING: Row = Row {
    name: "object|encoding",
    arity: 3,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow],
    keys: KeyRange { first: 2, last: 2, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(2),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Inspect the internal encoding of a Redis object",
        since: "2.2.3",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(object::read_encoding),
};

const OBJECT_REFCOUNT: Row = Row {
    name: "object|refcount",
    arity: 3,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow],
    keys: KeyRange { first: 2, last: 2, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(2),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the number of references to the value of the key",
        since: "2.2.3",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(object::read_refcount),
};

const OBJECT_IDLETIME: Row = Row {
    name: "object|idletime",
    arity: 3,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow],
    keys: KeyRange { first: 2, last: 2, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(2),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the time since a Redis object was last accessed",
        since: "2.2.3",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(object::read_idletime),
};

const OBJECT_FREQ: Row = Row {
    name: "object|freq",
    arity: 3,
    flags: &[Flag::Readonly],
    categories: &[Category::Keyspace, Category::Read, Category::Slow],
    keys: KeyRange { first: 2, last: 2, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(2),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the logarithmic access frequency counter of a Redis object",
        since: "4.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(object::read_freq),
};

const OBJECT_HELP: Row = Row {
    name: "object|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Keyspace, Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands",
        since: "6.2.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};
