//! Hot path. What waits to be written to one peer: two lanes, bounded, and the next write put together from them.
//!
//! Control frames go first at every write. Bulk is written in pieces of at most `FRAGMENT_BYTES_MAX`, one group after the
//! other, so that neither a heartbeat nor another group's entries wait behind a 512 MB value.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::frame::{FRAGMENT_BYTES_MAX, Header, Kind, Lane};
use crate::cluster::GroupId;

/// A bulk message is refused if it would take the lane above this; one larger message alone is accepted.
pub const BULK_BYTES_MAX: usize = 256 * 1024 * 1024;
pub const BULK_FRAMES_MAX: usize = 16 * 1024;
pub const CONTROL_BYTES_MAX: usize = 16 * 1024 * 1024;
pub const CONTROL_FRAMES_MAX: usize = 64 * 1024;
/// One write takes bulk up to here: what a control frame can have to wait for.
const WRITE_BYTES_MAX: usize = 256 * 1024;
/// Smaller pieces are copied together, larger ones are written from where they are.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// A message's body as parts that are not copied together: entries' bytes are the log's own.
#[derive(Debug, Default, Clone)]
pub struct Body {
    parts: Vec<Bytes>,
    len: usize,
}

impl Body {
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[cfg(fuzzing)]
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }
}

impl From<Bytes> for Body {
    fn from(part: Bytes) -> Self {
        let mut body = Self::default();
        body.push(part);
        body
    }
}

#[derive(Debug)]
struct Waiting {
    header: Header,
    body: Body,
    /// Bytes of the body already taken.
    taken: usize,
    /// Parts wholly taken, and bytes taken of the next.
    part: usize,
    offset: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug, Default)]
pub struct Lanes {
    control: VecDeque<(Header, Body)>,
    control_bytes: usize,
    /// The newest hint replaces one that was not yet written.
    hint: Option<Bytes>,
    /// Groups with something to write, next one first. Few, so looked up by walking.
    bulk: VecDeque<(GroupId, VecDeque<Waiting>)>,
    bulk_bytes: usize,
    bulk_frames: usize,
}

impl Lanes {
    pub fn push(&mut self, header: Header, body: Body) -> Result<(), Full> {
        match header.kind.lane() {
            Lane::Control => {
                assert!(body.len() <= FRAGMENT_BYTES_MAX, "control frames are never cut");
                if self.control.len() >= CONTROL_FRAMES_MAX || self.control_bytes + body.len() > CONTROL_BYTES_MAX {
                    return Err(Full);
                }
                self.control_bytes += body.len();
                self.control.push_back((header, body));
            }
            Lane::Bulk => {
                let fits = self.bulk_bytes == 0 || self.bulk_bytes + body.len() <= BULK_BYTES_MAX;
                if !fits || self.bulk_frames >= BULK_FRAMES_MAX {
                    return Err(Full);
                }
                self.bulk_bytes += body.len();
                self.bulk_frames += 1;
                let waiting = Waiting { header, body, taken: 0, part: 0, offset: 0 };
                match self.bulk.iter_mut().find(|(group, _)| *group == header.group) {
                    Some((_, queue)) => queue.push_back(waiting),
                    None => self.bulk.push_back((header.group, VecDeque::from([waiting]))),
                }
            }
        }
        Ok(())
    }

    pub fn set_hint(&mut self, hint: Bytes) {
        self.hint = Some(hint);
    }

    pub fn bytes(&self) -> usize {
        self.control_bytes + self.bulk_bytes
    }

    pub fn frames(&self) -> usize {
        self.control.len() + self.bulk_frames
    }

    /// Moves the next write into `out`, which stays empty if nothing waits. The number of frames moved.
    pub fn gather(&mut self, out: &mut Outgoing) -> u64 {
        let mut frames = 0;
        if let Some(hint) = self.hint.take() {
            Header::of_node(Kind::Hint, 0).encode_whole(hint.len(), &mut out.copied);
            out.put(hint);
            frames += 1;
        }
        while out.len() < WRITE_BYTES_MAX {
            let Some((header, body)) = self.control.pop_front() else { break };
            self.control_bytes -= body.len;
            header.encode_whole(body.len, &mut out.copied);
            body.parts.into_iter().for_each(|part| out.put(part));
            frames += 1;
        }
        // At least one: control must not starve bulk either.
        while let Some((group, mut queue)) = self.bulk.pop_front() {
            let first = queue.front_mut().expect("a group without messages is not kept");
            first.take(out);
            frames += 1;
            if first.taken == first.body.len {
                self.bulk_bytes -= first.body.len;
                self.bulk_frames -= 1;
                queue.pop_front();
            }
            if !queue.is_empty() {
                self.bulk.push_back((group, queue));
            }
            if out.len() >= WRITE_BYTES_MAX {
                break;
            }
        }
        frames
    }
}

impl Waiting {
    /// Moves the next frame of this message.
    fn take(&mut self, out: &mut Outgoing) {
        let left = self.body.len - self.taken;
        let mut piece = left.min(FRAGMENT_BYTES_MAX);
        self.taken += piece;
        if piece < left {
            self.header.encode_fragment(piece, self.body.len, &mut out.copied);
        } else {
            self.header.encode_whole(piece, &mut out.copied);
        }
        while piece > 0 {
            let part = &self.body.parts[self.part];
            let end = part.len().min(self.offset + piece);
            piece -= end - self.offset;
            out.put(part.slice(self.offset..end));
            self.offset = end;
            if end == part.len() {
                // Given back at once, not when the whole message is through.
                self.body.parts[self.part] = Bytes::new();
                self.part += 1;
                self.offset = 0;
            }
        }
    }
}

/// One write: small pieces copied together, large ones by reference, in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    pub chunks: VecDeque<Bytes>,
    chunks_bytes: usize,
    copied: BytesMut,
}

impl Outgoing {
    fn put(&mut self, piece: Bytes) {
        if piece.len() <= COPY_BYTES_MAX {
            self.copied.extend_from_slice(&piece);
        } else {
            self.seal();
            self.chunks_bytes += piece.len();
            self.chunks.push_back(piece);
        }
    }

    /// Closes the run of copied bytes, so that `chunks` is everything.
    pub fn seal(&mut self) {
        if !self.copied.is_empty() {
            let copied = self.copied.split().freeze();
            self.chunks_bytes += copied.len();
            self.chunks.push_back(copied);
        }
    }

    pub fn len(&self) -> usize {
        self.chunks_bytes + self.copied.len()
    }

    /// To be called when `chunks` has been written.
    pub fn clear(&mut self) {
        assert!(self.copied.is_empty());
        self.chunks.clear();
        self.chunks_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ReplicaId;

    fn header(kind: Kind, group: u32) -> Header {
        Header { kind, group: GroupId(group), target: ReplicaId(1), request: 1 }
    }

    fn write(lanes: &mut Lanes) -> Vec<u8> {
        let mut out = Outgoing::default();
        lanes.gather(&mut out);
        out.seal();
        out.chunks.iter().flat_map(|chunk| chunk.to_vec()).collect()
    }

    #[test]
    fn control_overtakes_bulk_at_the_next_write() {
        let mut lanes = Lanes::default();
        lanes.push(header(Kind::Append, 1), Bytes::from(vec![0; 10 * FRAGMENT_BYTES_MAX]).into()).unwrap();
        write(&mut lanes);
        lanes.push(header(Kind::Vote, 1), Body::default()).unwrap();
        assert_eq!(write(&mut lanes)[4], Kind::Vote as u8);
    }

    #[test]
    fn groups_take_turns() {
        let mut lanes = Lanes::default();
        for group in [1, 2] {
            lanes.push(header(Kind::Append, group), Bytes::from(vec![0; 2 * FRAGMENT_BYTES_MAX]).into()).unwrap();
        }
        let order: Vec<u8> = (0..4).map(|_| write(&mut lanes)[5]).collect();
        assert_eq!(order, [1, 2, 1, 2]);
        assert_eq!((lanes.bytes(), lanes.frames(), write(&mut lanes).len()), (0, 0, 0));
    }

    #[test]
    fn a_full_lane_refuses_but_one_large_message_alone_passes() {
        let mut lanes = Lanes::default();
        let large = Bytes::from(vec![0; BULK_BYTES_MAX + 1]);
        lanes.push(header(Kind::Append, 1), large.into()).unwrap();
        assert_eq!(lanes.push(header(Kind::Append, 1), Bytes::from_static(b"x").into()), Err(Full));
        lanes.push(header(Kind::Vote, 1), Body::default()).unwrap();
        for _ in 1..CONTROL_FRAMES_MAX {
            lanes.push(header(Kind::Vote, 1), Body::default()).unwrap();
        }
        assert_eq!(lanes.push(header(Kind::Vote, 1), Body::default()), Err(Full));
    }

    #[test]
    fn the_latest_hint_wins() {
        let mut lanes = Lanes::default();
        lanes.set_hint(Bytes::from_static(b"old"));
        lanes.set_hint(Bytes::from_static(b"new"));
        let wire = write(&mut lanes);
        assert!(wire.ends_with(b"new") && wire.len() == 25 + 3);
        assert!(write(&mut lanes).is_empty());
    }
}
