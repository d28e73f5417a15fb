//! The slow log: the last commands that took long, newest first (SLOWLOG GET).
//!
//! The time counted is what this node spent on the command, not what its group took to commit it: as in Redis, waiting is not
//! work. Arguments are cut as Redis cuts them, so the log's memory is bounded.

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::protocol::Args;

/// Arguments kept per command, and bytes kept per argument; Redis's numbers.
const ARG_COUNT_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;
/// The parameters whose values nobody is shown.
const SECRETS: [&[u8]; 5] =
    [b"requirepass", b"masterauth", b"masteruser", b"tls-key-file-pass", b"tls-client-key-file-pass"];
/// Entries kept whatever the configuration says.
const ENTRY_COUNT_MAX: usize = 100_000;

#[derive(Debug, Clone)]
pub struct SlowEntry {
    pub id: u64,
    pub at: Timestamp,
    pub usec: u64,
    pub args: Vec<Box<[u8]>>,
    pub addr: SocketAddr,
    pub name: Box<[u8]>,
}

#[derive(Debug, Default)]
pub struct SlowLog(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<SlowEntry>,
    next_id: u64,
}

/// One command that was slow.
#[derive(Debug)]
pub struct SlowCommand<'a> {
    pub args: Args<'a>,
    pub usec: u64,
    pub addr: SocketAddr,
    pub name: Box<[u8]>,
}

impl SlowLog {
    pub fn push(&self, command: SlowCommand<'_>, entry_count_max: usize) {
        let mut ring = self.0.lock();
        let id = ring.next_id;
        ring.next_id += 1;
        ring.entries.push_front(SlowEntry {
            id,
            at: Timestamp::wall_now(),
            usec: command.usec,
            args: cut(&command.args),
            addr: command.addr,
            name: command.name,
        });
        ring.entries.truncate(entry_count_max.min(ENTRY_COUNT_MAX));
    }

    /// The newest `count`.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.0.lock().entries.iter().take(count).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn reset(&self) {
        self.0.lock().entries.clear();
    }
}

fn cut(args: &Args<'_>) -> Vec<Box<[u8]>> {
    let kept = if args.len() > ARG_COUNT_MAX { ARG_COUNT_MAX - 1 } else { args.len() };
    let cut_or_hidden = |(index, word)| if is_secret(args, index) { (*b"(redacted)").into() } else { cut_word(word) };
    let mut words: Vec<Box<[u8]>> = args.iter().take(kept).enumerate().map(cut_or_hidden).collect();
    if kept < args.len() {
        words.push(format!("... ({} more arguments)", args.len() - kept).into_bytes().into());
    }
    words
}

/// Passwords are not shown, as in Redis.
fn is_secret(args: &Args<'_>, index: usize) -> bool {
    let is = |at: usize, name: &[u8]| args.get(at).is_some_and(|word| word.eq_ignore_ascii_case(name));
    let follows = |distance: usize, name: &[u8]| index >= distance && is(index - distance, name);
    (is(0, b"auth") && index > 0)
        || (is(0, b"hello") && index > 2 && (follows(1, b"auth") || follows(2, b"auth")))
        || (is(0, b"migrate") && index > 5 && (follows(1, b"auth") || follows(1, b"auth2") || follows(2, b"auth2")))
        || (is(0, b"config") && index > 2 && SECRETS.iter().any(|secret| follows(1, secret)))
}

fn cut_word(word: &[u8]) -> Box<[u8]> {
    if word.len() <= ARG_BYTES_MAX {
        return word.into();
    }
    let mut kept = word[..ARG_BYTES_MAX].to_vec();
    kept.extend_from_slice(format!("... ({} more bytes)", word.len() - ARG_BYTES_MAX).as_bytes());
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ArgRange;

    fn push(log: &SlowLog, words: &[&[u8]], count_max: usize) {
        let bytes = words.concat();
        let mut start = 0;
        let ranges: Vec<ArgRange> = words
            .iter()
            .map(|word| {
                let range = ArgRange { start, end: start + word.len() as u32 };
                start = range.end;
                range
            })
            .collect();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        log.push(SlowCommand { args: Args::new(&bytes, &ranges), usec: 5, addr, name: Box::default() }, count_max);
    }

    #[test]
    fn the_newest_entries_are_kept_and_ids_go_on() {
        let log = SlowLog::default();
        for _ in 0..3 {
            push(&log, &[b"GET", b"k"], 2);
        }
        assert_eq!(log.newest(10).iter().map(|entry| entry.id).collect::<Vec<_>>(), [2, 1]);
        log.reset();
        assert!(log.is_empty());
    }

    #[test]
    fn long_commands_are_cut_as_redis_cuts_them() {
        let log = SlowLog::default();
        let words = vec![&b"x"[..]; 40];
        push(&log, &words, 8);
        let entry = &log.newest(1)[0];
        assert_eq!(entry.args.len(), 32);
        assert_eq!(&entry.args[31][..], b"... (9 more arguments)");
        push(&log, &[b"SET", &[b'v'; 200]], 8);
        assert!(log.newest(1)[0].args[1].ends_with(b"... (72 more bytes)"));
    }

    #[test]
    fn passwords_are_not_kept() {
        let log = SlowLog::default();
        let hidden: [(&[&[u8]], usize); 7] = [
            (&[b"AUTH", b"secret"], 1),
            (&[b"auth", b"default", b"secret"], 2),
            (&[b"HELLO", b"3", b"AUTH", b"default", b"secret", b"SETNAME", b"n"], 4),
            (&[b"CONFIG", b"SET", b"maxclients", b"9", b"requirepass", b"secret"], 5),
            (&[b"CONFIG", b"SET", b"masteruser", b"secret"], 3),
            (&[b"MIGRATE", b"h", b"1", b"k", b"0", b"9", b"AUTH", b"secret"], 7),
            (&[b"migrate", b"h", b"1", b"k", b"0", b"9", b"copy", b"auth2", b"secret", b"secret"], 9),
        ];
        for (words, secret) in hidden {
            push(&log, words, 10);
            let newest = log.newest(1).remove(0);
            assert_eq!(&*newest.args[secret], b"(redacted)");
            assert!(!newest.args.iter().any(|word| &**word == b"secret"));
        }
        push(&log, &[b"SET", b"auth", b"secret"], 10);
        assert_eq!(&*log.newest(1)[0].args[2], b"secret");
    }
}
