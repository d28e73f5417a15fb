//! A library that is loaded into a node before the C library, to make it meet what a test machine does not have: a disk that cannot
//! sync, one operation on a file that fails or is the node's last, a wall clock that jumps, a power loss that takes what was not synced (of files; names
//! stay). Needs `cc`.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::Node;

/// Shared with the nodes it was given to, in the layout of `shim.c`'s `struct control`.
pub struct Shim {
    control: File,
    path: PathBuf,
    /// What files held before they were written, by inode.
    undo: PathBuf,
    library: PathBuf,
}

/// Bytes of `shim.c`'s `struct note`.
const NOTE_BYTES: usize = 24;

impl Shim {
    /// `None` where there is no compiler. `directory` is the test's own, `name` one in it.
    pub fn build(directory: &Path, name: &str) -> Option<Self> {
        let (library, path) = (directory.join("shim.so"), directory.join(name));
        if !library.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/shim.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", source, "-o"]).arg(&library);
            let output = compiler.output().ok()?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let control = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let undo = directory.join(format!("{name}.undo"));
        std::fs::create_dir_all(&undo).expect("a directory");
        let shim = Self { control: control.expect("a file"), path, undo, library };
        shim.fail_syncs(false);
        shim.shift_wall_clock(0);
        shim.spare_operations();
        Some(shim)
    }

    /// From the node's next start on.
    pub fn load_into(&self, node: &mut Node) {
        node.set_environment("LD_PRELOAD", &self.library.display().to_string());
        node.set_environment("KVORUM_TEST_SHIM", &self.path.display().to_string());
        node.set_environment("KVORUM_TEST_UNDO", &self.undo.display().to_string());
    }

    /// Of a node that was killed: takes back what its files were given since they were last synced. Returns how many bytes that was.
    pub fn lose_power(&self, directory: &Path) -> u64 {
        let mut lost = 0;
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let about = entry.metadata().expect("it is there");
            if about.is_dir() {
                lost += self.lose_power(&entry.path());
                continue;
            }
            let place = self.undo.join(about.ino().to_string());
            let notes = std::fs::read(&place).unwrap_or_default();
            if !notes.is_empty() {
                lost += take_back(&File::options().write(true).open(entry.path()).expect("opens"), &notes);
                std::fs::remove_file(place).expect("removes");
            }
        }
        lost
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.set(0, i64::from(fail));
    }

    /// To so much ahead of the machine's.
    pub fn shift_wall_clock(&self, ahead_seconds: i64) {
        self.set(8, ahead_seconds);
    }

    /// Of all that the node writes, cuts, syncs and renames, this operation, counted from one, fails: or the process is killed at it.
    pub fn fault_at(&self, operation: i64, kills: bool) {
        self.set(24, i64::from(kills));
        self.set(16, operation);
    }

    /// Whether `fault_at` has come true.
    pub fn is_fault_over(&self) -> bool {
        let mut left = [0; 8];
        self.control.read_exact_at(&mut left, 16).expect("reads");
        i64::from_ne_bytes(left) <= 0
    }

    pub fn spare_operations(&self) {
        self.fault_at(0, false);
    }

    fn set(&self, offset: u64, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), offset).expect("writes");
    }
}

/// The newest first: each says what the file held before it.
fn take_back(file: &File, notes: &[u8]) -> u64 {
    let (mut changes, mut at, mut synced, mut lost) = (Vec::new(), 0, 0, 0);
    while at + NOTE_BYTES <= notes.len() {
        let number =
            |place: usize| i64::from_ne_bytes(notes[at + place..at + place + 8].try_into().expect("eight bytes"));
        let (offset, size, length) = (number(0), number(8) as u64, number(16) as usize);
        if at + NOTE_BYTES + length > notes.len() {
            // It was killed before it wrote what this is about.
            break;
        }
        match u64::try_from(offset) {
            Ok(offset) => changes.push((at as u64, offset, size, at + NOTE_BYTES..at + NOTE_BYTES + length)),
            Err(_) => synced = size,
        }
        at += NOTE_BYTES + length;
    }
    for (_, offset, size, old) in changes.into_iter().rev().filter(|(at, ..)| *at >= synced) {
        let before = file.metadata().expect("it is open").len();
        file.write_all_at(&notes[old.clone()], offset).expect("writes");
        file.set_len(size).expect("cuts");
        lost += before.saturating_sub(size) + old.len() as u64;
    }
    lost
}
