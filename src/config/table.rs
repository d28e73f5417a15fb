//! CONFIG GET and SET over the rows of `parameters`: validation with Redis's error texts, all or nothing.
//!
//! Reading a tunable on a request's path is one atomic load; setting one validates all values of the command first and
//! then swaps the whole set, so no reader sees half a CONFIG SET.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clap::ValueEnum;
use parking_lot::Mutex;

use super::options::Config;
use super::parameters::{
    Change, Initial, Kind, OUTPUT_LIMIT, OUTPUT_LIMIT_MAX, OUTPUT_LIMIT_MIN, OUTPUT_LIMITS, PARAMETERS, Parameter,
};
use super::units::{ByteSize, EvictionPolicy, LogLevel, Secret, YesNo};

/// Longest text of a parameter; keeps one CONFIG SET from holding 512 MB for ever.
const TEXT_LEN_MAX: usize = 64 << 10;
const PERCENTILES_MAX: usize = 16;

pub(super) type Values = BTreeMap<&'static str, String>;

/// The parameters that take effect while the node runs, swapped as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunables {
    pub maxclients: usize,
    /// 0 is never.
    pub timeout_s: u32,
    /// 0 is off.
    pub tcp_keepalive_s: u32,
    /// `None` when clients need no password.
    pub requirepass: Option<Secret>,
    pub protected_mode: bool,
    pub proto_max_bulk_len: usize,
    pub client_query_buffer_limit: usize,
    pub client_output_limit: usize,
    /// Negative is off, 0 is every command.
    pub slowlog_log_slower_than_us: i64,
    pub slowlog_max_len: usize,
    /// 0 is off.
    pub latency_monitor_threshold_ms: u64,
    pub latency_tracking: bool,
    pub latency_percentiles: Vec<f64>,
    pub log_level: LogLevel,
    pub eviction_policy: EvictionPolicy,
}

/// Current values of all parameters of one node.
#[derive(Debug)]
pub struct ConfigTable {
    initial: Values,
    values: Mutex<Values>,
    tunables: ArcSwap<Tunables>,
    /// The process may open no more sockets.
    clients_max: u32,
}

impl ConfigTable {
    pub fn new(config: &Config) -> Self {
        let initial_text = |parameter: &Parameter| match parameter.initial {
            Initial::Text(text) => text.to_string(),
            Initial::Setting(setting) => setting(config),
        };
        let initial: Values = PARAMETERS.iter().map(|parameter| (parameter.name, initial_text(parameter))).collect();
        let tunables = ArcSwap::from_pointee(Tunables::from_values(&initial));
        Self { values: Mutex::new(initial.clone()), initial, tunables, clients_max: u32::MAX }
    }

    pub fn with_clients_max(self, clients_max: u32) -> Self {
        Self { clients_max, ..self }
    }

    /// Hot path: one atomic load.
    pub fn tunables(&self) -> arc_swap::Guard<Arc<Tunables>> {
        self.tunables.load()
    }

    /// Names and values that match a glob pattern, letter case aside, sorted by name; empty when nothing does. An alias
    /// is listed under its own name, as in Redis.
    pub fn get(&self, pattern: &str) -> Vec<(&'static str, String)> {
        let pattern = pattern.to_ascii_lowercase();
        let values = self.values.lock();
        let names = PARAMETERS.iter().flat_map(|parameter| {
            std::iter::once((parameter.name, parameter.name))
                .chain(parameter.alias.map(|alias| (alias, parameter.name)))
        });
        let matching = names.filter(|(shown, _)| glob_matches(pattern.as_bytes(), shown.as_bytes()));
        let mut found: Vec<_> = matching.map(|(shown, name)| (shown, values[name].clone())).collect();
        found.sort_unstable();
        found
    }

    /// Sets all or nothing. The error is Redis's reply, `ERR` included.
    pub fn set(&self, changes: &[(&str, &str)]) -> Result<(), String> {
        let parameters = changes.iter().map(|(name, _)| find(name)).collect::<Result<Vec<_>, _>>()?;
        let mut values = self.values.lock();
        let mut next = values.clone();
        for (index, (parameter, (name, text))) in parameters.iter().zip(changes).enumerate() {
            let failed =
                |reason: &str| format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}");
            if parameters[..index].iter().any(|earlier| earlier.name == parameter.name) {
                return Err(failed("duplicate parameter"));
            }
            match parameter.change {
                Change::Allowed => {}
                Change::Unchanged if *text == next[parameter.name] => {}
                Change::Immutable | Change::Unchanged => return Err(failed("can't set immutable config")),
            }
            next.insert(
                parameter.name,
                parameter.kind.normalized(text, &next[parameter.name]).map_err(|reason| failed(&reason))?,
            );
            align_output_limits(&mut next, parameter.name);
        }
        let tunables = Tunables::from_values(&next);
        let (asked_for, most) = (tunables.maxclients, self.clients_max as usize);
        if asked_for > most && asked_for != self.tunables.load().maxclients {
            return Err(format!(
                "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not able to handle the \
                 specified number of clients, try with {most}"
            ));
        }
        self.tunables.store(Arc::new(tunables));
        *values = next;
        Ok(())
    }

    /// The config file's text with every setting that CONFIG SET has changed since the start written into it; comments
    /// and order stay. Remembered parameters have no key in the file and are left out.
    pub fn rewritten(&self, file_text: &str) -> String {
        let values = self.values.lock();
        let changed = PARAMETERS.iter().filter(|parameter| values[parameter.name] != self.initial[parameter.name]);
        let with_key = changed
            .filter_map(|parameter| Some((parameter.file_key?, parameter.kind.file_value(&values[parameter.name]))));
        super::rewrite::rewritten(file_text, with_key)
    }
}

fn find(name: &str) -> Result<&'static Parameter, String> {
    let is_named = |shown: &str| shown.eq_ignore_ascii_case(name);
    let found = PARAMETERS.iter().find(|parameter| is_named(parameter.name) || parameter.alias.is_some_and(is_named));
    found.ok_or_else(|| format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"))
}

impl Kind {
    /// As a person would write it in the file. A password of digits is no number.
    fn file_value(self, text: &str) -> toml::Value {
        let number = match self {
            Self::Integer { .. } | Self::Memory { .. } => text.parse().ok(),
            Self::YesNo | Self::OneOf(_) | Self::Percentiles | Self::Text | Self::OutputLimits | Self::Only(_) => None,
        };
        number.map_or_else(|| toml::Value::String(text.to_string()), toml::Value::Integer)
    }

    /// The text as CONFIG GET will print it, or Redis's reason for refusing it. What it leaves out stays as in `current`.
    fn normalized(self, text: &str, current: &str) -> Result<String, String> {
        match self {
            Self::YesNo => one_of(&["yes", "no"], text).ok_or_else(|| "argument must be 'yes' or 'no'".to_string()),
            Self::Integer { min, max } => {
                let number: i64 =
                    text.parse().map_err(|_| "argument couldn't be parsed into an integer".to_string())?;
                in_bounds(number, min, max)
            }
            Self::Memory { min, max } => {
                let size: ByteSize = text.parse().map_err(|_| "argument must be a memory value".to_string())?;
                in_bounds(size.0, min, max)
            }
            Self::OneOf(words) => one_of(words, text)
                .ok_or_else(|| format!("argument(s) must be one of the following: {}", words.join(", "))),
            Self::Percentiles => percentiles(text)
                .map(|_| text.to_string())
                .ok_or_else(|| format!("argument(s) must be at most {PERCENTILES_MAX} numbers from 0 to 100")),
            Self::OutputLimits => output_limits(text, current),
            Self::Text if text.len() > TEXT_LEN_MAX => Err(format!("argument is longer than {TEXT_LEN_MAX} bytes")),
            Self::Text => Ok(text.to_string()),
            Self::Only(value) if text.eq_ignore_ascii_case(value) => Ok(value.to_string()),
            Self::Only(value) => Err(format!("Kvorum supports only '{value}'")),
        }
    }
}

fn in_bounds<N: PartialOrd + std::fmt::Display>(number: N, min: N, max: N) -> Result<String, String> {
    if number < min || number > max {
        return Err(format!("argument must be between {min} and {max} inclusive"));
    }
    Ok(number.to_string())
}

fn one_of(words: &[&'static str], text: &str) -> Option<String> {
    words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| (*word).to_string())
}

fn percentiles(text: &str) -> Option<Vec<f64>> {
    let numbers: Option<Vec<f64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    numbers.filter(|all| all.len() <= PERCENTILES_MAX && all.iter().all(|number| (0.0..=100.0).contains(number)))
}

/// Redis's hard limit of normal clients and our own are one: whichever was set decides. Redis's reads back as it was set, ours as it is in force.
fn align_output_limits(values: &mut Values, set: &str) {
    let mut limits: Vec<String> = values[OUTPUT_LIMITS].split_whitespace().map(str::to_string).collect();
    match set {
        OUTPUT_LIMITS => {
            // 0 is none.
            let hard = limits[1].parse().ok().filter(|hard| *hard > 0).unwrap_or(OUTPUT_LIMIT_MAX);
            values.insert(OUTPUT_LIMIT, hard.clamp(OUTPUT_LIMIT_MIN, OUTPUT_LIMIT_MAX).to_string());
        }
        OUTPUT_LIMIT => {
            let of_normal = [values[OUTPUT_LIMIT].clone(), "0".to_owned(), "0".to_owned()];
            limits.splice(1..4, of_normal);
            values.insert(OUTPUT_LIMITS, limits.join(" "));
        }
        _ => (),
    }
}

/// `class hard soft seconds` for one class or more.
fn output_limits(text: &str, current: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_string());
    }
    let mut limits: Vec<String> = current.split_whitespace().map(str::to_string).collect();
    for limit in words.chunks_exact(4) {
        let class = match limit[0].to_ascii_lowercase().as_str() {
            "normal" => 0,
            "slave" | "replica" => 1,
            "pubsub" => 2,
            _ => return Err("Invalid client class specified in buffer limit configuration.".to_string()),
        };
        let bytes = |word: &str| word.parse::<ByteSize>().ok().map(|size| size.0.to_string());
        let seconds = limit[3].parse::<u32>().ok().map(|seconds| seconds.to_string());
        let (Some(hard), Some(soft), Some(seconds)) = (bytes(limit[1]), bytes(limit[2]), seconds) else {
            return Err("Error in hard, soft or soft_seconds setting in buffer limit configuration.".to_string());
        };
        limits.splice(4 * class + 1..4 * class + 4, [hard, soft, seconds]);
    }
    Ok(limits.join(" "))
}

impl Tunables {
    /// Every value was normalized by its row's kind, initial values included (a test holds them to it).
    fn from_values(values: &Values) -> Self {
        fn number<N: TryFrom<i64>>(values: &Values, name: &str) -> N {
            let number = values[name].parse::<i64>().ok().and_then(|number| N::try_from(number).ok());
            number.expect("the row's bounds keep the number within its type")
        }
        fn word<W: ValueEnum>(values: &Values, name: &str) -> W {
            W::from_str(&values[name], true).expect("the row lists only words of this type")
        }
        let password = &values["requirepass"];
        Self {
            maxclients: number(values, "maxclients"),
            timeout_s: number(values, "timeout"),
            tcp_keepalive_s: number(values, "tcp-keepalive"),
            requirepass: (!password.is_empty()).then(|| Secret(password.clone())),
            protected_mode: word::<YesNo>(values, "protected-mode").is_yes(),
            proto_max_bulk_len: number(values, "proto-max-bulk-len"),
            client_query_buffer_limit: number(values, "client-query-buffer-limit"),
            client_output_limit: number(values, "client-output-limit"),
            slowlog_log_slower_than_us: number(values, "slowlog-log-slower-than"),
            slowlog_max_len: number(values, "slowlog-max-len"),
            latency_monitor_threshold_ms: number(values, "latency-monitor-threshold"),
            latency_tracking: word::<YesNo>(values, "latency-tracking").is_yes(),
            latency_percentiles: percentiles(&values["latency-tracking-info-percentiles"]).unwrap_or_default(),
            log_level: word(values, "loglevel"),
            eviction_policy: word(values, "maxmemory-policy"),
        }
    }
}

/// Redis's glob without classes of characters beyond `[..]`: `*`, `?`, `[a-z]`, `[^..]`, `\x`. Backtracks to the last
/// `*` only, so its time is bounded by the product of the lengths.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, position));
            at += 1;
        } else if let Some(next) = glob_step(pattern, at, text[position]) {
            at = next;
            position += 1;
        } else if let Some((after, resumed)) = star {
            star = Some((after, resumed + 1));
            at = after;
            position = resumed + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on if its element at `at` matches the byte.
fn glob_step(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => {
            let close = at + 1 + pattern[at + 1..].iter().position(|byte| *byte == b']')?;
            let class = &pattern[at + 1..close];
            let (negated, class) = class.strip_prefix(b"^").map_or((false, class), |rest| (true, rest));
            let in_range = class.windows(3).any(|range| range[1] == b'-' && (range[0]..=range[2]).contains(&byte));
            (negated != (in_range || class.contains(&byte))).then_some(close + 1)
        }
        b'\\' if pattern.get(at + 1) == Some(&byte) => Some(at + 2),
        literal => (literal == byte).then_some(at + 1),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
