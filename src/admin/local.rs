//! `kvorum local`: a cluster on this machine, each node a child process running `kvorum server`.
//!
//! A node stops when its standard input ends, of which this process holds the other end: that is how a clean stop is
//! asked for, and it also works when this process is killed. One task per node owns the child; one per node reads its
//! log. All are joined before this returns.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cli::{LocalFlags, load_settings};
use super::client::check_health;
use super::local_directory::{self, DirectoryError, Wanted, node_directory_name};
use super::signals::{shutdown_signal, stopped};
use crate::config::{ConfigError, HostPort};

const READY_TIME_MAX: Duration = Duration::from_secs(30);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(100);
const HEALTH_TIME_MAX: Duration = Duration::from_secs(1);
/// A node's own limit for a clean stop is 10 s by default; beyond this it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(12);
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Lines of a dead node's log that are shown.
const TAIL_LINES: usize = 8;

#[derive(Debug, thiserror::Error)]
enum LocalError {
    #[error("port {0} is in use; choose another with --port")]
    PortInUse(u16),
    #[error("{}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Used(#[from] DirectoryError),
    #[error("cannot start a node: {0}")]
    Spawn(io::Error),
    #[error("cannot watch signals: {0}")]
    Signals(io::Error),
    #[error("node {number} stopped before the cluster was ready ({status}); the end of {}:\n{tail}", log.display())]
    Died { number: u16, status: String, log: PathBuf, tail: String },
    #[error("not ready after {} s: {reason}", READY_TIME_MAX.as_secs())]
    NotReady { reason: String },
    #[error("no node is left")]
    AllDead,
}

/// How one node is started and found.
#[derive(Debug, Clone)]
struct NodePlan {
    /// From 1.
    number: u16,
    address: HostPort,
    flags: Vec<String>,
    log: PathBuf,
}

pub fn run_local(flags: &LocalFlags) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the operating system gives a process an event queue");
    match runtime.block_on(run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(LocalError::Settings(ConfigError::Flags(error))) => error.exit(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &LocalFlags) -> Result<(), LocalError> {
    let dir = flags.dir.clone();
    let plans = plan_nodes(flags, &dir);
    // Wrong flags are told once, here, and not by each node; the password is needed to ask the nodes how they are.
    let password = load_settings(&plans[0].flags)?.config.requirepass.0;
    local_directory::check(&dir, Wanted { nodes: flags.nodes, first_port: flags.port })?;
    check_ports(&plans)?;
    std::fs::create_dir_all(&dir).map_err(|source| LocalError::Directory { path: dir.clone(), source })?;

    let (stop, stop_seen) = watch::channel(false);
    let mut nodes = JoinSet::new();
    for plan in &plans {
        let (child, log) = spawn_node(plan)?;
        nodes.spawn(run_node(plan.clone(), child, log, stop_seen.clone()));
    }
    announce(&plans, &dir);
    let outcome = tokio::select! {
        outcome = watch_nodes(&plans, &mut nodes, &password) => outcome,
        signal = shutdown_signal(false) => signal.map_err(LocalError::Signals).map(|_| say("\nStopping ...")),
    };
    // The receivers are gone when all nodes have ended.
    let _ = stop.send(true);
    while nodes.join_next().await.is_some() {}
    if outcome.is_ok() {
        say("Stopped.");
    }
    outcome
}

fn plan_nodes(flags: &LocalFlags, dir: &Path) -> Vec<NodePlan> {
    let address = |index: u16| HostPort { host: "127.0.0.1".to_string(), port: flags.port + index };
    let all = (0..flags.nodes).map(|index| address(index).to_string()).collect::<Vec<_>>().join(",");
    let plan = |index: u16| {
        let name = node_directory_name(index + 1);
        let mut words = flags.server_flags.clone();
        words.extend([
            format!("--port={}", flags.port + index),
            format!("--data-dir={}", dir.join(&name).display()),
            format!("--initial-cluster={all}"),
            "--exit-with-parent".to_string(),
        ]);
        NodePlan { number: index + 1, address: address(index), flags: words, log: dir.join(format!("{name}.log")) }
    };
    (0..flags.nodes).map(plan).collect()
}

/// A port in use is the commonest trouble; found here it is one clear line instead of a node's log.
fn check_ports(plans: &[NodePlan]) -> Result<(), LocalError> {
    for plan in plans {
        let config = load_settings(&plan.flags)?.config;
        for port in [Some(config.port), Some(config.peer_port()), config.http_port()].into_iter().flatten() {
            TcpListener::bind(("127.0.0.1", port)).map_err(|_| LocalError::PortInUse(port))?;
        }
    }
    Ok(())
}

fn spawn_node(plan: &NodePlan) -> Result<(Child, File), LocalError> {
    let in_log = |source| LocalError::Directory { path: plan.log.clone(), source };
    let log = File::options().create(true).append(true).open(&plan.log).map_err(in_log)?;
    let program = std::env::current_exe().map_err(LocalError::Spawn)?;
    let child = Command::new(program)
        .arg("server")
        .args(&plan.flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal goes to this process alone, which then stops the nodes in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(LocalError::Spawn)?;
    Ok((child, log))
}

/// Owns one node until it ends, by itself or after `stop`.
async fn run_node(
    plan: NodePlan,
    mut child: Child,
    log: File,
    mut stop: watch::Receiver<bool>,
) -> (u16, io::Result<ExitStatus>) {
    let stdin = child.stdin.take().expect("standard input was piped");
    let stderr = child.stderr.take().expect("standard error was piped");
    let number = plan.number;
    let lines = tokio::spawn(copy_log(number, stderr, log));
    let status = tokio::select! {
        status = child.wait() => status,
        _ = stopped(&mut stop) => {
            drop(stdin);
            stop_node(number, &mut child).await
        }
    };
    if let Err(error) = lines.await {
        eprintln!("node-{number} | its log could not be read: {error}");
    }
    (number, status)
}

async fn stop_node(number: u16, child: &mut Child) -> io::Result<ExitStatus> {
    match tokio::time::timeout(STOP_TIME_MAX, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            eprintln!("node-{number} | did not stop within {} s and was killed", STOP_TIME_MAX.as_secs());
            child.kill().await?;
            child.wait().await
        }
    }
}

/// Everything into the file; warnings, errors and what is no log line (a panic) to the terminal as well.
async fn copy_log(number: u16, stderr: ChildStderr, mut log: File) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(count) = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await
        && count > 0
    {
        // A full disk must not stop the node for want of a reader.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        if !is_routine(&text) {
            eprintln!("node-{number} | {}", text.trim_end());
        }
        line.clear();
    }
}

fn is_routine(line: &str) -> bool {
    let head: String = line.chars().take(80).collect();
    let text_level = [" INFO ", " DEBUG ", " TRACE "].iter().any(|level| head.contains(level));
    text_level || head.contains("\"level\":\"INFO\"") || head.contains("\"level\":\"DEBUG\"")
}

fn announce(plans: &[NodePlan], dir: &Path) {
    let first = &plans[0].address;
    let ports = plans.iter().map(|plan| plan.address.port.to_string()).collect::<Vec<_>>().join(" ");
    say(&format!("Kvorum: {} nodes on 127.0.0.1, ports {ports}; data and logs in {}", plans.len(), dir.display()));
    say(&format!("  connect   redis-cli -c -p {}", first.port));
    say(&format!("  look      kvorum cluster status --node {first}"));
}

/// Until the cluster is ready any death is fatal; after that it is told, and the rest goes on: killing a node is a thing
/// one does to a local cluster.
async fn watch_nodes(
    plans: &[NodePlan],
    nodes: &mut JoinSet<(u16, io::Result<ExitStatus>)>,
    password: &str,
) -> Result<(), LocalError> {
    let started = Instant::now();
    tokio::select! {
        ready = wait_until_ready(plans, password) => ready?,
        Some(Ok((number, status))) = nodes.join_next() => {
            let log = plans[usize::from(number) - 1].log.clone();
            return Err(LocalError::Died { number, status: outcome_text(status), tail: tail(&log), log });
        }
    }
    say(&format!("Ready after {:.1} s. Ctrl-C stops all nodes.", started.elapsed().as_secs_f64()));
    while let Some(ended) = nodes.join_next().await {
        let Ok((number, status)) = ended else { continue };
        let plan = &plans[usize::from(number) - 1];
        let flags: Vec<_> = plan.flags.iter().filter(|flag| *flag != "--exit-with-parent").cloned().collect();
        eprintln!(
            "node-{number} | stopped ({}), the others go on; its log is {}",
            outcome_text(status),
            plan.log.display()
        );
        eprintln!("node-{number} | start it again with: kvorum server {}", flags.join(" "));
    }
    Err(LocalError::AllDead)
}

async fn wait_until_ready(plans: &[NodePlan], password: &str) -> Result<(), LocalError> {
    let deadline = Instant::now() + READY_TIME_MAX;
    for plan in plans {
        while let Err(reason) = health_of(plan.address.clone(), password.to_string()).await {
            if Instant::now() > deadline {
                return Err(LocalError::NotReady { reason: format!("node {}: {reason}", plan.number) });
            }
            tokio::time::sleep(READY_POLL_INTERVAL).await;
        }
    }
    Ok(())
}

async fn health_of(address: HostPort, password: String) -> Result<(), String> {
    let password = (!password.is_empty()).then_some(password);
    let check = move || check_health(&address, password.as_deref(), HEALTH_TIME_MAX);
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn outcome_text(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// One line to standard output, at once, also into a pipe. Nobody may be reading any more: that is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(nodes: u16, more: &[&str]) -> LocalFlags {
        let server_flags = more.iter().map(|flag| (*flag).to_string()).collect();
        LocalFlags { nodes, port: 7001, dir: PathBuf::from("/d"), server_flags }
    }

    #[test]
    fn every_node_gets_its_port_and_directory_and_the_same_list() {
        let plans = plan_nodes(&flags(3, &["--appendfsync", "no", "--port=1"]), Path::new("/d"));
        let configs: Vec<_> = plans.iter().map(|plan| load_settings(&plan.flags).unwrap().config).collect();
        assert_eq!(configs.iter().map(|config| config.port).collect::<Vec<_>>(), [7001, 7002, 7003]);
        assert_eq!(configs[2].data_dir, Path::new("/d/node-3"));
        assert_eq!(configs[0].initial_cluster.len(), 3);
        assert!(configs.iter().all(|config| config.initial_cluster == configs[0].initial_cluster));
        assert!(configs.iter().all(|config| config.exit_with_parent && config.appendfsync.to_string() == "no"));
    }

    #[test]
    fn only_what_needs_eyes_is_forwarded() {
        let table = [
            ("2026-01-01T00:00:00.000000Z  INFO kvorum: started\n", true),
            ("2026-01-01T00:00:00.000000Z  WARN kvorum: slow disk\n", false),
            ("2026-01-01T00:00:00.000000Z ERROR kvorum: no disk\n", false),
            ("{\"timestamp\":\"2026-01-01T00:00:00.000000Z\",\"level\":\"INFO\",\"fields\":{}}\n", true),
            ("thread 'main' panicked at src/main.rs:1:1:\n", false),
        ];
        for (line, routine) in table {
            assert_eq!(is_routine(line), routine, "{line}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut plans = plan_nodes(&flags(1, &[]), Path::new("/d"));
        plans[0].flags.push(format!("--http-port={port}"));
        assert!(check_ports(&plans).unwrap_err().to_string().contains("in use"));
    }
}
