//! Small disks that tests fill.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "kvf-disk-";
const BALLAST: &str = "ballast";

/// A file system in memory, mounted until it is dropped.
pub struct Disk {
    place: PathBuf,
}

impl Disk {
    /// `None` where mounting is not allowed. `size` as tmpfs takes it.
    pub fn mount(place: &Path, size: &str) -> Option<Self> {
        unmount_leftovers();
        std::fs::create_dir_all(place).expect("a directory");
        let (size, name) = (format!("size={size}"), format!("{NAME}{}", std::process::id()));
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, &name]).arg(place).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self { place: place.to_owned() })
    }

    /// Leaves no byte on it.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.place.join(BALLAST)).expect("a file of no length");
        let full = std::io::copy(&mut std::io::repeat(b'.'), &mut file).expect_err("no disk is endless");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    pub fn fill_with(&self, bytes: u64) {
        let mut file = std::fs::File::create(self.place.join(BALLAST)).expect("a file of no length");
        std::io::copy(&mut std::io::repeat(b'.').take(bytes), &mut file).expect("there is room");
    }

    pub fn free(&self) {
        std::fs::remove_file(self.place.join(BALLAST)).expect("the ballast is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

/// Disks of runs whose process is gone.
fn unmount_leftovers() {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines() {
        let mut words = mount.split(' ');
        let pid = words.next().and_then(|name| name.strip_prefix(NAME));
        let is_left = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if let Some(place) = words.next().filter(|_| is_left) {
            let _ = Command::new("umount").arg("--lazy").arg(place).status();
        }
    }
}
