//! Which node serves which keys: CLUSTER SLOTS, asked over a connection that blocks.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::options::Options;

const KEY_SLOT_COUNT: usize = 16384;
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The numbers of the keys of each node that serves any, by the node's address.
pub type Owners = BTreeMap<String, Vec<u32>>;

enum Value {
    Text(String),
    Integer(i64),
    List(Vec<Value>),
    Null,
    Error(String),
}

/// The numbers of the keys of each key slot: found once, as who serves what is asked again and again while slots move.
pub struct Keys(Vec<Vec<u32>>);

impl Keys {
    pub fn new(options: &Options) -> Keys {
        let mut by_slot = vec![Vec::new(); KEY_SLOT_COUNT];
        let mut key = Vec::new();
        for number in 0..options.keys {
            key.clear();
            append_key(&mut key, number, options.key_bytes);
            by_slot[key_slot(&key)].push(number);
        }
        Keys(by_slot)
    }
}

/// Asks one node who serves what. A node that is in no cluster serves everything.
///
/// # Errors
/// It does not answer, or not with what CLUSTER SLOTS answers, or some key has no server.
pub fn owners(address: &str, options: &Options, keys: &Keys) -> io::Result<Owners> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n")?;
    let ranges = match read_value(&mut BufReader::new(stream))? {
        Value::List(ranges) => ranges,
        Value::Error(text) if text.contains("cluster support disabled") => {
            return Ok(BTreeMap::from([(address.to_owned(), (0..options.keys).collect())]));
        }
        Value::Error(text) => return Err(io::Error::other(text)),
        Value::Text(_) | Value::Integer(_) | Value::Null => return Err(unexpected("CLUSTER SLOTS")),
    };
    let servers = servers(&ranges, &options.host).ok_or_else(|| unexpected("CLUSTER SLOTS"))?;
    let mut owners = Owners::new();
    for (server, keys) in servers.into_iter().zip(&keys.0).filter(|(_, keys)| !keys.is_empty()) {
        let server = server.ok_or_else(|| io::Error::other("a key slot has no server"))?;
        owners.entry(server).or_default().extend_from_slice(keys);
    }
    Ok(owners)
}

/// The address of each key slot's server; `None` if the answer has another shape.
fn servers(ranges: &[Value], host: &str) -> Option<Vec<Option<String>>> {
    let mut servers = vec![None; KEY_SLOT_COUNT];
    for range in ranges {
        let Value::List(range) = range else { return None };
        let [Value::Integer(first), Value::Integer(last), Value::List(server), ..] = &range[..] else { return None };
        let [Value::Text(named), Value::Integer(port), ..] = &server[..] else { return None };
        let host = if named.is_empty() { host } else { named };
        let slots = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
        servers.get_mut(slots)?.fill(Some(format!("{host}:{port}")));
    }
    Some(servers)
}

fn read_value(stream: &mut impl BufRead) -> io::Result<Value> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(|| unexpected("nothing"))?;
    let number = || rest.parse::<i64>().map_err(|_| unexpected(&line));
    Ok(match kind {
        "+" => Value::Text(rest.to_owned()),
        "-" => Value::Error(rest.to_owned()),
        ":" => Value::Integer(number()?),
        "$" | "*" if rest == "-1" => Value::Null,
        "$" => {
            let mut bytes = vec![0; usize::try_from(number()?).map_err(|_| unexpected(&line))? + 2];
            stream.read_exact(&mut bytes)?;
            Value::Text(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
        }
        "*" => Value::List((0..number()?).map(|_| read_value(stream)).collect::<io::Result<_>>()?),
        _ => return Err(unexpected(&line)),
    })
}

fn unexpected(what: &str) -> io::Error {
    io::Error::other(format!("unexpected answer: {}", what.trim_end()))
}

/// `key:` and the number with zeros before it.
pub fn append_key(out: &mut Vec<u8>, mut number: u32, size: usize) {
    out.extend_from_slice(b"key:");
    let start = out.len();
    out.resize(start + size - 4, b'0');
    for digit in out[start..].iter_mut().rev().take(10) {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// CRC-16/XMODEM of the key; the keys here have no hash tags.
fn key_slot(key: &[u8]) -> usize {
    let crc = key.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    usize::from(crc) % KEY_SLOT_COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_slot_that_redis_documents() {
        assert_eq!(key_slot(b"123456789"), 0x31c3);
    }

    #[test]
    fn keys_are_padded_with_zeros() {
        for (number, size, expected) in
            [(0, 14, "key:0000000000"), (42, 16, "key:000000000042"), (u32::MAX, 14, "key:4294967295")]
        {
            let mut key = Vec::new();
            append_key(&mut key, number, size);
            assert_eq!(String::from_utf8_lossy(&key), expected);
        }
    }

    #[test]
    fn slots_of_two_servers() {
        let answer =
            b"*2\r\n*3\r\n:0\r\n:99\r\n*2\r\n$1\r\na\r\n:7001\r\n*3\r\n:100\r\n:16383\r\n*2\r\n$0\r\n\r\n:7002\r\n";
        let Value::List(ranges) = read_value(&mut &answer[..]).unwrap() else { panic!("not a list") };
        let servers = servers(&ranges, "own").unwrap();
        assert_eq!((servers[99].as_deref(), servers[100].as_deref()), (Some("a:7001"), Some("own:7002")));
    }
}
