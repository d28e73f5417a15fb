//! Rows of the command table: the string commands that write: SET and kin, counters, APPEND. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::op::OpCode;
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Deprecated, Docs, Flag, Group, KeyBegin, KeyFind, KeyFlag, KeyRange, KeySpec,
    Row, Run, argument, block, key, one_of, token,
};
use crate::command::{numeric, set, strings};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[
    &SET,
    &GETEX,
    &GETDEL,
    &GETSET,
    &SETNX,
    &SETEX,
    &PSETEX,
    &MSET,
    &MSETNX,
    &INCR,
    &DECR,
    &INCRBY,
    &DECRBY,
    &INCRBYFLOAT,
    &APPEND,
    &SETRANGE,
];

const SET: Row = Row {
    name: "set",
    arity: -3,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Write, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: Some("RW and ACCESS due to the optional `GET` argument"),
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update, KeyFlag::VariableFlags],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the string value of a key",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[
            ("2.6.12", "Added the `EX`, `PX`, `NX` and `XX` options."),
            ("6.0.0", "Added the `KEEPTTL` option."),
            ("6.2.0", "Added the `GET`, `EXAT` and `PXAT` option."),
            ("7.0.0", "Allowed the `NX` and `GET` options to be used together."),
        ],
        arguments: &[
            key("key", 0),
            argument("value", ArgumentType::String),
            one_of("condition", &[token("nx", "NX"), token("xx", "XX")])
                .since("2.6.12")
                .flags(&[ArgumentFlag::Optional]),
            token("get", "GET").since("6.2.0").flags(&[ArgumentFlag::Optional]),
            one_of(
                "expiration",
                &[
                    argument("seconds", ArgumentType::Integer).token("EX").since("2.6.12"),
                    argument("milliseconds", ArgumentType::Integer).token("PX").since("2.6.12"),
                    argument("unix-time-seconds", ArgumentType::UnixTime).token("EXAT").since("6.2.0"),
                    argument("unix-time-milliseconds", ArgumentType::UnixTime).token("PXAT").since("6.2.0"),
                    token("keepttl", "KEEPTTL").since("6.0.0"),
                ],
            )
            .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::SET, plan: set::plan_set, apply: set::apply_set },
};

const GETEX: Row = Row {
    name: "getex",
    arity: -2,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: Some("RW and UPDATE because it changes the TTL"),
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get the value of a key and optionally set its expiration",
        since: "6.2.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[
            key("key", 0),
            one_of(
                "expiration",
                &[
                    argument("seconds", ArgumentType::Integer).token("EX"),
                    argument("milliseconds", ArgumentType::Integer).token("PX"),
                    argument("unix-time-seconds", ArgumentType::UnixTime).token("EXAT"),
                    argument("unix-time-milliseconds", ArgumentType::UnixTime).token("PXAT"),
                    token("persist", "PERSIST"),
                ],
            )
            .flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::GETEX, plan: set::plan_getex, apply: set::apply_getex },
};

const GETDEL: Row = Row {
    name: "getdel",
    arity: 2,
    flags: &[Flag::Write, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Delete],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get the value of a key and delete the key",
        since: "6.2.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::GETDEL, plan: strings::plan_getdel, apply: strings::apply_getdel },
};

const GETSET: Row = Row {
    name: "getset",
    arity: 3,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the string value of a key and return its old value",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: Some(Deprecated { since: "6.2.0", replaced_by: "`SET` with the `!GET` argument" }),
        history: &[],
        arguments: &[key("key", 0), argument("value", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::GETSET, plan: set::plan_getset, apply: set::apply_set },
};

const SETNX: Row = Row {
    name: "setnx",
    arity: 3,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Overwrite, KeyFlag::Insert],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the value of a key, only if the key does not exist",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("value", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::SETNX, plan: set::plan_setnx, apply: set::apply_set },
};

const SETEX: Row = Row {
    name: "setex",
    arity: 4,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Write, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Overwrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the value and expiration of a key",
        since: "2.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[
            key("key", 0),
            argument("seconds", ArgumentType::Integer),
            argument("value", ArgumentType::String),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::SETEX, plan: set::plan_setex, apply: set::apply_set },
};

const PSETEX: Row = Row {
    name: "psetex",
    arity: 4,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Write, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Overwrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set the value and expiration in milliseconds of a key",
        since: "2.6.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[
            key("key", 0),
            argument("milliseconds", ArgumentType::Integer),
            argument("value", ArgumentType::String),
        ],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::PSETEX, plan: set::plan_psetex, apply: set::apply_set },
};

const MSET: Row = Row {
    name: "mset",
    arity: -3,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Write, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: -1, step: 2 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Overwrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 2, limit: 0 },
    }],
    tips: &["request_policy:multi_shard", "response_policy:all_succeeded"],
    docs: Docs {
        summary: "Set multiple keys to multiple values",
        since: "1.0.1",
        group: Group::String,
        complexity: "O(N) where N is the number of keys to set.",
        deprecated: None,
        history: &[],
        arguments: &[block("key_value", &[key("key", 0), argument("value", ArgumentType::String)])
            .flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::MSET, plan: strings::plan_mset, apply: strings::apply_mset },
};

const MSETNX: Row = Row {
    name: "msetnx",
    arity: -3,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Write, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: -1, step: 2 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::Overwrite, KeyFlag::Insert],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 2, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Set multiple keys to multiple values, only if none of the keys exist",
        since: "1.0.1",
        group: Group::String,
        complexity: "O(N) where N is the number of keys to set.",
        deprecated: None,
        history: &[],
        arguments: &[block("key_value", &[key("key", 0), argument("value", ArgumentType::String)])
            .flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::MSETNX, plan: strings::plan_msetnx, apply: strings::apply_msetnx },
};

const INCR: Row = Row {
    name: "incr",
    arity: 2,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Increment the integer value of a key by one",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::INCR, plan: numeric::plan_incr, apply: numeric::apply_incrby },
};

const DECR: Row = Row {
    name: "decr",
    arity: 2,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Decrement the integer value of a key by one",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::DECR, plan: numeric::plan_decr, apply: numeric::apply_incrby },
};

const INCRBY: Row = Row {
    name: "incrby",
    arity: 3,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Increment the integer value of a key by the given amount",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("increment", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::INCRBY, plan: numeric::plan_incrby, apply: numeric::apply_incrby },
};

const DECRBY: Row = Row {
    name: "decrby",
    arity: 3,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Decrement the integer value of a key by the given number",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("decrement", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::DECRBY, plan: numeric::plan_decrby, apply: numeric::apply_incrby },
};

const INCRBYFLOAT: Row = Row {
    name: "incrbyfloat",
    arity: 3,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Increment the float value of a key by the given amount",
        since: "2.6.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("increment", ArgumentType::Double)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::INCRBYFLOAT, plan: numeric::plan_incrbyfloat, apply: numeric::apply_incrbyfloat },
};

const APPEND: Row = Row {
    name: "append",
    arity: 3,
    flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
    categories: &[Category::Write, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Insert],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Append a value to a key",
        since: "2.0.0",
        group: Group::String,
        complexity: "O(1). The amortized time complexity is O(1) assuming the appended value is small and the already present value is of any size, since the dynamic string library used by Redis will double the free space available on every reallocation.",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("value", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::APPEND, plan: strings::plan_append, apply: strings::apply_append },
};

const SETRANGE: Row = Row {
    name: "setrange",
    arity: 4,
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Write, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadWrite, KeyFlag::Update],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Overwrite part of a string at key starting at the specified offset",
        since: "2.2.0",
        group: Group::String,
        complexity: "O(1), not counting the time taken to copy the new string in place. Usually, this string is very small so the amortized complexity is O(1). Otherwise, complexity is O(M) with M being the length of the value argument.",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("offset", ArgumentType::Integer), argument("value", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Write { code: OpCode::SETRANGE, plan: strings::plan_setrange, apply: strings::apply_setrange },
};
