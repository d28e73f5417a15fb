//! What `src/fuzzing.rs` cannot reach: files and messages.

use std::path::Path;

use bytes::Bytes;

use super::log::RealDisk;
use super::snapshot;
use super::snapshot_io::SnapshotWriter;
use crate::clock::Timestamp;
use crate::keyspace::{HashSecret, Keyspace};
use crate::slot::KeySlot;

pub use super::log::fuzzing::log;
pub use super::transport::fuzzing::messages;

thread_local! {
    // A keyspace takes longer to make than an input to run.
    static LOADED: [Keyspace; 2] = [Keyspace::new(HashSecret([1; 4])), Keyspace::new(HashSecret([1; 4]))];
}

/// A snapshot file that is the input, and one whose blocks, with checksums that hold, are: loaded or refused; what was loaded, a
/// snapshot of it holds as well.
pub fn snapshot(input: &[u8], directory: &Path) {
    let path = directory.join("snapshot");
    std::fs::write(&path, input).expect("writes");
    LOADED.with(|[loaded, _]| load(&path, loaded));
    let (mut header, mut pieces) = (snapshot::empty_head(), blocks(input).0);
    // An empty one is none: what comes next would be taken for it.
    if let Some([0xff, first @ ..]) = pieces.first().copied().filter(|first| first.len() > 1) {
        header = first.to_vec();
        pieces.remove(0);
    }
    write(&path, std::iter::once(&header[..]).chain(pieces));
    LOADED.with(|[loaded, again]| {
        if load(&path, loaded) {
            copy(&path, loaded, again, header)
        }
    });
}

fn copy(path: &Path, loaded: &Keyspace, again: &Keyspace, header: Vec<u8>) {
    let mut copied = vec![header];
    for key_slot in KeySlot::all() {
        let (mut export, mut piece) = (loaded.export(key_slot), Vec::new());
        while export.encode_into(&mut piece) {
            copied.push(std::mem::take(&mut piece));
        }
    }
    write(path, copied.iter().map(|block| &block[..]));
    assert!(load(path, again), "what was exported is imported");
    for key_slot in KeySlot::all().filter(|key_slot| loaded.read(*key_slot, |bucket| bucket.len() > 0)) {
        assert_eq!(contents(loaded, key_slot), contents(again, key_slot));
    }
}

fn write<'a>(path: &Path, blocks: impl Iterator<Item = &'a [u8]>) {
    let _ = std::fs::remove_file(path);
    let mut writer = SnapshotWriter::create(&RealDisk, path).expect("creates");
    blocks.for_each(|block| writer.block(block).expect("writes"));
    writer.finish().expect("finishes");
}

fn load(path: &Path, keyspace: &Keyspace) -> bool {
    keyspace.clear_for_import();
    snapshot::load(&RealDisk, path, keyspace).is_ok()
}

/// The input's blocks: each a length of two bytes, then that many; and what is left behind them.
pub fn blocks(mut input: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut blocks = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>()
        && let Some((block, behind)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
    {
        blocks.push(block);
        input = behind;
    }
    (blocks, input)
}

/// A bucket's keys, values and expiries; when a key was last read is each replica's own affair.
pub fn contents(keyspace: &Keyspace, key_slot: KeySlot) -> Vec<(Vec<u8>, Bytes, Option<Timestamp>)> {
    let export = keyspace.export(key_slot);
    let records = export.tables().iter().flat_map(|table| table.records());
    records.map(|record| (record.key().to_vec(), record.value().into_shared().to_bytes(), record.expire_at())).collect()
}
