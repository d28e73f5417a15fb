//! The x87 `long double` arithmetic of INCRBYFLOAT, in integers: parse, add, print.
//!
//! Redis computes INCRBYFLOAT in `long double` (64-bit significand) and prints `%.17Lf` without trailing zeros. With f64
//! 3.0 + 1.1 would print 4.09999999999999964 instead of 4.1, and other CPUs have other `long double`s; replicas must
//! agree to the bit, so the arithmetic is done here on integers, rounding to nearest even at every step as x87 does.
//!
//! Accepted texts are those of `strtold` in the C locale: decimal or hexadecimal digits with one optional point and
//! exponent, sign, and `inf` (which INCRBYFLOAT then refuses as a result).

use std::cmp::Ordering;

/// Significand bits.
const PRECISION: i64 = 64;
/// Largest e for which significand * 2^e with a full significand is finite: 16383 - 63.
const EXPONENT_MAX: i64 = 16383 - 63;
/// e of the smallest denormal.
const EXPONENT_MIN: i64 = -16382 - 63;
/// Redis refuses longer texts (`MAX_LONG_DOUBLE_CHARS`).
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
const FRACTION_DIGITS: usize = 17;

/// (-1)^negative * significand * 2^exponent. The significand's top bit is set unless the number is zero or denormal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float80 {
    Finite { negative: bool, significand: u64, exponent: i64 },
    Infinite { negative: bool },
}

impl Float80 {
    const ZERO: Self = Self::Finite { negative: false, significand: 0, exponent: EXPONENT_MIN };

    /// `None` where Redis says "value is not a valid float".
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
            return Some(Self::Infinite { negative });
        }
        if let [b'0', b'x' | b'X', hexadecimal @ ..] = text {
            return parse_hexadecimal(negative, hexadecimal);
        }
        let (digits, exponent) = split_decimal(text)?;
        let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
            return Some(Self::Finite { negative, significand: 0, exponent: EXPONENT_MIN });
        };
        // Decimal magnitude, to turn away what cannot be finite or nonzero before big numbers are built.
        let magnitude = exponent + (digits.len() - first) as i64;
        if !(-5000..=4940).contains(&magnitude) {
            return None;
        }
        let mut numerator = Big::from_decimal(&digits[first..]);
        let mut denominator = Big::one();
        let power = exponent.unsigned_abs() as usize;
        if exponent >= 0 {
            numerator.multiply_by_power_of_ten(power)
        } else {
            denominator.multiply_by_power_of_ten(power)
        }
        match round_quotient(negative, numerator, denominator) {
            // As strtold reports ERANGE.
            Self::Infinite { .. } | Self::Finite { significand: 0, .. } => None,
            finite @ Self::Finite { .. } => Some(finite),
        }
    }

    /// The sum, rounded to nearest even; `None` if it is infinite or not a number.
    pub fn add(self, other: Self) -> Option<Self> {
        let (
            Self::Finite { negative: negative_a, significand: a, exponent: exponent_a },
            Self::Finite { negative: negative_b, significand: b, exponent: exponent_b },
        ) = (self, other)
        else {
            return None;
        };
        if a == 0 || b == 0 {
            return Some(match (a, b) {
                (0, 0) => Self::ZERO,
                (0, _) => other,
                (_, _) => self,
            });
        }
        let exponent = exponent_a.min(exponent_b);
        let mut left = Big::from_u64(a);
        left.shift_left((exponent_a - exponent) as usize);
        let mut right = Big::from_u64(b);
        right.shift_left((exponent_b - exponent) as usize);
        let (negative, sum) = if negative_a == negative_b {
            left.add(&right);
            (negative_a, left)
        } else {
            match left.compare(&right) {
                Ordering::Equal => return Some(Self::ZERO),
                Ordering::Greater => {
                    left.subtract(&right);
                    (negative_a, left)
                }
                Ordering::Less => {
                    right.subtract(&left);
                    (negative_b, right)
                }
            }
        };
        let finite = round_shifted(negative, sum, exponent, false);
        (!matches!(finite, Self::Infinite { .. })).then_some(finite)
    }

    /// `%.17Lf` without trailing zeros and without a minus sign before zero.
    pub fn format(self) -> Vec<u8> {
        let (negative, significand, exponent) = match self {
            Self::Finite { negative, significand, exponent } => (negative, significand, exponent),
            Self::Infinite { negative } => return if negative { b"-inf".to_vec() } else { b"inf".to_vec() },
        };
        let mut scaled = Big::from_u64(significand);
        scaled.multiply_by_power_of_ten(FRACTION_DIGITS);
        if exponent >= 0 {
            scaled.shift_left(exponent as usize);
        } else {
            scaled = scaled.shift_right_to_nearest_even(exponent.unsigned_abs() as usize);
        }
        let mut digits = scaled.to_decimal();
        while digits.len() <= FRACTION_DIGITS {
            digits.insert(0, b'0');
        }
        digits.insert(digits.len() - FRACTION_DIGITS, b'.');
        let end = digits.iter().rposition(|byte| *byte != b'0').expect("the point is no zero");
        digits.truncate(if digits[end] == b'.' { end } else { end + 1 });
        if negative && digits != b"0" {
            digits.insert(0, b'-');
        }
        digits
    }
}

/// Splits `12.5e3` into digits and the exponent of ten of the last digit: (`125`, 2).
fn split_decimal(text: &[u8]) -> Option<(Vec<u8>, i64)> {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &mantissa[..0]),
    };
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((digits, exponent - fraction.len() as i64))
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Saturates far beyond any exponent that matters.
    let value = digits.iter().fold(0, |sum: i64, digit| (sum * 10 + i64::from(digit - b'0')).min(1_000_000));
    Some(if negative { -value } else { value })
}

/// What follows `0x`: `1.8p3` is 1.5 * 2^3.
fn parse_hexadecimal(negative: bool, text: &[u8]) -> Option<Float80> {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'p' | b'P')) {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let point = mantissa.iter().position(|byte| *byte == b'.');
    let fraction_digits = point.map_or(0, |at| mantissa.len() - at - 1);
    let mut value = Big::from_u64(0);
    let mut digit_count = 0;
    for byte in mantissa.iter().enumerate().filter(|(at, _)| Some(*at) != point).map(|(_, byte)| *byte) {
        let digit = char::from(byte).to_digit(16)?;
        value.multiply_add(16, digit);
        value.trim();
        digit_count += 1;
    }
    if digit_count == 0 {
        return None;
    }
    if value.is_zero() {
        return Some(Float80::Finite { negative, significand: 0, exponent: EXPONENT_MIN });
    }
    match round_shifted(negative, value, exponent - 4 * fraction_digits as i64, false) {
        Float80::Infinite { .. } | Float80::Finite { significand: 0, .. } => None,
        finite @ Float80::Finite { .. } => Some(finite),
    }
}

/// numerator / denominator as a float; both are nonzero.
fn round_quotient(negative: bool, mut numerator: Big, mut denominator: Big) -> Float80 {
    // Scale so that the quotient has 65 or 66 bits: all of the significand, a rounding bit and a sticky remainder.
    let shift = PRECISION + 2 - (numerator.bit_length() as i64 - denominator.bit_length() as i64);
    if shift >= 0 {
        numerator.shift_left(shift as usize)
    } else {
        denominator.shift_left(shift.unsigned_abs() as usize)
    }
    let mut quotient: u128 = 0;
    // Long division bit by bit: the quotient is below 2^67.
    let bits = (numerator.bit_length() - denominator.bit_length()) as i64;
    denominator.shift_left(bits as usize);
    for _ in 0..=bits {
        quotient <<= 1;
        if numerator.compare(&denominator) != Ordering::Less {
            numerator.subtract(&denominator);
            quotient |= 1;
        }
        denominator.halve();
    }
    let mut exact = Big::from_u64((quotient >> 64) as u64);
    exact.shift_left(64);
    exact.add(&Big::from_u64(quotient as u64));
    round_shifted(negative, exact, -shift, !numerator.is_zero())
}

/// value * 2^exponent, rounded to 64 bits, to nearest even. `sticky`: the true value is a little larger.
fn round_shifted(negative: bool, value: Big, exponent: i64, sticky: bool) -> Float80 {
    let bits = value.bit_length() as i64;
    let target = (exponent + bits - PRECISION).max(EXPONENT_MIN);
    let drop = target - exponent;
    if target > EXPONENT_MAX {
        return Float80::Infinite { negative };
    }
    let mut value = value;
    let (mut significand, mut exponent) = if drop <= 0 {
        value.shift_left(drop.unsigned_abs() as usize);
        (value.low_u64(), target)
    } else {
        // Below the rounding bit, any nonzero rest acts the same.
        value.shift_left(1);
        if sticky {
            value.add(&Big::one());
        }
        carry(value.shift_right_to_nearest_even(drop as usize + 1).into_u65(), target)
    };
    if significand == 0 {
        (significand, exponent) = (0, EXPONENT_MIN);
    }
    if exponent > EXPONENT_MAX {
        return Float80::Infinite { negative };
    }
    Float80::Finite { negative, significand, exponent }
}

/// A rounding that carried to 2^64 is 2^63 with the next exponent.
fn carry(significand: u128, exponent: i64) -> (u64, i64) {
    match u64::try_from(significand) {
        Ok(significand) => (significand, exponent),
        Err(_) => ((significand >> 1) as u64, exponent + 1),
    }
}

/// A natural number, little-endian 32-bit limbs without leading zeros. At most about 36,000 bits here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Big(Vec<u32>);

impl Big {
    fn one() -> Self {
        Self(vec![1])
    }

    fn from_u64(value: u64) -> Self {
        let mut big = Self(vec![value as u32, (value >> 32) as u32]);
        big.trim();
        big
    }

    fn from_decimal(digits: &[u8]) -> Self {
        let mut big = Self(Vec::new());
        for chunk in digits.chunks(9) {
            let value = chunk.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
            big.multiply_add(10_u32.pow(chunk.len() as u32), value);
        }
        big
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn bit_length(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    fn low_u64(&self) -> u64 {
        let limb = |index: usize| u64::from(self.0.get(index).copied().unwrap_or(0));
        limb(0) | limb(1) << 32
    }

    fn into_u65(self) -> u128 {
        u128::from(self.low_u64()) | u128::from(self.0.get(2).copied().unwrap_or(0)) << 64
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_power_of_ten(&mut self, mut power: usize) {
        while power > 0 {
            let step = power.min(9);
            self.multiply_add(10_u32.pow(step as u32), 0);
            power -= step;
        }
    }

    fn shift_left(&mut self, bits: usize) {
        if self.is_zero() {
            return;
        }
        let rest = bits % 32;
        if rest > 0 {
            self.multiply_add(1 << rest, 0);
        }
        self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            let next = *limb & 1;
            *limb = *limb >> 1 | carry << 31;
            carry = next;
        }
        self.trim();
    }

    fn bit(&self, index: usize) -> bool {
        self.0.get(index / 32).is_some_and(|limb| limb >> (index % 32) & 1 == 1)
    }

    fn shift_right_to_nearest_even(&self, bits: usize) -> Self {
        if bits == 0 {
            return self.clone();
        }
        let (limbs, rest) = (bits / 32, bits % 32);
        let mut result = Self(self.0.get(limbs..).unwrap_or(&[]).to_vec());
        for _ in 0..rest {
            result.halve();
        }
        result.trim();
        let half = self.bit(bits - 1);
        let below = (0..bits - 1).any(|index| self.bit(index));
        if half && (below || result.bit(0)) {
            result.add(&Self::one());
        }
        result
    }

    fn add(&mut self, other: &Self) {
        let length = self.0.len().max(other.0.len());
        self.0.resize(length, 0);
        let mut carry = 0;
        for (index, limb) in self.0.iter_mut().enumerate() {
            carry += u64::from(*limb) + u64::from(other.0.get(index).copied().unwrap_or(0));
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// `other` must not be larger.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = 0;
        for (index, limb) in self.0.iter_mut().enumerate() {
            let take = u64::from(other.0.get(index).copied().unwrap_or(0)) + borrow;
            borrow = u64::from(u64::from(*limb) < take);
            *limb = (u64::from(*limb) + (borrow << 32) - take) as u32;
        }
        assert_eq!(borrow, 0, "subtraction of a larger number");
        self.trim();
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    fn to_decimal(&self) -> Vec<u8> {
        let mut limbs = self.0.clone();
        let mut chunks = Vec::new();
        while !limbs.is_empty() {
            let mut rest = 0;
            for limb in limbs.iter_mut().rev() {
                rest = rest << 32 | u64::from(*limb);
                *limb = (rest / 1_000_000_000) as u32;
                rest %= 1_000_000_000;
            }
            while limbs.last() == Some(&0) {
                limbs.pop();
            }
            chunks.push(rest);
        }
        let Some(top) = chunks.pop() else { return b"0".to_vec() };
        let mut text = top.to_string().into_bytes();
        for chunk in chunks.iter().rev() {
            text.extend_from_slice(format!("{chunk:09}").as_bytes());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let parse = |text: &str| Float80::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text} parses"));
        parse(a).add(parse(b)).map_or("not finite".into(), |sum| String::from_utf8(sum.format()).unwrap())
    }

    #[test]
    fn sums_print_as_long_doubles_do() {
        for (a, b, expected) in [
            ("3.0", "1.1", "4.1"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0.1", "0.2", "0.3"),
            ("-1", "1", "0"),
            ("-0", "-0", "0"),
            ("1.5", "-3", "-1.5"),
            ("1e-18", "0", "0"),
            ("-1e-18", "0", "0"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("1e20", "1", "100000000000000000000"),
            ("123456789012345678901", "0", "123456789012345678904"),
            ("17179869184", "1.5", "17179869185.5"),
            ("1e19", "0.5", "10000000000000000000"),
            (".5", "5.", "5.5"),
            ("+2", "1", "3"),
            ("0x10", "0X1.8p1", "19"),
            ("0x.8", "0x1p-1", "1"),
            ("1e4932", "1e4932", "not finite"),
            ("inf", "1", "not finite"),
        ] {
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
    }

    #[test]
    fn texts_that_are_no_floats_are_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "1e",
            "e5",
            ".",
            "-",
            "1..2",
            "nan",
            "1e5000",
            "1e-5000",
            "abc",
            "1e99999999999",
            "0x",
            "0x.",
            "0xg",
            "0x1p",
            "0x1p99999",
            "0x1p-99999",
        ] {
            assert_eq!(Float80::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Float80::parse(&b"1".repeat(6000)), None);
    }

    #[test]
    fn the_largest_and_the_smallest_numbers_are_read() {
        assert!(Float80::parse(b"1.18973149535723176502e+4932").is_some());
        assert_eq!(Float80::parse(b"1.19e+4932"), None);
        assert!(Float80::parse(b"3.7e-4951").is_some());
        assert!(Float80::parse(b"0x1p16383").is_some() && Float80::parse(b"0x1p-16445").is_some());
        assert!(Float80::parse(b"0x1p16384").is_none() && Float80::parse(b"0x1p-16447").is_none());
        assert_eq!(
            Float80::parse(b"1.0").unwrap(),
            Float80::Finite { negative: false, significand: 1 << 63, exponent: -63 }
        );
    }
}
