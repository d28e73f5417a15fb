//! Hostile peers, for `tests/fuzz`.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;

use super::codec::{
    AppendResult, SnapshotBegin, SnapshotChunk, SnapshotEnd, decode_append, decode_append_answer, decode_rare,
    decode_reply, encode_append, encode_append_answer,
};
use super::frame::{Frame, FrameReader};
use super::lanes::Body;
use crate::raft::{Member, TypeConfig, Vote};

/// A stream is cut into the same messages wherever its packets end; every decoder reads a body or refuses it, and what it read, its
/// encoder writes as it was.
pub fn messages(input: &[u8]) {
    let Some((cut, stream)) = input.split_first_chunk::<2>() else { return };
    let cut = usize::from(u16::from_be_bytes(*cut)).min(stream.len());
    let whole = read(&[stream]);
    assert_eq!(read(&[&stream[..cut], &stream[cut..]]), whole);
    whole.into_iter().for_each(|frame| decode(&frame.body));
    decode(&Bytes::copy_from_slice(stream));
}

fn read(packets: &[&[u8]]) -> Vec<Frame> {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for packet in packets {
        let mut rest = *packet;
        while !rest.is_empty() {
            reader.fill(&mut rest).now_or_never().expect("a slice is always ready").expect("and never fails");
            loop {
                match reader.next_message() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(_) => return frames,
                }
            }
        }
    }
    frames
}

fn decode(body: &Bytes) {
    if let Ok(request) = decode_append(body.clone()) {
        let again = decode_append(joined(encode_append(&request))).expect("what was encoded decodes");
        assert_eq!((request.vote, request.prev_log_id), (again.vote, again.prev_log_id));
        assert_eq!((request.entries, request.leader_commit), (again.entries, again.leader_commit));
    }
    if let Ok(Ok(answer)) = decode_reply(body.clone())
        && let Ok(result) = decode_append_answer(answer)
    {
        let again = decode_append_answer(encode_append_answer(&result).slice(1..)).expect("what was encoded decodes");
        assert_eq!(text(&result), text(&again));
    }
    let _ = SnapshotBegin::decode(body.clone());
    let _ = SnapshotChunk::decode(body.clone());
    let _ = SnapshotEnd::decode(body.clone());
    let _ = decode_rare::<openraft::raft::VoteRequest<TypeConfig>>(body);
    let _ = decode_rare::<openraft::raft::VoteResponse<TypeConfig>>(body);
    let _ = decode_rare::<openraft::raft::TransferLeaderRequest<TypeConfig>>(body);
    let _ = decode_rare::<(Vote, openraft::Membership<u64, Member>)>(body);
}

fn text(result: &AppendResult) -> String {
    format!("{result:?}")
}

fn joined(body: Body) -> Bytes {
    let mut bytes = BytesMut::new();
    body.parts().iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.freeze()
}
