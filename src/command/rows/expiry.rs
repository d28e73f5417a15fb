//! Rows of the command table: commands that set, read and remove the time a key expires at. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::expiry;
use crate::command::op::OpCode;
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyBegin, KeyFind, KeyFlag, KeyRange, KeySpec, Row, Run,
    argument, key, one_of, token,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] =
    &[&EXPIRE, &PEXPIRE, &EXPIREAT, &PEXPIREAT, &TTL, &PTTL, &EXPIRETIME, &PEXPIRETIME, &PERSIST];

const EXPIRE: Row = Row {
    name: "expire",
    arity: -3,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set a key's time to live in seconds",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")],
        arguments: &[
            key("key", 0),
            argument("seconds", ArgumentType::Integer),
            one_of("condition", &[token("nx", "NX"), token("xx", "XX"), token("gt", "GT"), token("lt", "LT")])
                .since("7.0.0")
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::EXPIRE, plan: expiry::plan_expire, apply: expiry::apply_expire },
};

const PEXPIRE: Row = Row {
    name: "pexpire",
    arity: -3,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set a key's time to live in milliseconds",
        since: "2.6.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")],
        arguments: &[
            key("key", 0),
            argument("milliseconds", ArgumentType::Integer),
            one_of("condition", &[token("nx", "NX"), token("xx", "XX"), token("gt", "GT"), token("lt", "LT")])
                .since("7.0.0")
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::PEXPIRE, plan: expiry::plan_pexpire, apply: expiry::apply_expire },
};

const EXPIREAT: Row = Row {
    name: "expireat",
    arity: -3,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the expiration for a key as a UNIX timestamp",
        since: "1.2.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")],
        arguments: &[
            key("key", 0),
            argument("unix-time-seconds", ArgumentType::UnixTime),
            one_of("condition", &[token("nx", "NX"), token("xx", "XX"), token("gt", "GT"), token("lt", "LT")])
                .since("7.0.0")
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::EXPIREAT, plan: expiry::plan_expireat, apply: expiry::apply_expire },
};

const PEXPIREAT: Row = Row {
    name: "pexpireat",
    arity: -3,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the expiration for a key as a UNIX timestamp specified in milliseconds",
        since: "2.6.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("7.0.0", "Added options: `NX`, `XX`, `GT` and `LT`.")],
        arguments: &[
            key("key", 0),
            argument("unix-time-milliseconds", ArgumentType::UnixTime),
            one_of("condition", &[token("nx", "NX"), token("xx", "XX"), token("gt", "GT"), token("lt", "LT")])
                .since("7.0.0")
                .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::PEXPIREAT, plan: expiry::plan_pexpireat, apply: expiry::apply_expire },
};

const TTL: Row = Row {
    name: "ttl",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the time to live for a key in seconds",
        since: "1.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("2.8.0", "Added the -2 reply.")],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(expiry::read_ttl),
};

const PTTL: Row = Row {
    name: "pttl",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get the time to live for a key in milliseconds",
        since: "2.6.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[("2.8.0", "Added the -2 reply.")],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(expiry::read_pttl),
};

const EXPIRETIME: Row = Row {
    name: "expiretime",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get the expiration Unix timestamp for a key",
        since: "7.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(expiry::read_expiretime),
};

const PEXPIRETIME: Row = Row {
    name: "pexpiretime",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Keyspace, Category::Read, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get the expiration Unix timestamp for a key in milliseconds",
        since: "7.0.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(expiry::read_pexpiretime),
};

const PERSIST: Row = Row {
    name: "persist",
    arity: 2,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Keyspace, Category::Write, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Remove the expiration from a key",
        since: "2.2.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::PERSIST, plan: expiry::plan_persist, apply: expiry::apply_persist },
};
