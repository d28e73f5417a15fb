//! Glob patterns of KEYS, SCAN MATCH and COMMAND LIST FILTERBY PATTERN, with the meaning of Redis's `stringmatchlen`.
//!
//! `*` any run, `?` one byte, `[abc]`, `[^a]`, `[a-c]` classes, `\x` the byte x. Odd forms mean what they mean there: an
//! unclosed class ends with the pattern, `[z-a]` is `[a-z]`, a trailing `\` is itself.
//!
//! Unlike Redis's, this matcher cannot take exponential time: it remembers only the last `*`, since a later `*` can
//! absorb whatever an earlier one could have. Its cost is at most pattern length times string length.

/// Whether `string` as a whole matches `pattern`.
pub fn matches(pattern: &[u8], string: &[u8]) -> bool {
    matches_by(pattern, string, |byte| byte)
}

/// The same without regard to ASCII case.
pub fn matches_ignoring_case(pattern: &[u8], string: &[u8]) -> bool {
    matches_by(pattern, string, |byte| byte.to_ascii_lowercase())
}

fn matches_by(pattern: &[u8], string: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on after a mismatch: the pattern behind the last `*`, and the string one byte further than last time.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            retry = Some((at, from));
            continue;
        }
        let step = match string.get(from) {
            None if at == pattern.len() => return true,
            // What is left of the pattern needs at least one more byte, and no retry can find one.
            None => return false,
            Some(byte) => match_one(&pattern[at..], *byte, &fold),
        };
        match (step, retry) {
            (Some(length), _) => {
                at += length;
                from += 1;
            }
            (None, Some((pattern_at, string_from))) => {
                at = pattern_at;
                from = string_from + 1;
                retry = Some((at, from));
            }
            (None, None) => return false,
        }
    }
}

/// The length of the pattern's first element if it matches `byte`.
fn match_one(pattern: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (hit, length) = match_class(class, byte, fold);
            hit.then_some(1 + length)
        }
        [b'\\', escaped, ..] => (fold(*escaped) == fold(byte)).then_some(2),
        [literal, ..] => (fold(*literal) == fold(byte)).then_some(1),
    }
}

/// `class` starts behind the `[`. Returns whether `byte` is in it, and the length up to and with the `]`.
fn match_class(class: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> (bool, usize) {
    let byte = fold(byte);
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    loop {
        match class[at..] {
            [] => break,
            [b'\\', escaped, ..] => {
                hit |= fold(escaped) == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (fold(low.min(high)), fold(low.max(high)));
                hit |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                hit |= fold(literal) == byte;
                at += 1;
            }
        }
    }
    (hit != negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, string, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("a*bc*d", "abcbcxd", true),
            ("?", "", false),
            ("??", "ab", true),
            ("h[ae]llo", "hello", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h\\?llo", "h?llo", true),
            ("h\\?llo", "hello", false),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("a\\", "a\\", true),
            ("[]", "a", false),
            ("a[^]b", "axb", true),
            ("abc*", "abc", true),
            ("abc", "abcd", false),
            ("*[0-9]", "key:7", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), string.as_bytes()), expected, "{pattern} {string}");
        }
        assert!(matches_ignoring_case(b"Get*[A-C]", b"gETXXb"));
        assert!(!matches(b"GET", b"get"));
    }

    #[test]
    fn a_hostile_pattern_does_not_blow_up() {
        let pattern = b"*a".repeat(1000);
        let string = vec![b'a'; 20_000];
        let with_end: Vec<u8> = pattern.iter().copied().chain(*b"b").collect();
        assert!(matches(&pattern, &string));
        assert!(!matches(&with_end, &string));
    }
}
