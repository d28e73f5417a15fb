//! The rows, one subject per file. A new command is one row, its functions and its table test.

mod client;
mod cluster;
mod cluster_change;
mod cluster_migrations;
mod cluster_slots;
mod command;
mod connection;
mod expiry;
mod keys;
mod keyspace;
mod monitoring;
mod server;
mod strings_read;
mod strings_write;

use super::row::Row;

/// All rows, without subcommands, file by file.
/// A static, not a constant: a row is known by its address, and each use of a constant may have its own.
pub(super) static ROWS: &[&[&Row]] = &[
    strings_read::ROWS,
    strings_write::ROWS,
    keys::ROWS,
    expiry::ROWS,
    keyspace::ROWS,
    connection::ROWS,
    client::ROWS,
    server::ROWS,
    command::ROWS,
    monitoring::ROWS,
    cluster::ROWS,
    cluster_slots::ROWS,
];
