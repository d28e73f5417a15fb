//! Rows of the command table: the string commands that only read. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Deprecated, Docs, Flag, Group, KeyBegin, KeyFind, KeyFlag, KeyRange, KeySpec,
    Row, Run, argument, key, token,
};
use crate::command::{lcs, strings};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&GET, &MGET, &STRLEN, &GETRANGE, &SUBSTR, &LCS];

const GET: Row = Row {
    name: "get",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Read, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get the value of a key",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(strings::read_get),
};

const MGET: Row = Row {
    name: "mget",
    arity: -2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Read, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: -1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: -1, step: 1, limit: 0 },
    }],
    tips: &["request_policy:multi_shard"],
    docs: Docs {
        summary: "Get the values of all the given keys",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(N) where N is the number of keys to retrieve.",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Read(strings::read_mget),
};

const STRLEN: Row = Row {
    name: "strlen",
    arity: 2,
    flags: &[Flag::Readonly, Flag::Fast],
    categories: &[Category::Read, Category::String, Category::Fast],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get the length of the value stored in a key",
        since: "2.2.0",
        group: Group::String,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0)],
    },
    subcommands: &[],
    run: Run::Read(strings::read_strlen),
};

const GETRANGE: Row = Row {
    name: "getrange",
    arity: 4,
    flags: &[Flag::Readonly],
    categories: &[Category::Read, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get a substring of the string stored at a key",
        since: "2.4.0",
        group: Group::String,
        complexity: "O(N) where N is the length of the returned string. The complexity is ultimately determined by the returned length, but because creating a substring from an existing string is very cheap, it can be considered O(1) for small strings.",
        deprecated: None,
        history: &[],
        arguments: &[key("key", 0), argument("start", ArgumentType::Integer), argument("end", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Read(strings::read_getrange),
};

const SUBSTR: Row = Row {
    name: "substr",
    arity: 4,
    flags: &[Flag::Readonly],
    categories: &[Category::Read, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 1, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 0, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Get a substring of the string stored at a key",
        since: "1.0.0",
        group: Group::String,
        complexity: "O(N) where N is the length of the returned string. The complexity is ultimately determined by the returned length, but because creating a substring from an existing string is very cheap, it can be considered O(1) for small strings.",
        deprecated: Some(Deprecated { since: "2.0.0", replaced_by: "`GETRANGE`" }),
        history: &[],
        arguments: &[key("key", 0), argument("start", ArgumentType::Integer), argument("end", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Read(strings::read_getrange),
};

const LCS: Row = Row {
    name: "lcs",
    arity: -3,
    flags: &[Flag::Readonly],
    categories: &[Category::Read, Category::String, Category::Slow],
    keys: KeyRange { first: 1, last: 2, step: 1 },
    key_specs: &[KeySpec {
        notes: None,
        flags: &[KeyFlag::ReadOnly, KeyFlag::Access],
        begin: KeyBegin::Index(1),
        find: KeyFind::Range { last: 1, step: 1, limit: 0 },
    }],
    tips: &[],
    docs: Docs {
        summary: "Find longest common substring",
        since: "7.0.0",
        group: Group::String,
        complexity: "O(N*M) where N and M are the lengths of s1 and s2, respectively",
        deprecated: None,
        history: &[],
        arguments: &[
            key("key1", 0),
            key("key2", 0),
            token("len", "LEN").flags(&[ArgumentFlag::Optional]),
            token("idx", "IDX").flags(&[ArgumentFlag::Optional]),
            argument("len", ArgumentType::Integer).token("MINMATCHLEN").flags(&[ArgumentFlag::Optional]),
            token("withmatchlen", "WITHMATCHLEN").flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Read(lcs::read_lcs),
};
