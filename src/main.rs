//! The binary: the allocator and the command line; everything else is the library's.

use std::process::ExitCode;

use kvorum::admin::{self, NodeError};
use kvorum::config::LoadedConfig;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    admin::run(words, run_node)
}

/// Stands in for `kvorum::node::run`, which has this signature.
fn run_node(_loaded: LoadedConfig) -> Result<(), NodeError> {
    Err("this build has no node".into())
}
