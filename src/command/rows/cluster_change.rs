//! Rows of the command table: the subcommands of CLUSTER that change the cluster's nodes. Facts as Redis 7.2 prints them in `COMMAND` and `COMMAND DOCS`.

use crate::command::node_command::{ClusterChange, ClusterCommand, NodeCommand};
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, one_of, token,
};

pub(super) const CLUSTER_MEET: Row = Row {
    name: "cluster|meet",
    arity: -4,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Forces a node to handshake with another node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[("4.0.0", "Added the optional `cluster_bus_port` argument.")],
        arguments: &[
            argument("ip", ArgumentType::String),
            argument("port", ArgumentType::Integer),
            argument("cluster-bus-port", ArgumentType::Integer).since("4.0.0").flags(&[ArgumentFlag::Optional]),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::Meet))),
};

pub(super) const CLUSTER_FORGET: Row = Row {
    name: "cluster|forget",
    arity: 3,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Removes a node from the nodes table.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("node-id", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::Forget))),
};

pub(super) const CLUSTER_RESET: Row = Row {
    name: "cluster|reset",
    arity: -2,
    flags: &[Flag::Admin, Flag::Noscript, Flag::Stale],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Resets a node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the number of known nodes. The command may execute a FLUSHALL as a side effect.",
        deprecated: None,
        history: &[],
        arguments: &[
            one_of("reset-type", &[token("hard", "HARD"), token("soft", "SOFT")]).flags(&[ArgumentFlag::Optional])
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::Reset))),
};

pub(super) const CLUSTER_REPLICATE: Row = Row {
    name: "cluster|replicate",
    arity: 3,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Configure a node as replica of a master node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("node-id", ArgumentType::String)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::Replicate))),
};

pub(super) const CLUSTER_SET_CONFIG_EPOCH: Row = Row {
    name: "cluster|set-config-epoch",
    arity: 3,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Sets the configuration epoch for a new node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[argument("config-epoch", ArgumentType::Integer)],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::SetConfigEpoch))),
};

pub(super) const CLUSTER_BUMPEPOCH: Row = Row {
    name: "cluster|bumpepoch",
    arity: 2,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Advances the cluster config epoch.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::Bumpepoch))),
};

pub(super) const CLUSTER_SAVECONFIG: Row = Row {
    name: "cluster|saveconfig",
    arity: 2,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Forces a node to save the cluster configuration to disk.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Change(ClusterChange::Saveconfig))),
};
