//! A configuration file: `kvorum::fuzzing::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvorum::fuzzing::config(input));
