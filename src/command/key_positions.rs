//! Which words of a request are keys, and the one key slot they must share. Hot path.

use crate::protocol::Args;
use crate::slot::KeySlot;

use super::errors::WireError;
use super::op::KEY_BYTES_MAX;
use super::row::{KeyFlag, KeyRange, KeySpec, Row};

/// The indexes of the words that are keys, ascending. For a request that `table::resolve` has let through.
pub fn key_positions(row: &Row, word_count: usize) -> impl Iterator<Item = usize> + use<> {
    let (first, last, step) = range(row.keys, word_count);
    (first..last + 1).step_by(step)
}

/// The key slot of all keys, `None` without keys, `CrossSlot` when they differ, `KeyTooLong`.
pub fn key_slot_of(row: &Row, args: &Args<'_>) -> Result<Option<KeySlot>, WireError> {
    let mut key_slot = None;
    for position in key_positions(row, args.len()) {
        let Some(key) = args.get(position) else { break };
        if key.len() > KEY_BYTES_MAX {
            return Err(WireError::KeyTooLong);
        }
        let this = KeySlot::of_key(key);
        if key_slot.is_some_and(|other| other != this) {
            return Err(WireError::CrossSlot);
        }
        key_slot = Some(this);
    }
    Ok(key_slot)
}

/// (first, last, step) with `last` counted from the start; an empty range without keys.
fn range(keys: KeyRange, word_count: usize) -> (usize, usize, usize) {
    let (Ok(first), Ok(step)) = (usize::try_from(keys.first), usize::try_from(keys.step)) else {
        return (1, 0, 1);
    };
    if first == 0 {
        return (1, 0, 1);
    }
    let last = match usize::try_from(keys.last) {
        Ok(last) => last,
        Err(_) => word_count.saturating_sub(usize::from(keys.last.unsigned_abs())),
    };
    (first, last.min(word_count.saturating_sub(1)), step.max(1))
}

/// What the request does to one of its keys.
#[derive(Debug, Clone)]
pub struct KeyUse {
    pub position: usize,
    pub flags: &'static [KeyFlag],
}

/// The keys by key specification, with their flags, for `COMMAND GETKEYSANDFLAGS`.
pub fn key_uses(row: &Row, args: &Args<'_>) -> Vec<KeyUse> {
    let mut uses = Vec::new();
    for spec in row.key_specs {
        let flags = flags_of(spec, args);
        uses.extend(spec_positions(spec, args.len()).map(|position| KeyUse { position, flags }));
    }
    uses
}

fn spec_positions(spec: &KeySpec, word_count: usize) -> impl Iterator<Item = usize> + use<> {
    let (super::row::KeyBegin::Index(begin), super::row::KeyFind::Range { last, step, limit: _ }) =
        (spec.begin, spec.find);
    let last = if last >= 0 { begin + last } else { last };
    let (first, last, step) = range(KeyRange { first: begin, last, step }, word_count);
    (first..last + 1).step_by(step)
}

/// SET alone has variable flags: with GET it also reads.
fn flags_of(spec: &KeySpec, args: &Args<'_>) -> &'static [KeyFlag] {
    if !spec.flags.contains(&KeyFlag::VariableFlags) {
        return spec.flags;
    }
    if args.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"get")) {
        &[KeyFlag::ReadWrite, KeyFlag::Access, KeyFlag::Update]
    } else {
        &[KeyFlag::Overwrite, KeyFlag::Update]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn key_ranges_and_key_specs_agree() {
        for row in table::rows().flat_map(|row| std::iter::once(row).chain(row.subcommands)) {
            for word_count in 1..8 {
                let mut by_spec: Vec<usize> =
                    row.key_specs.iter().flat_map(|spec| spec_positions(spec, word_count)).collect();
                by_spec.sort_unstable();
                assert_eq!(key_positions(row, word_count).collect::<Vec<_>>(), by_spec, "{}", row.name);
            }
        }
    }

    #[test]
    fn positions_follow_first_last_and_step() {
        let positions =
            |name: &str, words| key_positions(table::lookup_full(name.as_bytes()).unwrap(), words).collect::<Vec<_>>();
        assert_eq!(positions("get", 2), [1]);
        assert_eq!(positions("mset", 5), [1, 3]);
        assert_eq!(positions("del", 4), [1, 2, 3]);
        assert_eq!(positions("rename", 3), [1, 2]);
        assert_eq!(positions("object|encoding", 3), [2]);
        assert!(positions("ping", 2).is_empty());
    }
}
