//! Decodes requests: arrays of bulk strings, and inline commands. Hot path.
//!
//! A direct reader of this small grammar costs a fraction of a general frame decoder (31 ns against redis-protocol's 104,
//! or 175 with frames built, for a SET of 64 bytes); tests hold it equal to that decoder. It copies nothing but the words of
//! inline requests, allocates nothing by an announced length, and looks at no byte twice when a request arrives in pieces.

use crate::protocol::args::{ArgRange, Args};
use crate::protocol::inline;
use crate::protocol::limits::{
    KEPT_WORD_COUNT_MAX, LINE_BYTES_MAX, ProtocolError, REQUEST_BYTES_MAX, ReadLimits, WORD_BYTES_MAX_UNAUTHENTICATED,
    WORD_COUNT_MAX, WORD_COUNT_MAX_UNAUTHENTICATED,
};

/// Requests decoded from one read buffer; offsets are from its start. Reused from turn to turn.
#[derive(Debug, Default)]
pub struct Requests {
    ranges: Vec<ArgRange>,
    /// Per request: end of its ranges, and the byte just past it.
    ends: Vec<(u32, u32)>,
    /// Inline words after unquoting, which lie in no read buffer. Their ranges are marked by `inline`.
    unquoted: Vec<u8>,
    /// Indexes of requests whose ranges point into `unquoted`, ascending.
    inline: Vec<u32>,
}

impl Requests {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn clear(&mut self) {
        self.ranges.clear();
        self.ranges.shrink_to(KEPT_WORD_COUNT_MAX);
        self.ends.clear();
        self.unquoted.clear();
        self.unquoted.shrink_to(LINE_BYTES_MAX);
        self.inline.clear();
    }

    /// Request `index`; `bytes` is the buffer it was decoded from.
    pub fn get<'a>(&'a self, index: usize, bytes: &'a [u8]) -> Args<'a> {
        let first = if index == 0 { 0 } else { self.ends[index - 1].0 };
        let ranges = &self.ranges[first as usize..self.ends[index].0 as usize];
        let inline = !self.inline.is_empty() && self.inline.binary_search(&(index as u32)).is_ok();
        Args::new(if inline { &self.unquoted } else { bytes }, ranges)
    }

    /// The byte just past request `index`.
    pub fn end(&self, index: usize) -> usize {
        self.ends[index].1 as usize
    }

    fn finish(&mut self, end: usize) {
        self.ends.push((self.ranges.len() as u32, end as u32));
    }
}

/// An array that has begun: what is known of it, so that a long one is not scanned again at every packet.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// Words still to come.
    remaining: usize,
    /// Offset of the next unread byte.
    next: usize,
    /// The announced length of the word at `next`, once its line has been read.
    length: Option<usize>,
}

#[derive(Debug)]
pub struct RequestReader {
    limits: ReadLimits,
    authenticated: bool,
    begun: Option<Begun>,
    /// Words of the array that has begun.
    partial: Vec<ArgRange>,
    /// Bytes of the unfinished line at the end already searched for its end.
    searched: usize,
}

impl RequestReader {
    pub fn new(limits: ReadLimits) -> Self {
        Self { limits, authenticated: true, begun: None, partial: Vec::new(), searched: 0 }
    }

    /// Before AUTH the limits are Redis's small ones.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    pub fn set_limits(&mut self, limits: ReadLimits) {
        self.limits = limits;
    }

    /// Decodes every complete request at the start of `bytes` and returns how many bytes they took. The caller drops those
    /// before the next call and keeps the rest in front of what arrives; `out` refers to `bytes` as it is now.
    ///
    /// On an error, `out` holds the requests before the malformed one, and the reader is of no further use: where the next request
    /// would begin is unknown, so the connection must close.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Requests) -> Result<usize, ProtocolError> {
        // What lies past the reach of an offset is looked at once the requests before it are gone.
        let bytes = &bytes[..bytes.len().min(REQUEST_BYTES_MAX)];
        let mut consumed = 0;
        while out.len() < self.limits.requests_max {
            let complete = match (&self.begun, bytes.get(consumed)) {
                (Some(_), _) | (None, Some(b'*')) => self.array(bytes, consumed, out)?,
                (None, Some(_)) => self.inline(bytes, consumed, out)?,
                (None, None) => None,
            };
            match complete {
                Some(end) => consumed = end,
                None => break,
            }
        }
        self.rebase(consumed);
        Ok(consumed)
    }

    /// How many bytes the buffer needs before `decode` can make progress on the word it waits for; 0 when unknown.
    /// Offsets are from the start of the unconsumed bytes.
    pub fn wanted(&self) -> usize {
        self.begun.and_then(|begun| Some(begun.next + begun.length? + 2)).unwrap_or(0)
    }

    /// The caller is about to drop `consumed` bytes from the front. Touches the words of a long array once, not at every packet:
    /// nothing is consumed while it is incomplete.
    fn rebase(&mut self, consumed: usize) {
        if consumed == 0 {
            return;
        }
        if let Some(begun) = &mut self.begun {
            begun.next -= consumed;
            for range in &mut self.partial {
                range.start -= consumed as u32;
                range.end -= consumed as u32;
            }
        }
    }

    /// The end of the array at `start`, or `None` if it is incomplete.
    fn array(&mut self, bytes: &[u8], start: usize, out: &mut Requests) -> Result<Option<usize>, ProtocolError> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => match self.count(bytes, start)? {
                Some((0, next)) => return Ok(Some(next)),
                Some((remaining, next)) => Begun { remaining, next, length: None },
                None => return Ok(None),
            },
        };
        while begun.remaining > 0 {
            let length = match begun.length {
                Some(length) => length,
                None => match self.length(bytes, begun.next)? {
                    Some((length, next)) => {
                        begun.next = next;
                        begun.length = Some(length);
                        length
                    }
                    None => break,
                },
            };
            // The word and its CRLF, which Redis does not look at either.
            let after = begun.next + length + 2;
            if bytes.len() < after {
                if after - start > REQUEST_BYTES_MAX {
                    return Err(ProtocolError::Length);
                }
                break;
            }
            self.partial.push(ArgRange { start: begun.next as u32, end: (begun.next + length) as u32 });
            begun = Begun { remaining: begun.remaining - 1, next: after, length: None };
        }
        if begun.remaining > 0 {
            self.begun = Some(begun);
            return Ok(None);
        }
        out.ranges.append(&mut self.partial);
        self.partial.shrink_to(KEPT_WORD_COUNT_MAX);
        out.finish(begun.next);
        Ok(Some(begun.next))
    }

    /// `*<count>\r\n`: the count and the offset past it.
    fn count(&mut self, bytes: &[u8], start: usize) -> Result<Option<(usize, usize)>, ProtocolError> {
        let Some((line, next)) = self.line(bytes, start).map_err(|TooLong| ProtocolError::CountTooBig)? else {
            return Ok(None);
        };
        let count = number(&line[1..]).filter(|count| *count <= WORD_COUNT_MAX as i64).ok_or(ProtocolError::Count)?;
        if !self.authenticated && count > WORD_COUNT_MAX_UNAUTHENTICATED as i64 {
            return Err(ProtocolError::CountUnauthenticated);
        }
        // Redis skips negative counts as it does empty arrays.
        Ok(Some((usize::try_from(count).unwrap_or(0), next)))
    }

    /// `$<length>\r\n`: the length and the offset past it.
    fn length(&mut self, bytes: &[u8], start: usize) -> Result<Option<(usize, usize)>, ProtocolError> {
        let Some((line, next)) = self.line(bytes, start).map_err(|TooLong| ProtocolError::LengthTooBig)? else {
            return Ok(None);
        };
        let Some(digits) = line.strip_prefix(b"$") else {
            return Err(ProtocolError::NoDollar(line.first().copied().unwrap_or(b'\r')));
        };
        let length = number(digits).and_then(|length| u64::try_from(length).ok()).ok_or(ProtocolError::Length)?;
        if length > self.limits.word_bytes_max {
            return Err(ProtocolError::Length);
        }
        if !self.authenticated && length > WORD_BYTES_MAX_UNAUTHENTICATED {
            return Err(ProtocolError::LengthUnauthenticated);
        }
        let length = usize::try_from(length).map_err(|_| ProtocolError::Length)?;
        Ok(Some((length, next)))
    }

    /// The line at `start` without its CRLF, and the offset past it; `None` while it is incomplete. As in Redis, a CR ends it
    /// and the byte after that is not looked at.
    fn line<'a>(&mut self, bytes: &'a [u8], start: usize) -> Result<Option<(&'a [u8], usize)>, TooLong> {
        let rest = &bytes[start.min(bytes.len())..];
        let window = &rest[..rest.len().min(LINE_BYTES_MAX + 1)];
        let Some(unsearched) = window[self.searched..].iter().position(|byte| *byte == b'\r') else {
            if rest.len() > LINE_BYTES_MAX {
                return Err(TooLong);
            }
            self.searched = rest.len();
            return Ok(None);
        };
        let length = self.searched + unsearched;
        if rest.len() < length + 2 {
            self.searched = length;
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some((&rest[..length], start + length + 2)))
    }

    fn inline(&mut self, bytes: &[u8], start: usize, out: &mut Requests) -> Result<Option<usize>, ProtocolError> {
        let rest = &bytes[start..];
        let window = &rest[..rest.len().min(LINE_BYTES_MAX + 1)];
        let Some(unsearched) = window[self.searched..].iter().position(|byte| *byte == b'\n') else {
            if rest.len() > LINE_BYTES_MAX {
                return Err(ProtocolError::InlineTooBig);
            }
            self.searched = rest.len();
            return Ok(None);
        };
        let length = self.searched + unsearched;
        self.searched = 0;
        let end = start + length + 1;
        let text = &rest[..length];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let words = out.ranges.len();
        if !inline::split(text, &mut out.unquoted, &mut out.ranges) {
            out.ranges.truncate(words);
            return Err(ProtocolError::UnbalancedQuotes);
        }
        if out.ranges.len() > words {
            out.inline.push(out.ends.len() as u32);
            out.finish(end);
        }
        Ok(Some(end))
    }
}

struct TooLong;

/// Redis's string2ll: an optional minus, no plus, no leading zeros, no blanks.
fn number(line: &[u8]) -> Option<i64> {
    let (negative, digits) = match line.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, line),
    };
    if digits.is_empty() || digits.len() > 18 || (digits[0] == b'0' && (digits.len() > 1 || negative)) {
        return None;
    }
    let value = digits
        .iter()
        .try_fold(0i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
