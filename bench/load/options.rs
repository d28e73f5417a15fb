//! What one run does, from its flags.

use std::time::Duration;

/// Latencies, and the bytes and errors of a run, are told at its end as one line of JSON.
pub const USAGE: &str = "usage: kvorum-load [--FLAG VALUE]...
  --host HOST           any node of the cluster, or a node without one [127.0.0.1]
  --port PORT           [6379]
  --clients COUNT       connections, spread over the nodes that serve slots [50]
  --pipeline COUNT      requests that a connection sends at a time and then waits for [1]
  --rate PER_SECOND     open loop: requests are sent when they are due, on an idle connection or behind others if none is
                        idle, and their latency counts from when they were due; 0 is a closed loop [0]
  --sets WEIGHT         SETs among the requests [1]
  --gets WEIGHT         GETs among the requests [0]
  --keys COUNT          different keys, drawn evenly [100000]
  --key-bytes SIZE      [16]
  --value-bytes SIZE    [64]
  --seconds SECONDS     [2]
  --fill yes            instead of all that: each key is set once
";

#[derive(Clone)]
pub struct Options {
    pub host: String,
    pub port: u16,
    pub clients: usize,
    pub pipeline: usize,
    pub rate: f64,
    pub sets: u64,
    pub gets: u64,
    pub keys: u32,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub duration: Duration,
    pub is_fill: bool,
}

/// Shorter keys could not all be different.
pub const KEY_BYTES_MIN: usize = 14;

impl Options {
    /// # Errors
    /// What is wrong with the flags, for who typed them.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            host: "127.0.0.1".to_owned(),
            port: 6379,
            clients: 50,
            pipeline: 1,
            rate: 0.0,
            sets: 1,
            gets: 0,
            keys: 100_000,
            key_bytes: 16,
            value_bytes: 64,
            duration: Duration::from_secs(2),
            is_fill: false,
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--host" => options.host = value,
                "--port" => options.port = number(&flag, &value)?,
                "--clients" => options.clients = number(&flag, &value)?,
                "--pipeline" => options.pipeline = number(&flag, &value)?,
                "--rate" => options.rate = number(&flag, &value)?,
                "--sets" => options.sets = number(&flag, &value)?,
                "--gets" => options.gets = number(&flag, &value)?,
                "--keys" => options.keys = number(&flag, &value)?,
                "--key-bytes" => options.key_bytes = number(&flag, &value)?,
                "--value-bytes" => options.value_bytes = number(&flag, &value)?,
                "--seconds" => {
                    let seconds = number(&flag, &value)?;
                    options.duration =
                        Duration::try_from_secs_f64(seconds).map_err(|_| format!("--seconds cannot be {value}"))?;
                }
                "--fill" => options.is_fill = value == "yes",
                _ => return Err(format!("{flag} is no flag")),
            }
        }
        options.check()
    }

    fn check(self) -> Result<Options, String> {
        if self.clients == 0 || self.pipeline == 0 || self.keys == 0 || self.sets + self.gets == 0 {
            return Err("--clients, --pipeline, --keys and one of --sets and --gets must be above 0".to_owned());
        }
        if self.key_bytes < KEY_BYTES_MIN {
            return Err(format!("--key-bytes must be at least {KEY_BYTES_MIN}"));
        }
        if !self.rate.is_finite() || self.rate < 0.0 || (self.rate > 0.0 && self.is_fill) {
            return Err("--rate must be 0 or more, and 0 with --fill".to_owned());
        }
        Ok(self)
    }
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag} cannot be {value}"))
}
