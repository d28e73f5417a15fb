//! A number that is the same for two keyspaces with the same keys, values and expiries, whatever their order in memory.
//!
//! For telling replicas that have diverged, not for defence: who chooses the data can make two keyspaces look alike.

use crate::keyspace::record::Record;
use crate::keyspace::store::Keyspace;
use crate::keyspace::terms::{SlotState, Value};
use crate::slot::KeySlot;

impl Keyspace {
    /// Of what is owned, bucket by bucket, outside the locks; takes about as long as a snapshot. Of one state only if nothing is applied meanwhile.
    pub fn digest(&self) -> u64 {
        KeySlot::all().fold(0u64, |sum, key_slot| {
            let export = self.export(key_slot);
            if export.state() != SlotState::Owned {
                return sum;
            }
            let records = export.tables().iter().flat_map(|table| table.records());
            records.fold(sum, |sum, record| sum.wrapping_add(digest_of(record)))
        })
    }
}

/// A checksum alone is linear: two keys that swapped their values would cancel each other out.
fn digest_of(record: &Record) -> u64 {
    let traits = record.traits();
    let mut key = crc32fast::Hasher::new();
    key.update(&traits.expire_at.map_or(i64::MIN, |at| at.0).to_le_bytes());
    key.update(&[u8::from(traits.edited)]);
    key.update(record.key());
    let mut value = crc32fast::Hasher::new();
    match record.value() {
        Value::Slice(bytes) => value.update(bytes),
        Value::Shared(shared) => shared.pieces(0..shared.len()).for_each(|piece| value.update(&piece)),
    }
    mix(u64::from(key.finalize()) << 32 | u64::from(value.finalize()))
}

/// SplitMix64's finalizer (Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use crate::clock::Timestamp;
    use crate::keyspace::{Applied, HashSecret, Keyspace, Position, SlotState, Value};
    use crate::slot::KeySlot;

    fn digest(secret: u64, records: &[(&str, &[u8], Option<i64>)]) -> u64 {
        let keyspace = Keyspace::new(HashSecret([secret; 4]));
        for (index, (key, value, expire_at)) in records.iter().enumerate() {
            let key_slot = KeySlot::of_key(key.as_bytes());
            keyspace.set_state(key_slot.slot(), SlotState::Owned);
            let applied = keyspace.apply(key_slot, Position { index: index as u64 + 1, op: 0 }, |bucket| {
                bucket.insert(key.as_bytes(), Value::Slice(value), expire_at.map(Timestamp));
            });
            assert!(matches!(applied, Applied::Done(())));
        }
        keyspace.digest()
    }

    #[test]
    fn the_digest_is_that_of_keys_values_and_expiries_in_any_order() {
        let large = vec![7; 100_000];
        let [a, b, c]: [(&str, &[u8], Option<i64>); 3] =
            [("{t}a", b"1", None), ("{t}b", b"2", Some(9)), ("c", &large, None)];
        let same = digest(1, &[a, b, c]);
        assert_eq!(digest(2, &[c, b, a]), same, "another order, in memory too");
        assert_eq!(digest(1, &[("{t}a", b"0", None), a, b, c]), same, "overwritten");
        let mut damaged = large.clone();
        damaged[50_000] ^= 1;
        let others: [&[_]; 6] = [
            &[a, b],
            &[a, b, ("c", &damaged, None)],
            &[a, b, c, ("d", b"", None)],
            &[("{t}a", b"2", None), ("{t}b", b"1", Some(9)), c],
            &[a, ("{t}b", b"2", Some(10)), c],
            &[a, ("{t}b", b"2", None), c],
        ];
        others.iter().for_each(|other| assert_ne!(digest(1, other), same, "{:?}", other.len()));
        assert_eq!(digest(1, &[]), 0);
    }
}
