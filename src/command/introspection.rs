//! `COMMAND` in all its forms, answered from the table alone. `COMMAND DOCS` is in `introspection_docs.rs`.

use crate::protocol::{ArgRange, Args, Reply};

use super::errors::WireError;
use super::key_positions::{key_positions, key_uses};
use super::node_command::CommandCommand;
use super::row::{KeyBegin, KeyFind, KeyRange, KeySpec, Row};
use super::{glob, introspection_docs, table};

/// Answers `COMMAND` or one of its subcommands (`HELP` aside).
pub fn reply(which: CommandCommand, args: &Args<'_>, reply: &mut Reply) {
    match which {
        CommandCommand::All => reply_all(reply),
        CommandCommand::Count => reply.integer(table::rows().count() as i64),
        CommandCommand::Info => reply_info(args, reply),
        CommandCommand::Docs => introspection_docs::reply(args, reply),
        CommandCommand::List => reply_list(args, reply),
        CommandCommand::Getkeys => reply_keys(args, reply),
        CommandCommand::Getkeysandflags => reply_keys_and_flags(args, reply),
    }
}

fn reply_all(reply: &mut Reply) {
    reply.array(table::rows().count());
    for row in table::rows() {
        reply_row(row, reply);
    }
}

fn reply_info(args: &Args<'_>, reply: &mut Reply) {
    if args.len() == 2 {
        return reply_all(reply);
    }
    reply.array(args.len() - 2);
    for name in args.iter().skip(2) {
        match table::lookup_full(name) {
            Some(row) => reply_row(row, reply),
            None => reply.null(),
        }
    }
}

fn reply_row(row: &Row, reply: &mut Reply) {
    reply.array(10);
    reply.bulk(row.name.as_bytes());
    reply.integer(i64::from(row.arity));
    reply_words(row.flags.iter().map(|flag| flag.text()), reply);
    let KeyRange { first, last, step } = row.keys;
    for number in [first, last, step] {
        reply.integer(i64::from(number));
    }
    reply_words(row.categories.iter().map(|category| category.text()), reply);
    reply.set(row.tips.len());
    for tip in row.tips {
        reply.bulk(tip.as_bytes());
    }
    reply.set(row.key_specs.len());
    for spec in row.key_specs {
        reply_key_spec(spec, reply);
    }
    // As Redis does: the empty list is a set.
    if row.subcommands.is_empty() {
        return reply.set(0);
    }
    reply.array(row.subcommands.len());
    for subcommand in row.subcommands {
        reply_row(subcommand, reply);
    }
}

/// A set of simple strings.
pub(super) fn reply_words(words: impl ExactSizeIterator<Item = &'static str>, reply: &mut Reply) {
    reply.set(words.len());
    for word in words {
        reply.simple(word);
    }
}

fn reply_key_spec(spec: &KeySpec, reply: &mut Reply) {
    reply.map(3 + usize::from(spec.notes.is_some()));
    if let Some(notes) = spec.notes {
        reply.bulk(b"notes");
        reply.bulk(notes.as_bytes());
    }
    reply.bulk(b"flags");
    reply_words(spec.flags.iter().map(|flag| flag.text()), reply);
    reply.bulk(b"begin_search");
    let KeyBegin::Index(index) = spec.begin;
    reply_search("index", &[("index", index)], reply);
    reply.bulk(b"find_keys");
    let KeyFind::Range { last, step, limit } = spec.find;
    reply_search("range", &[("lastkey", last), ("keystep", step), ("limit", limit)], reply);
}

fn reply_search(kind: &str, numbers: &[(&str, i16)], reply: &mut Reply) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(i64::from(*number));
    }
}

fn reply_list(args: &Args<'_>, reply: &mut Reply) {
    let names: Vec<&str> = match list_filter(args) {
        Ok(filter) => table::rows()
            .flat_map(|row| std::iter::once(row).chain(row.subcommands))
            .filter(|row| filter.lets_through(row))
            .map(|row| row.name)
            .collect(),
        Err(error) => return error.reply(reply),
    };
    reply.array(names.len());
    for name in names {
        reply.bulk(name.as_bytes());
    }
}

enum ListFilter<'a> {
    None,
    /// There are no modules, so nothing passes.
    Module,
    Category(&'a [u8]),
    Pattern(&'a [u8]),
}

fn list_filter<'a>(args: &Args<'a>) -> Result<ListFilter<'a>, WireError> {
    let (Some(by), Some(kind), Some(value), 5) = (args.get(2), args.get(3), args.get(4), args.len()) else {
        return if args.len() == 2 { Ok(ListFilter::None) } else { Err(WireError::Syntax) };
    };
    if !by.eq_ignore_ascii_case(b"filterby") {
        return Err(WireError::Syntax);
    }
    match kind.to_ascii_lowercase().as_slice() {
        b"module" => Ok(ListFilter::Module),
        b"aclcat" => Ok(ListFilter::Category(value)),
        b"pattern" => Ok(ListFilter::Pattern(value)),
        _ => Err(WireError::Syntax),
    }
}

impl ListFilter<'_> {
    fn lets_through(&self, row: &Row) -> bool {
        match self {
            Self::None => true,
            Self::Module => false,
            Self::Category(name) => {
                row.categories.iter().any(|category| category.text().as_bytes()[1..].eq_ignore_ascii_case(name))
            }
            Self::Pattern(pattern) => glob::matches_ignoring_case(pattern, row.name.as_bytes()),
        }
    }
}

fn reply_keys(args: &Args<'_>, reply: &mut Reply) {
    let inner = InnerRequest::copy(args);
    let inner = inner.args();
    match row_with_keys(&inner) {
        Err(error) => error.reply(reply),
        Ok(row) => {
            let keys: Vec<&[u8]> = key_positions(row, inner.len()).filter_map(|position| inner.get(position)).collect();
            reply.array(keys.len());
            for key in keys {
                reply.bulk(key);
            }
        }
    }
}

fn reply_keys_and_flags(args: &Args<'_>, reply: &mut Reply) {
    let inner = InnerRequest::copy(args);
    let inner = inner.args();
    match row_with_keys(&inner) {
        Err(error) => error.reply(reply),
        Ok(row) => {
            let uses = key_uses(row, &inner);
            reply.array(uses.len());
            for key_use in uses {
                reply.array(2);
                reply.bulk(&inner[key_use.position]);
                reply_words(key_use.flags.iter().map(|flag| flag.text()), reply);
            }
        }
    }
}

fn row_with_keys(inner: &Args<'_>) -> Result<&'static Row, WireError> {
    let row = inner.get(0).and_then(table::lookup).ok_or(WireError::GetkeysUnknown)?;
    let row = match inner.get(1) {
        Some(word) if row.is_container() => table::subcommand(row, word).ok_or(WireError::GetkeysUnknown)?,
        Some(_) | None => row,
    };
    if row.keys == KeyRange::NONE {
        Err(WireError::GetkeysWithoutKeys)
    } else if !row.accepts(inner.len()) {
        Err(WireError::GetkeysArity)
    } else {
        Ok(row)
    }
}

/// The request that `COMMAND GETKEYS` is asked about: its third word and what follows.
struct InnerRequest {
    bytes: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl InnerRequest {
    fn copy(args: &Args<'_>) -> Self {
        let mut inner = Self { bytes: Vec::new(), ranges: Vec::new() };
        for word in args.iter().skip(2) {
            let start = inner.bytes.len() as u32;
            inner.bytes.extend_from_slice(word);
            inner.ranges.push(ArgRange { start, end: inner.bytes.len() as u32 });
        }
        inner
    }

    fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges)
    }
}
