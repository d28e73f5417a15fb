//! Ops of commands as clients send them: `kvorum::fuzzing::ops`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvorum::fuzzing::ops(input));
