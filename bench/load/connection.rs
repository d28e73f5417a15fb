//! One client connection: requests out, the kinds of the replies in. It never blocks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Command {
    Set,
    Get,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    Done,
    /// A GET found no value.
    Missing,
    Moved,
    Failed(String),
}

/// A request that has no reply yet: what it was, and from when its latency counts, in nanoseconds of the run.
pub struct Waiting {
    pub command: Command,
    pub since: u64,
}

pub struct Connection {
    pub stream: TcpStream,
    /// Index of the node that it goes to.
    pub node: usize,
    pub waiting: VecDeque<Waiting>,
    pub out: Vec<u8>,
    written: usize,
    replies: ReplyScanner,
}

impl Connection {
    pub fn open(address: &str, node: usize) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let replies = ReplyScanner::default();
        Ok(Connection { stream, node, waiting: VecDeque::new(), out: Vec::new(), written: 0, replies })
    }

    /// Writes what the socket takes. True if nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once, and tells each request that is now answered, with its outcome.
    pub fn receive(&mut self, buffer: &mut [u8], mut each: impl FnMut(Waiting, Outcome)) -> io::Result<()> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "a node closed a connection")),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let waiting = &mut self.waiting;
        self.replies.scan(&buffer[..count], |outcome| match waiting.pop_front() {
            Some(request) => {
                each(request, outcome);
                Ok(())
            }
            None => Err(io::Error::other("a reply to no request")),
        })
    }
}

/// Finds the ends of replies to SET and GET, wherever reads cut them; values are skipped, not kept.
#[derive(Default)]
struct ReplyScanner {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// Bytes of a value, and the line end after it, that have not arrived.
    value_rest: usize,
}

impl ReplyScanner {
    fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Outcome) -> io::Result<()>) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.value_rest > 0 {
                let taken = self.value_rest.min(bytes.len());
                (self.value_rest, bytes) = (self.value_rest - taken, &bytes[taken..]);
                if self.value_rest == 0 {
                    each(Outcome::Done)?;
                }
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            let joined = std::mem::take(&mut self.line);
            match if joined.is_empty() { first_line(line)? } else { first_line(&[&joined, line].concat())? } {
                Line::Whole(outcome) => each(outcome)?,
                Line::Value(size) => self.value_rest = size,
            }
        }
        Ok(())
    }
}

enum Line {
    Whole(Outcome),
    /// So many bytes follow, the line end among them.
    Value(usize),
}

fn first_line(line: &[u8]) -> io::Result<Line> {
    let text = || String::from_utf8_lossy(line).trim_end().to_owned();
    Ok(match line {
        b"$-1\r\n" | b"_\r\n" => Line::Whole(Outcome::Missing),
        [b'+' | b':', ..] => Line::Whole(Outcome::Done),
        [b'-', b'M', b'O', b'V', b'E', b'D', ..] => Line::Whole(Outcome::Moved),
        [b'-', ..] => Line::Whole(Outcome::Failed(text())),
        [b'$', ..] => match text()[1..].parse::<usize>() {
            Ok(size) => Line::Value(size.saturating_add(2)),
            Err(_) => return Err(io::Error::other(format!("unexpected reply {}", text()))),
        },
        _ => return Err(io::Error::other(format!("unexpected reply {}", text()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found_wherever_reads_cut_them() {
        let bytes = b"+OK\r\n$3\r\na\nb\r\n$-1\r\n-MOVED 1 a:1\r\n$0\r\n\r\n-ERR no\r\n+OK\r\n";
        let expected = [
            Outcome::Done,
            Outcome::Done,
            Outcome::Missing,
            Outcome::Moved,
            Outcome::Done,
            Outcome::Failed("-ERR no".to_owned()),
            Outcome::Done,
        ];
        for cut in 0..bytes.len() {
            let (mut scanner, mut found) = (ReplyScanner::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                scanner
                    .scan(part, |outcome| {
                        found.push(outcome);
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(found, expected, "cut at {cut}");
        }
    }
}
