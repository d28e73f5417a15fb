//! The transcripts of `tests/transcripts` over a socket: against a Kvorum node and, on request, against a real Redis.
//!
//! `KVORUM_TRANSCRIPTS_REDIS=1 cargo test transcripts` runs them against the `redis-server` on the path as well.

#[path = "../transcripts/format.rs"]
mod format;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use self::format::{Runner, TRANSCRIPTS, check, print_reply};
use super::harness::{Cluster, Connection, eventually, free_ports};

/// Runs every transcript, each from an empty keyspace.
fn run_all(runner: Runner, port: u16) {
    let advance = |_: &mut Connection, ms| {
        let start = Instant::now();
        // What the transcript asks for: time itself is the condition.
        eventually(
            Duration::from_secs(60),
            || "time passes".to_owned(),
            || start.elapsed() >= Duration::from_millis(ms),
        );
    };
    let call = |connection: &mut Connection, words: &[Vec<u8>]| {
        connection.send(words).expect("sends");
        print_reply(connection.reader()).expect("answers")
    };
    for (name, text) in TRANSCRIPTS {
        let mut connection = Connection::open(port).expect("it accepts");
        assert_eq!(connection.call(&["FLUSHALL"]).expect("answers").text(), "OK");
        check(name, text, runner, &mut connection, advance, call);
    }
}

#[test]
fn a_node_answers_the_transcripts_as_the_command_table_does() {
    let cluster = Cluster::start(1, &[]);
    run_all(Runner::Kvorum, cluster.nodes[0].port);
}

struct Redis {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// A cluster of one, with all slots; nothing reaches the disk. `None` where none is installed.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_ports(1)[0];
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--cluster-enabled", "yes", "--save", "", "--bind", "127.0.0.1"])
            .current_dir(&directory)
            .stdout(Stdio::null())
            .spawn();
        let redis = match child {
            Ok(child) => Self { child, port, _directory: directory },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("redis-server: {error}"),
        };
        let limit = Duration::from_secs(20);
        eventually(limit, || "Redis accepts".to_owned(), || Connection::open(port).is_ok());
        let mut connection = Connection::open(port).expect("it accepts");
        connection.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).expect("answers");
        let mut is_ok = || connection.call(&["CLUSTER", "INFO"]).expect("answers").text().contains("cluster_state:ok");
        eventually(limit, || "Redis owns all slots".to_owned(), &mut is_ok);
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_redis_answers_the_transcripts_if_asked_for() {
    if std::env::var_os("KVORUM_TRANSCRIPTS_REDIS").is_none_or(|value| value != "1") {
        return;
    }
    let Some(redis) = Redis::start() else {
        println!("no redis-server is installed");
        return;
    };
    run_all(Runner::Redis, redis.port);
}
