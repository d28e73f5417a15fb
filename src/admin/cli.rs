//! The command line: which subcommand, and what becomes the process's exit status.
//!
//! 0 is success, 1 a failure that is told on standard error, 2 wrong flags or settings.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::local_directory::NODE_COUNT_MAX;
use super::operate::{self, Members};
use super::{client, local, moving, status};
use crate::config::{Config, ConfigError, HostPort, LoadedConfig, load, unknown_variables};
use crate::raft::power_loss;

const HEALTH_TIME_MAX: Duration = Duration::from_secs(3);
const WRONG_USAGE: u8 = 2;

pub type NodeError = Box<dyn Error + Send + Sync>;
/// Runs a node until it is stopped; `main` supplies it, because the node is made of layers above this one.
pub type RunNode = fn(LoadedConfig) -> Result<(), NodeError>;

/// A Redis-protocol cache and store that never loses a write it acknowledged.
#[derive(Debug, Parser)]
#[command(
    name = "kvorum",
    version,
    subcommand_required = true,
    term_width = 100,
    after_help = "\
Try it:
  kvorum local                        a cluster of three nodes on this machine
  redis-cli -c -p 7001 set hello world
  kvorum cluster status --node 127.0.0.1:7001

In production, one on each of three machines, with the same password (KVORUM_REQUIREPASS does as well), since without
one only clients on the node's own machine are served:
  kvorum server --bind 10.0.0.1 --initial-cluster 10.0.0.1:6379,10.0.0.2:6379,10.0.0.3:6379 --requirepass SECRET

Without a command, `kvorum [FLAGS]` is `kvorum server [FLAGS]`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node (the default); `kvorum server --help` lists its settings.
    Server(Box<Config>),
    /// Run a whole cluster on this machine, to try things out; Ctrl-C stops it.
    Local(LocalFlags),
    /// Look at a running cluster, or change its nodes.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Exit with 0 if a node answers and its cluster serves all slots: for container health checks.
    Health(NodeFlags),
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Nodes, groups, leaders, slot ranges, lag and epoch, as one node sees them.
    Status(StatusFlags),
    /// What was decided about the cluster, when and why: the last 256 decisions, oldest first.
    Events(StatusFlags),
    /// Take in a node that runs alone and is empty; one that is to be started can do this itself, with --join.
    ///
    /// The node gives up the cluster of one that it is, sets aside what little it has on disk, and starts again, in the same process, as a
    /// member. A node that holds a key, or has others in its cluster, refuses. Replicas and leaderships then move to it by themselves.
    AddNode(AddNodeFlags),
    /// Have a node leave: what it leads and holds moves to the others, then it is forgotten and its process ends.
    ///
    /// Refused if too few nodes would be left to hold the replicas. The command shows how far it is; the cluster goes on with it if the command
    /// is stopped, until it is done or --cancel takes it back.
    RemoveNode(RemoveNodeFlags),
    /// Have a node leave and another member take what it holds; also for a node that is dead.
    ReplaceNode(ReplaceNodeFlags),
    /// Show what is to be moved and why, and watch it being done.
    Rebalance(RebalanceFlags),
    /// Begin no new move of replicas, leaders or slots until it is resumed, not even away from nodes that are dead or are to leave.
    PauseRebalance(NodeFlags),
    /// Let the cluster move replicas, leaders and slots by itself again.
    ResumeRebalance(NodeFlags),
    /// Move slots to another group while the cluster serves, and show how it goes.
    ///
    /// Each slot changes hands at one instant; its clients see a pause of milliseconds. Ctrl-C ends the display and not the moves, which
    /// go on whatever fails; --cancel gives up those that are not done.
    MoveSlots(MoveSlotsFlags),
    /// After a power failure with appendfsync everysec or no that took a quorum of the nodes: let a node go on with what it has.
    ///
    /// A node that may have lost acknowledged writes joins its cluster anew, as long as a quorum of whole nodes can take it in. If
    /// there is none, all such nodes wait. Run this on as few of them as make a quorum, those with the newest entries first; the others then
    /// join anew by themselves. Writes that none of the chosen nodes has are lost for good. Without --yes it only prints what is there.
    AcceptLoss(AcceptLossFlags),
}

#[derive(Debug, Clone, Args)]
pub struct LocalFlags {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODE_COUNT_MAX)))]
    pub nodes: u16,
    /// Client port of the first node; the others follow.
    #[arg(long, default_value_t = 7001, value_parser = clap::value_parser!(u16).range(1..=55_000))]
    pub port: u16,
    /// Directory for data and logs; a second run finds its data again, with the same --nodes and --port.
    #[arg(long, default_value = "./kvorum-local")]
    pub dir: PathBuf,
    /// Further flags for every node, after `--`, as in: kvorum local -- --appendfsync everysec
    #[arg(last = true, value_name = "SERVER FLAGS")]
    pub server_flags: Vec<String>,
}

#[derive(Debug, Args)]
struct NodeFlags {
    /// Client address of a node.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6379")]
    node: HostPort,
    /// The cluster's password; KVORUM_REQUIREPASS in the environment does the same and shows in no process list.
    #[arg(long, env = "KVORUM_REQUIREPASS", hide_env_values = true)]
    password: Option<String>,
}

#[derive(Debug, Args)]
struct StatusFlags {
    #[command(flatten)]
    node: NodeFlags,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AddNodeFlags {
    #[command(flatten)]
    node: NodeFlags,
    /// Client address of the new node.
    #[arg(value_name = "HOST:PORT")]
    address: HostPort,
}

#[derive(Debug, Args)]
struct RemoveNodeFlags {
    #[command(flatten)]
    node: NodeFlags,
    /// The node's id, the beginning of it, or its client address.
    #[arg(value_name = "ID")]
    leaving: String,
    /// It is dead and will not come back: rebuild what it held from the other copies, without waiting for it.
    #[arg(long)]
    force: bool,
    /// It is to stay after all; also for one that was to be replaced. What it has given up comes back by itself.
    #[arg(long, conflicts_with = "force")]
    cancel: bool,
}

#[derive(Debug, Args)]
struct ReplaceNodeFlags {
    #[command(flatten)]
    node: NodeFlags,
    /// The leaving node's id, the beginning of it, or its client address.
    #[arg(value_name = "OLD")]
    old: String,
    /// The same of the member that takes over, as far as it does not hold the same already.
    #[arg(value_name = "NEW")]
    new: String,
}

#[derive(Debug, Args)]
struct RebalanceFlags {
    #[command(flatten)]
    node: NodeFlags,
    /// Only show the plan.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct MoveSlotsFlags {
    #[command(flatten)]
    node: NodeFlags,
    /// Slots (0 to 1023, as in `kvorum cluster status`), such as 0-99,200.
    #[arg(long, value_name = "RANGES")]
    slots: String,
    /// Number of the group that is to own them.
    #[arg(long, value_name = "GROUP", required_unless_present = "cancel")]
    to: Option<u32>,
    /// Give up moves of these slots that are under way.
    #[arg(long, conflicts_with = "to")]
    cancel: bool,
}

#[derive(Debug, Args)]
struct AcceptLossFlags {
    /// The waiting node's data directory.
    #[arg(long, value_name = "DIR", default_value = "./kvorum-data")]
    data_dir: PathBuf,
    /// Accept it.
    #[arg(long)]
    yes: bool,
}

/// Runs the command that `words` (program name first) ask for.
pub fn run(words: Vec<String>, run_node: RunNode) -> ExitCode {
    if let Some(flags) = server_flags(&words) {
        return run_server(flags, run_node);
    }
    match Cli::parse_from(&words).command {
        Command::Server(_) => unreachable!("`server_flags` recognizes every spelling of this command"),
        Command::Local(flags) => local::run_local(&flags),
        Command::Cluster(command) => told(run_cluster(command)),
        Command::Health(NodeFlags { node, password }) => {
            told(client::check_health(&node, password.as_deref(), HEALTH_TIME_MAX).map(|()| "ok\n".to_string()))
        }
    }
}

fn run_cluster(command: ClusterCommand) -> Result<String, String> {
    let members = |NodeFlags { node, password }| Members::new(node, password);
    match command {
        ClusterCommand::Status(StatusFlags { node, json }) => {
            status::cluster_status(&node.node, node.password.as_deref(), json)
        }
        ClusterCommand::Events(StatusFlags { node, json }) => operate::events(&members(node), json),
        ClusterCommand::AddNode(AddNodeFlags { node, address }) => operate::add_node(members(node), &address),
        ClusterCommand::RemoveNode(RemoveNodeFlags { node, leaving, cancel: true, .. }) => {
            operate::keep_node(members(node), &leaving)
        }
        ClusterCommand::RemoveNode(RemoveNodeFlags { node, leaving, force, .. }) => {
            operate::remove_node(members(node), &leaving, force)
        }
        ClusterCommand::ReplaceNode(ReplaceNodeFlags { node, old, new }) => {
            operate::replace_node(members(node), &old, &new)
        }
        ClusterCommand::Rebalance(RebalanceFlags { node, dry_run }) => operate::rebalance(&members(node), dry_run),
        ClusterCommand::PauseRebalance(node) => operate::pause(&members(node)),
        ClusterCommand::ResumeRebalance(node) => operate::resume(&members(node)),
        ClusterCommand::MoveSlots(flags) => move_slots(&flags),
        ClusterCommand::AcceptLoss(flags) => accept_loss(&flags),
    }
}

fn move_slots(flags: &MoveSlotsFlags) -> Result<String, String> {
    let (node, password) = (&flags.node.node, flags.node.password.as_deref());
    match flags.to {
        Some(to) => moving::move_slots(node, password, &flags.slots, to),
        None => moving::cancel(node, password, &flags.slots),
    }
}

fn accept_loss(flags: &AcceptLossFlags) -> Result<String, String> {
    let directory = flags.data_dir.display();
    let report = power_loss::report(&flags.data_dir).map_err(|error| format!("{directory}: {error}"))?;
    let report = report.ok_or_else(|| format!("no node waits in {directory} for a loss to be accepted"))?;
    if !flags.yes {
        return Ok(format!(
            "{report}\nNothing was changed. To let this node go on with that, run this again with --yes.\n"
        ));
    }
    power_loss::accept(&flags.data_dir).map_err(|error| format!("{directory}: {error}"))?;
    Ok(format!("{report}\nAccepted: the node goes on with that within a second, or when it is started.\n"))
}

/// The words after `kvorum server`, if that is meant: said, or implied by a flag, or by nothing at all.
fn server_flags(words: &[String]) -> Option<&[String]> {
    let rest = words.get(1..).unwrap_or_default();
    match rest.first().map(String::as_str) {
        Some("server") => Some(&rest[1..]),
        Some("-h" | "--help" | "-V" | "--version") => None,
        Some(word) => word.starts_with('-').then_some(rest),
        None => Some(rest),
    }
}

/// Settings of a node from its flags and this process's environment and files.
pub(super) fn load_settings(flags: &[String]) -> Result<LoadedConfig, ConfigError> {
    load(flags, &|name| std::env::var(name).ok(), &|path| std::fs::read_to_string(path))
}

fn run_server(flags: &[String], run_node: RunNode) -> ExitCode {
    let mut loaded = match load_settings(flags) {
        Ok(loaded) => loaded,
        Err(ConfigError::Flags(error)) => error.exit(),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    loaded.warnings = unknown_variables(variables);
    told(run_node(loaded).map(|()| String::new()).map_err(|error| chain(error.as_ref())))
}

/// An error with its causes, outermost first.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |outer: &&(dyn Error + 'static)| (**outer).source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Some errors already print their source.
    texts.dedup_by(|inner, outer| outer.ends_with(inner.as_str()));
    texts.join(": ")
}

fn told(outcome: Result<String, String>) -> ExitCode {
    match outcome {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_is_what_no_command_means() {
        let table: [(&[&str], Option<&[&str]>); 7] = [
            (&["kvorum"], Some(&[])),
            (&["kvorum", "--port", "7001"], Some(&["--port", "7001"])),
            (&["kvorum", "server", "--help"], Some(&["--help"])),
            (&["kvorum", "--help"], None),
            (&["kvorum", "-V"], None),
            (&["kvorum", "local"], None),
            (&["kvorum", "srever"], None),
        ];
        for (words, expected) in table {
            let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
            let expected: Option<Vec<String>> =
                expected.map(|flags| flags.iter().map(|flag| (*flag).to_string()).collect());
            assert_eq!(server_flags(&words).map(<[String]>::to_vec), expected, "{words:?}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open the log")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "cannot open the log: disk on fire");
    }
}
