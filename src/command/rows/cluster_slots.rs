//! Rows of the command table: the subcommands of CLUSTER that give slots to nodes, and MIGRATE. Facts as Redis 7.2 prints them in `COMMAND` and
//! `COMMAND DOCS`, but for MIGRATE's keys: it is answered by the node that is asked.

use crate::command::node_command::{ClusterCommand, ClusterSlots, NodeCommand};
use crate::command::row::{
    ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, block, one_of, token,
};

/// The rows of this file, without subcommands.
pub(super) const ROWS: &[&Row] = &[&MIGRATE];

pub(super) const CLUSTER_SETSLOT: Row = Row {
    name: "cluster|setslot",
    arity: -4,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Binds a hash slot to a node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[
            argument("slot", ArgumentType::Integer),
            one_of(
                "subcommand",
                &[
                    argument("importing", ArgumentType::String).token("IMPORTING"),
                    argument("migrating", ArgumentType::String).token("MIGRATING"),
                    argument("node", ArgumentType::String).token("NODE"),
                    token("stable", "STABLE"),
                ],
            ),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Assign(ClusterSlots::Setslot))),
};

pub(super) const CLUSTER_ADDSLOTS: Row = Row {
    name: "cluster|addslots",
    arity: -3,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Assigns new hash slots to a node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of hash slot arguments",
        deprecated: None,
        history: &[],
        arguments: &[argument("slot", ArgumentType::Integer).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Assign(ClusterSlots::Addslots))),
};

pub(super) const CLUSTER_ADDSLOTSRANGE: Row = Row {
    name: "cluster|addslotsrange",
    arity: -4,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Assigns new hash slot ranges to a node.",
        since: "7.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
        deprecated: None,
        history: &[],
        arguments: &[block(
            "range",
            &[argument("start-slot", ArgumentType::Integer), argument("end-slot", ArgumentType::Integer)],
        )
        .flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Assign(ClusterSlots::Addslotsrange))),
};

pub(super) const CLUSTER_DELSLOTS: Row = Row {
    name: "cluster|delslots",
    arity: -3,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Sets hash slots as unbound for a node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of hash slot arguments",
        deprecated: None,
        history: &[],
        arguments: &[argument("slot", ArgumentType::Integer).flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Assign(ClusterSlots::Delslots))),
};

pub(super) const CLUSTER_DELSLOTSRANGE: Row = Row {
    name: "cluster|delslotsrange",
    arity: -4,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Sets hash slot ranges as unbound for a node.",
        since: "7.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
        deprecated: None,
        history: &[],
        arguments: &[block(
            "range",
            &[argument("start-slot", ArgumentType::Integer), argument("end-slot", ArgumentType::Integer)],
        )
        .flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Assign(ClusterSlots::Delslotsrange))),
};

pub(super) const CLUSTER_FLUSHSLOTS: Row = Row {
    name: "cluster|flushslots",
    arity: 2,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Deletes all slots information from a node.",
        since: "3.0.0",
        group: Group::Cluster,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Assign(ClusterSlots::Flushslots))),
};

const MIGRATE: Row = Row {
    name: "migrate",
    arity: -6,
    flags: &[Flag::Write],
    categories: &[Category::Keyspace, Category::Write, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Atomically transfers a key from one Redis instance to another.",
        since: "2.6.0",
        group: Group::Generic,
        complexity: "O(1)",
        deprecated: None,
        history: &[],
        arguments: &[
            argument("host", ArgumentType::String),
            argument("port", ArgumentType::Integer),
            argument("key", ArgumentType::String),
            argument("destination-db", ArgumentType::Integer),
            argument("timeout", ArgumentType::Integer),
        ],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Migrate),
};
