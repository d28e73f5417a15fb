//! Splits an inline request into words as Redis's `sdssplitargs` does.

use crate::protocol::args::ArgRange;

/// Appends the words of `text` to `words`, their ranges to `ranges`. False when quotes are unbalanced.
pub fn split(text: &[u8], words: &mut Vec<u8>, ranges: &mut Vec<ArgRange>) -> bool {
    // To Redis the line is a C string: it ends at the first NUL.
    let mut rest = text.split(|byte| *byte == 0).next().unwrap_or_default();
    loop {
        while let [b' ' | 9..=13, after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return true;
        }
        let start = words.len() as u32;
        match word(rest, words) {
            Some(after) => rest = after,
            None => return false,
        }
        ranges.push(ArgRange { start, end: words.len() as u32 });
    }
}

/// One word, quotes resolved; what follows it.
fn word<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'"' => return closed(double_quoted(after, out)?),
            b'\'' => return closed(single_quoted(after, out)?),
            b' ' | b'\n' | b'\r' | b'\t' => return Some(rest),
            other => out.push(*other),
        }
        rest = after;
    }
    Some(rest)
}

/// A closing quote must be followed by a blank (C's `isspace`, which counts the vertical tab) or the end.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    matches!(rest, [] | [b' ' | 9..=13, ..]).then_some(rest)
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [other, after @ ..] => {
                out.push(*other);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                rest = after;
            }
            [other, after @ ..] => {
                out.push(*other);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}
