//! Every error text that goes on the wire, word for word as Redis writes it. The only file that knows them.
//!
//! `Display` gives the line without its leading `-` and without the line end.

use crate::cluster::NodeId;
use crate::protocol::{Args, Reply};
use crate::slot::KeySlot;

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    // Form of a request.
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand { name: String, args: String },
    #[error("ERR not run: it follows MULTI, which is not known here")]
    MultiRefused,
    #[error("ERR unknown subcommand '{name}'. Try {container} HELP.")]
    UnknownSubcommand { name: String, container: String },
    #[error("ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP.")]
    UnknownSubcommandOrArity { name: String, container: &'static str },
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongArity(&'static str),
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR CLIENT MAINT_NOTIFICATIONS ON needs RESP3: send HELLO 3 first")]
    NotificationsNeedResp3,
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    #[error("ERR value is out of range, value must between {min} and {max}")]
    OutOfRange { min: i64, max: i64 },
    #[error("ERR value is out of range, must be positive")]
    NotPositive,
    #[error("ERR value is not a valid float")]
    NotAFloat,
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    ExpireNxWithOthers,
    #[error("ERR GT and LT options at the same time are not compatible")]
    ExpireGtWithLt,
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    #[error("ERR key exceeds maximum allowed size (16777216 bytes)")]
    KeyTooLong,
    #[error("ERR command exceeds maximum allowed size (570425344 bytes of arguments)")]
    CommandTooLarge,
    #[error("ERR reply exceeds maximum allowed size (1073741824 bytes, with the replies answered together with it)")]
    ReplyTooLarge,
    #[error("ERR DB index is out of range")]
    DbOutOfRange,
    #[error("ERR Copying to another database is not allowed in cluster mode")]
    CopyAcrossDbs,
    #[error("ERR SELECT is not allowed in cluster mode")]
    SelectInCluster,
    #[error("ERR invalid DB index")]
    InvalidDb,
    #[error("ERR source and destination objects are the same")]
    SameObject,
    #[error("ERR If you want both the length and indexes, please just use IDX.")]
    LcsLenWithIdx,
    #[error("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")]
    LcsTooLarge,
    #[error("ERR {0} is not a valid type name")]
    UnknownTypeName(String),
    #[error("ERR invalid cursor")]
    InvalidCursor,
    #[error("ERR Invalid command specified")]
    GetkeysUnknown,
    #[error("ERR The command has no key arguments")]
    GetkeysWithoutKeys,
    #[error("ERR Invalid number of arguments specified for command")]
    GetkeysArity,
    #[error("ERR Invalid arguments specified for command")]
    GetkeysInvalid,

    // What the data said.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("ERR no such key")]
    NoSuchKey,
    #[error("ERR increment or decrement would overflow")]
    IncrementOverflow,
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    #[error("ERR increment would produce NaN or Infinity")]
    IncrementNotFinite,
    #[error(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust."
    )]
    NoLfuPolicy,
    #[error(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies \
         at runtime LRU and LFU data will take some time to adjust."
    )]
    LfuPolicy,

    // Where a request belongs.
    #[error("MOVED {key_slot} {host}:{port}")]
    Moved { key_slot: u16, host: String, port: u16 },
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    #[error("CLUSTERDOWN The cluster is down")]
    ClusterDown,
    #[error("CLUSTERDOWN Hash slot not served")]
    SlotNotServed,
    #[error("ERR Invalid slot")]
    InvalidSlot,
    #[error("ERR Invalid slot or number of keys")]
    InvalidSlotOrCount,
    #[error("ERR Unknown node {0}")]
    UnknownNode(String),
    #[error("ERR Invalid or out of range slot")]
    SlotOutOfRange,
    #[error("ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP")]
    SetslotAction,
    #[error("ERR I'm not the owner of hash slot {0}")]
    NotTheOwner(KeySlot),
    #[error("ERR I don't know about node {0}")]
    NodeNotKnown(String),
    #[error("ERR Slot {0} is already busy")]
    SlotBusy(KeySlot),
    #[error("ERR start slot number {0} is greater than end slot number {1}")]
    RangeReversed(KeySlot, KeySlot),
    #[error("ERR DB must be empty to perform CLUSTER FLUSHSLOTS.")]
    FlushslotsWithKeys,
    /// Our own: Redis knows slots that nobody serves.
    #[error("ERR each slot has an owner at all times: CLUSTER SETSLOT <slot> NODE <node-id> gives it to another node")]
    SlotsStayOwned,
    /// Our own: slots belong to groups.
    #[error(
        "ERR node {0} leads no group now, so it cannot be given slots: see kvorum cluster status; CLUSTER FAILOVER sent to it makes it lead"
    )]
    LeadsNothing(NodeId),
    /// Valkey's, in the words that its tests look for; the next eight as well.
    #[error("ERR No slot ranges specified")]
    NoSlotRanges,
    #[error("ERR Start slot number {0} is greater than end slot number {1}")]
    SlotRangeReversed(KeySlot, KeySlot),
    #[error("ERR Slot range {}-{} overlaps with previous range {}-{}", range.0, range.1, before.0, before.1)]
    SlotRangesOverlap { range: (KeySlot, KeySlot), before: (KeySlot, KeySlot) },
    #[error("ERR Invalid node name: {0}")]
    InvalidNodeName(String),
    #[error("ERR Unknown node name: {0}")]
    UnknownNodeName(NodeId),
    #[error("ERR Target node can not be this node")]
    TargetIsMyself,
    #[error("ERR Slots are not served by this node.")]
    SlotsNotServed,
    #[error("ERR I am already migrating slot {0}.")]
    AlreadyMigrating(KeySlot),
    #[error("ERR No migrations ongoing.")]
    NoMigrations,
    /// Redis's, like the next.
    #[error("ERR slots belong to different source nodes")]
    SeveralSources,
    #[error("ERR unknown argument")]
    UnknownArgument,
    /// Our own: keys do not leave their slot.
    #[error(
        "ERR MIGRATE is not needed: a slot moves as a whole, with its keys, by CLUSTER SETSLOT <slot> NODE <node-id> or kvorum cluster move-slots"
    )]
    MigrateNotNeeded,
    #[error("ERR Invalid TCP base port specified: {0}")]
    InvalidBasePort(String),
    #[error("ERR Invalid TCP bus port specified: {0}")]
    InvalidBusPort(String),
    #[error("ERR Invalid node address specified: {0}")]
    InvalidNodeAddress(String),
    #[error("ERR I tried hard but I can't forget myself...")]
    ForgetMyself,
    #[error("ERR Can't replicate myself")]
    ReplicateMyself,
    /// What Redis says to a node that has slots: here each node may lead some, and none is another's replica.
    #[error("ERR To set a master the node must be empty and without assigned slots.")]
    ReplicaOfOther,
    #[error("ERR Invalid config epoch specified: {0}")]
    InvalidConfigEpoch(i64),
    #[error("ERR The user can assign a config epoch only when the node does not know any other node.")]
    ConfigEpochWithOthers,
    #[error("ERR Node config epoch is already non-zero")]
    ConfigEpochSet,
    #[error("ERR CLUSTER RESET can't be called with master nodes containing keys")]
    ResetWithKeys,
    /// Our own: in Redis the others would still know the node.
    #[error(
        "ERR CLUSTER RESET can't be called with members of a cluster: send CLUSTER FORGET to another node, then this one leaves"
    )]
    ResetMember,
    /// Our own: a command over all keys of the groups led here lost one of them on the way.
    #[error("ERR the groups led by this node changed meanwhile, start again")]
    LeadershipMoved,
    #[error("TRYAGAIN Multiple keys request during rehashing of slot")]
    TryAgain,
    #[error("LOADING Redis is loading the dataset in memory")]
    Loading,
    /// As Redis when its log cannot be written, for the same reason. Clients show it to their caller and do not try again.
    #[error("MISCONF Errors writing to the AOF file: No space left on device")]
    DiskFull,
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory,

    // Connections.
    #[error("NOAUTH Authentication required.")]
    NoAuth,
    #[error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
    )]
    NoAuthHello,
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPass,
    #[error(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
         configuration is correct?"
    )]
    AuthWithoutPassword,
    #[error("NOPROTO unsupported protocol version")]
    NoProto,
    #[error("ERR Protocol version is not an integer or out of range")]
    ProtoNotAnInteger,
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(String),
    #[error("ERR Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    #[error("ERR No such client")]
    NoSuchClient,
    #[error("ERR Invalid client ID")]
    InvalidClientId,
    #[error("ERR client-id should be greater than 0")]
    ClientIdNotPositive,
    #[error("ERR Unknown client type '{0}'")]
    UnknownClientType(String),
    #[error("ERR No such user '{0}'")]
    NoSuchUser(String),
    #[error("ERR timeout is not an integer or out of range")]
    TimeoutNotAnInteger,
    #[error("ERR timeout is negative")]
    TimeoutNegative,
    #[error("ERR timeout is out of range")]
    TimeoutOutOfRange,
    #[error("ERR {0} cannot contain spaces, newlines or special characters.")]
    ClientAttribute(String),
    #[error("ERR Unrecognized option '{0}'")]
    UnrecognizedOption(String),
    #[error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")]
    UnblockReason,
    #[error("ERR CLIENT PAUSE mode must be WRITE or ALL")]
    PauseMode,
    #[error("UNBLOCKED client unblocked via CLIENT UNBLOCK")]
    Unblocked,
    #[error("ERR max number of clients + cluster connections reached")]
    MaxClients,

    // The node itself.
    #[error("ERR count should be greater than or equal to -1")]
    SlowlogCount,
    #[error("ERR The server is running without a config file")]
    NoConfigFile,
    #[error("ERR Rewriting config file: {0}")]
    ConfigRewrite(String),
    /// Our own: Redis keeps any bytes.
    #[error("ERR CONFIG SET failed (possibly related to argument '{0}') - argument must be UTF-8")]
    ConfigNotText(String),
    #[error("ERR No shutdown in progress.")]
    NoShutdown,
    /// Our own: leadership is being handed over already.
    #[error("ERR The shutdown in progress cannot be aborted.")]
    ShutdownUnderWay,
}

/// Redis cuts a name it echoes back, and stops echoing arguments, at this many bytes.
const ECHO_BYTES_MAX: usize = 128;

impl WireError {
    /// For a request whose name is in no row.
    pub fn unknown_command(args: &Args<'_>) -> Self {
        let mut echoed = String::new();
        for arg in args.iter().skip(1) {
            if echoed.len() >= ECHO_BYTES_MAX {
                break;
            }
            let room = ECHO_BYTES_MAX - echoed.len();
            echoed.push_str(&format!("'{}' ", printable(arg, room)));
        }
        Self::UnknownCommand { name: printable(&args[0], ECHO_BYTES_MAX), args: echoed }
    }

    /// For a request whose container (lower case) has no such subcommand.
    pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Self {
        Self::UnknownSubcommand {
            name: printable(subcommand, ECHO_BYTES_MAX),
            container: container.to_ascii_uppercase(),
        }
    }

    /// For a subcommand that its container looks at itself, when it or the number of its arguments is wrong.
    pub fn subcommand_or_arity(container: &'static str, subcommand: &[u8]) -> Self {
        Self::UnknownSubcommandOrArity { name: printable(subcommand, ECHO_BYTES_MAX), container }
    }

    pub fn unsupported_option(option: &[u8]) -> Self {
        Self::UnsupportedOption(printable(option, usize::MAX))
    }

    /// What a client sent, as an error repeats it.
    pub fn echo(bytes: &[u8]) -> String {
        printable(bytes, ECHO_BYTES_MAX)
    }

    /// Appends the error to `reply`.
    pub fn reply(&self, reply: &mut Reply) {
        if !reply.is_discarded() {
            reply.error(&self.to_string());
        }
    }
}

/// At most `length_max` bytes of `bytes`, up to the first NUL as C's `%s` has it, line ends as spaces: an error is
/// one line.
fn printable(bytes: &[u8], length_max: usize) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()).min(length_max);
    String::from_utf8_lossy(&bytes[..end]).replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ArgRange;

    fn unknown(words: &[&[u8]]) -> String {
        let bytes = words.concat();
        let mut start = 0;
        let ranges: Vec<ArgRange> = words
            .iter()
            .map(|word| {
                let range = ArgRange { start, end: start + word.len() as u32 };
                start = range.end;
                range
            })
            .collect();
        WireError::unknown_command(&Args::new(&bytes, &ranges)).to_string()
    }

    #[test]
    fn an_unknown_command_is_echoed_with_its_arguments() {
        assert_eq!(unknown(&[b"FOO"]), "ERR unknown command 'FOO', with args beginning with: ");
        assert_eq!(unknown(&[b"foo", b"a", b"b c"]), "ERR unknown command 'foo', with args beginning with: 'a' 'b c' ");
    }

    #[test]
    fn an_echo_is_one_line_and_bounded() {
        assert_eq!(unknown(&[b"a\r\nb"]), "ERR unknown command 'a  b', with args beginning with: ");
        let long = vec![b'x'; 1000];
        let text = unknown(&[&long, &long, &long]);
        let x = "x".repeat(128);
        assert_eq!(text, format!("ERR unknown command '{x}', with args beginning with: '{x}' "));
    }

    #[test]
    fn moved_has_exactly_three_words() {
        let moved = WireError::Moved { key_slot: 12182, host: "10.0.0.1".into(), port: 7001 };
        assert_eq!(moved.to_string(), "MOVED 12182 10.0.0.1:7001");
    }
}
