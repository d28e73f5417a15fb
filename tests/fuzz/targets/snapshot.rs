//! A damaged snapshot: `kvorum::fuzzing::snapshot`.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvorum::fuzzing::snapshot(input, DIRECTORY.path()));
