//! What to do with one request: the checks that need no key's value, then the route. Hot path.
//!
//! Nothing runs here. The outcome is a closed enum; `turn.rs` acts on it.

use std::sync::Arc;

use crate::command::{self, Flag, NodeCommand, Row, Run, WireError};
use crate::protocol::Args;
use crate::raft::{Group, Route};
use crate::server::commands;
use crate::server::pause::Paused;
use crate::server::session::Session;
use crate::server::shared::Shared;
use crate::slot::KeySlot;

/// A request for keys that this node's replica of a group answers.
#[derive(Debug)]
pub struct Keyed {
    pub row: &'static Row,
    pub key_slot: KeySlot,
    pub group: Arc<Group>,
}

/// What a request comes to before it runs.
#[derive(Debug)]
pub enum Dispatch {
    /// Answered with this error, without running. `row` is `None` for an unknown command.
    Refused {
        row: Option<&'static Row>,
        error: WireError,
    },
    /// Answered by this node at once, reading nothing replicated.
    InPlace {
        row: &'static Row,
        command: NodeCommand,
    },
    /// Answered by this node after everything before it has been.
    Alone {
        row: &'static Row,
        command: NodeCommand,
    },
    Keyed(Keyed),
    /// The group has no leader that is known: waits.
    Park(KeySlot),
    /// CLIENT PAUSE holds it back.
    Paused(&'static Row),
    /// MULTI, or what follows one that was refused: answered with an error, without running.
    Transaction,
    /// A browser's request, which a web page made: the connection is closed without a word, before what it smuggled in can run.
    CrossProtocol,
}

pub fn dispatch(args: &Args<'_>, shared: &Shared, session: &Session, paused: Option<Paused>) -> Dispatch {
    let row = match command::table::resolve(args) {
        Ok(_) if session.refused.is_some() && !is_named(args, &[b"reset", b"quit", b"auth", b"hello"]) => {
            return Dispatch::Transaction;
        }
        Ok(row) => row,
        Err(error) => return dispatch_unresolved(args, error, session),
    };
    if !session.authenticated && !row.flags.contains(&Flag::NoAuth) {
        return Dispatch::Refused { row: Some(row), error: WireError::NoAuth };
    }
    if let Some(paused) = paused
        && is_held_back(row, paused)
    {
        return Dispatch::Paused(row);
    }
    match row.run {
        Run::Read(_) | Run::Write { .. } => dispatch_keyed(row, args, shared),
        Run::Node(command) if commands::runs_in_place(command) => Dispatch::InPlace { row, command },
        Run::Node(command) => Dispatch::Alone { row, command },
        Run::Container => Dispatch::Refused { row: Some(row), error: WireError::WrongArity(row.name) },
    }
}

/// What is in no row, or has the wrong number of words. MULTI counts where Redis would begin a transaction: not before AUTH, and not
/// with arguments. Those who send it then know that what follows runs.
#[cold]
fn dispatch_unresolved(args: &Args<'_>, error: WireError, session: &Session) -> Dispatch {
    let is_multi = args.len() == 1 && is_named(args, &[b"multi"]);
    if is_named(args, &[b"post", b"host:"]) {
        Dispatch::CrossProtocol
    } else if session.refused.is_some() || (is_multi && session.authenticated) {
        Dispatch::Transaction
    } else if is_multi {
        Dispatch::Refused { row: None, error: WireError::NoAuth }
    } else {
        Dispatch::Refused { row: nearest_row(args), error }
    }
}

/// The row that a refused request counts for: none for an unknown subcommand, as in Redis.
fn nearest_row(args: &Args<'_>) -> Option<&'static Row> {
    let row = args.get(0).and_then(command::table::lookup)?;
    match args.get(1) {
        Some(word) if row.is_container() => command::table::subcommand(row, word),
        Some(_) | None => Some(row),
    }
}

fn is_named(args: &Args<'_>, names: &[&[u8]]) -> bool {
    args.get(0).is_some_and(|name| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

fn is_write(row: &Row) -> bool {
    matches!(row.run, Run::Write { .. })
}

fn is_held_back(row: &Row, paused: Paused) -> bool {
    match paused {
        Paused::All => true,
        Paused::Writes => row.flags.contains(&Flag::Write),
    }
}

fn dispatch_keyed(row: &'static Row, args: &Args<'_>, shared: &Shared) -> Dispatch {
    let refused = |error| Dispatch::Refused { row: Some(row), error };
    if args.iter().map(<[u8]>::len).sum::<usize>() > command::op::ARGUMENT_BYTES_MAX {
        return refused(WireError::CommandTooLarge);
    }
    match command::key_slot_of(row, args) {
        Err(error) => refused(error),
        // Every row that reads or writes names a key; `resolve` has counted the words.
        Ok(None) => refused(WireError::WrongArity(row.name)),
        Ok(Some(key_slot)) => match shared.replication.route(key_slot) {
            // § Refused before anything is proposed, so that it certainly does not happen.
            Route::Local(group) if group.refuses_writes() && is_write(row) => refused(WireError::DiskFull),
            Route::Local(group) => Dispatch::Keyed(Keyed { row, key_slot, group }),
            Route::Moved(address) => refused(moved(key_slot, &address)),
            Route::Park => Dispatch::Park(key_slot),
            Route::Down => refused(WireError::ClusterDown),
        },
    }
}

/// `address` is `host:port`.
pub fn moved(key_slot: KeySlot, address: &str) -> WireError {
    match address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => WireError::Moved { key_slot: key_slot.get(), host: host.to_string(), port },
        None => WireError::ClusterDown,
    }
}
