//! Key slots and slots: the only file that knows the numbers 16384, 1024 and 16.
//!
//! Clients compute the *key slot*, CRC-16/XMODEM of the key or of its hash tag, mod 16384; every MOVED and every CLUSTER
//! reply speaks it. Groups own *slots*: CRC-32 of the big-endian first key slot of a block of 16, mod 1024. The second
//! step is a bijection from the 1024 blocks onto the 1024 slots (asserted by an exhaustive test), so every slot holds
//! exactly 16 neighbouring key slots and one client slot never straddles two groups.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/> (key distribution model, hash tags).

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// Number of key slots; compiled into every Redis Cluster client.
pub const KEY_SLOT_COUNT: usize = 16384;
/// Number of slots, the unit of ownership and of moves.
pub const SLOT_COUNT: usize = 1024;
/// Key slots in one slot.
pub const KEY_SLOTS_PER_SLOT: usize = KEY_SLOT_COUNT / SLOT_COUNT;

const BLOCK_MASK: u16 = 0x3FF0;
const _: () = assert!(KEY_SLOTS_PER_SLOT == 16 && BLOCK_MASK as usize == KEY_SLOT_COUNT - KEY_SLOTS_PER_SLOT);

/// What clients call a slot: 0..16384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeySlot(u16);

/// What groups own: 0..1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(u16);

/// Some of the slots, as an operator writes them: `0-99,200`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots(pub BTreeSet<Slot>);

static CRC16: [u16; 256] = crc16_table();
static SLOT_OF_BLOCK: LazyLock<[u16; SLOT_COUNT]> = LazyLock::new(slot_of_block);
static BLOCK_OF_SLOT: LazyLock<[u16; SLOT_COUNT]> = LazyLock::new(|| {
    let mut blocks = [0; SLOT_COUNT];
    for (block, slot) in SLOT_OF_BLOCK.iter().enumerate() {
        blocks[usize::from(*slot)] = block as u16;
    }
    blocks
});

impl KeySlot {
    /// The key slot of a key: CRC-16 of its hash tag if it has a non-empty one, else of the whole key.
    pub fn of_key(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % KEY_SLOT_COUNT as u16)
    }

    /// `None` when `index` is 16384 or above.
    pub fn new(index: u16) -> Option<Self> {
        (usize::from(index) < KEY_SLOT_COUNT).then_some(Self(index))
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub fn get(self) -> u16 {
        self.0
    }

    /// The slot that holds this key slot.
    pub fn slot(self) -> Slot {
        Slot(SLOT_OF_BLOCK[self.index() / KEY_SLOTS_PER_SLOT])
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..KEY_SLOT_COUNT as u16).map(Self)
    }

    /// From this one to `last`, which is among them.
    pub fn up_to(self, last: Self) -> impl Iterator<Item = Self> {
        (self.0..=last.0).map(Self)
    }
}

impl Slot {
    /// `None` when `index` is 1024 or above.
    pub fn new(index: u16) -> Option<Self> {
        (usize::from(index) < SLOT_COUNT).then_some(Self(index))
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub fn get(self) -> u16 {
        self.0
    }

    /// The 16 neighbouring key slots of this slot, ascending.
    pub fn key_slots(self) -> impl Iterator<Item = KeySlot> {
        let (first, last) = self.key_slot_bounds();
        (first.0..=last.0).map(KeySlot)
    }

    /// The first and the last of them.
    pub fn key_slot_bounds(self) -> (KeySlot, KeySlot) {
        let first = BLOCK_OF_SLOT[self.index()] * KEY_SLOTS_PER_SLOT as u16;
        (KeySlot(first), KeySlot(first + KEY_SLOTS_PER_SLOT as u16 - 1))
    }

    /// All slots, in the order of their key slots.
    pub fn by_key_slots() -> impl Iterator<Item = Self> {
        SLOT_OF_BLOCK.iter().copied().map(Self)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOT_COUNT as u16).map(Self)
    }
}

impl Slots {
    pub fn parse(text: &str) -> Option<Self> {
        let mut slots = BTreeSet::new();
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            if first > last || usize::from(last) >= SLOT_COUNT {
                return None;
            }
            slots.extend((first..=last).map(Slot));
        }
        Some(Self(slots))
    }
}

impl std::fmt::Display for KeySlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of the key that is hashed: between the first `{` and the first `}` after it, unless that is empty.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let tail = &key[open + 1..];
    match tail.iter().position(|byte| *byte == b'}') {
        Some(0) | None => key,
        Some(length) => &tail[..length],
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

fn slot_of_block() -> [u16; SLOT_COUNT] {
    let mut slots = [0; SLOT_COUNT];
    for (block, slot) in slots.iter_mut().enumerate() {
        let first_key_slot = (block * KEY_SLOTS_PER_SLOT) as u16 & BLOCK_MASK;
        *slot = (crc32fast::hash(&first_key_slot.to_be_bytes()) % SLOT_COUNT as u32) as u16;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_matches_the_check_value_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }

    #[test]
    fn slots_are_written_as_numbers_and_ranges() {
        let parse = |text| Slots::parse(text).map(|slots| slots.0.into_iter().map(Slot::get).collect::<Vec<_>>());
        assert_eq!(parse("3, 0-1,1023"), Some(vec![0, 1, 3, 1023]));
        for wrong in ["", "1024", "0-1024", "5-4", "a", "1,", "-1", "0-65536"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn key_slots_match_redis() {
        for (key, slot) in [(&b"foo"[..], 12182), (b"bar", 5061), (b"", 0), (b"{user1000}.following", 3443)] {
            assert_eq!(KeySlot::of_key(key).get(), slot, "{key:?}");
        }
    }

    #[test]
    fn hash_tags_follow_the_cluster_specification() {
        for (key, tag) in [
            (&b"{user1000}.following"[..], &b"user1000"[..]),
            (b"foo{}{bar}", b"foo{}{bar}"),
            (b"foo{{bar}}zap", b"{bar"),
            (b"foo{bar}{zap}", b"bar"),
            (b"foo{bar", b"foo{bar"),
            (b"foo}bar{", b"foo}bar{"),
        ] {
            assert_eq!(hash_tag(key), tag, "{key:?}");
        }
    }

    #[test]
    fn every_slot_holds_exactly_sixteen_neighbouring_key_slots() {
        let mut key_slots_of = vec![Vec::new(); SLOT_COUNT];
        for key_slot in KeySlot::all() {
            let crc = crc32fast::hash(&(key_slot.get() & 0x3FF0).to_be_bytes());
            assert_eq!(key_slot.slot().index(), crc as usize % SLOT_COUNT);
            key_slots_of[key_slot.slot().index()].push(key_slot);
        }
        for slot in Slot::all() {
            let expected: Vec<KeySlot> = slot.key_slots().collect();
            assert_eq!(expected.len(), KEY_SLOTS_PER_SLOT);
            assert_eq!(key_slots_of[slot.index()], expected);
            assert!(expected.windows(2).all(|pair| pair[1].get() == pair[0].get() + 1));
        }
    }
}
