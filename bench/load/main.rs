//! Loads a Redis-protocol cluster, or one node, with a mix of SETs and GETs and tells what that gave as one line of JSON.
//!
//! What redis-benchmark lacks: mixes, a fixed rate with latencies from when each request was due (so that a stall of the servers
//! counts for all who would have asked meanwhile), any size of keys, and an end at the very time asked for.

mod cluster;
mod connection;
mod histogram;
mod options;
mod run;

use std::process::ExitCode;

use options::{Options, USAGE};
use run::Run;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("kvorum-load: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match Run::new(options).and_then(Run::go) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("kvorum-load: {error}");
            ExitCode::FAILURE
        }
    }
}
