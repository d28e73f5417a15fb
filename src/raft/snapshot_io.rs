//! The snapshot file: checksummed blocks between a magic and an end mark.
//!
//! ```text
//! file:  "KVSNAP01" | block ... | end
//! block: length u32 (not 0) | crc32 of the bytes u32 | bytes
//! end:   0 u32 | number of blocks u32
//! ```
//! Integers are little-endian. The first block is the postcard header of `raft/snapshot.rs` or `raft/meta.rs`; what the others hold is their
//! writer's affair. A damaged or cut file is an error that names it, the offset and what to do, never a panic.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::op::{ARGUMENT_BYTES_MAX, KEY_BYTES_MAX};
use crate::raft::log::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"KVSNAP01";
/// A block holds at most one large value beside its key: 512 MB and change.
const BLOCK_BYTES_MAX: u32 = 600 * 1024 * 1024;
/// § A record that no snapshot can hold would stop every replica that makes one.
const _: () = assert!(ARGUMENT_BYTES_MAX + KEY_BYTES_MAX + 1024 * 1024 < BLOCK_BYTES_MAX as usize);
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of a snapshot that wait in the kernel's memory. The log's next sync, and so every client, waits behind all that is given to the disk at
/// once: behind 100 MB for half a second.
const UNSYNCED_BYTES_MAX: u64 = 256 * 1024;

/// Writes, and syncs whenever the file has come so much further.
pub fn write_in_steps(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_at(bytes, offset)?;
    let end = offset + bytes.len() as u64;
    if offset / UNSYNCED_BYTES_MAX == end / UNSYNCED_BYTES_MAX { Ok(()) } else { file.sync() }
}

/// A file from its start to its end.
struct Stream {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = &bytes[..bytes.len().min(UNSYNCED_BYTES_MAX as usize)];
        write_in_steps(&*self.file, step, self.offset)?;
        self.offset += step.len() as u64;
        Ok(step.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

pub struct SnapshotWriter {
    file: BufWriter<Stream>,
    bytes: u64,
    blocks: u32,
}

impl SnapshotWriter {
    pub fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, Stream { file: disk.create(path)?, offset: 0 });
        file.write_all(MAGIC)?;
        Ok(Self { file, bytes: MAGIC.len() as u64, blocks: 0 })
    }

    /// Empty blocks are skipped: zero is the end mark.
    pub fn block(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= BLOCK_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a snapshot block is too large"))?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc32fast::hash(bytes).to_le_bytes())?;
        self.file.write_all(bytes)?;
        self.blocks += 1;
        self.bytes += 8 + u64::from(length);
        Ok(())
    }

    /// Writes the end mark and fsyncs; the length of the file in bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.file.write_all(&0u32.to_le_bytes())?;
        self.file.write_all(&self.blocks.to_le_bytes())?;
        self.file.flush()?;
        self.file.get_ref().file.sync()?;
        Ok(self.bytes + 8)
    }
}

pub struct SnapshotReader {
    file: BufReader<Stream>,
    path: PathBuf,
    offset: u64,
    blocks: u32,
}

impl SnapshotReader {
    pub fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path).map_err(|error| unreadable(path, &error))?;
        let file = BufReader::with_capacity(BUFFER_BYTES, Stream { file, offset: 0 });
        let mut reader = Self { file, path: path.to_owned(), offset: 0, blocks: 0 };
        if &reader.read_array()? != MAGIC {
            return Err(reader.damaged("it does not start as a snapshot does"));
        }
        reader.offset = MAGIC.len() as u64;
        Ok(reader)
    }

    /// The next block in `block`, or false at the end mark.
    pub fn next(&mut self, block: &mut Vec<u8>) -> io::Result<bool> {
        let (length, crc) = (u32::from_le_bytes(self.read_array()?), u32::from_le_bytes(self.read_array()?));
        if length == 0 {
            return if crc == self.blocks { Ok(false) } else { Err(self.damaged("its end mark counts other blocks")) };
        }
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged("a block is longer than any can be"));
        }
        block.clear();
        let read = (&mut self.file).take(u64::from(length)).read_to_end(block);
        let read = read.map_err(|error| unreadable(&self.path, &error))?;
        if read != length as usize || crc32fast::hash(block) != crc {
            return Err(self.damaged("a block does not match its checksum"));
        }
        self.offset += 8 + u64::from(length);
        self.blocks += 1;
        Ok(true)
    }

    pub fn damaged(&self, what: &str) -> io::Error {
        let text = format!(
            "snapshot {} is damaged at byte {}: {what}; restore the file, or move the data directory away so that this node joins anew and \
             is brought up to date by the others",
            self.path.display(),
            self.offset
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    fn read_array<const LENGTH: usize>(&mut self) -> io::Result<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        match self.file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("it is cut short")),
            Err(error) => Err(unreadable(&self.path, &error)),
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read snapshot {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::log::RealDisk;

    fn write(path: &Path, blocks: &[&[u8]]) -> u64 {
        let mut writer = SnapshotWriter::create(&RealDisk, path).expect("creates");
        blocks.iter().for_each(|block| writer.block(block).expect("writes"));
        writer.finish().expect("finishes")
    }

    fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
        let mut reader = SnapshotReader::open(&RealDisk, path)?;
        let (mut blocks, mut block) = (Vec::new(), Vec::new());
        while reader.next(&mut block)? {
            blocks.push(block.clone());
        }
        Ok(blocks)
    }

    #[test]
    fn blocks_come_back_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let length = write(&path, &[b"one", b"", b"three"]);
        assert_eq!(std::fs::metadata(&path).expect("exists").len(), length);
        assert_eq!(read(&path).expect("reads"), [b"one".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn a_cut_or_flipped_byte_anywhere_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        write(&path, &[b"hello", b"world"]);
        let whole = std::fs::read(&path).expect("reads");
        let refused = |bytes: &[u8], context: &str| {
            std::fs::write(&path, bytes).expect("writes");
            let error = read(&path).expect_err(context).to_string();
            let start = format!("snapshot {} is damaged at byte ", path.display());
            assert!(error.starts_with(&start) && error.contains("restore the file, or move"), "{context}: {error}");
        };
        for cut in 0..whole.len() {
            refused(&whole[..cut], &format!("cut at {cut}"));
            let mut flipped = whole.clone();
            flipped[cut] ^= 0x40;
            refused(&flipped, &format!("flipped at {cut}"));
        }
    }
}
