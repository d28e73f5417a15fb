//! The request reader against redis-protocol's decoder, and against itself with the stream cut elsewhere.
//!
//! The first two bytes say where to cut; the rest is the stream.

#![no_main]

use kvorum::protocol::{ProtocolError, ReadLimits, RequestReader, Requests};
use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;

type Request = Vec<Vec<u8>>;

fuzz_target!(|input: &[u8]| {
    let Some((cut, stream)) = input.split_first_chunk::<2>() else { return };
    let cut = usize::from(u16::from_be_bytes(*cut)).min(stream.len());
    let (requests, error) = feed(&[stream]);
    assert_eq!(feed(&[&stream[..cut], &stream[cut..]]), (requests.clone(), error), "cut at {cut}");

    // What redis-protocol takes for requests, the reader must take for the same ones. It need not refuse what the reader refuses:
    // it has no limits, and decodes replies as well.
    let mut rest = stream;
    let mut read = requests.into_iter();
    while let Some((expected, taken)) = request(rest) {
        if !expected.is_empty() {
            assert_eq!(read.next(), Some(expected));
        }
        rest = &rest[taken..];
    }
});

fn feed(packets: &[&[u8]]) -> (Vec<Request>, Option<ProtocolError>) {
    let mut reader = RequestReader::new(ReadLimits { requests_max: usize::MAX, ..ReadLimits::default() });
    let mut requests = Requests::default();
    let (mut buffer, mut all) = (Vec::new(), Vec::new());
    for packet in packets {
        buffer.extend_from_slice(packet);
        requests.clear();
        let result = reader.decode(&buffer, &mut requests);
        all.extend((0..requests.len()).map(|index| requests.get(index, &buffer).iter().map(<[u8]>::to_vec).collect()));
        match result {
            Ok(consumed) => drop(buffer.drain(..consumed)),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

/// The request at the start of `bytes` if it is in the form that clients send and both readers know: an array of bulk strings whose
/// counts and lengths are spelt without signs and leading zeros. Both ends of lines must be CRLF; redis-protocol wants that,
/// Redis looks at the CR alone.
fn request(bytes: &[u8]) -> Option<(Request, usize)> {
    let (frame, taken) = decode(bytes).ok()??;
    let OwnedFrame::Array(items) = frame else { return None };
    let words: Option<Request> = items
        .into_iter()
        .map(|item| match item {
            OwnedFrame::BulkString(word) => Some(word),
            OwnedFrame::SimpleString(_)
            | OwnedFrame::Error(_)
            | OwnedFrame::Integer(_)
            | OwnedFrame::Array(_)
            | OwnedFrame::Null => None,
        })
        .collect();
    let words = words?;
    let mut canonical = format!("*{}\r\n", words.len()).into_bytes();
    for word in &words {
        canonical.extend(format!("${}\r\n", word.len()).as_bytes());
        canonical.extend(word);
        canonical.extend(b"\r\n");
    }
    (canonical == bytes[..taken]).then_some((words, taken))
}
