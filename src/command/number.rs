//! Numbers as Redis reads and prints them. Hot path.
//!
//! Integers follow `string2ll`: exactly the texts that `i64` would print, so no `+1`, `01`, `-0` or spaces. Floats, which
//! only INCRBYFLOAT needs, are in `float80.rs`.

use super::errors::WireError;

/// Longest text of an `i64`: `-9223372036854775808`.
const INTEGER_BYTES_MAX: usize = 20;

/// The integer of a text that `i64` prints exactly so, else `None`.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    if text.len() > INTEGER_BYTES_MAX {
        return None;
    }
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    // Summed up as a negative number, since i64::MIN has no positive counterpart.
    let mut sum: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum = sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(sum) } else { sum.checked_neg() }
}

/// An argument that must be an integer.
pub fn integer_argument(text: &[u8]) -> Result<i64, WireError> {
    parse_integer(text).ok_or(WireError::NotAnInteger)
}

/// The text of an integer in a buffer on the stack.
#[derive(Debug, Clone, Copy)]
pub struct IntegerText {
    bytes: [u8; INTEGER_BYTES_MAX],
    start: usize,
}

impl IntegerText {
    pub fn new(value: i64) -> Self {
        let mut text = Self { bytes: [0; INTEGER_BYTES_MAX], start: INTEGER_BYTES_MAX };
        let mut rest = value.unsigned_abs();
        loop {
            text.push_front(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            text.push_front(b'-');
        }
        text
    }

    fn push_front(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        for text in
            ["", "-", "+1", "01", "-0", "-01", "1 ", " 1", "1a", "9223372036854775808", "-9223372036854775809", "1.0"]
        {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_integer(b"1\0"), None);
        assert_eq!(parse_integer(&b"1".repeat(21)), None);
    }

    #[test]
    fn integers_survive_printing_and_parsing() {
        for value in [0, 1, -1, 9, 10, -10, 1234567890, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            let text = IntegerText::new(value);
            assert_eq!(text.as_bytes(), value.to_string().as_bytes());
            assert_eq!(parse_integer(text.as_bytes()), Some(value));
        }
    }
}
