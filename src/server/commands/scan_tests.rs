//! Tests of SCAN: its words and its cursor.

use futures_util::FutureExt;

use super::*;
use crate::protocol::ArgRange;

/// A request made of words without spaces.
fn with_args<T>(text: &str, check: impl FnOnce(&Args<'_>) -> T) -> T {
    let mut start = 0;
    let ranges: Vec<ArgRange> = text
        .split(' ')
        .map(|word| {
            let range = ArgRange { start, end: start + word.len() as u32 };
            start = range.end + 1;
            range
        })
        .collect();
    check(&Args::new(text.as_bytes(), &ranges))
}

fn refused(text: &str) -> WireError {
    with_args(text, |args| parse(args).expect_err(text))
}

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn options_are_read_in_any_order_and_case() {
    with_args("SCAN 17 type String COUNT 5 match a*", |args| {
        let options = parse(args).unwrap();
        let expected = ScanOptions { mark: 0, position: 17, pattern: Some(b"a*"), count: 5, any_type: true };
        assert_eq!(options, expected);
    });
    with_args("SCAN 0 TYPE hash", |args| assert!(!parse(args).unwrap().any_type));
    with_args("SCAN 0 COUNT 9223372036854775807", |args| assert_eq!(parse(args).unwrap().count, SCAN_KEYS_MAX));
}

#[test]
fn malformed_scans_are_refused_as_redis_refuses_them() {
    for text in ["SCAN x", "SCAN -", "SCAN 18446744073709551616", "SCAN 1x"] {
        assert_eq!(refused(text), WireError::InvalidCursor, "{text}");
    }
    for text in ["SCAN 0 COUNT", "SCAN 0 COUNT 0", "SCAN 0 COUNT -1", "SCAN 0 NOVALUES 1", "SCAN 0 MATCH"] {
        assert_eq!(refused(text), WireError::Syntax, "{text}");
    }
    assert_eq!(refused("SCAN 0 COUNT x"), WireError::NotAnInteger);
}

#[test]
fn a_slice_of_several_groups_ends_where_the_first_of_them_ends() {
    // Key slots: bar 5061, foo 12182.
    let near = Slice { keys: vec![key("bar")], next: 6000 << 32 };
    let far = Slice { keys: vec![key("foo")], next: 13000 << 32 };
    let merged = merge(vec![far, near]);
    assert_eq!(merged, Slice { keys: vec![key("bar")], next: 6000 << 32 }, "foo is found again by the next slice");
    let ended = Slice { keys: vec![key("bar")], next: 0 };
    let far = Slice { keys: vec![key("foo")], next: (12182 << 32) | 7 };
    assert_eq!(merge(vec![ended, far]), Slice { keys: vec![key("bar"), key("foo")], next: (12182 << 32) | 7 });
    assert_eq!(merge(Vec::new()), Slice { keys: Vec::new(), next: 0 });
}

#[test]
fn a_scan_goes_on_only_while_every_group_it_began_with_is_led_here() {
    let begun = mark_on(0, &led(&[1, 3])).unwrap();
    assert_eq!(mark_on(begun, &led(&[1, 3])), Some(begun));
    assert_eq!(mark_on(begun, &led(&[1, 2, 3])), Some(begun), "a group that has joined since does no harm");
    assert_eq!(mark_on(begun, &led(&[1, 2])), None);
    assert_eq!(mark_on(begun, &led(&[])), None);
    assert_eq!(mark_on(begun, &led(&[1, 3, 40])), None, "an inexact mark cannot be compared");
    let summed = mark_on(0, &led(&[1, 40])).unwrap();
    assert_eq!(mark_on(summed, &led(&[1, 40])), Some(summed));
    assert_eq!(mark_on(summed, &led(&[1, 41])), None);
}

#[test]
fn a_scan_ends_with_an_error_when_a_slot_has_left_a_group_of_it() {
    let after = |departures| [Led { id: 1, departures }];
    for before in [0, 1, 7] {
        let begun = mark_on(0, &after(before)).unwrap();
        assert_eq!(mark_on(begun, &after(before)), Some(begun));
        assert_eq!(mark_on(begun, &after(before + 1)), None);
    }
}

fn led(ids: &[u32]) -> Vec<Led> {
    ids.iter().map(|id| Led { id: *id, departures: 0 }).collect()
}

#[test]
fn a_cursor_carries_mark_and_position_and_stays_a_positive_signed_number() {
    let mark = mark_of(&led(&[1, 900]));
    let position = (16383 << 32) | u64::from(u32::MAX);
    let cursor = mark << MARK_SHIFT | position;
    assert!(i64::try_from(cursor).is_ok());
    with_args(&format!("SCAN {cursor}"), |args| {
        let options = parse(args).unwrap();
        assert_eq!((options.mark, options.position), (mark, position));
    });
}

#[test]
fn a_cursor_that_was_never_given_ends_a_scan() {
    for text in ["SCAN -1", "SCAN 18446744073709551615"] {
        let scanned = with_args(text, |args| collect(&parse(args).unwrap(), Vec::new()).now_or_never());
        assert!(matches!(scanned, Some(Ok(Slice { keys, next: 0 })) if keys.is_empty()), "{text}");
    }
}
