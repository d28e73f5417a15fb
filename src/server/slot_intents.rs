//! What `CLUSTER SETSLOT n MIGRATING id` announced on this node: `redis-cli --cluster reshard` says so before it asks for a slot's keys, to migrate them one
//! by one. Here the slot moves as a whole when `SETSLOT n NODE id` comes, so of an announced slot it is told that there are no keys.
//!
//! Nothing is decided by an intent and nothing but that answer hangs on it, so it is kept in memory, and on the node that was told alone.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::{GroupId, MoveId};
use crate::slot::KeySlot;

/// The tool asks for the keys at once. One that ended meanwhile must not hide them for long.
const INTENT_TIME_MAX: Duration = Duration::from_secs(60);

/// Which of the slot's stays in this node's groups the intent is about: once the slot has moved, it says nothing any more, also if the slot comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    pub group: GroupId,
    /// The last move of the slot that ended in the group.
    pub since: MoveId,
}

/// At most one of each key slot.
#[derive(Debug, Default)]
pub struct SlotIntents(Mutex<BTreeMap<KeySlot, (Stay, Instant)>>);

impl SlotIntents {
    pub fn note(&self, key_slot: KeySlot, stay: Stay, now: Instant) {
        self.0.lock().insert(key_slot, (stay, now + INTENT_TIME_MAX));
    }

    pub fn forget(&self, key_slot: KeySlot) {
        self.0.lock().remove(&key_slot);
    }

    pub fn is_open(&self, key_slot: KeySlot, stay: Stay, now: Instant) -> bool {
        self.0.lock().get(&key_slot).is_some_and(|(noted, until)| *noted == stay && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_ends_with_the_slots_stay_with_time_and_when_it_is_taken_back() {
        let (intents, now) = (SlotIntents::default(), Instant::now());
        let [one, other] = [5, 6].map(|index| KeySlot::new(index).unwrap());
        let stay = Stay { group: GroupId(1), since: MoveId(3) };
        intents.note(one, stay, now);
        assert!(intents.is_open(one, stay, now) && !intents.is_open(other, stay, now));
        assert!(!intents.is_open(one, Stay { since: MoveId(5), ..stay }, now), "it has left and come back");
        assert!(!intents.is_open(one, Stay { group: GroupId(2), ..stay }, now));
        assert!(!intents.is_open(one, stay, now + INTENT_TIME_MAX));
        intents.note(one, stay, now);
        intents.forget(one);
        assert!(!intents.is_open(one, stay, now));
    }
}
