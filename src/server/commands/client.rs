//! CLIENT.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::command::{ClientCommand, WireError, parse_integer};
use crate::protocol::{Args, Protocol};
use crate::server::clients::{CLIENT_TEXT_BYTES_MAX, ClientFilter, Signal, Unblocked};
use crate::server::commands::CommandContext;
use crate::server::commands::connection::is_plain;
use crate::server::commands::wait::timeout_argument;
use crate::server::pause::Paused;
use crate::server::session::{Flow, ReplyMode};

pub fn run(command: ClientCommand, args: &Args<'_>, context: &mut CommandContext<'_>) -> Flow {
    match answer(command, args, context) {
        Ok(flow) => flow,
        Err(error) => {
            error.reply(context.reply);
            Flow::Continue
        }
    }
}

fn answer(command: ClientCommand, args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<Flow, WireError> {
    let client = context.session.client.clone();
    match command {
        ClientCommand::Id => context.reply.integer(i64::try_from(client.id).unwrap_or(i64::MAX)),
        ClientCommand::Info => {
            let mut line = client.describe(context.shared.stats.name(client.last_command()));
            line.push(b'\n');
            context.reply.verbatim("txt", &line);
        }
        ClientCommand::List => list(args, context)?,
        ClientCommand::Setname => {
            let name = &args[2];
            if !is_plain(name) || name.len() > CLIENT_TEXT_BYTES_MAX {
                return Err(WireError::ClientName);
            }
            client.rename(|names| names.name = name.into());
            context.reply.ok();
        }
        ClientCommand::Getname => {
            let name = client.names().name;
            if name.is_empty() { context.reply.null() } else { context.reply.bulk(&name) }
        }
        ClientCommand::Setinfo => set_info(args, context)?,
        ClientCommand::Reply => set_reply_mode(&args[2], context)?,
        ClientCommand::Kill => return kill(args, context),
        ClientCommand::Pause => pause(args, context)?,
        ClientCommand::Unpause => {
            context.shared.pause.end();
            context.reply.ok();
        }
        ClientCommand::NoEvict => {
            client.switches.no_evict.store(on_or_off(&args[2])?, Ordering::Relaxed);
            context.reply.ok();
        }
        ClientCommand::NoTouch => {
            client.switches.no_touch.store(on_or_off(&args[2])?, Ordering::Relaxed);
            context.reply.ok();
        }
        ClientCommand::MaintNotifications => set_notifications(args, context)?,
        ClientCommand::Unblock => unblock(args, context)?,
    }
    Ok(Flow::Continue)
}

fn on_or_off(word: &[u8]) -> Result<bool, WireError> {
    if word.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if word.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(WireError::Syntax)
    }
}

/// What kind of address the client would like to be told makes no difference: it is the one that CLUSTER SLOTS names.
fn set_notifications(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let wanted = on_or_off(&args[2])?;
    let of_kind = args.len() == 5 && args[3].eq_ignore_ascii_case(b"moving-endpoint-type");
    let known = ["none", "internal-ip", "internal-fqdn", "external-ip", "external-fqdn"];
    let is_known = || known.iter().any(|kind| args[4].eq_ignore_ascii_case(kind.as_bytes()));
    if args.len() > 3 && !(of_kind && is_known()) {
        return Err(WireError::Syntax);
    }
    if wanted && context.session.protocol == Protocol::Resp2 {
        return Err(WireError::NotificationsNeedResp3);
    }
    context.session.notifications = wanted.then(|| context.shared.notifications.subscribe());
    context.reply.ok();
    Ok(())
}

fn set_info(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let (attribute, value) = (&args[2], &args[3]);
    let is_name = attribute.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !attribute.eq_ignore_ascii_case(b"lib-ver") {
        return Err(WireError::UnrecognizedOption(WireError::echo(attribute)));
    }
    if !is_plain(value) || value.len() > CLIENT_TEXT_BYTES_MAX {
        return Err(WireError::ClientAttribute(if is_name { "lib-name" } else { "lib-ver" }.to_string()));
    }
    context.session.client.rename(|names| {
        let place = if is_name { &mut names.library_name } else { &mut names.library_version };
        *place = value.into();
    });
    context.reply.ok();
    Ok(())
}

/// OFF and SKIP are not answered themselves.
fn set_reply_mode(word: &[u8], context: &mut CommandContext<'_>) -> Result<(), WireError> {
    if word.eq_ignore_ascii_case(b"on") {
        context.session.reply_mode = ReplyMode::On;
        context.reply.ok();
    } else if word.eq_ignore_ascii_case(b"off") {
        context.session.reply_mode = ReplyMode::Off;
    } else if word.eq_ignore_ascii_case(b"skip") {
        if context.session.reply_mode != ReplyMode::Off {
            context.session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(WireError::Syntax);
    }
    Ok(())
}

fn list(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let filter = list_filter(args)?;
    let mut lines = Vec::new();
    for client in context.shared.clients.select(&filter) {
        lines.extend_from_slice(&client.describe(context.shared.stats.name(client.last_command())));
        lines.push(b'\n');
    }
    context.reply.verbatim("txt", &lines);
    Ok(())
}

fn list_filter(args: &Args<'_>) -> Result<ClientFilter, WireError> {
    let mut filter = ClientFilter::default();
    match (args.get(2), args.len()) {
        (None, _) => (),
        (Some(option), 4) if option.eq_ignore_ascii_case(b"type") => filter.nobody = !is_type(&args[3])?,
        (Some(option), 4..) if option.eq_ignore_ascii_case(b"id") => {
            // A number that no client can have is no error.
            let ids = (3..args.len()).map(|at| parse_integer(&args[at]).ok_or(WireError::InvalidClientId));
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            filter.ids = Some(ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect());
        }
        (Some(_), _) => return Err(WireError::Syntax),
    }
    Ok(filter)
}

fn positive_id(word: &[u8]) -> Option<u64> {
    parse_integer(word).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0)
}

/// Whether a client type that Redis knows is that of our clients.
fn is_type(word: &[u8]) -> Result<bool, WireError> {
    if word.eq_ignore_ascii_case(b"normal") {
        return Ok(true);
    }
    let known = [&b"master"[..], b"replica", b"slave", b"pubsub"].iter().any(|name| word.eq_ignore_ascii_case(name));
    if known { Ok(false) } else { Err(WireError::UnknownClientType(WireError::echo(word))) }
}

fn kill(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<Flow, WireError> {
    let own = context.session.client.id;
    let old_form = args.len() == 3;
    let filter = if old_form {
        ClientFilter { addr: Some(args[2].into()), ..ClientFilter::default() }
    } else {
        kill_filter(args, own)?
    };
    let victims = context.shared.clients.select(&filter);
    let mut flow = Flow::Continue;
    for victim in &victims {
        if victim.id == own {
            // The reply goes out first.
            flow = Flow::Close;
        } else {
            victim.send(Signal::Kill);
        }
    }
    match (old_form, victims.len()) {
        (true, 0) => return Err(WireError::NoSuchClient),
        (true, _) => context.reply.ok(),
        (false, count) => context.reply.integer(i64::try_from(count).unwrap_or(i64::MAX)),
    }
    Ok(flow)
}

fn kill_filter(args: &Args<'_>, own: u64) -> Result<ClientFilter, WireError> {
    let mut filter = ClientFilter { except: Some(own), ..ClientFilter::default() };
    let mut at = 2;
    while let Some(option) = args.get(at) {
        let value = args.get(at + 1).ok_or(WireError::Syntax)?;
        if option.eq_ignore_ascii_case(b"id") {
            filter.ids = Some(vec![positive_id(value).ok_or(WireError::ClientIdNotPositive)?]);
        } else if option.eq_ignore_ascii_case(b"type") {
            filter.nobody |= !is_type(value)?;
        } else if option.eq_ignore_ascii_case(b"addr") {
            filter.addr = Some(value.into());
        } else if option.eq_ignore_ascii_case(b"laddr") {
            filter.laddr = Some(value.into());
        } else if option.eq_ignore_ascii_case(b"user") {
            if value != b"default" {
                return Err(WireError::NoSuchUser(WireError::echo(value)));
            }
        } else if option.eq_ignore_ascii_case(b"skipme") {
            if value.eq_ignore_ascii_case(b"yes") {
                filter.except = Some(own);
            } else if value.eq_ignore_ascii_case(b"no") {
                filter.except = None;
            } else {
                return Err(WireError::Syntax);
            }
        } else {
            return Err(WireError::Syntax);
        }
        at += 2;
    }
    Ok(filter)
}

fn pause(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let (what, duration) = parse_pause(args)?;
    context.shared.pause.start(what, duration);
    context.reply.ok();
    Ok(())
}

fn parse_pause(args: &Args<'_>) -> Result<(Paused, Duration), WireError> {
    let what = match args.get(3) {
        None => Paused::All,
        Some(_) if args.len() > 4 => return Err(WireError::subcommand_or_arity("CLIENT", &args[1])),
        Some(mode) if mode.eq_ignore_ascii_case(b"all") => Paused::All,
        Some(mode) if mode.eq_ignore_ascii_case(b"write") => Paused::Writes,
        Some(_) => return Err(WireError::PauseMode),
    };
    Ok((what, timeout_argument(&args[2])?))
}

/// WAIT is the one command that blocks.
fn unblock(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let (id, how) = parse_unblock(args)?;
    let filter = ClientFilter { ids: Some(u64::try_from(id).into_iter().collect()), ..ClientFilter::default() };
    let woken = context.shared.clients.select(&filter).iter().any(|client| client.unblock(how));
    context.reply.integer(i64::from(woken));
    Ok(())
}

fn parse_unblock(args: &Args<'_>) -> Result<(i64, Unblocked), WireError> {
    let how = match args.get(3) {
        _ if args.len() > 4 => return Err(WireError::subcommand_or_arity("CLIENT", &args[1])),
        None => Unblocked::TimedOut,
        Some(reason) if reason.eq_ignore_ascii_case(b"timeout") => Unblocked::TimedOut,
        Some(reason) if reason.eq_ignore_ascii_case(b"error") => Unblocked::Refused,
        Some(_) => return Err(WireError::UnblockReason),
    };
    Ok((parse_integer(&args[2]).ok_or(WireError::NotAnInteger)?, how))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ArgRange;
    use crate::server::commands::fixture::args;

    fn filter(words: &[&str]) -> Result<ClientFilter, String> {
        let bytes = words.concat().into_bytes();
        let mut start = 0;
        let ranges: Vec<ArgRange> = words
            .iter()
            .map(|word| {
                let range = ArgRange { start, end: start + word.len() as u32 };
                start = range.end;
                range
            })
            .collect();
        kill_filter(&Args::new(&bytes, &ranges), 7).map_err(|error| error.to_string())
    }

    #[test]
    fn client_kill_spares_the_caller_unless_told_otherwise() {
        assert_eq!(filter(&["client", "kill", "type", "normal"]).unwrap().except, Some(7));
        assert_eq!(filter(&["client", "kill", "type", "normal", "skipme", "no"]).unwrap().except, None);
        assert!(filter(&["client", "kill", "type", "pubsub"]).unwrap().nobody);
        assert_eq!(filter(&["client", "kill", "id", "3"]).unwrap().ids, Some(vec![3]));
    }

    #[test]
    fn a_wrong_filter_is_refused_in_redis_words() {
        for (words, text) in [
            (&["client", "kill", "id", "0"][..], "ERR client-id should be greater than 0"),
            (&["client", "kill", "id"], "ERR syntax error"),
            (&["client", "kill", "what", "x"], "ERR syntax error"),
            (&["client", "kill", "skipme", "maybe"], "ERR syntax error"),
            (&["client", "kill", "user", "joe"], "ERR No such user 'joe'"),
            (&["client", "kill", "type", "robot"], "ERR Unknown client type 'robot'"),
        ] {
            assert_eq!(filter(words).unwrap_err(), text);
        }
    }

    #[test]
    fn a_list_by_ids_that_nobody_has_is_empty_and_no_error() {
        let listed = |line: &str| {
            let words = args(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
            list_filter(&words.args()).map(|filter| filter.ids).map_err(|error| error.to_string())
        };
        assert_eq!(listed("client list id -1 7"), Ok(Some(vec![7])));
        assert_eq!(listed("client list id 0"), Ok(Some(vec![0])));
        assert_eq!(listed("client list id x"), Err("ERR Invalid client ID".to_owned()));
    }

    #[test]
    fn a_wrong_pause_is_refused_in_redis_words() {
        for (line, text) in [
            ("client pause 10 x", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
            ("client pause x all", "ERR timeout is not an integer or out of range"),
            ("client pause -1", "ERR timeout is negative"),
            ("client pause 9223372036854775807", "ERR timeout is out of range"),
            (
                "client pause 10 write x",
                "ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.",
            ),
        ] {
            let words = args(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
            assert_eq!(parse_pause(&words.args()).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_unblock_is_refused_in_redis_words() {
        for (line, text) in [
            ("client unblock 1 x", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
            ("client unblock x", "ERR value is not an integer or out of range"),
            (
                "client unblock 1 error x",
                "ERR unknown subcommand or wrong number of arguments for 'unblock'. Try CLIENT HELP.",
            ),
        ] {
            let words = args(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
            assert_eq!(parse_unblock(&words.args()).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn names_in_the_client_list_are_one_plain_word() {
        assert!(is_plain(b"worker-1") && is_plain(b""));
        for wrong in [&b"a b"[..], b"a\n", b"\xff"] {
            assert!(!is_plain(wrong));
        }
    }
}
