//! Tests of the reply writer: byte tables, and equality with redis-protocol both ways.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use redis_protocol::resp2;
use redis_protocol::resp2::types::{BorrowedFrame as Frame2, OwnedFrame as Owned2};
use redis_protocol::resp3;
use redis_protocol::resp3::types::{BorrowedFrame as Frame3, OwnedFrame as Owned3, VerbatimStringFormat};

use super::*;

fn written(protocol: Protocol, write: impl Fn(&mut Reply)) -> Vec<u8> {
    let mut reply = Reply::new(protocol);
    write(&mut reply);
    let mut discarded = Reply::discard();
    write(&mut discarded);
    assert!(discarded.is_empty(), "a discarded reply holds nothing");
    reply.take().to_vec()
}

#[test]
fn every_kind_of_reply_has_redis_bytes_in_both_protocols() {
    type Row = (fn(&mut Reply), &'static str, &'static str);
    let rows: &[Row] = &[
        (|reply| reply.ok(), "+OK\r\n", "+OK\r\n"),
        (|reply| reply.simple("PONG"), "+PONG\r\n", "+PONG\r\n"),
        (|reply| reply.error("ERR no"), "-ERR no\r\n", "-ERR no\r\n"),
        (|reply| reply.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
        (|reply| reply.integer(0), ":0\r\n", ":0\r\n"),
        (|reply| reply.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
        (|reply| reply.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (|reply| reply.bulk_pieces(1, [Bytes::from_static(b"x")]), "$1\r\nx\r\n", "$1\r\nx\r\n"),
        (|reply| reply.null(), "$-1\r\n", "_\r\n"),
        (|reply| reply.null_array(), "*-1\r\n", "_\r\n"),
        (|reply| reply.array(10), "*10\r\n", "*10\r\n"),
        (|reply| reply.map(2), "*4\r\n", "%2\r\n"),
        (|reply| reply.set(3), "*3\r\n", "~3\r\n"),
        (|reply| reply.push(3), "*3\r\n", ">3\r\n"),
        (|reply| reply.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
        (|reply| reply.boolean(true), ":1\r\n", "#t\r\n"),
        (|reply| reply.boolean(false), ":0\r\n", "#f\r\n"),
        (
            |reply| reply.big_number("-12345678901234567890"),
            "$21\r\n-12345678901234567890\r\n",
            "(-12345678901234567890\r\n",
        ),
        (|reply| reply.verbatim("txt", b"a\nb"), "$3\r\na\nb\r\n", "=7\r\ntxt:a\nb\r\n"),
        (|reply| reply.append_raw(b":9\r\n"), ":9\r\n", ":9\r\n"),
    ];
    for (write, resp2, resp3) in rows {
        assert_eq!(String::from_utf8(written(Protocol::Resp2, write)).as_deref(), Ok(*resp2));
        assert_eq!(String::from_utf8(written(Protocol::Resp3, write)).as_deref(), Ok(*resp3));
    }
}

#[test]
fn doubles_are_spelt_as_redis_spells_them() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (3.0, "3"),
        (-17.25, "-17.25"),
        (0.1, "0.1"),
        (0.001, "0.001"),
        (1e-5, "0.00001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (1234567.891, "1234567.891"),
        (1e15, "1000000000000000"),
        (4503599627370495.0, "4503599627370495"),
        (1e20, "1e+20"),
        (1.5e300, "1.5e+300"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
    ] {
        assert_eq!(double_text(value), text);
    }
}

#[test]
fn a_line_break_in_an_error_cannot_forge_a_second_reply() {
    let bytes = written(Protocol::Resp2, |reply| reply.error("ERR unknown command 'a\r\n+OK\r\n'"));
    assert_eq!(bytes, b"-ERR unknown command 'a  +OK  '\r\n");
}

#[test]
fn what_follows_a_mark_can_be_judged_and_taken_back() {
    let mut reply = Reply::new(Protocol::Resp2);
    reply.integer(1);
    let mark = reply.len();
    reply.bulk(b"-not an error");
    assert!(!reply.is_error_since(mark));
    reply.truncate(mark);
    reply.error("ERR no");
    assert!(reply.is_error_since(mark) && !reply.is_error_since(0) && !reply.is_error_since(reply.len()));
    reply.truncate(mark);
    assert_eq!(&reply.take()[..], b":1\r\n");
    assert!(reply.is_empty());
}

fn encoded2(frame: &Frame2<'_>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    resp2::encode::extend_encode_borrowed(&mut bytes, frame, false).expect("the buffer grows");
    bytes.to_vec()
}

fn encoded3(frame: &Frame3<'_>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    resp3::encode::complete::extend_encode_borrowed(&mut bytes, frame, false).expect("the buffer grows");
    bytes.to_vec()
}

fn decoded3(bytes: &[u8]) -> Owned3 {
    let (frame, taken) = resp3::decode::complete::decode(bytes).expect("well-formed").expect("complete");
    assert_eq!(taken, bytes.len());
    frame
}

#[test]
fn redis_protocol_reads_back_what_only_resp3_has() {
    let reply = written(Protocol::Resp3, |reply| {
        reply.map(3);
        for (key, write) in [
            ("push", (|reply| reply.big_number("123")) as fn(&mut Reply)),
            ("set", |reply| {
                reply.set(1);
                reply.boolean(true);
            }),
            ("text", |reply| reply.verbatim("txt", b"words")),
        ] {
            reply.bulk(key.as_bytes());
            write(reply);
        }
    });
    let Owned3::Map { data, .. } = decoded3(&reply) else { panic!("not a map") };
    let mut kinds: Vec<String> =
        data.values().map(|value| format!("{:?}", resp3::types::Resp3Frame::kind(value))).collect();
    kinds.sort();
    assert_eq!(kinds, ["BigNumber", "Set", "VerbatimString"]);
    let verbatim =
        Owned3::VerbatimString { data: b"words".to_vec(), format: VerbatimStringFormat::Text, attributes: None };
    assert!(data.values().any(|value| *value == verbatim));
    let push = written(Protocol::Resp3, |reply| {
        reply.push(2);
        reply.bulk(b"invalidate");
        reply.null();
    });
    assert!(matches!(decoded3(&push), Owned3::Push { .. }));
}

proptest! {
    #[test]
    fn the_bytes_equal_what_redis_protocol_writes(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        text in "[ -~]{0,40}",
        value in any::<i64>(),
    ) {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            prop_assert_eq!(written(protocol, |reply| reply.bulk(&bytes)), encoded2(&Frame2::BulkString(&bytes)));
            prop_assert_eq!(written(protocol, |reply| reply.simple(&text)), encoded2(&Frame2::SimpleString(text.as_bytes())));
            prop_assert_eq!(written(protocol, |reply| reply.error(&text)), encoded2(&Frame2::Error(&text)));
            prop_assert_eq!(written(protocol, |reply| reply.integer(value)), encoded2(&Frame2::Integer(value)));
        }
        let items = [Frame2::Integer(value), Frame2::Null, Frame2::BulkString(&bytes)];
        let array = written(Protocol::Resp2, |reply| {
            reply.array(3);
            reply.integer(value);
            reply.null();
            reply.bulk(&bytes);
        });
        prop_assert_eq!(array, encoded2(&Frame2::Array(&items)));
        let null = Frame3::Null;
        prop_assert_eq!(written(Protocol::Resp3, Reply::null), encoded3(&null));
        let flag = Frame3::Boolean { data: value > 0, attributes: None };
        prop_assert_eq!(written(Protocol::Resp3, |reply| reply.boolean(value > 0)), encoded3(&flag));
    }

    #[test]
    fn a_double_reads_back_as_itself(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(double_text(value).parse::<f64>(), Ok(value));
        let bytes = written(Protocol::Resp3, |reply| reply.double(value));
        let expected = Owned3::Double { data: value, attributes: None };
        prop_assert_eq!(decoded3(&bytes), expected);
    }

    #[test]
    fn every_reply_is_read_back_by_redis_protocol(value in value(3)) {
        let bytes = written(Protocol::Resp2, |reply| value.write(reply));
        let (frame, taken) = resp2::decode::decode(&bytes).expect("well-formed").expect("complete");
        prop_assert_eq!((frame, taken), (value.resp2(), bytes.len()));
        let bytes = written(Protocol::Resp3, |reply| value.write(reply));
        prop_assert_eq!(decoded3(&bytes), value.resp3());
        // A push has no place inside another reply.
        let push = written(Protocol::Resp3, |reply| {
            reply.push(1);
            value.write(reply);
        });
        prop_assert_eq!(decoded3(&push), Owned3::Push { data: vec![value.resp3()], attributes: None });
    }
}

/// A reply of any shape that the methods of `Reply` can write.
#[derive(Debug, Clone)]
enum Value {
    Ok,
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    NullArray,
    Boolean(bool),
    Double(f64),
    BigNumber(String),
    Verbatim(Vec<u8>),
    Array(Vec<Value>),
    /// By keys, which differ.
    Map(BTreeMap<Vec<u8>, Value>),
    Set(BTreeSet<Vec<u8>>),
}

fn value(depth: u32) -> impl Strategy<Value = Value> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    let leaf = prop_oneof![
        Just(Value::Ok),
        "[ -~]{0,20}".prop_map(Value::Simple),
        "[ -~]{0,20}".prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
        Just(Value::NullArray),
        any::<bool>().prop_map(Value::Boolean),
        any::<f64>().prop_filter("NaN equals nothing", |value| !value.is_nan()).prop_map(Value::Double),
        "-?[1-9][0-9]{0,30}".prop_map(Value::BigNumber),
        bytes().prop_map(Value::Verbatim),
    ];
    leaf.prop_recursive(depth, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(bytes(), inner, 0..4).prop_map(Value::Map),
            prop::collection::btree_set(bytes(), 0..4).prop_map(Value::Set),
        ]
    })
}

impl Value {
    fn write(&self, reply: &mut Reply) {
        match self {
            Self::Ok => reply.ok(),
            Self::Simple(text) => reply.simple(text),
            Self::Error(text) => reply.error(text),
            Self::Integer(value) => reply.integer(*value),
            Self::Bulk(bytes) => reply.bulk(bytes),
            Self::Null => reply.null(),
            Self::NullArray => reply.null_array(),
            Self::Boolean(value) => reply.boolean(*value),
            Self::Double(value) => reply.double(*value),
            Self::BigNumber(digits) => reply.big_number(digits),
            Self::Verbatim(text) => reply.verbatim("txt", text),
            Self::Array(items) => {
                reply.array(items.len());
                items.iter().for_each(|item| item.write(reply));
            }
            Self::Map(pairs) => {
                reply.map(pairs.len());
                for (key, value) in pairs {
                    reply.bulk(key);
                    value.write(reply);
                }
            }
            Self::Set(members) => {
                reply.set(members.len());
                members.iter().for_each(|member| reply.bulk(member));
            }
        }
    }

    fn resp2(&self) -> Owned2 {
        let bulk = |bytes: &[u8]| Owned2::BulkString(bytes.to_vec());
        match self {
            Self::Ok => Owned2::SimpleString(b"OK".to_vec()),
            Self::Simple(text) => Owned2::SimpleString(text.clone().into_bytes()),
            Self::Error(text) => Owned2::Error(text.clone()),
            Self::Integer(value) => Owned2::Integer(*value),
            Self::Bulk(bytes) | Self::Verbatim(bytes) => bulk(bytes),
            Self::Null | Self::NullArray => Owned2::Null,
            Self::Boolean(value) => Owned2::Integer(i64::from(*value)),
            Self::Double(value) => bulk(double_text(*value).as_bytes()),
            Self::BigNumber(digits) => bulk(digits.as_bytes()),
            Self::Array(items) => Owned2::Array(items.iter().map(Self::resp2).collect()),
            Self::Map(pairs) => {
                Owned2::Array(pairs.iter().flat_map(|(key, value)| [bulk(key), value.resp2()]).collect())
            }
            Self::Set(members) => Owned2::Array(members.iter().map(|member| bulk(member)).collect()),
        }
    }

    fn resp3(&self) -> Owned3 {
        let attributes = None;
        let bulk = |bytes: &[u8]| Owned3::BlobString { data: bytes.to_vec(), attributes: None };
        match self {
            Self::Ok => Owned3::SimpleString { data: b"OK".to_vec(), attributes },
            Self::Simple(text) => Owned3::SimpleString { data: text.clone().into_bytes(), attributes },
            Self::Error(text) => Owned3::SimpleError { data: text.clone(), attributes },
            Self::Integer(value) => Owned3::Number { data: *value, attributes },
            Self::Bulk(bytes) => bulk(bytes),
            Self::Null | Self::NullArray => Owned3::Null,
            Self::Boolean(value) => Owned3::Boolean { data: *value, attributes },
            Self::Double(value) => Owned3::Double { data: *value, attributes },
            Self::BigNumber(digits) => Owned3::BigNumber { data: digits.clone().into_bytes(), attributes },
            Self::Verbatim(text) => {
                Owned3::VerbatimString { data: text.clone(), format: VerbatimStringFormat::Text, attributes }
            }
            Self::Array(items) => Owned3::Array { data: items.iter().map(Self::resp3).collect(), attributes },
            Self::Map(pairs) => {
                Owned3::Map { data: pairs.iter().map(|(key, value)| (bulk(key), value.resp3())).collect(), attributes }
            }
            Self::Set(members) => Owned3::Set { data: members.iter().map(|member| bulk(member)).collect(), attributes },
        }
    }
}

#[test]
fn large_shared_bulks_are_filled_in_where_they_belong() {
    let (large, small) = (Bytes::from(vec![b'x'; LARGE_BYTES_MIN]), Bytes::from(vec![b'y'; LARGE_BYTES_MIN - 1]));
    let write = |reply: &mut Reply| {
        reply.integer(1);
        let first = reply.len();
        reply.bulk_pieces(large.len(), [large.clone()]);
        let second = reply.len();
        reply.bulk_pieces(small.len(), [small.slice(..9), small.slice(9..)]);
        reply.bulk_pieces(large.len(), [large.slice(..9), large.slice(9..)]);
        (first, second)
    };
    let mut expected = b":1\r\n".to_vec();
    for value in [&large, &small, &large] {
        expected.extend(format!("${}\r\n{}\r\n", value.len(), std::str::from_utf8(value).unwrap()).bytes());
    }
    let mut reply = Reply::new(Protocol::Resp2);
    let (first, second) = write(&mut reply);
    assert_eq!(reply.total_len(), expected.len());
    assert!(reply.len() < 2 * LARGE_BYTES_MIN, "nothing large is copied yet");
    let end = reply.len();
    let parts = reply.take_replies();
    let mut out = BytesMut::new();
    [0..first, first..second, second..end].into_iter().for_each(|range| parts.append_to(&mut out, range));
    assert_eq!(out, expected);
    for bytes_max in [1, 7, LARGE_BYTES_MIN] {
        let (mut some, mut cursor) = (BytesMut::new(), parts.cursor(0));
        while !parts.append_some(&mut some, &mut cursor, end, bytes_max) {
            assert_eq!(some.len() % bytes_max, 0);
        }
        assert_eq!(some, expected, "{bytes_max} bytes at a time");
    }
    write(&mut reply);
    reply.fill_in();
    assert_eq!((reply.total_len(), reply.buffer()), (expected.len(), &BytesMut::from(&expected[..])));
    write(&mut reply);
    reply.truncate(expected.len());
    reply.fill_in();
    assert_eq!(reply.take(), expected, "a reply that is taken back takes its large values with it");
}
