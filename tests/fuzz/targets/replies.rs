//! The client's reply decoder: any bytes are a frame, incomplete, or refused; a frame's every prefix is incomplete.

#![no_main]

use kvorum::protocol::decode_frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((frame, taken))) = decode_frame(bytes) else { return };
    assert_eq!(decode_frame(&bytes[..taken]), Ok(Some((frame, taken))));
    assert_eq!(decode_frame(&bytes[..taken - 1]), Ok(None));
});
