//! What a client was told has happened is in every later state of its key that may be read, whether or not anybody reads it then.

use std::collections::BTreeSet;

use crate::keyspace::Lookup;
use crate::simulation::invariants::Seen;
use crate::slot::KeySlot;

/// `tokens`: of the appends to `key` that were acknowledged.
pub fn look(seen: &Seen, key: &str, tokens: &[&str]) -> Result<(), String> {
    let key_slot = KeySlot::of_key(key.as_bytes());
    for group in &seen.groups {
        let owns = || group.keyspace().owns(key_slot.slot());
        let Some(lease) = group.lease().filter(|_| owns()) else { continue };
        let value = group.keyspace().read(key_slot, |bucket| match bucket.get(key.as_bytes(), group.time()) {
            Lookup::Hit(entry) => String::from_utf8_lossy(entry.value().as_slice().expect("it is short")).into_owned(),
            Lookup::Miss | Lookup::Due => String::new(),
        });
        // As a read does.
        if !lease.confirm() || !owns() {
            continue;
        }
        let there: BTreeSet<&str> = value.split_inclusive(';').collect();
        if let Some(lost) = tokens.iter().find(|token| !there.contains(**token)) {
            return Err(format!(
                "{key}: acknowledged and lost: {lost} is not in what node {} would answer for group {}: {value}",
                seen.node,
                group.id()
            ));
        }
    }
    Ok(())
}
