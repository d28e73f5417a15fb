//! Pages of moves that are longer than a message, since a key in them is: what comes ahead of the step that they belong to.
//!
//! Kept in memory by the target's leader alone. Whatever is lost, late or mixed up here is seen by the step's checksum, and then the slot is sent
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::GroupId;
use crate::command::op::KEY_BYTES_MAX;
use crate::slot::Slot;

/// Of all pages together. A key and as much of its value are one change.
const BYTES_MAX: usize = 64 << 20;
const _: () = assert!(BYTES_MAX > 2 * KEY_BYTES_MAX);
/// After this its sender has begun anew, or given up.
const TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct PageParts(Mutex<BTreeMap<(GroupId, Slot), Beginning>>);

#[derive(Debug)]
struct Beginning {
    bytes: Vec<u8>,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    #[error("a part of a page is missing before byte {0}")]
    Missing(usize),
    #[error("too many long pages are on their way here")]
    Full,
}

impl PageParts {
    /// The part of a page that begins at `offset`; 0 begins a new page.
    pub fn add(&self, to: (GroupId, Slot), offset: usize, part: &[u8], now: Instant) -> Result<(), PartError> {
        let mut pages = self.0.lock();
        if offset == 0 {
            pages.remove(&to);
        }
        pages.retain(|_, page| now.saturating_duration_since(page.at) < TIME_MAX);
        let held: usize = pages.values().map(|page| page.bytes.len()).sum();
        if held + part.len() > BYTES_MAX {
            return Err(PartError::Full);
        }
        let page = pages.entry(to).or_insert_with(|| Beginning { bytes: Vec::new(), at: now });
        // An answer was lost, and the part was sent again.
        if page.bytes.len().checked_sub(part.len()) == Some(offset) && page.bytes.ends_with(part) {
            return Ok(());
        }
        if page.bytes.len() != offset {
            return Err(PartError::Missing(offset));
        }
        page.bytes.extend_from_slice(part);
        page.at = now;
        Ok(())
    }

    /// The first `length` bytes of a page.
    pub fn take(&self, to: (GroupId, Slot), length: usize) -> Result<Vec<u8>, PartError> {
        let page = self.0.lock().remove(&to).map(|page| page.bytes).unwrap_or_default();
        if page.len() == length { Ok(page) } else { Err(PartError::Missing(length)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> [(GroupId, Slot); 2] {
        [(GroupId(1), Slot::new(7).unwrap()), (GroupId(2), Slot::new(7).unwrap())]
    }

    #[test]
    fn parts_make_a_page_in_order_and_only_once() {
        let (parts, [one, other], now) = (PageParts::default(), places(), Instant::now());
        assert_eq!(parts.add(one, 0, b"abc", now), Ok(()));
        assert_eq!(parts.add(other, 0, b"x", now), Ok(()));
        for wrong in [4, usize::MAX] {
            assert_eq!(parts.add(one, wrong, b"e", now), Err(PartError::Missing(wrong)));
        }
        assert_eq!(parts.add(one, 3, b"de", now), Ok(()));
        assert_eq!(parts.add(one, 3, b"de", now), Ok(()), "sent again");
        assert_eq!(parts.take(one, 5), Ok(b"abcde".to_vec()));
        assert_eq!(parts.take(one, 5), Err(PartError::Missing(5)));
        assert_eq!(parts.take(other, 0), Err(PartError::Missing(0)), "another page than the step's");
    }

    #[test]
    fn a_page_that_begins_anew_and_old_ones_leave_room() {
        let (parts, [one, other], now) = (PageParts::default(), places(), Instant::now());
        let half = vec![0; BYTES_MAX / 2];
        for offset in [0, 0, half.len()] {
            assert_eq!(parts.add(one, offset, &half, now), Ok(()));
        }
        assert_eq!(parts.add(other, 0, b"x", now), Err(PartError::Full));
        assert_eq!(parts.add(other, 0, b"x", now + TIME_MAX), Ok(()));
        assert_eq!(parts.take(one, BYTES_MAX), Err(PartError::Missing(BYTES_MAX)));
    }
}
