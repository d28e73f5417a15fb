//! The binary: the allocator and the command line; everything else is the library's.

use std::process::ExitCode;

use kvorum::admin;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    admin::run(words, kvorum::node::run)
}
