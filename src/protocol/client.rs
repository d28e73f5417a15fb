//! The client's side of RESP2: what operator commands and cluster formation send to a node, and read from it.
//!
//! redis-protocol decodes; the bounds are ours, because its decoder recurses as deep as the bytes nest, and begins anew at
//! every call. Bytes here come from a node, or from whatever listens where a node was expected: they never panic.

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use thiserror::Error;

/// Bytes of one reply.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Arrays within arrays; CLUSTER SLOTS, the deepest reply in use, has four.
pub const FRAME_DEPTH_MAX: usize = 16;

/// One reply. RESP2 has no maps: they are arrays of keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Simple(Vec<u8>),
    /// Code and text, without the minus sign.
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Frame>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("not a Redis reply")]
    Malformed,
    #[error("a reply of more than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a reply nested more than {FRAME_DEPTH_MAX} deep")]
    TooDeep,
}

/// Appends one command, as an array of bulk strings.
pub fn encode_command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The reply at the start of `bytes` and how many bytes it took, or `None` while it is incomplete.
pub fn decode_frame(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(end) = frame_end(bytes)? else { return Ok(None) };
    match decode(&bytes[..end]) {
        Ok(Some((frame, taken))) => Ok(Some((convert(frame), taken))),
        Ok(None) | Err(_) => Err(FrameError::Malformed),
    }
}

fn convert(frame: OwnedFrame) -> Frame {
    match frame {
        OwnedFrame::SimpleString(text) => Frame::Simple(text),
        OwnedFrame::Error(text) => Frame::Error(text),
        OwnedFrame::Integer(value) => Frame::Integer(value),
        OwnedFrame::BulkString(bytes) => Frame::Bulk(bytes),
        OwnedFrame::Null => Frame::Null,
        OwnedFrame::Array(items) => Frame::Array(items.into_iter().map(convert).collect()),
    }
}

/// Where the frame at the start ends. Walks its headers without recursion and builds nothing, so an incomplete or
/// too deep frame never reaches the decoder.
fn frame_end(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    // Frames still to come, per array that is open.
    let mut open = vec![1u64];
    let mut next = 0;
    while let Some(last) = open.last_mut() {
        if *last == 0 {
            open.pop();
            continue;
        }
        *last -= 1;
        let rest = &bytes[next..];
        let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return if bytes.len() > FRAME_BYTES_MAX { Err(FrameError::TooLarge) } else { Ok(None) };
        };
        let header = &rest[..line];
        next += line + 2;
        match header.first() {
            Some(b'$') => {
                if let Some(length) = announced(header)? {
                    if length > FRAME_BYTES_MAX as u64 {
                        return Err(FrameError::TooLarge);
                    }
                    next += length as usize + 2;
                }
            }
            Some(b'*') => {
                if let Some(count) = announced(header)? {
                    if open.len() > FRAME_DEPTH_MAX {
                        return Err(FrameError::TooDeep);
                    }
                    open.push(count);
                }
            }
            Some(b'+' | b'-' | b':') => (),
            Some(_) | None => return Err(FrameError::Malformed),
        }
        if next > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        if next > bytes.len() {
            return Ok(None);
        }
    }
    Ok(Some(next))
}

/// The count or length that a header announces, `None` for null.
fn announced(header: &[u8]) -> Result<Option<u64>, FrameError> {
    let digits = std::str::from_utf8(&header[1..]).map_err(|_| FrameError::Malformed)?;
    match digits.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(count) => u64::try_from(count).map(Some).map_err(|_| FrameError::Malformed),
        Err(_) => Err(FrameError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Protocol, ReadLimits, Reply, RequestReader, Requests};

    #[test]
    fn every_kind_of_reply_is_read_and_every_prefix_is_incomplete() {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.array(6);
        reply.simple("OK");
        reply.error("ERR no");
        reply.integer(-7);
        reply.bulk(b"a\r\nb");
        reply.null();
        reply.array(0);
        let bytes = reply.take();
        let expected = Frame::Array(vec![
            Frame::Simple(b"OK".to_vec()),
            Frame::Error("ERR no".to_owned()),
            Frame::Integer(-7),
            Frame::Bulk(b"a\r\nb".to_vec()),
            Frame::Null,
            Frame::Array(Vec::new()),
        ]);
        let two = [&bytes[..], b"+next\r\n"].concat();
        assert_eq!(decode_frame(&two), Ok(Some((expected, bytes.len()))));
        for length in 0..bytes.len() {
            assert_eq!(decode_frame(&bytes[..length]), Ok(None), "{length} bytes");
        }
    }

    #[test]
    fn what_goes_beyond_a_limit_or_is_no_reply_is_refused() {
        let deep = |levels: usize| [&b"*1\r\n".repeat(levels)[..], b":1\r\n"].concat();
        assert!(decode_frame(&deep(FRAME_DEPTH_MAX)).is_ok_and(|frame| frame.is_some()));
        let long_line = [&b"+"[..], &vec![b'a'; FRAME_BYTES_MAX]].concat();
        for (bytes, error) in [
            (deep(FRAME_DEPTH_MAX + 1), FrameError::TooDeep),
            (b"*1\r\n".repeat(1_000_000), FrameError::TooDeep),
            (format!("${}\r\n", FRAME_BYTES_MAX + 1).into_bytes(), FrameError::TooLarge),
            (format!("${}\r\n", u64::MAX / 2).into_bytes(), FrameError::TooLarge),
            (long_line, FrameError::TooLarge),
            (b"HTTP/1.1 200 OK\r\n".to_vec(), FrameError::Malformed),
            (b"\r\n".to_vec(), FrameError::Malformed),
            (b"$x\r\n".to_vec(), FrameError::Malformed),
            (b"*-2\r\n".to_vec(), FrameError::Malformed),
            (b":x\r\n".to_vec(), FrameError::Malformed),
            (b"-\xff\r\n".to_vec(), FrameError::Malformed),
        ] {
            assert_eq!(decode_frame(&bytes), Err(error), "{:?}", &bytes[..bytes.len().min(20)]);
        }
    }

    #[test]
    fn an_announced_count_of_frames_allocates_nothing() {
        assert_eq!(decode_frame(b"*1000000000000\r\n"), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(prop::sample::select(&b"*$+-:10\r\n\xffa"[..]), 0..60)) {
            let _ = decode_frame(&bytes);
        }

        #[test]
        fn an_encoded_command_is_read_back_by_the_request_reader(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5)
        ) {
            let mut bytes = Vec::new();
            encode_command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut bytes);
            let mut requests = Requests::default();
            let taken = RequestReader::new(ReadLimits::default()).decode(&bytes, &mut requests);
            prop_assert_eq!(taken, Ok(bytes.len()));
            prop_assert_eq!(requests.get(0, &bytes).iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), words);
        }
    }
}
