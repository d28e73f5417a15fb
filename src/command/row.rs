//! What one row of the command table says: the facts `COMMAND` and `COMMAND DOCS` print, and the functions that run it.
//!
//! The rows themselves are in `rows/`, the look-up by name in `table.rs`. A row is data: nothing here reads the keyspace.

use crate::clock::Timestamp;
use crate::keyspace::{Bucket, Time};
use crate::protocol::{Args, Reply};

use super::errors::WireError;
use super::lcs::LcsJob;
use super::node_command::NodeCommand;
use super::op::{Apply, DamagedBody, OpCode, OpReader, OpWriter};

/// One command, one container (`OBJECT`) or one subcommand (`OBJECT ENCODING`).
#[derive(Debug)]
pub struct Row {
    /// Lower case, as `COMMAND` prints it; a subcommand carries its container: `object|encoding`.
    pub name: &'static str,
    /// Number of words, the name (and the subcommand) included; negative: at least as many.
    pub arity: i16,
    pub flags: &'static [Flag],
    pub categories: &'static [Category],
    pub keys: KeyRange,
    pub key_specs: &'static [KeySpec],
    /// Tips for clients and proxies: <https://redis.io/docs/latest/develop/reference/command-tips/>.
    pub tips: &'static [&'static str],
    pub docs: Docs,
    pub subcommands: &'static [Row],
    pub run: Run,
}

/// How a command is carried out.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// Answered from one bucket under its read lock, or at apply when it rides along behind a write.
    Read(ReadFn),
    /// Checked and encoded by `plan`, logged, carried out on every replica by `apply`.
    Write { code: OpCode, plan: PlanFn, apply: ApplyFn },
    /// Answered by the server layer.
    Node(NodeCommand),
    /// A name that needs a subcommand; `table::resolve` never returns it.
    Container,
}

pub type ReadFn = fn(&Args<'_>, &Bucket, Time, &mut Reply) -> ReadOutcome;
pub type PlanFn = fn(&Args<'_>, Timestamp, &mut OpWriter<'_>) -> Result<(), WireError>;
pub type ApplyFn = fn(&mut OpReader<'_>, &mut Apply<'_>, &mut Reply) -> Result<(), DamagedBody>;

/// What became of a read.
#[derive(Debug)]
#[must_use = "a read that is Due has not been answered"]
pub enum ReadOutcome {
    /// The reply is complete.
    Done,
    /// A key is past due by the clock but not yet by the log: the caller rolls the reply back and sends the read
    /// through the log. § No read answers "expired" from a clock alone, or a later leader could bring the key back.
    Due,
    /// The values were taken; the caller computes the reply after it has let go of the bucket, where it blocks nobody. § Nothing
    /// over 1 ms or 256 KiB happens under a bucket's lock.
    Compute(Box<LcsJob>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    Write,
    Readonly,
    DenyOom,
    Admin,
    Noscript,
    Blocking,
    Loading,
    Stale,
    SkipMonitor,
    SkipSlowlog,
    Asking,
    Fast,
    NoAuth,
    NoAsyncLoading,
    NoMulti,
    AllowBusy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Keyspace,
    Read,
    Write,
    String,
    Fast,
    Slow,
    Blocking,
    Dangerous,
    Admin,
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Generic,
    String,
    Connection,
    Server,
    Cluster,
}

/// The words that are keys: `first`, then every `step`-th up to `last`. All zero: no keys. A negative `last` counts
/// from the end: -1 is the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    pub first: i16,
    pub last: i16,
    pub step: i16,
}

impl KeyRange {
    pub const NONE: Self = Self { first: 0, last: 0, step: 0 };
}

/// A key specification of Redis 7: <https://redis.io/docs/latest/develop/reference/key-specs/>.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    pub notes: Option<&'static str>,
    pub flags: &'static [KeyFlag],
    pub begin: KeyBegin,
    pub find: KeyFind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFlag {
    ReadOnly,
    ReadWrite,
    Overwrite,
    Remove,
    Access,
    Update,
    Insert,
    Delete,
    NotKey,
    VariableFlags,
}

#[derive(Debug, Clone, Copy)]
pub enum KeyBegin {
    /// The first key is the word of this index.
    Index(i16),
}

#[derive(Debug, Clone, Copy)]
pub enum KeyFind {
    /// `last` is relative to the first key, or from the end when negative.
    Range { last: i16, step: i16, limit: i16 },
}

/// The texts of `COMMAND DOCS`.
#[derive(Debug)]
pub struct Docs {
    pub summary: &'static str,
    pub since: &'static str,
    pub group: Group,
    pub complexity: &'static str,
    pub deprecated: Option<Deprecated>,
    /// (version, what changed).
    pub history: &'static [(&'static str, &'static str)],
    pub arguments: &'static [Argument],
}

#[derive(Debug, Clone, Copy)]
pub struct Deprecated {
    pub since: &'static str,
    pub replaced_by: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentType {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentFlag {
    Optional,
    Multiple,
    MultipleToken,
}

/// One argument in `COMMAND DOCS`; `OneOf` and `Block` hold others.
#[derive(Debug, Clone, Copy)]
pub struct Argument {
    pub name: &'static str,
    pub kind: ArgumentType,
    pub key_spec: Option<u8>,
    pub token: Option<&'static str>,
    pub since: Option<&'static str>,
    pub deprecated_since: Option<&'static str>,
    pub flags: &'static [ArgumentFlag],
    pub arguments: &'static [Argument],
}

/// An argument of the given type, to be refined by the methods below.
pub const fn argument(name: &'static str, kind: ArgumentType) -> Argument {
    Argument {
        name,
        kind,
        key_spec: None,
        token: None,
        since: None,
        deprecated_since: None,
        flags: &[],
        arguments: &[],
    }
}

/// A key that key specification `spec` finds.
pub const fn key(name: &'static str, spec: u8) -> Argument {
    let mut key = argument(name, ArgumentType::Key);
    key.key_spec = Some(spec);
    key
}

/// A bare word such as `NX`.
pub const fn token(name: &'static str, token: &'static str) -> Argument {
    argument(name, ArgumentType::PureToken).token(token)
}

pub const fn one_of(name: &'static str, arguments: &'static [Argument]) -> Argument {
    let mut argument = argument(name, ArgumentType::OneOf);
    argument.arguments = arguments;
    argument
}

pub const fn block(name: &'static str, arguments: &'static [Argument]) -> Argument {
    let mut argument = argument(name, ArgumentType::Block);
    argument.arguments = arguments;
    argument
}

impl Argument {
    /// The word that comes before the value.
    pub const fn token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    pub const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }

    pub const fn deprecated(mut self, version: &'static str) -> Self {
        self.deprecated_since = Some(version);
        self
    }

    pub const fn flags(mut self, flags: &'static [ArgumentFlag]) -> Self {
        self.flags = flags;
        self
    }
}

impl Flag {
    /// As `COMMAND` prints it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Readonly => "readonly",
            Self::DenyOom => "denyoom",
            Self::Admin => "admin",
            Self::Noscript => "noscript",
            Self::Blocking => "blocking",
            Self::Loading => "loading",
            Self::Stale => "stale",
            Self::SkipMonitor => "skip_monitor",
            Self::SkipSlowlog => "skip_slowlog",
            Self::Asking => "asking",
            Self::Fast => "fast",
            Self::NoAuth => "no_auth",
            Self::NoAsyncLoading => "no_async_loading",
            Self::NoMulti => "no_multi",
            Self::AllowBusy => "allow_busy",
        }
    }
}

impl Category {
    /// As `COMMAND` prints it, with the `@`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Keyspace => "@keyspace",
            Self::Read => "@read",
            Self::Write => "@write",
            Self::String => "@string",
            Self::Fast => "@fast",
            Self::Slow => "@slow",
            Self::Blocking => "@blocking",
            Self::Dangerous => "@dangerous",
            Self::Admin => "@admin",
            Self::Connection => "@connection",
        }
    }
}

impl Group {
    pub fn text(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::String => "string",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
        }
    }
}

impl KeyFlag {
    pub fn text(self) -> &'static str {
        match self {
            Self::ReadOnly => "RO",
            Self::ReadWrite => "RW",
            Self::Overwrite => "OW",
            Self::Remove => "RM",
            Self::Access => "access",
            Self::Update => "update",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::NotKey => "not_key",
            Self::VariableFlags => "variable_flags",
        }
    }
}

impl ArgumentType {
    pub fn text(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Double => "double",
            Self::Key => "key",
            Self::Pattern => "pattern",
            Self::UnixTime => "unix-time",
            Self::PureToken => "pure-token",
            Self::OneOf => "oneof",
            Self::Block => "block",
        }
    }
}

impl ArgumentFlag {
    pub fn text(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Multiple => "multiple",
            Self::MultipleToken => "multiple_token",
        }
    }
}

impl Row {
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    pub fn is_container(&self) -> bool {
        !self.subcommands.is_empty()
    }

    /// Whether a request of `word_count` words has the right number of them.
    pub fn accepts(&self, word_count: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { word_count == least } else { word_count >= least }
    }
}
