//! CONFIG REWRITE's file access: the table says what the text becomes, this file replaces the old one safely.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::config::ConfigTable;

/// Writes changed settings into the file that the node was started with. Blocks on the disk: call it off the async
/// workers. After a crash the file is the old one or the new one, whole.
pub fn rewrite_config_file(table: &ConfigTable, path: &Path) -> io::Result<()> {
    let text = table.rewritten(&fs::read_to_string(path)?);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fresh = path.with_extension("toml.new");
    let mut file = File::create(&fresh)?;
    file.set_permissions(fs::metadata(path)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_file_holds_what_was_set_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvorum.toml");
        fs::write(&path, "# ours\n#timeout = 0\n").unwrap();
        let table = ConfigTable::new(&Config::default());
        table.set(&[("timeout", "30")]).unwrap();
        rewrite_config_file(&table, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# ours\ntimeout = 30\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
