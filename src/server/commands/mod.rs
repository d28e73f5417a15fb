//! The commands that a node answers itself, one file per family; `run` finds the function.
//!
//! Those that read nothing replicated and change nothing that the requests around them depend on run in place, between reads and writes of
//! the same stretch. All others run alone, when everything before them is complete.

mod client;
mod cluster;
mod cluster_change;
mod cluster_migrations;
mod cluster_slots;
mod config;
mod connection;
#[cfg(test)]
mod fixture;
mod info;
mod info_figures;
mod info_text;
mod keyspace;
mod led;
mod memory;
mod observe;
mod run;
mod scan;
mod wait;

pub use run::{CommandContext, REDIS_VERSION, run, run_alone, runs_in_place};
