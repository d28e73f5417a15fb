//! Directories and small files that are there after a power loss.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Creates the directory and those above it that are missing; returns when all that were created are durable.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    create_directory(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !directory.is_dir() => Err(error),
        Err(_) | Ok(()) => sync_directory(parent),
    }
}

/// Makes creations, renames and removals in the directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Returns once the file is durable under its name; after a crash before that it is the old one or this one, whole. An error names the path.
pub fn replace_file(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    write_synced(&temporary, parts).map_err(|error| named(&temporary, &error))?;
    let renamed = fs::rename(&temporary, path);
    let durable = renamed.and_then(|()| sync_directory(path.parent().expect("a file has a directory")));
    durable.map_err(|error| named(path, &error))
}

fn write_synced(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = File::create(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

/// The operator has to know which path is meant.
pub fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_directories_is_created_once_and_a_file_in_the_way_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("a/b/c");
        for _ in 0..2 {
            create_directory(&deep).expect("creates");
            assert!(deep.is_dir());
        }
        fs::write(directory.path().join("file"), b"").expect("writes");
        assert!(create_directory(&directory.path().join("file")).is_err());
        assert!(create_directory(&directory.path().join("file/below")).is_err());
    }
}
