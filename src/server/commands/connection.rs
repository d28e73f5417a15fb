//! PING, SELECT, TIME, READONLY, AUTH, HELLO, RESET.

use std::sync::atomic::Ordering;

use crate::clock::Timestamp;
use crate::command::{WireError, integer_argument, parse_integer};
use crate::protocol::{Args, Protocol, Reply};
use crate::server::commands::{CommandContext, REDIS_VERSION};
use crate::server::session::Session;
use crate::server::shared::Shared;

/// The only user there is.
const DEFAULT_USER: &[u8] = b"default";

pub fn ping(args: &Args<'_>, context: &mut CommandContext<'_>) {
    match (args.len(), args.get(1)) {
        (1, _) => context.reply.simple("PONG"),
        (2, Some(message)) => context.reply.bulk(message),
        (_, _) => WireError::WrongArity("ping").reply(context.reply),
    }
}

pub fn select(args: &Args<'_>, context: &mut CommandContext<'_>) {
    match parse_database(&args[1]) {
        Ok(0) => context.reply.ok(),
        Ok(_) => WireError::SelectInCluster.reply(context.reply),
        Err(error) => error.reply(context.reply),
    }
}

fn parse_database(word: &[u8]) -> Result<i32, WireError> {
    let number = integer_argument(word)?;
    i32::try_from(number).map_err(|_| WireError::OutOfRange { min: i64::from(i32::MIN), max: i64::from(i32::MAX) })
}

pub fn time(context: &mut CommandContext<'_>) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    context.reply.array(2);
    context.reply.bulk(now.tv_sec.to_string().as_bytes());
    context.reply.bulk((now.tv_nsec / 1000).to_string().as_bytes());
}

/// Every acknowledged write is saved, so the answer is always now.
pub fn last_save(context: &mut CommandContext<'_>) {
    context.reply.integer(Timestamp::wall_now().as_ms() / 1000);
}

/// Accepted so that clients may send it, but reads are answered by leaders alone.
pub fn set_readonly(context: &mut CommandContext<'_>, readonly: bool) {
    context.session.client.switches.readonly.store(readonly, Ordering::Relaxed);
    context.reply.ok();
}

pub fn auth(args: &Args<'_>, context: &mut CommandContext<'_>) {
    let outcome = match (args.get(1), args.get(2), args.len()) {
        (Some(password), None, 2) => {
            if context.shared.password_needed() {
                authenticate(DEFAULT_USER, password, context.shared, context.session)
            } else {
                Err(WireError::AuthWithoutPassword)
            }
        }
        (Some(user), Some(password), 3) => authenticate(user, password, context.shared, context.session),
        (_, _, _) => Err(WireError::Syntax),
    };
    match outcome {
        Ok(()) => context.reply.ok(),
        Err(error) => error.reply(context.reply),
    }
}

/// Without a password set any is right, as for Redis's `nopass` default user.
fn authenticate(user: &[u8], password: &[u8], shared: &Shared, session: &mut Session) -> Result<(), WireError> {
    let tunables = shared.parameters.tunables();
    let right = tunables.requirepass.as_ref().is_none_or(|secret| secret.is(password));
    if user != DEFAULT_USER || !right {
        shared.stats.denied_auths.fetch_add(1, Ordering::Relaxed);
        return Err(WireError::WrongPass);
    }
    session.authenticated = true;
    Ok(())
}

pub fn reset(context: &mut CommandContext<'_>) {
    let password_needed = context.shared.password_needed();
    context.session.reset(password_needed);
    context.reply.set_protocol(Protocol::Resp2);
    context.reply.simple("RESET");
}

/// What HELLO asks for, checked before anything changes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hello<'a> {
    protocol: Option<Protocol>,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    fn parse(args: &Args<'a>) -> Result<Self, WireError> {
        let mut hello = Self::default();
        let Some(version) = args.get(1) else { return Ok(hello) };
        hello.protocol = Some(match parse_integer(version).ok_or(WireError::ProtoNotAnInteger)? {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(WireError::NoProto),
        });
        let mut at = 2;
        while let Some(option) = args.get(at) {
            match (args.get(at + 1), args.get(at + 2)) {
                (Some(user), Some(password)) if option.eq_ignore_ascii_case(b"auth") => {
                    hello.credentials = Some((user, password));
                    at += 3;
                }
                (Some(name), _) if option.eq_ignore_ascii_case(b"setname") => {
                    if !is_plain(name) {
                        return Err(WireError::ClientName);
                    }
                    hello.name = Some(name);
                    at += 2;
                }
                (_, _) => return Err(WireError::HelloOption(WireError::echo(option))),
            }
        }
        Ok(hello)
    }
}

/// Fit to stand in a line of CLIENT LIST: no spaces, line ends or other special characters.
pub fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub fn hello(args: &Args<'_>, context: &mut CommandContext<'_>) {
    if let Err(error) = try_hello(args, context) {
        error.reply(context.reply);
    }
}

fn try_hello(args: &Args<'_>, context: &mut CommandContext<'_>) -> Result<(), WireError> {
    let hello = Hello::parse(args)?;
    if let Some((user, password)) = hello.credentials {
        authenticate(user, password, context.shared, context.session)?;
    }
    if !context.session.authenticated {
        return Err(WireError::NoAuthHello);
    }
    if let Some(name) = hello.name {
        context.session.client.rename(|names| names.name = name.into());
    }
    if let Some(protocol) = hello.protocol {
        context.session.set_protocol(protocol);
        context.reply.set_protocol(protocol);
    }
    describe_server(context.session, context.reply);
    Ok(())
}

fn describe_server(session: &Session, reply: &mut Reply) {
    reply.map(7);
    reply.bulk(b"server");
    // Clients look for this word before they use what they know of Redis.
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(match session.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    });
    reply.bulk(b"id");
    reply.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    reply.bulk(b"mode");
    reply.bulk(b"cluster");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ArgRange;

    fn parse(words: &[&'static str]) -> Result<String, String> {
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
        match Hello::parse(&Args::new(&bytes, &ranges)) {
            Ok(hello) => Ok(format!(
                "{:?} {} {}",
                hello.protocol,
                hello.credentials.is_some(),
                hello.name.map(String::from_utf8_lossy).unwrap_or_default()
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_database_is_a_number_of_32_bits() {
        assert_eq!(parse_database(b"-2147483648"), Ok(i32::MIN));
        for (word, text) in [
            ("x", "ERR value is not an integer or out of range"),
            ("2147483648", "ERR value is out of range, value must between -2147483648 and 2147483647"),
        ] {
            assert_eq!(parse_database(word.as_bytes()).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn hello_takes_its_options_in_any_order() {
        assert_eq!(parse(&["HELLO"]).unwrap(), "None false ");
        assert_eq!(parse(&["HELLO", "3"]).unwrap(), "Some(Resp3) false ");
        assert_eq!(parse(&["hello", "2", "SETNAME", "a", "auth", "u", "p"]).unwrap(), "Some(Resp2) true a");
    }

    #[test]
    fn a_wrong_hello_is_refused_in_redis_words() {
        for (words, text) in [
            (&["HELLO", "x"][..], "ERR Protocol version is not an integer or out of range"),
            (&["HELLO", "4"], "NOPROTO unsupported protocol version"),
            (&["HELLO", "3", "AUTH", "u"], "ERR Syntax error in HELLO option 'AUTH'"),
            (&["HELLO", "3", "what"], "ERR Syntax error in HELLO option 'what'"),
            (
                &["HELLO", "3", "SETNAME", "a b"],
                "ERR Client names cannot contain spaces, newlines or special characters.",
            ),
        ] {
            assert_eq!(parse(words).unwrap_err(), text);
        }
    }
}
