//! Where the replies of a stretch lie, and putting them in order. Pure. Hot path.
//!
//! Replies come from two kinds of buffers: the connection's own reply buffer, where local reads and errors are written as
//! they are found, and the buffers that groups filled while they applied chunks. A stretch of local replies only is in
//! order as it stands; otherwise everything from the first reply that is out of place is copied once.

use bytes::BytesMut;

use crate::protocol::Reply;

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

/// Whether all replies could be put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a stretch that was cut must end the connection"]
pub enum Assembled {
    Complete,
    /// The replies before the first unknown one are there; the connection must be closed after them.
    Cut,
}

/// Leaves the replies, in request order, in `reply` from `mark` on.
pub fn assemble(reply: &mut Reply, mark: usize, places: &[Place], buffers: &mut [BytesMut]) -> Assembled {
    let (in_order, kept) = prefix_in_order(mark, places);
    if in_order == places.len() && kept == reply.len() {
        return Assembled::Complete;
    }
    let rest = &places[in_order..];
    if kept == 0
        && let Some(buffer) = sole_buffer(rest, buffers)
    {
        *reply.buffer_mut() = buffer;
        return Assembled::Complete;
    }
    let needs_own = rest.iter().any(|place| matches!(place, Place::Own { .. }));
    let own: Vec<u8> = if needs_own { reply.buffer()[kept..].to_vec() } else { Vec::new() };
    reply.truncate(kept);
    for place in rest {
        match *place {
            // Pending places are settled before; if one were left, its command's effect would be as unknown.
            Place::Pending | Place::Unknown => return Assembled::Cut,
            Place::Own { start, end } => reply.append_raw(&own[start - kept..end - kept]),
            Place::Foreign { buffer, start, end } => {
                reply.append_raw(&buffers[buffer as usize][start as usize..end as usize]);
            }
        }
    }
    Assembled::Complete
}

/// A large buffer that holds all these replies in order and nothing else is used as it is. Small ones are cheaper copied, since
/// the connection's own buffer is there already.
fn sole_buffer(places: &[Place], buffers: &mut [BytesMut]) -> Option<BytesMut> {
    let [buffer] = buffers else { return None };
    if buffer.len() < ADOPTED_BYTES_MIN {
        return None;
    }
    let mut next = 0;
    for place in places {
        match *place {
            Place::Foreign { start, end, buffer: _ } if start == next => next = end,
            Place::Foreign { .. } | Place::Own { .. } | Place::Pending | Place::Unknown => return None,
        }
    }
    (next as usize == buffer.len()).then(|| std::mem::take(buffer))
}

/// How many replies already lie in order after `mark`, and where they end.
fn prefix_in_order(mark: usize, places: &[Place]) -> (usize, usize) {
    let mut kept = mark;
    for (index, place) in places.iter().enumerate() {
        match *place {
            Place::Own { start, end } if start == kept => kept = end,
            Place::Own { .. } | Place::Foreign { .. } | Place::Pending | Place::Unknown => return (index, kept),
        }
    }
    (places.len(), kept)
}

/// The bytes of one reply, before `assemble` has moved them; empty if there are none.
pub fn bytes_of<'a>(reply: &'a Reply, place: &Place, buffers: &'a [BytesMut]) -> &'a [u8] {
    match *place {
        Place::Pending | Place::Unknown => &[],
        Place::Own { start, end } => &reply.buffer()[start..end],
        Place::Foreign { buffer, start, end } => &buffers[buffer as usize][start as usize..end as usize],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    fn own(start: usize, end: usize) -> Place {
        Place::Own { start, end }
    }

    fn foreign(buffer: u32, start: u32, end: u32) -> Place {
        Place::Foreign { buffer, start, end }
    }

    fn check(own_bytes: &str, mark: usize, places: &[Place], buffers: &[&str], expected: (&str, Assembled)) {
        let mut reply = Reply::new(Protocol::Resp2);
        reply.append_raw(own_bytes.as_bytes());
        let mut buffers: Vec<BytesMut> = buffers.iter().map(|text| BytesMut::from(text.as_bytes())).collect();
        let assembled = assemble(&mut reply, mark, places, &mut buffers);
        assert_eq!((std::str::from_utf8(reply.buffer()).unwrap(), assembled), expected, "{places:?}");
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
}
