//! A damaged log: `kvorum::fuzzing::log`.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvorum::fuzzing::log(input, DIRECTORY.path()));
