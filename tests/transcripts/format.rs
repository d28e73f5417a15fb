//! The transcript format: what its files say, how replies are printed and compared.
//!
//! The runners are `src/command/transcripts.rs` (the command table in one process) and `tests/cluster/transcripts.rs` (a
//! Kvorum node, or a Redis, over a socket); both include this file, so that they compare alike. A transcript is a text
//! file. Its lines are:
//!
//! ```text
//! # comment
//! > SET k "a b\x00"        a request; a word in double quotes may hold \n \r \t \\ \" \xNN
//! < OK                     the reply, as redis-cli prints it on a terminal (RESP2), one line each
//! < (integer) 90..100      an integer within these bounds, for times that pass
//! @ advance 150            150 ms go by: of the process's own clock, or in truth
//! @ only process           from here on for the runner in the process alone, whose clock stands still between requests
//! @ only kvorum            from here on for Kvorum alone; a comment says why a Redis answers otherwise
//! @ all                    from here on for every runner, as at the start
//! ```
//!
//! A file starts from an empty keyspace, and the requests of one file go through one connection. Keys of one request
//! share a key slot. The replies were recorded from a real Redis in cluster mode; where Kvorum differs on purpose, the
//! reason is a comment in the file.

use std::io::{self, BufRead};

/// Who runs a transcript; each runs what the ones after it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runner {
    Process,
    Kvorum,
    Redis,
}

/// The transcripts, by name.
pub const TRANSCRIPTS: [(&str, &str); 5] = [
    ("strings", include_str!("strings.txt")),
    ("numbers", include_str!("numbers.txt")),
    ("keys", include_str!("keys.txt")),
    ("lcs", include_str!("lcs.txt")),
    ("command", include_str!("command.txt")),
];

/// Runs `text` as `runner` and panics with every difference. `call` makes a request and prints its reply;
/// `advance` lets milliseconds go by.
pub fn check<S>(
    name: &str,
    text: &str,
    runner: Runner,
    subject: &mut S,
    advance: impl Fn(&mut S, u64),
    call: impl Fn(&mut S, &[Vec<u8>]) -> Vec<String>,
) {
    let mut lines = text.lines().enumerate().peekable();
    let (mut scope, mut skipped) = (Runner::Redis, 0);
    let mut differences = Vec::new();
    while let Some((number, line)) = lines.next() {
        let number = number + 1;
        let is_mine = runner <= scope;
        if let Some(request) = line.strip_prefix("> ") {
            let mut expected = Vec::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("< ")) {
                expected.push(&line[2..]);
            }
            if !is_mine {
                skipped += 1;
                continue;
            }
            let actual = call(subject, &split_words(request));
            let equal = expected.len() == actual.len() && expected.iter().zip(&actual).all(|(e, a)| line_matches(e, a));
            if !equal {
                differences
                    .push(format!("{name} line {number}: {request}\n expected {expected:?}\n   actual {actual:?}"));
            }
        } else if let Some(directive) = line.strip_prefix("@ ") {
            match (directive, directive.strip_prefix("advance ")) {
                (_, Some(ms)) if is_mine => advance(subject, ms.parse().expect("milliseconds")),
                (_, Some(_)) => {}
                ("only process", _) => scope = Runner::Process,
                ("only kvorum", _) => scope = Runner::Kvorum,
                ("all", _) => scope = Runner::Redis,
                _ => panic!("{name} line {number}: {line}"),
            }
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{name} line {number}: {line}");
        }
    }
    println!("{name}: {skipped} requests are not for {runner:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn line_matches(expected: &str, actual: &str) -> bool {
    if expected == actual {
        return true;
    }
    let number = |text: &str| text.strip_prefix("(integer) ").map(str::to_owned);
    let (Some(expected), Some(actual)) = (number(expected), number(actual)) else { return false };
    let Some((low, high)) = expected.split_once("..") else { return false };
    let parse = |text: &str| text.parse::<i64>().expect("the transcript is well-formed");
    (parse(low)..=parse(high)).contains(&parse(&actual))
}

pub fn split_words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    while let Some(first) = bytes.next_if(|byte| *byte != b' ').or_else(|| {
        while bytes.next_if_eq(&b' ').is_some() {}
        bytes.next()
    }) {
        let mut word = Vec::new();
        if first == b'"' {
            while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                word.push(if byte == b'\\' { unescape(&mut bytes) } else { byte });
            }
        } else {
            word.push(first);
            while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                word.push(byte);
            }
        }
        words.push(word);
    }
    words
}

fn unescape(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next().expect("the transcript is well-formed") {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits = [
                bytes.next().expect("the transcript is well-formed"),
                bytes.next().expect("the transcript is well-formed"),
            ];
            u8::from_str_radix(std::str::from_utf8(&digits).expect("the transcript is well-formed"), 16)
                .expect("the transcript is well-formed")
        }
        other => other,
    }
}

/// Reads one RESP2 reply and prints it as redis-cli does.
pub fn print_reply(input: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    let Some((kind, rest)) = line.split_first() else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let text = rest.strip_suffix(b"\r\n").map(String::from_utf8_lossy).ok_or(io::ErrorKind::InvalidData)?;
    let count = || text.parse::<usize>().map_err(io::Error::other);
    Ok(match kind {
        b'+' => vec![text.into()],
        b'-' => vec![format!("(error) {text}")],
        b':' => vec![format!("(integer) {text}")],
        b'$' | b'*' if text == "-1" => vec!["(nil)".into()],
        b'$' => {
            let mut bytes = vec![0; count()? + 2];
            input.read_exact(&mut bytes)?;
            assert!(bytes.ends_with(b"\r\n"), "a bulk string of another length than announced");
            vec![quote(&bytes[..bytes.len() - 2])]
        }
        b'*' if text == "0" => vec!["(empty array)".into()],
        b'*' => {
            let mut lines = Vec::new();
            for index in 1..=count()? {
                let head = format!("{index:>width$}) ", width = text.len());
                for (nested, text) in print_reply(input)?.into_iter().enumerate() {
                    lines.push(if nested == 0 { format!("{head}{text}") } else { " ".repeat(head.len()) + &text });
                }
            }
            lines
        }
        other => panic!("reply of type {other}"),
    })
}

fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'\\' | b'"' => text.extend(['\\', char::from(*byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            32..127 => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text + "\""
}
