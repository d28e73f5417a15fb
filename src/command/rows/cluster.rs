//! Rows of the command table: CLUSTER and the three words a cluster client sends before a request. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::{ClusterCommand, NodeCommand};
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Deprecated, Docs, Flag, Group, KeyRange, Row, Run, argument, one_of, token,
};
use crate::command::rows::cluster_change::{
    CLUSTER_BUMPEPOCH, CLUSTER_FORGET, CLUSTER_MEET, CLUSTER_REPLICATE, CLUSTER_RESET, CLUSTER_SAVECONFIG,
    CLUSTER_SET_CONFIG_EPOCH,
};
use crate::command::rows::cluster_migrations::{
    CLUSTER_CANCELSLOTMIGRATIONS, CLUSTER_GETSLOTMIGRATIONS, CLUSTER_MIGRATESLOTS, CLUSTER_MIGRATION,
};
use crate::command::rows::cluster_slots::{
    CLUSTER_ADDSLOTS, CLUSTER_ADDSLOTSRANGE, CLUSTER_DELSLOTS, CLUSTER_DELSLOTSRANGE, CLUSTER_FLUSHSLOTS,
    CLUSTER_SETSLOT,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&CLUSTER, &READONLY, &READWRITE, &ASKING];

const CLUSTER: Row = Row {
    name: "cluster",
    arity: -2,
    flags: &[],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "A container for cluster commands",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "Depends on subcommand.",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[
        CLUSTER_INFO,
        CLUSTER_NODES,
        CLUSTER_SLOTS,
        CLUSTER_SHARDS,
        CLUSTER_MYID,
        CLUSTER_MYSHARDID,
        CLUSTER_KEYSLOT,
        CLUSTER_COUNTKEYSINSLOT,
        CLUSTER_GETKEYSINSLOT,
        CLUSTER_REPLICAS,
        CLUSTER_LINKS,
        CLUSTER_COUNT_FAILURE_REPORTS,
        CLUSTER_FAILOVER,
        CLUSTER_MEET,
        CLUSTER_FORGET,
        CLUSTER_RESET,
        CLUSTER_REPLICATE,
        CLUSTER_SET_CONFIG_EPOCH,
        CLUSTER_BUMPEPOCH,
        CLUSTER_SAVECONFIG,
        CLUSTER_SETSLOT,
        CLUSTER_ADDSLOTS,
        CLUSTER_ADDSLOTSRANGE,
        CLUSTER_DELSLOTS,
        CLUSTER_DELSLOTSRANGE,
        CLUSTER_FLUSHSLOTS,
        CLUSTER_MIGRATESLOTS,
        CLUSTER_GETSLOTMIGRATIONS,
        CLUSTER_CANCELSLOTMIGRATIONS,
        CLUSTER_MIGRATION,
        CLUSTER_HELP,
        CLUSTER_HASHSLOT,
        CLUSTER_KVORUM,
    ],
    run: Run::Container,
};

const CLUSTER_INFO: Row = Row {
    name: "cluster|info",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Provides info about Redis Cluster node state",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Info)),
};

const CLUSTER_NODES: Row = Row {
    name: "cluster|nodes",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get Cluster config for the node",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of Cluster nodes",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Nodes)),
};

const CLUSTER_SLOTS: Row = Row {
    name: "cluster|slots",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get array of Cluster slot to node mappings",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of Cluster nodes",
        deprecated: Some(Deprecated { since: "7.0.0", replaced_by: "`CLUSTER SHARDS`" }),
        history: &[("4.0.0", "Added node IDs."), ("7.0.0", "Added additional networking metadata field.")],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Slots)),
};

const CLUSTER_SHARDS: Row = Row {
    name: "cluster|shards",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Get array of cluster slots to node mappings",
        since: "7.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of cluster nodes",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Shards)),
};

const CLUSTER_MYID: Row = Row {
    name: "cluster|myid",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Return the node id",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Myid)),
};

const CLUSTER_MYSHARDID: Row = Row {
    name: "cluster|myshardid",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Return the node shard id",
        since: "7.2.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Myshardid)),
};

const CLUSTER_KEYSLOT: Row = Row {
    name: "cluster|keyslot",
    arity: 3,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Returns the hash slot of the specified key",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the number of bytes in the key",
        deprecated: None,
        history: &[],
        arguments: &[argument("key", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Keyslot)),
};

const CLUSTER_COUNTKEYSINSLOT: Row = Row {
    name: "cluster|countkeysinslot",
    arity: 3,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Return the number of local keys in the specified hash slot",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("slot", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Countkeysinslot)),
};

const CLUSTER_GETKEYSINSLOT: Row = Row {
    name: "cluster|getkeysinslot",
    arity: 4,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Return local key names in the specified hash slot",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(log(N)) where N is the number of requested keys",
        deprecated: None,
        history: &[],
        arguments: &[argument("slot", ArgumentType::Integer), argument("count", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Getkeysinslot)),
};

const CLUSTER_REPLICAS: Row = Row {
    name: "cluster|replicas",
    arity: 3,
    flags: &[Flag::Admin, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "List replica nodes of the specified master node",
        since: "5.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("node-id", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Replicas)),
};

const CLUSTER_LINKS: Row = Row {
    name: "cluster|links",
    arity: 2,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Returns a list of all TCP links to and from peer nodes in cluster",
        since: "7.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of Cluster nodes",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Links)),
};

const CLUSTER_COUNT_FAILURE_REPORTS: Row = Row {
    name: "cluster|count-failure-reports",
    arity: 3,
    flags: &[Flag::Admin, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Return the number of failure reports active for a given node",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the number of failure reports",
        deprecated: None,
        history: &[],
        arguments: &[argument("node-id", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::CountFailureReports)),
};

const CLUSTER_FAILOVER: Row = Row {
    name: "cluster|failover",
    arity: -2,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Forces a replica to perform a manual failover of its master.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[one_of("options", &[token("force", "FORCE"), token("takeover", "TAKEOVER")])
            .flags(&[ArgumentFlag::Optional])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Failover)),
};

const CLUSTER_HELP: Row = Row {
    name: "cluster|help",
    arity: 2,
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Show helpful text about the different subcommands",
        since: "5.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Help),
};

const CLUSTER_HASHSLOT: Row = Row {
    name: "cluster|hashslot",
    arity: 3,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Returns the hash slot of a key, the group that owns it and the node that leads the group (Kvorum's own)",
        since: "0.1.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the number of bytes in the key",
        deprecated: None,
        history: &[],
        arguments: &[argument("key", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Hashslot)),
};

const CLUSTER_KVORUM: Row = Row {
    name: "cluster|kvorum",
    arity: -3,
    flags: &[Flag::Stale],
    categories: &[Category::Slow],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "What nodes and the kvorum program ask of each other",
        since: "0.1.0",
        group: Group::Cluster,
        complexity: "O(N) in the number of nodes and groups",
        deprecated: None,
        history: &[],
        arguments: &[argument("question", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Kvorum)),
};

const READONLY: Row = Row {
    name: "readonly",
    arity: 1,
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Enables read queries for a connection to a cluster replica node",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Readonly),
};

const READWRITE: Row = Row {
    name: "readwrite",
    arity: 1,
    flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Disables read queries for a connection to a cluster replica node",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Readwrite),
};

const ASKING: Row = Row {
    name: "asking",
    arity: 1,
    flags: &[Flag::Fast],
    categories: &[Category::Fast, Category::Connection],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Sent by cluster clients after an -ASK redirect",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Asking),
};
