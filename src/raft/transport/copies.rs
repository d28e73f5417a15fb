//! Tests only: finds the requests in what one end of a connection writes, so that the simulated network can deliver some of them once more.
//!
//! A copy is what a receiver may get of a sender that gave up waiting and asked again, or that was away: the same request, late, behind newer
//! ones or on a later connection. Its answer finds nobody who waits. What TCP rules out has no copies: replies, which their own connection alone carries;
//! hints, which one channel keeps in order; snapshots, of which no part is sent twice, and what travels in fragments.

use std::collections::BTreeSet;

use super::frame::{HEADER_BYTES, Kind, MORE};
use super::handshake::GREETING_BYTES;

const LEN_BYTES: usize = 4;
const KIND_AT: usize = LEN_BYTES;
const GROUP_AT: usize = KIND_AT + 1;
const REQUEST_AT: usize = LEN_BYTES + HEADER_BYTES - 8;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copied {
    Append,
    /// Heartbeats, votes and transfers of leadership.
    Election,
    /// What the nodes ask each other: steps of moves, and ops of the meta group.
    Question,
}

impl Copied {
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "late append",
            Self::Election => "late heartbeat, vote or transfer",
            Self::Question => "late question",
        }
    }
}

/// What one end writes, from its first byte on.
pub struct WrittenFrames {
    greeting_left: usize,
    partial: Vec<u8>,
    /// Groups with a message of which some fragments are written.
    cut: BTreeSet<[u8; 4]>,
}

impl Default for WrittenFrames {
    fn default() -> Self {
        Self { greeting_left: GREETING_BYTES, partial: Vec::new(), cut: BTreeSet::new() }
    }
}

impl WrittenFrames {
    /// Whether another frame may follow what was written.
    pub fn are_whole(&self) -> bool {
        self.greeting_left == 0 && self.partial.is_empty()
    }

    /// Copies of the requests that `bytes` complete, each a whole frame.
    pub fn write(&mut self, bytes: &[u8]) -> Vec<(Copied, Vec<u8>)> {
        let (greeting, frames) = bytes.split_at(bytes.len().min(self.greeting_left));
        self.greeting_left -= greeting.len();
        self.partial.extend_from_slice(frames);
        let mut copies = Vec::new();
        while let Some(len) = self.partial.first_chunk() {
            let end = LEN_BYTES + u32::from_le_bytes(*len) as usize;
            if self.partial.len() < end {
                break;
            }
            let rest = self.partial.split_off(end);
            let frame = std::mem::replace(&mut self.partial, rest);
            copies.extend(self.copy(frame));
        }
        copies
    }

    fn copy(&mut self, mut frame: Vec<u8>) -> Option<(Copied, Vec<u8>)> {
        let group = *frame[GROUP_AT..].first_chunk().expect("a header");
        let kind = Kind::from_byte(frame[KIND_AT] & !MORE).expect("a kind");
        if frame[KIND_AT] & MORE != 0 {
            self.cut.insert(group);
            return None;
        }
        let copied = match kind {
            Kind::Append if !self.cut.contains(&group) => Copied::Append,
            Kind::Heartbeat | Kind::Vote | Kind::PreVote | Kind::TransferLeader => Copied::Election,
            Kind::Ask => Copied::Question,
            Kind::Append | Kind::SnapshotBegin | Kind::SnapshotChunk | Kind::SnapshotEnd => {
                self.cut.remove(&group);
                return None;
            }
            Kind::Reply | Kind::Hint | Kind::Ping | Kind::Pong => return None,
        };
        // Ids are counted from 1.
        frame[REQUEST_AT..REQUEST_AT + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        Some((copied, frame))
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;
    use crate::cluster::{GroupId, ReplicaId};
    use crate::raft::transport::frame::Header;

    fn header(kind: Kind) -> Header {
        Header { kind, group: GroupId(2), target: ReplicaId(3), request: 7 }
    }

    #[test]
    fn whole_requests_are_copied_without_an_id_that_anybody_waits_for() {
        let mut written = BytesMut::from(&[0; GREETING_BYTES][..]);
        let whole = |kind, written: &mut BytesMut| {
            header(kind).encode_whole(2, written);
            written.put_slice(b"ab");
        };
        whole(Kind::Ask, &mut written);
        whole(Kind::Reply, &mut written);
        header(Kind::Append).encode_fragment(1, 3, &mut written);
        written.put_slice(b"a");
        whole(Kind::Heartbeat, &mut written);
        whole(Kind::Append, &mut written);
        whole(Kind::Append, &mut written);
        // However it is cut up.
        for step in [1, 7, written.len()] {
            let mut frames = WrittenFrames::default();
            let copies: Vec<_> = written.chunks(step).flat_map(|bytes| frames.write(bytes)).collect();
            let kinds: Vec<Copied> = copies.iter().map(|(copied, _)| *copied).collect();
            assert_eq!(kinds, [Copied::Question, Copied::Election, Copied::Append], "the fragments' end is no request");
            assert!(frames.are_whole());
            let mut expected = BytesMut::new();
            Header { request: u64::MAX, ..header(Kind::Ask) }.encode_whole(2, &mut expected);
            expected.put_slice(b"ab");
            assert_eq!(copies[0].1, expected);
        }
    }

    #[test]
    fn nothing_may_follow_half_a_frame() {
        let mut frames = WrittenFrames::default();
        assert!(!frames.are_whole());
        frames.write(&[0; GREETING_BYTES]);
        assert!(frames.are_whole());
        frames.write(&[1]);
        assert!(!frames.are_whole());
    }
}
