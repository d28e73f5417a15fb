//! Which function answers which command, and when: in place or alone. Hot path: PING.

use std::sync::Arc;

use crate::command::{self, NodeCommand, WireError};
use crate::protocol::{Args, Reply};
use crate::server::commands::{client, cluster, config, connection, info, keyspace, memory, observe, scan, wait};
use crate::server::session::{Flow, Session};
use crate::server::shared::Shared;

/// The version whose behaviour clients may count on; the node's own is printed beside it.
pub const REDIS_VERSION: &str = "7.2.4";

/// What a command may look at and change.
#[derive(Debug)]
pub struct CommandContext<'a> {
    pub shared: &'a Arc<Shared>,
    pub session: &'a mut Session,
    pub reply: &'a mut Reply,
}

/// Whether `run` answers the command; otherwise `run_alone` does.
pub fn runs_in_place(command: NodeCommand) -> bool {
    match command {
        NodeCommand::Ping
        | NodeCommand::Echo
        | NodeCommand::Select
        | NodeCommand::Time
        | NodeCommand::Lastsave
        | NodeCommand::Readonly
        | NodeCommand::Readwrite
        | NodeCommand::Asking
        | NodeCommand::Migrate
        | NodeCommand::Help => true,
        // AUTH, HELLO, RESET and CLIENT REPLY change how the requests behind them are treated.
        NodeCommand::Auth | NodeCommand::Hello | NodeCommand::Reset | NodeCommand::Quit | NodeCommand::Client(_) => {
            false
        }
        NodeCommand::Keys
        | NodeCommand::Scan
        | NodeCommand::Randomkey
        | NodeCommand::Dbsize
        | NodeCommand::Flushall
        | NodeCommand::Flushdb
        | NodeCommand::Info
        | NodeCommand::Wait
        | NodeCommand::Debug
        | NodeCommand::Shutdown
        | NodeCommand::Config(_)
        | NodeCommand::Memory(_)
        | NodeCommand::Command(_)
        | NodeCommand::Slowlog(_)
        | NodeCommand::Latency(_)
        | NodeCommand::Cluster(_) => false,
    }
}

/// Answers a command that runs in place.
pub fn run(command: NodeCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    match command {
        NodeCommand::Ping => connection::ping(args, context),
        NodeCommand::Echo => context.reply.bulk(&args[1]),
        NodeCommand::Select => connection::select(args, context),
        NodeCommand::Time => connection::time(context),
        NodeCommand::Lastsave => connection::last_save(context),
        NodeCommand::Readonly => connection::set_readonly(context, true),
        NodeCommand::Readwrite => connection::set_readonly(context, false),
        // Slots move in one step here, so there is never a half-moved one to ask for.
        NodeCommand::Asking => context.reply.ok(),
        NodeCommand::Migrate => WireError::MigrateNotNeeded.reply(context.reply),
        NodeCommand::Help => command::help_reply(args, context.reply),
        NodeCommand::Auth
        | NodeCommand::Hello
        | NodeCommand::Reset
        | NodeCommand::Quit
        | NodeCommand::Client(_)
        | NodeCommand::Keys
        | NodeCommand::Scan
        | NodeCommand::Randomkey
        | NodeCommand::Dbsize
        | NodeCommand::Flushall
        | NodeCommand::Flushdb
        | NodeCommand::Info
        | NodeCommand::Wait
        | NodeCommand::Debug
        | NodeCommand::Shutdown
        | NodeCommand::Config(_)
        | NodeCommand::Memory(_)
        | NodeCommand::Command(_)
        | NodeCommand::Slowlog(_)
        | NodeCommand::Latency(_)
        | NodeCommand::Cluster(_) => unreachable!("runs_in_place sends these to run_alone"),
    }
}

/// Answers a command that stands between two stretches. It may wait; whether the connection goes on is the result.
pub async fn run_alone(command: NodeCommand, args: &Args<'_>, context: &mut CommandContext<'_>) -> Flow {
    match command {
        NodeCommand::Auth => connection::auth(args, context),
        NodeCommand::Hello => connection::hello(args, context),
        NodeCommand::Reset => connection::reset(context),
        NodeCommand::Quit => {
            context.reply.ok();
            return Flow::Close;
        }
        NodeCommand::Client(which) => return client::run(which, args, context),
        NodeCommand::Command(which) => command::command_reply(which, args, context.reply),
        NodeCommand::Keys => keyspace::keys(args, context).await,
        NodeCommand::Scan => scan::scan(args, context).await,
        NodeCommand::Randomkey => keyspace::random_key(context).await,
        NodeCommand::Dbsize => keyspace::database_size(context).await,
        NodeCommand::Flushall | NodeCommand::Flushdb => return keyspace::flush(args, context).await,
        NodeCommand::Wait => wait::wait(args, context).await,
        NodeCommand::Cluster(which) => cluster::run(which, args, context).await,
        NodeCommand::Info => info::info(args, context),
        NodeCommand::Config(which) => config::run(which, args, context).await,
        NodeCommand::Slowlog(which) => observe::slowlog(which, args, context),
        NodeCommand::Latency(which) => observe::latency(which, args, context),
        NodeCommand::Memory(which) => memory::run(which, context),
        NodeCommand::Debug => observe::debug(args, context).await,
        NodeCommand::Shutdown => return observe::shutdown(args, context),
        NodeCommand::Ping
        | NodeCommand::Echo
        | NodeCommand::Select
        | NodeCommand::Time
        | NodeCommand::Lastsave
        | NodeCommand::Readonly
        | NodeCommand::Readwrite
        | NodeCommand::Asking
        | NodeCommand::Migrate
        | NodeCommand::Help => run(command, args, context),
    }
    Flow::Continue
}
