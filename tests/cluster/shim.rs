//! A library that is loaded into a node before the C library, to make it meet what a test machine does not have: a disk that cannot
//! sync, a wall clock that jumps. Needs `cc`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::Node;

/// Shared with the nodes it was given to, in the layout of `shim.c`'s `struct control`.
pub struct Shim {
    control: File,
    path: PathBuf,
    library: PathBuf,
}

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
        let shim = Self { control: control.expect("a file"), path, library };
        shim.fail_syncs(false);
        shim.shift_wall_clock(0);
        Some(shim)
    }

    /// From the node's next start on.
    pub fn load_into(&self, node: &mut Node) {
        node.set_environment("LD_PRELOAD", &self.library.display().to_string());
        node.set_environment("KVORUM_TEST_SHIM", &self.path.display().to_string());
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.set(0, i64::from(fail));
    }

    /// To so much ahead of the machine's.
    pub fn shift_wall_clock(&self, ahead_seconds: i64) {
        self.set(8, ahead_seconds);
    }

    fn set(&self, offset: u64, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), offset).expect("writes");
    }
}
