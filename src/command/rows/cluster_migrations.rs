//! Rows of the command table: the subcommands of CLUSTER that move slots whole. Facts from the documentation of Valkey 9 and of Redis 8.4.

use crate::command::node_command::{ClusterCommand, ClusterMigration, NodeCommand};
use crate::command::row::{
    Argument, ArgumentFlag, ArgumentType, Category, Docs, Flag, Group, KeyRange, Row, Run, argument, block, one_of,
    token,
};

const RANGES: Argument =
    block("range", &[argument("start-slot", ArgumentType::Integer), argument("end-slot", ArgumentType::Integer)])
        .flags(&[ArgumentFlag::Multiple]);
const TASK: Argument = one_of("task", &[argument("task-id", ArgumentType::String).token("ID"), token("all", "ALL")]);

pub(super) const CLUSTER_MIGRATESLOTS: Row = Row {
    name: "cluster|migrateslots",
    arity: -4,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Starts moves of slots from this node to others.",
        since: "9.0.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
        deprecated: None,
        history: &[],
        arguments: &[block(
            "migration",
            &[RANGES.token("SLOTSRANGE"), argument("node-id", ArgumentType::String).token("NODE")],
        )
        .flags(&[ArgumentFlag::Multiple])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Migrate(ClusterMigration::Migrateslots))),
};

pub(super) const CLUSTER_GETSLOTMIGRATIONS: Row = Row {
    name: "cluster|getslotmigrations",
    arity: 2,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Returns the moves of slots that this node was asked for, and what became of them.",
        since: "9.0.0",
        group: Group::Cluster,
        complexity: "O(N), where N is the number of moves that were asked for",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Migrate(ClusterMigration::Getslotmigrations))),
};

pub(super) const CLUSTER_CANCELSLOTMIGRATIONS: Row = Row {
    name: "cluster|cancelslotmigrations",
    arity: 2,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &[],
    docs: Docs {
        summary: "Gives up the moves of slots that this node was asked for and that are under way.",
        since: "9.0.0",
        group: Group::Cluster,
        complexity: "O(N), where N is the number of moves under way",
        deprecated: None,
        history: &[],
        arguments: &[],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Migrate(ClusterMigration::Cancelslotmigrations))),
};

pub(super) const CLUSTER_MIGRATION: Row = Row {
    name: "cluster|migration",
    arity: -4,
    flags: &[Flag::Admin, Flag::Stale, Flag::NoAsyncLoading],
    categories: &[Category::Admin, Category::Slow, Category::Dangerous],
    keys: KeyRange::NONE,
    key_specs: &[],
    tips: &["nondeterministic_output"],
    docs: Docs {
        summary: "Start, monitor, and cancel atomic slot migration tasks.",
        since: "8.4.0",
        group: Group::Cluster,
        complexity: "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
        deprecated: None,
        history: &[],
        arguments: &[one_of("subcommand", &[RANGES.token("IMPORT"), TASK.token("CANCEL"), TASK.token("STATUS")])],
    },
    subcommands: &[],
    run: Run::Node(NodeCommand::Cluster(ClusterCommand::Migrate(ClusterMigration::Migration))),
};
