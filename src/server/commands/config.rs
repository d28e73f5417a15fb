//! CONFIG: Redis's names for what a node was started with, and for parameters that tools set and Kvorum merely remembers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admin;
use crate::cluster::Topology;
use crate::command::{ConfigCommand, WireError};
use crate::config::ConfigTable;
use crate::protocol::{Args, Reply};
use crate::server::commands::CommandContext;
use crate::server::commands::info_figures::lookups;
use crate::server::rates::Baseline;
use crate::server::shared::Shared;

pub async fn run(command: ConfigCommand, args: &Args<'_>, context: &mut CommandContext<'_>) {
    let shared = context.shared;
    match command {
        ConfigCommand::Get => {
            let topology = shared.replication.topology();
            get(args, &shared.parameters, &topology, context.reply);
        }
        ConfigCommand::Set => set(args, &shared.parameters, context.reply),
        ConfigCommand::Resetstat => {
            reset_statistics(shared);
            context.reply.ok();
        }
        ConfigCommand::Rewrite => match rewrite(shared.clone()).await {
            Ok(()) => context.reply.ok(),
            Err(error) => error.reply(context.reply),
        },
    }
}

/// § An unknown name is an empty map, never an error: clients ask for what they would like to know.
/// What is the cluster's own is answered as it is there, whatever this node was started with. A name is answered as it was asked for.
fn get(args: &Args<'_>, parameters: &ConfigTable, topology: &Topology, reply: &mut Reply) {
    let mut found: BTreeMap<&'static str, (String, String)> = BTreeMap::new();
    for pattern in args.iter().skip(2).map(String::from_utf8_lossy) {
        let is_name = !pattern.contains(['[', '*', '?']);
        for (name, value) in parameters.get(&pattern) {
            let shown = if is_name { pattern.to_string() } else { name.to_owned() };
            found.entry(name).or_insert((shown, value));
        }
    }
    let (replicas, groups) = (topology.settings().replicas, topology.groups_in_use().count());
    for (name, value) in [("replicas", replicas.to_string()), ("groups", groups.to_string())] {
        found.entry(name).and_modify(|(_, known)| *known = value);
    }
    reply.map(found.len());
    for (name, value) in found.into_values() {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

fn set(args: &Args<'_>, parameters: &ConfigTable, reply: &mut Reply) {
    match changes(args) {
        Ok(changes) => match parameters.set(&changes) {
            Ok(()) => reply.ok(),
            Err(text) => reply.error(&text),
        },
        Err(error) => error.reply(reply),
    }
}

/// Names and values. A value that is not text is refused: what is left of a password after repair would be another one.
fn changes<'a>(args: &Args<'a>) -> Result<Vec<(&'a str, &'a str)>, WireError> {
    if !args.len().is_multiple_of(2) {
        return Err(WireError::Syntax);
    }
    let mut words = args.iter().skip(2);
    let mut changes = Vec::with_capacity(words.len() / 2);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let text = |word| str::from_utf8(word).map_err(|_| WireError::ConfigNotText(WireError::echo(name)));
        changes.push((text(name)?, text(value)?));
    }
    Ok(changes)
}

fn reset_statistics(shared: &Shared) {
    shared.stats.reset();
    let expired = shared.replication.groups().iter().map(|group| group.keyspace().counters().expired).sum();
    let (hits, misses) = lookups(shared);
    let (peer_read_bytes, peer_written_bytes) = shared.peer_bytes();
    shared.rates.reset(Baseline {
        expired,
        hits,
        misses,
        peer_read_bytes,
        peer_written_bytes,
        accepted: shared.clients.accepted.load(Ordering::Relaxed),
        rejected: shared.clients.rejected.load(Ordering::Relaxed),
    });
}

/// The disk is waited for off the async workers; one rewrite at a time, since all use one temporary file.
async fn rewrite(shared: Arc<Shared>) -> Result<(), WireError> {
    let written = tokio::task::spawn_blocking(move || {
        let path = shared.config_file.as_deref().ok_or(WireError::NoConfigFile)?;
        let _one_at_a_time = shared.rewriting.lock();
        admin::rewrite_config_file(&shared.parameters, path)
            .map_err(|error| WireError::ConfigRewrite(error.to_string()))
    });
    written.await.unwrap_or_else(|error| Err(WireError::ConfigRewrite(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::protocol::{OwnedArgs, Protocol};
    use crate::server::commands::fixture::args;

    fn answer(run: fn(&Args<'_>, &ConfigTable, &mut Reply), table: &ConfigTable, words: &[&[u8]]) -> String {
        let mut reply = Reply::new(Protocol::Resp3);
        let words: OwnedArgs = args(words);
        run(&words.args(), table, &mut reply);
        String::from_utf8_lossy(reply.buffer()).into_owned()
    }

    fn get_of_two(words: &Args<'_>, table: &ConfigTable, reply: &mut Reply) {
        get(words, table, &crate::cluster::fixture_topology(2, 5, 2), reply);
    }

    #[test]
    fn get_answers_each_match_once_and_nothing_for_an_unknown_name() {
        let table = ConfigTable::new(&Config::default());
        let one = answer(get_of_two, &table, &[b"config", b"get", b"maxmemory", b"no-such", b"MAXMEMORY"]);
        assert_eq!(one, "%1\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
        let as_asked = answer(get_of_two, &table, &[b"config", b"get", b"MaxMemory", b"TIMEOU?", b"maxmemory"]);
        assert_eq!(as_asked, "%2\r\n$9\r\nMaxMemory\r\n$1\r\n0\r\n$7\r\ntimeout\r\n$1\r\n0\r\n");
        assert_eq!(answer(get_of_two, &table, &[b"config", b"get", b"no-such"]), "%0\r\n");
        let of_cluster = answer(get_of_two, &table, &[b"config", b"get", b"replicas", b"groups"]);
        assert_eq!(of_cluster, "%2\r\n$6\r\ngroups\r\n$1\r\n5\r\n$8\r\nreplicas\r\n$1\r\n2\r\n");
    }

    #[test]
    fn set_is_all_or_nothing_and_refuses_in_redis_words() {
        let table = ConfigTable::new(&Config::default());
        let set_words: &[&[u8]] = &[b"config", b"set", b"timeout", b"7", b"maxclients", b"20"];
        assert_eq!(answer(set, &table, set_words), "+OK\r\n");
        assert_eq!((table.tunables().timeout_s, table.tunables().maxclients), (7, 20));
        for (words, expected) in [
            (&[&b"config"[..], b"set", b"timeout", b"1", b"save"][..], "-ERR syntax error\r\n"),
            (
                &[b"config", b"set", b"timeout", b"1", b"no-such", b"1"],
                "-ERR Unknown option or number of arguments for CONFIG SET - 'no-such'\r\n",
            ),
            (
                &[b"config", b"set", b"timeout", b"1", b"timeout", b"2"],
                "-ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter\r\n",
            ),
            (
                &[b"config", b"set", b"requirepass", b"\xff"],
                "-ERR CONFIG SET failed (possibly related to argument 'requirepass') - argument must be UTF-8\r\n",
            ),
        ] {
            assert_eq!(answer(set, &table, words), expected);
        }
        assert_eq!(table.tunables().timeout_s, 7);
    }
}
