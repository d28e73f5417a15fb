//! The commands that are answered by the server layer, as closed enums: the server matches them without reading names again.

/// Everything the server layer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeCommand {
    Keys,
    Scan,
    Randomkey,
    Dbsize,
    Flushall,
    Flushdb,
    Ping,
    Echo,
    Hello,
    Auth,
    Select,
    Quit,
    Reset,
    Info,
    Time,
    Lastsave,
    Wait,
    Debug,
    Shutdown,
    Readonly,
    Readwrite,
    Asking,
    Migrate,
    Client(ClientCommand),
    Config(ConfigCommand),
    Memory(MemoryCommand),
    Command(CommandCommand),
    Slowlog(SlowlogCommand),
    Latency(LatencyCommand),
    Cluster(ClusterCommand),
    /// `X HELP` of any container: `help::reply` answers it.
    Help,
}

/// Subcommands of `CLIENT`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCommand {
    Id,
    Info,
    List,
    Setname,
    Getname,
    Setinfo,
    Reply,
    Kill,
    Pause,
    Unpause,
    NoEvict,
    NoTouch,
    MaintNotifications,
    Unblock,
}

/// Subcommands of `CONFIG`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigCommand {
    Get,
    Set,
    Resetstat,
    Rewrite,
}

/// Subcommands of `MEMORY`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryCommand {
    Stats,
    Doctor,
}

/// Subcommands of `COMMAND`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandCommand {
    All,
    Count,
    Info,
    Docs,
    List,
    Getkeys,
    Getkeysandflags,
}

/// Subcommands of `SLOWLOG`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowlogCommand {
    Get,
    Len,
    Reset,
}

/// Subcommands of `LATENCY`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatencyCommand {
    Latest,
    History,
    Reset,
    Doctor,
    Histogram,
}

/// Subcommands of `CLUSTER`; its `HELP` is `NodeCommand::Help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterCommand {
    Info,
    Nodes,
    Slots,
    Shards,
    Myid,
    Myshardid,
    Keyslot,
    Countkeysinslot,
    Getkeysinslot,
    Replicas,
    Links,
    CountFailureReports,
    Failover,
    Change(ClusterChange),
    Assign(ClusterSlots),
    Migrate(ClusterMigration),
    Hashslot,
    Kvorum,
}

/// Subcommands of `CLUSTER` by which Redis changes the nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterChange {
    Meet,
    Forget,
    Reset,
    Replicate,
    SetConfigEpoch,
    Bumpepoch,
    Saveconfig,
}

/// Subcommands of `CLUSTER` by which Redis gives slots to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterSlots {
    Setslot,
    Addslots,
    Addslotsrange,
    Delslots,
    Delslotsrange,
    Flushslots,
}

/// Subcommands of `CLUSTER` by which Valkey 9 and Redis 8.4 move slots whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterMigration {
    Migrateslots,
    Getslotmigrations,
    Cancelslotmigrations,
    /// Redis's: looks at its own subcommands itself.
    Migration,
}
