//! What a peer sends: `kvorum::fuzzing::messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| kvorum::fuzzing::messages(input));
