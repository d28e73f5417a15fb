//! Where the replies of a stretch lie, and in which order they leave. Pure. Hot path.
//!
//! Replies come from two kinds of buffers: the connection's own reply buffer, where local reads and errors are written as
//! they are found, and the buffers that groups filled while they applied chunks. A stretch of local replies only is in
//! order as it stands; otherwise everything from the first reply that is out of place is copied once, as are large values: a part
//! at a time (`output.rs`), for what they come to in all may be more than the connection has room for.

use bytes::BytesMut;

use crate::protocol::{Cursor, Replies, Reply};

/// From this size on a chunk's buffer is sent as it is instead of being copied.
const ADOPTED_BYTES_MIN: usize = 16 << 10;

/// Where one reply lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not answered yet.
    Pending,
    /// In the connection's own reply buffer.
    Own { start: usize, end: usize },
    /// In a buffer that came from elsewhere.
    Foreign { buffer: u32, start: u32, end: u32 },
    /// § Nothing is known about the command's effect, so nothing may be answered: neither this nor anything after it.
    Unknown,
}

/// Whether all replies are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a stretch that was cut must end the connection"]
pub enum Assembled {
    Complete,
    /// The replies before the first unknown one leave; the connection must be closed after them.
    Cut,
}

/// What is still to be appended to the connection's reply buffer, in request order.
#[derive(Debug)]
pub struct Rest<'a> {
    places: &'a [Place],
    buffers: &'a [Replies],
    /// What the connection's reply buffer held from `kept` on.
    own: Replies,
    kept: usize,
    /// Where the next reply goes on, if a part of it was appended already.
    cursor: Option<Cursor>,
}

/// Leaves the replies, in request order, in `reply` from `mark` on, up to what is returned.
pub fn assemble<'a>(
    reply: &mut Reply,
    mark: usize,
    places: &'a [Place],
    buffers: &'a mut [Replies],
) -> (Assembled, Rest<'a>) {
    // Pending places are settled before; if one were left, its command's effect would be as unknown.
    let known = places.iter().position(|place| matches!(place, Place::Pending | Place::Unknown));
    let assembled = if known.is_none() { Assembled::Complete } else { Assembled::Cut };
    let places = &places[..known.unwrap_or(places.len())];
    let (in_order, kept) = prefix_in_order(reply, mark, places);
    let rest = &places[in_order..];
    if kept == 0
        && let Some(buffer) = sole_buffer(rest, buffers)
    {
        // With its large values, which a read that was made again may have left.
        reply.truncate(0);
        *reply.buffer_mut() = buffer;
        return (assembled, Rest { places: &[], buffers, own: Replies::default(), kept, cursor: None });
    }
    let needs_own = rest.iter().any(|place| matches!(place, Place::Own { .. }));
    let own = if needs_own { reply.split_off(kept) } else { Replies::default() };
    reply.truncate(kept);
    (assembled, Rest { places: rest, buffers, own, kept, cursor: None })
}

impl Rest<'_> {
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Appends the next reply, with its large values, or so many bytes of it.
    pub fn append_next(&mut self, out: &mut BytesMut, bytes_max: usize) {
        let Some((place, rest)) = self.places.split_first() else { return };
        let (replies, range) = match *place {
            Place::Pending | Place::Unknown => unreachable!("cut off before"),
            Place::Own { start, end } => (&self.own, start - self.kept..end - self.kept),
            Place::Foreign { buffer, start, end } => (&self.buffers[buffer as usize], start as usize..end as usize),
        };
        let mut cursor = self.cursor.unwrap_or_else(|| replies.cursor(range.start));
        if replies.append_some(out, &mut cursor, range.end, bytes_max) {
            (self.places, self.cursor) = (rest, None);
        } else {
            self.cursor = Some(cursor);
        }
    }
}

/// A large buffer that holds all these replies in order and nothing else is used as it is. Small ones are cheaper copied, since
/// the connection's own buffer is there already.
fn sole_buffer(places: &[Place], buffers: &mut [Replies]) -> Option<BytesMut> {
    let [buffer] = buffers else { return None };
    if buffer.bytes().len() < ADOPTED_BYTES_MIN {
        return None;
    }
    let mut next = 0;
    for place in places {
        match *place {
            Place::Foreign { start, end, buffer: _ } if start == next => next = end,
            Place::Foreign { .. } | Place::Own { .. } | Place::Pending | Place::Unknown => return None,
        }
    }
    if next as usize == buffer.bytes().len() { buffer.take_whole() } else { None }
}

/// How many replies already lie in order after `mark`, with nothing missing from them, and where they end.
fn prefix_in_order(reply: &Reply, mark: usize, places: &[Place]) -> (usize, usize) {
    let whole = reply.first_large().unwrap_or(usize::MAX);
    let mut kept = mark;
    for (index, place) in places.iter().enumerate() {
        match *place {
            Place::Own { start, end } if start == kept && end <= whole => kept = end,
            Place::Own { .. } | Place::Foreign { .. } | Place::Pending | Place::Unknown => return (index, kept),
        }
    }
    (places.len(), kept)
}

/// The bytes of one reply without its large values, before `assemble` has moved them; empty if there are none.
pub fn bytes_of<'a>(reply: &'a Reply, place: &Place, buffers: &'a [Replies]) -> &'a [u8] {
    match *place {
        Place::Pending | Place::Unknown => &[],
        Place::Own { start, end } => &reply.buffer()[start..end],
        Place::Foreign { buffer, start, end } => &buffers[buffer as usize].bytes()[start as usize..end as usize],
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::Protocol;

    fn own(start: usize, end: usize) -> Place {
        Place::Own { start, end }
    }

    fn foreign(buffer: u32, start: u32, end: u32) -> Place {
        Place::Foreign { buffer, start, end }
    }

    fn check(own_bytes: &str, mark: usize, places: &[Place], buffers: &[&str], expected: (&str, Assembled)) {
        for bytes_max in [1, usize::MAX] {
            check_parts(own_bytes, mark, places, buffers, expected, bytes_max);
        }
    }

    fn check_parts(
        own_bytes: &str,
        mark: usize,
        places: &[Place],
        buffers: &[&str],
        expected: (&str, Assembled),
        bytes_max: usize,
    ) {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.append_raw(own_bytes.as_bytes());
        let mut buffers: Vec<Replies> = buffers.iter().map(|text| BytesMut::from(text.as_bytes()).into()).collect();
        let (assembled, mut rest) = assemble(&mut reply, mark, places, &mut buffers);
        while !rest.is_empty() {
            rest.append_next(reply.buffer_mut(), bytes_max);
        }
        assert_eq!((std::str::from_utf8(reply.buffer()).unwrap(), assembled), expected, "{places:?}");
    }

    #[test]
    fn nothing_is_left_of_a_large_value_that_was_read_again() {
        let mut reply = Reply::new(Protocol::Resp2);
        let stale = vec![b's'; 1 << 20];
        reply.bulk_pieces(stale.len(), [Bytes::from(stale)]);
        let fresh = "f".repeat(1 << 20);
        let mut buffers = [BytesMut::from(fresh.as_bytes()).into()];
        let places = [foreign(0, 0, 1 << 20)];
        let (_, rest) = assemble(&mut reply, 0, &places, &mut buffers);
        assert!(rest.is_empty() && reply.total_len() == fresh.len());
        reply.fill_in();
        assert_eq!(reply.buffer(), fresh.as_bytes());
    }

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        use Assembled::Complete;
        check("", 0, &[], &[], ("", Complete));
        check("abc", 0, &[own(0, 1), own(1, 3)], &[], ("abc", Complete));
        check("earlier,ab", 8, &[own(8, 9), own(9, 10)], &[], ("earlier,ab", Complete));
        check("", 0, &[foreign(0, 0, 2), foreign(0, 2, 3)], &["xyz"], ("xyz", Complete));
        check("ab", 0, &[own(0, 1), foreign(0, 0, 1), own(1, 2)], &["X"], ("aXb", Complete));
        check(
            "e,ab",
            2,
            &[foreign(0, 0, 1), own(2, 3), foreign(1, 0, 1), own(3, 4)],
            &["X", "Y"],
            ("e,XaYb", Complete),
        );
        check("ab", 0, &[own(1, 2), own(0, 1)], &[], ("ba", Complete));
    }

    #[test]
    fn replies_that_were_redone_leave_no_trace_of_the_first_try() {
        check("badgood", 0, &[own(3, 7)], &[], ("good", Assembled::Complete));
        check("abad", 0, &[own(0, 1), foreign(0, 0, 1)], &["X"], ("aX", Assembled::Complete));
        check("abad", 0, &[own(0, 1)], &[], ("a", Assembled::Complete));
    }

    #[test]
    fn a_large_buffer_that_holds_everything_is_taken_over() {
        let large = "x".repeat(ADOPTED_BYTES_MIN);
        let end = large.len() as u32;
        check("", 0, &[foreign(0, 0, 1), foreign(0, 1, end)], &[&large], (&large, Assembled::Complete));
        check("", 0, &[foreign(0, 1, end)], &[&large], (&large[1..], Assembled::Complete));
        let after = format!("a{large}");
        check("a", 1, &[foreign(0, 0, end)], &[&large], (&after, Assembled::Complete));
    }

    #[test]
    fn nothing_is_answered_from_an_unknown_outcome_on() {
        check("ab", 0, &[own(0, 1), Place::Unknown, own(1, 2)], &[], ("a", Assembled::Cut));
        check("ab", 0, &[Place::Pending, own(0, 1)], &[], ("", Assembled::Cut));
    }

    #[test]
    fn large_values_are_filled_in_when_their_reply_is_appended() {
        let value = bytes::Bytes::from(vec![b'v'; 20_000]);
        let write = |reply: &mut Reply| {
            reply.integer(7);
            let start = reply.len();
            reply.bulk_pieces(value.len(), [value.clone()]);
            (start, reply.len())
        };
        let (mut reply, mut ridden) = (Reply::new(Protocol::Resp2), Reply::new(Protocol::Resp2));
        let (start, end) = write(&mut reply);
        reply.integer(8);
        let (_, ridden_end) = write(&mut ridden);
        let places = [own(0, start), own(start, end), foreign(0, 4, ridden_end as u32), own(end, end + 4)];
        let mut buffers = [ridden.take_replies()];
        let (assembled, mut rest) = assemble(&mut reply, 0, &places, &mut buffers);
        assert_eq!((assembled, &reply.buffer()[..]), (Assembled::Complete, &b":7\r\n"[..]));
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            rest.append_next(reply.buffer_mut(), usize::MAX);
            lengths.push(reply.len());
        }
        let bulk = 20_000 + "$20000\r\n\r\n".len();
        assert_eq!(lengths, [4 + bulk, 4 + 2 * bulk, 8 + 2 * bulk]);
    }
}
