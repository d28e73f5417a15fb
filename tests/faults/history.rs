//! What clients did and were told: the record that `linearizable.rs` judges.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// A key's value; `None` is a key that does not exist.
pub type Value = Option<Arc<[u8]>>;

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Get,
    Set(Arc<[u8]>),
    SetNx(Arc<[u8]>),
    Del,
    Incr,
    IncrByFloat,
    Append(Arc<[u8]>),
    /// Over the beginning.
    SetRange(Arc<[u8]>),
    GetSet(Arc<[u8]>),
    GetDel,
    /// After every run, but before a clock that is two hours ahead.
    Expire,
}

const EXPIRY_SECONDS: &[u8] = b"5000";

impl Op {
    pub fn words(&self, key: &str) -> Vec<Vec<u8>> {
        let words: Vec<&[u8]> = match self {
            Self::Get => vec![b"GET", key.as_bytes()],
            Self::Set(value) => vec![b"SET", key.as_bytes(), value],
            Self::SetNx(value) => vec![b"SET", key.as_bytes(), value, b"NX"],
            Self::Del => vec![b"DEL", key.as_bytes()],
            Self::Incr => vec![b"INCR", key.as_bytes()],
            Self::IncrByFloat => vec![b"INCRBYFLOAT", key.as_bytes(), b"1"],
            Self::Append(token) => vec![b"APPEND", key.as_bytes(), token],
            Self::SetRange(token) => vec![b"SETRANGE", key.as_bytes(), b"0", token],
            Self::GetSet(value) => vec![b"GETSET", key.as_bytes(), value],
            Self::GetDel => vec![b"GETDEL", key.as_bytes()],
            Self::Expire => vec![b"EXPIRE", key.as_bytes(), EXPIRY_SECONDS],
        };
        words.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// It leaves the value as it was, whatever that is.
    pub fn changes_nothing(&self) -> bool {
        matches!(self, Self::Get | Self::Expire)
    }

    /// What a single register would answer and hold afterwards; `None` if it would answer an error and change nothing.
    pub fn apply(&self, value: &Value) -> Option<(Answer, Value)> {
        Some(match self {
            Self::Get => (Answer::Value(value.clone()), value.clone()),
            Self::Set(new) => (Answer::Done, Some(new.clone())),
            Self::SetNx(new) if value.is_none() => (Answer::Done, Some(new.clone())),
            Self::SetNx(_) => (Answer::Refused, value.clone()),
            Self::Del => (Answer::Number(i64::from(value.is_some())), None),
            Self::Incr => {
                let number = next_number(value)?;
                (Answer::Number(number), Some(number.to_string().into_bytes().into()))
            }
            Self::IncrByFloat => {
                let next: Value = Some(next_number(value)?.to_string().into_bytes().into());
                (Answer::Value(next.clone()), next)
            }
            Self::Append(token) => {
                let joined = [value.as_deref().unwrap_or_default(), token].concat();
                (Answer::Number(joined.len() as i64), Some(joined.into()))
            }
            Self::SetRange(token) => {
                let rest = value.as_deref().unwrap_or_default().get(token.len()..).unwrap_or_default();
                let joined = [token, rest].concat();
                (Answer::Number(joined.len() as i64), Some(joined.into()))
            }
            Self::GetSet(new) => (Answer::Value(value.clone()), Some(new.clone())),
            Self::GetDel => (Answer::Value(value.clone()), None),
            Self::Expire => (Answer::Number(i64::from(value.is_some())), value.clone()),
        })
    }
}

fn next_number(value: &Value) -> Option<i64> {
    let text = value.as_deref().unwrap_or(b"0");
    std::str::from_utf8(text).ok()?.parse::<i64>().ok()?.checked_add(1)
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// `+OK`
    Done,
    /// The nil of SET NX.
    Refused,
    Value(Value),
    Number(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Ok(Answer),
    /// An error that promises that nothing was changed.
    NotDone(String),
    /// A time-out or a lost connection: it may take effect at any later time, or never.
    Unknown(ErrorKind),
}

/// One attempt of one client. A redirect is its own proof that the attempt before it did nothing, so only the last attempt counts.
#[derive(Debug, Clone)]
pub struct Call {
    pub client: usize,
    pub op: Op,
    /// When the first attempt began; this and the next two count from the run's start.
    pub asked: Duration,
    pub start: Duration,
    pub end: Duration,
    pub outcome: Outcome,
    /// The node that was asked.
    pub node: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.start.as_secs_f64(), self.end.as_secs_f64());
        write!(out, "{start:11.6} .. {end:11.6}  client {:<2} node {}  ", self.client, self.node)?;
        match &self.op {
            Op::Get => write!(out, "GET")?,
            Op::Set(value) => write!(out, "SET {}", shown(value))?,
            Op::SetNx(value) => write!(out, "SET {} NX", shown(value))?,
            Op::Del => write!(out, "DEL")?,
            Op::Incr => write!(out, "INCR")?,
            Op::IncrByFloat => write!(out, "INCRBYFLOAT 1")?,
            Op::Append(token) => write!(out, "APPEND {}", shown(token))?,
            Op::SetRange(token) => write!(out, "SETRANGE 0 {}", shown(token))?,
            Op::GetSet(value) => write!(out, "GETSET {}", shown(value))?,
            Op::GetDel => write!(out, "GETDEL")?,
            Op::Expire => write!(out, "EXPIRE")?,
        }
        match &self.outcome {
            Outcome::Ok(Answer::Done) => write!(out, " -> OK"),
            Outcome::Ok(Answer::Refused) => write!(out, " -> (nil)"),
            Outcome::Ok(Answer::Value(value)) => write!(out, " -> {}", shown_value(value)),
            Outcome::Ok(Answer::Number(number)) => write!(out, " -> {number}"),
            Outcome::NotDone(error) => write!(out, " -> not done: {error}"),
            Outcome::Unknown(error) => write!(out, " -> unknown: {error}"),
        }
    }
}

pub fn shown_value(value: &Value) -> String {
    value.as_deref().map_or_else(|| "(nil)".to_owned(), shown)
}

fn shown(bytes: &[u8]) -> String {
    format!("\"{}\"", String::from_utf8_lossy(bytes))
}
