//! Finds a row by name. Hot path: no allocation, a few nanoseconds.
//!
//! Names are at most 16 bytes, so a name is one `u128`: folded to lower case, zero-padded. The index is an open-addressed
//! table of such words, built once.

use std::sync::LazyLock;

use crate::protocol::Args;

use super::errors::WireError;
use super::op::{INTERNAL_OPS, OpCode};
use super::row::{ApplyFn, Row, Run};
use super::rows::ROWS;

/// Longest name of a command without a container.
const NAME_BYTES_MAX: usize = 16;
/// Power of two, at least twice the number of rows.
const INDEX_SIZE: usize = 512;

static INDEX: LazyLock<Vec<Option<(u128, &'static Row)>>> = LazyLock::new(|| {
    assert!(rows().count() * 2 <= INDEX_SIZE);
    let mut index = vec![None; INDEX_SIZE];
    for row in rows() {
        let name = folded(row.name.as_bytes()).expect("names of commands are short");
        let mut at = place(name);
        while index[at].is_some() {
            at = (at + 1) % INDEX_SIZE;
        }
        index[at] = Some((name, row));
    }
    index
});

static APPLY_FUNCTIONS: LazyLock<[Option<ApplyFn>; OpCode::COUNT]> = LazyLock::new(|| {
    let mut functions: [Option<ApplyFn>; OpCode::COUNT] = [None; OpCode::COUNT];
    let of_rows = rows().filter_map(|row| match row.run {
        Run::Write { code, apply, plan: _ } => Some((code, apply)),
        Run::Read(_) | Run::Node(_) | Run::Container => None,
    });
    for (code, apply) in of_rows.chain(INTERNAL_OPS.iter().copied()) {
        let function = &mut functions[usize::from(code.0)];
        assert!(function.is_none(), "two ops have code {}", code.0);
        *function = Some(apply);
    }
    functions
});

/// All rows, without subcommands.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().flat_map(|file| file.iter().copied())
}

/// The row of a command's first word, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Row> {
    let name = folded(name)?;
    let mut at = place(name);
    loop {
        let (found, row) = INDEX[at]?;
        if found == name {
            return Some(row);
        }
        at = (at + 1) % INDEX_SIZE;
    }
}

/// The subcommand of `container` that `word` names, in any case.
pub fn subcommand(container: &'static Row, word: &[u8]) -> Option<&'static Row> {
    container.subcommands.iter().find(|row| {
        let short = &row.name.as_bytes()[container.name.len() + 1..];
        short.eq_ignore_ascii_case(word)
    })
}

/// The row that answers a request: the command's or its subcommand's. Checks the number of words.
///
/// Errors: unknown command, unknown subcommand, wrong number of arguments.
pub fn resolve(args: &Args<'_>) -> Result<&'static Row, WireError> {
    let Some(mut row) = args.get(0).and_then(lookup) else {
        return Err(WireError::unknown_command(args));
    };
    if row.is_container()
        && let Some(word) = args.get(1)
    {
        row = subcommand(row, word).ok_or_else(|| WireError::unknown_subcommand(row.name, word))?;
    }
    if row.accepts(args.len()) { Ok(row) } else { Err(WireError::WrongArity(row.name)) }
}

/// The row of a command or, as `container|subcommand`, of a subcommand.
pub fn lookup_full(name: &[u8]) -> Option<&'static Row> {
    match name.iter().position(|byte| *byte == b'|') {
        None => lookup(name),
        Some(at) => subcommand(lookup(&name[..at])?, &name[at + 1..]),
    }
}

pub(super) fn apply_function(code: OpCode) -> Option<ApplyFn> {
    APPLY_FUNCTIONS.get(usize::from(code.0)).copied().flatten()
}

/// `None` if no command has so long a name, or one with a NUL, which would read as padding.
fn folded(name: &[u8]) -> Option<u128> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut bytes = [0; NAME_BYTES_MAX];
    for (to, from) in bytes.iter_mut().zip(name) {
        if *from == 0 {
            return None;
        }
        *to = from.to_ascii_lowercase();
    }
    Some(u128::from_le_bytes(bytes))
}

fn place(name: u128) -> usize {
    let mixed = ((name as u64) ^ ((name >> 64) as u64).rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 55) as usize % INDEX_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::row::Flag;

    fn all_rows() -> impl Iterator<Item = &'static Row> {
        rows().flat_map(|row| std::iter::once(row).chain(row.subcommands))
    }

    #[test]
    fn every_command_is_found_in_any_case() {
        for row in rows() {
            assert!(std::ptr::eq(lookup(row.name.as_bytes()).unwrap(), row));
            assert!(std::ptr::eq(lookup(row.name.to_uppercase().as_bytes()).unwrap(), row));
        }
        for name in [&b""[..], b"ge", b"gett", b"get\0", b"no-such-command-anywhere", b"hset"] {
            assert!(lookup(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn every_op_code_has_an_apply_function_or_is_the_groups() {
        for code in 1..OpCode::COUNT {
            let code = OpCode(code as u16);
            assert_eq!(apply_function(code).is_none(), code.is_group_wide(), "code {code:?}");
        }
        assert!(apply_function(OpCode(0)).is_none() && apply_function(OpCode(u16::MAX)).is_none());
    }

    #[test]
    fn flags_say_what_runs_a_command() {
        for row in all_rows() {
            match row.run {
                Run::Read(_) => assert!(row.has(Flag::Readonly) && row.keys.first > 0, "{}", row.name),
                Run::Write { .. } => assert!(row.has(Flag::Write) && row.keys.first > 0, "{}", row.name),
                Run::Node(_) | Run::Container => assert!(row.keys.first == 0, "{}", row.name),
            }
        }
    }

    #[test]
    fn subcommands_carry_their_containers_name() {
        for row in rows() {
            for sub in row.subcommands {
                assert!(sub.name.starts_with(&format!("{}|", row.name)));
                assert!(std::ptr::eq(lookup_full(sub.name.as_bytes()).unwrap(), sub));
            }
        }
    }
}
