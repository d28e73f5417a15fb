//! Types of settings: sizes, addresses, secrets and closed lists of words. Each parses from what a person writes and
//! prints as something that parses again.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

/// A number of bytes, written as in redis.conf: plain, or with k (1000), kb (1024), m, mb, g or gb, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A TCP address whose host may be a name. IPv6 literals are written in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// A password. Its `Debug` form says only whether there is one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

/// What an acknowledged write has reached on each node of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Appendfsync {
    /// On disk: fdatasync before the acknowledgement.
    Always,
    /// In the operating system's cache; on disk within about a second.
    Everysec,
    /// In the operating system's cache; on disk when the system gets to it.
    No,
}

/// How a leader makes sure that it still leads before it answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReadMode {
    /// By a lease, which assumes that clocks of different nodes run at nearly the same speed.
    Lease,
    /// By a round trip to a quorum for each batch of reads; assumes nothing about clocks.
    ReadIndex,
}

/// Least severe message that is logged. Redis's words are accepted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    #[value(alias = "nothing")]
    Error,
    #[value(alias = "warning")]
    Warn,
    #[value(alias = "notice")]
    Info,
    #[value(alias = "verbose")]
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line per message for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `yes` or `no`, as everywhere in redis.conf; TOML's `true` and `false` mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    #[value(alias = "true")]
    Yes,
    #[value(alias = "false")]
    No,
}

/// Redis's eviction policies. Until a memory limit is set the choice only decides what OBJECT FREQ may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvictionPolicy {
    Noeviction,
    AllkeysLru,
    AllkeysLfu,
    AllkeysRandom,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

const UNITS: [(&str, u64); 7] =
    [("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10), ("g", 1_000_000_000), ("m", 1_000_000), ("k", 1000), ("b", 1)];

impl YesNo {
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }
}

impl EvictionPolicy {
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::AllkeysLfu | Self::VolatileLfu)
    }
}

impl ByteSize {
    /// Saturates on a 32-bit machine.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| lower.strip_suffix(suffix).map(|digits| (digits, *unit)))
            .unwrap_or((lower.as_str(), 1));
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = if all_digits { digits.parse().ok() } else { None };
        match count.and_then(|count| count.checked_mul(unit)) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err("a size is a number of bytes, optionally followed by kb, mb or gb".to_string()),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS[..3].iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match exact {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("'{text}' is not host:port");
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(malformed)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || bare.is_none() && host.contains([':', '[', ']', '/', ' ']) {
            return Err(malformed());
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { host: bare.unwrap_or(host).to_string(), port }),
            Ok(_) | Err(_) => Err(malformed()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Secret {
    /// Whether this was given, in a time that does not tell how many bytes were right.
    pub fn is(&self, given: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let mut differs = u8::from(secret.len() != given.len());
        for (index, byte) in given.iter().enumerate() {
            differs |= byte ^ secret.get(index).copied().unwrap_or(!byte);
        }
        differs == 0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_string()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "set" })
    }
}

macro_rules! display_as_clap_word {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.to_possible_value().expect("no variant is skipped").get_name())
            }
        }
    )*};
}

display_as_clap_word!(Appendfsync, ReadMode, LogLevel, LogFormat, YesNo, EvictionPolicy);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_the_suffixes_of_redis_conf() {
        let table: [(&str, Option<u64>); 14] = [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1k", Some(1000)),
            ("1kb", Some(1024)),
            ("1M", Some(1_000_000)),
            ("512mb", Some(512 << 20)),
            ("2GB", Some(2 << 30)),
            ("7b", Some(7)),
            ("", None),
            ("kb", None),
            ("-1", None),
            ("+1", None),
            ("1.5mb", None),
            ("18446744073709551615kb", None),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<ByteSize>().ok().map(|size| size.0), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_print_as_something_that_parses_to_the_same() {
        for bytes in [0, 1, 1000, 1024, 1536, 512 << 20, 1 << 30, (1 << 30) + 1, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(ByteSize(512 << 20).to_string(), "512mb");
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        let address = |text: &str| text.parse::<HostPort>().map(|address| (address.host, address.port));
        assert_eq!(address("a.example:7001"), Ok(("a.example".to_string(), 7001)));
        assert_eq!(address("[::1]:7001"), Ok(("::1".to_string(), 7001)));
        for text in ["", "host", ":7001", "host:0", "host:70000", "::1:7001", "[::1:7001", "a b:1", "http://a:1"] {
            assert!(address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_ipv6_address_prints_in_brackets() {
        assert_eq!("[::1]:7001".parse::<HostPort>().unwrap().to_string(), "[::1]:7001");
    }

    #[test]
    fn a_secret_is_itself_alone() {
        let secret = Secret("secret".to_string());
        assert!(secret.is(b"secret"));
        for wrong in [&b""[..], b"secre", b"secrets", b"Secret", b"secret\0"] {
            assert!(!secret.is(wrong));
        }
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        assert_eq!(format!("{:?}", Secret("hunter2".to_string())), "set");
    }
}
