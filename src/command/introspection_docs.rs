//! `COMMAND DOCS`: summaries, history and arguments, from the rows.

use crate::protocol::{Args, Reply};

use super::introspection::reply_words;
use super::row::{Argument, ArgumentType, Row};
use super::table;

/// Documents the named commands, unknown ones left out, or all.
pub(super) fn reply(args: &Args<'_>, reply: &mut Reply) {
    let rows: Vec<&Row> = if args.len() == 2 {
        table::rows().collect()
    } else {
        args.iter().skip(2).filter_map(table::lookup_full).collect()
    };
    reply.map(rows.len());
    for row in rows {
        reply_row(row, reply);
    }
}

/// One key and value of a map.
fn reply_row(row: &Row, reply: &mut Reply) {
    reply.bulk(row.name.as_bytes());
    let docs = &row.docs;
    let optional = [
        !docs.complexity.is_empty(),
        !docs.history.is_empty(),
        !docs.arguments.is_empty(),
        !row.subcommands.is_empty(),
    ];
    let deprecated_pairs = if docs.deprecated.is_some() { 3 } else { 0 };
    reply.map(3 + optional.iter().filter(|given| **given).count() + deprecated_pairs);
    reply_pair("summary", docs.summary, reply);
    reply_pair("since", docs.since, reply);
    reply_pair("group", docs.group.text(), reply);
    if !docs.complexity.is_empty() {
        reply_pair("complexity", docs.complexity, reply);
    }
    if let Some(deprecated) = docs.deprecated {
        reply.bulk(b"doc_flags");
        reply_words(["deprecated"].into_iter(), reply);
        reply_pair("deprecated_since", deprecated.since, reply);
        reply_pair("replaced_by", deprecated.replaced_by, reply);
    }
    if !docs.history.is_empty() {
        reply.bulk(b"history");
        reply.set(docs.history.len());
        for (version, change) in docs.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
    }
    if !docs.arguments.is_empty() {
        reply.bulk(b"arguments");
        reply_arguments(docs.arguments, reply);
    }
    if !row.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(row.subcommands.len());
        for subcommand in row.subcommands {
            reply_row(subcommand, reply);
        }
    }
}

fn reply_pair(name: &str, value: &str, reply: &mut Reply) {
    reply.bulk(name.as_bytes());
    reply.bulk(value.as_bytes());
}

fn reply_arguments(arguments: &[Argument], reply: &mut Reply) {
    reply.array(arguments.len());
    for argument in arguments {
        reply_argument(argument, reply);
    }
}

fn reply_argument(argument: &Argument, reply: &mut Reply) {
    // Redis 7.2 adds the text to display, for all arguments that are not made of others.
    let display_text = match argument.kind {
        ArgumentType::OneOf | ArgumentType::Block => None,
        ArgumentType::String
        | ArgumentType::Integer
        | ArgumentType::Double
        | ArgumentType::Key
        | ArgumentType::Pattern
        | ArgumentType::UnixTime
        | ArgumentType::PureToken => Some(argument.name),
    };
    let texts = [
        ("display_text", display_text),
        ("token", argument.token),
        ("since", argument.since),
        ("deprecated_since", argument.deprecated_since),
    ];
    let optional = texts.iter().filter(|(_, text)| text.is_some()).count()
        + usize::from(argument.key_spec.is_some())
        + usize::from(!argument.flags.is_empty())
        + usize::from(!argument.arguments.is_empty());
    reply.map(2 + optional);
    reply_pair("name", argument.name, reply);
    reply_pair("type", argument.kind.text(), reply);
    let [display_text, token, since, deprecated_since] = texts;
    reply_optional(display_text, reply);
    if let Some(index) = argument.key_spec {
        reply.bulk(b"key_spec_index");
        reply.integer(i64::from(index));
    }
    for text in [token, since, deprecated_since] {
        reply_optional(text, reply);
    }
    if !argument.flags.is_empty() {
        reply.bulk(b"flags");
        reply_words(argument.flags.iter().map(|flag| flag.text()), reply);
    }
    if !argument.arguments.is_empty() {
        reply.bulk(b"arguments");
        reply_arguments(argument.arguments, reply);
    }
}

fn reply_optional((name, text): (&str, Option<&str>), reply: &mut Reply) {
    if let Some(text) = text {
        reply_pair(name, text, reply);
    }
}
