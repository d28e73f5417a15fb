//! A disk in memory for the tests: it fails the Nth operation, gets full, and loses what was not synced when the power goes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::raft::log::disk::{Disk, DiskFile};
use crate::random::simulated::Chance;

/// Written or lost as a whole when the power goes.
const SECTOR_BYTES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This operation alone fails; a write after its first half.
    Error(io::ErrorKind),
    /// This operation and all later ones.
    Dead,
    /// So many operations from this one on find no space, but for syncs, which take none.
    Full(u64),
    /// From this operation on no file can be created, for want of a descriptor.
    Crowded,
}

#[derive(Clone, Default)]
struct Contents {
    synced: Vec<u8>,
    written: Vec<u8>,
    /// Since the last sync: (offset, length).
    unsynced: Vec<(usize, usize)>,
    /// The same of syncs that failed: the kernel takes it for written and no later sync writes it, whoever asks. Readers find it all the same.
    abandoned: Vec<(usize, usize)>,
    /// Bytes taken from the disk, written or not.
    taken: usize,
}

impl Contents {
    fn synced(bytes: Vec<u8>) -> Self {
        Self { taken: bytes.len(), synced: bytes.clone(), written: bytes, ..Self::default() }
    }

    fn sync(&mut self) {
        for (from, length) in self.unsynced.drain(..) {
            let to = (from + length).min(self.written.len());
            if from < to {
                self.synced.resize(self.synced.len().max(to), 0);
                self.synced[from..to].copy_from_slice(&self.written[from..to]);
            }
        }
    }
}

type FileId = u64;

#[derive(Default)]
struct State {
    files: BTreeMap<FileId, Contents>,
    names: BTreeMap<PathBuf, FileId>,
    synced_names: BTreeMap<PathBuf, FileId>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Without one there is no end.
    capacity: Option<usize>,
    /// `reserve` is without effect.
    keeps_no_space: bool,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

struct MemoryFile {
    state: Arc<Mutex<State>>,
    id: FileId,
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryDisk")
    }
}

impl MemoryDisk {
    /// The operation with this number, counted from 1 over the disk's life, fails.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.0.lock().fault = Some((operation, fault));
    }

    /// From now on no more than this is to be had, beside what is taken already.
    pub fn limit_free(&self, bytes: Option<usize>) {
        let mut state = self.0.lock();
        state.capacity = bytes.map(|bytes| state.taken() + bytes);
    }

    pub fn keep_no_space(&self) {
        self.0.lock().keeps_no_space = true;
    }

    /// Writes, reservations, syncs, creations, removals and cuts so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Every operation waits while `meanwhile` runs.
    pub fn hold<R>(&self, meanwhile: impl FnOnce() -> R) -> R {
        let _held = self.0.lock();
        meanwhile()
    }

    /// Whether a power loss would lose written bytes.
    pub fn has_unsynced(&self) -> bool {
        self.0.lock().files.values().any(|file| !file.unsynced.is_empty())
    }

    /// The disk as another process finds it after this one was killed.
    pub fn after_kill(&self) -> Self {
        let state = self.0.lock();
        let named = |id: &FileId| {
            [&state.names, &state.synced_names].iter().any(|names| names.values().any(|named| named == id))
        };
        let files = state.files.iter().filter(|(id, _)| named(id)).map(|(id, file)| (*id, file.clone())).collect();
        Self(Arc::new(Mutex::new(State {
            files,
            names: state.names.clone(),
            synced_names: state.synced_names.clone(),
            ..State::default()
        })))
    }

    /// The disk after a power loss: of what was not synced, any part may be there.
    pub fn after_power_loss(&self, chance: &mut Chance) -> Self {
        self.after_loss(|| chance.below(2) == 0)
    }

    /// The same, and nothing of it is.
    pub fn after_loss_of_all(&self) -> Self {
        self.after_loss(|| false)
    }

    fn after_loss(&self, mut is_kept: impl FnMut() -> bool) -> Self {
        let state = self.0.lock();
        let mut names = state.synced_names.clone();
        for (name, id) in &state.names {
            if state.synced_names.get(name) != Some(id) && is_kept() {
                names.insert(name.clone(), *id);
            }
        }
        names.retain(|name, _| state.names.contains_key(name) || is_kept());
        let mut files = BTreeMap::new();
        for id in names.values() {
            let file = &state.files[id];
            let mut kept = file.synced.clone();
            for (offset, length) in file.abandoned.iter().chain(&file.unsynced) {
                let end = (offset + length).min(file.written.len());
                let mut from = *offset;
                while from < end {
                    let to = end.min((from / SECTOR_BYTES + 1) * SECTOR_BYTES);
                    if is_kept() {
                        kept.resize(kept.len().max(to), 0);
                        kept[from..to].copy_from_slice(&file.written[from..to]);
                    }
                    from = to;
                }
            }
            files.insert(*id, Contents::synced(kept));
        }
        Self(Arc::new(Mutex::new(State { files, synced_names: names.clone(), names, ..State::default() })))
    }

    /// Changes a file behind the log's back.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.0.lock();
        let id = state.names[path];
        let file = state.files.get_mut(&id).expect("named files exist");
        change(&mut file.written);
        *file = Contents::synced(std::mem::take(&mut file.written));
    }
}

impl State {
    /// Counts an operation. The error is the fault it meets.
    fn count(&mut self) -> Result<(), io::Error> {
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Error(kind))) if at == self.operations => Err(kind.into()),
            Some((at, Fault::Full(count))) if (at..at + count).contains(&self.operations) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((at, Fault::Dead)) if at <= self.operations => Err(io::ErrorKind::BrokenPipe.into()),
            Some(_) | None => Ok(()),
        }
    }

    fn count_sync(&mut self) -> Result<(), io::Error> {
        match self.fault {
            Some((_, Fault::Full(_))) => self.operations += 1,
            Some(_) | None => self.count()?,
        }
        Ok(())
    }

    fn find_descriptor(&self) -> Result<(), io::Error> {
        match self.fault {
            Some((at, Fault::Crowded)) if at <= self.operations => Err(rustix::io::Errno::MFILE.into()),
            Some(_) | None => Ok(()),
        }
    }

    fn taken(&self) -> usize {
        self.files.values().map(|file| file.taken).sum()
    }

    fn free(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.taken()))
    }

    /// Makes the file take its first `end` bytes from the disk, or as many as there are.
    fn take(&mut self, id: FileId, end: usize) -> io::Result<()> {
        let free = self.free();
        let file = self.files.get_mut(&id).expect("open files exist");
        let wanted = end.saturating_sub(file.taken);
        file.taken += wanted.min(free);
        if wanted > free { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    /// They need not be made here.
    fn create_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.lock();
        Ok(state.files[&state.id(path)?].written.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.count()?;
        state.find_descriptor()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.keys().last().map_or(0, |last| last + 1);
        state.files.insert(id, Contents::default());
        state.names.insert(path.to_owned(), id);
        Ok(Arc::new(MemoryFile { state: self.0.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.0.lock().id(path)?;
        Ok(Arc::new(MemoryFile { state: self.0.clone(), id }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count()?;
        let id = state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.files.get_mut(&id).expect("named files exist").taken = 0;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count()?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.lock().free() as u64)
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count_sync()?;
        state.synced_names = state.names.clone();
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.count().and_then(|()| state.take(self.id, offset as usize + bytes.len()));
        let bytes = if fault.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let file = state.files.get_mut(&self.id).expect("open files exist");
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        file.written.resize(file.written.len().max(to), 0);
        file.written[from..to].copy_from_slice(bytes);
        file.unsynced.push((from, bytes.len()));
        fault
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count()?;
        if state.keeps_no_space {
            return Ok(());
        }
        state.take(self.id, (offset + bytes) as usize)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state.lock();
        let written = &state.files[&self.id].written;
        let rest = written.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.state.lock().files[&self.id].written.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.count_sync();
        let file = state.files.get_mut(&self.id).expect("open files exist");
        match fault {
            Ok(()) => file.sync(),
            Err(_) => file.abandoned.append(&mut file.unsynced),
        }
        fault
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count()?;
        let file = state.files.get_mut(&self.id).expect("open files exist");
        file.written.truncate(length as usize);
        file.synced.truncate(length as usize);
        file.taken = file.written.len();
        file.sync();
        Ok(())
    }
}
