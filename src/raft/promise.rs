//! For how long a leader may count on this node's word after a restart: the longest election timeout under which it may have given it.
//!
//! § A leader takes its lease from answers, and it lasts as they were given: a node that is started again with a shorter `election-timeout-max-ms` must not
//! vote by that before the old one is over. So the timeout is in a file, the longer one before anything is answered under it, the shorter one only
//! when the longer one is over.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::raft::directory::{named, replace_file};
use crate::raft::space::is_full;

const FILE_NAME: &str = "election-timeout-ms";

/// The longer of this timeout and what was promised before; durable.
pub fn renew(directory: &Path, timeout: Duration) -> io::Result<Duration> {
    let before = read(directory)?;
    if before.unwrap_or_default() < timeout {
        match keep(directory, timeout) {
            // Nothing was promised by another; a node must come up on a full disk, too.
            Err(error) if before.is_none() && is_full(&error) => {
                tracing::warn!(%error, "the election timeout cannot be kept: after a start with a shorter one this node may vote too soon");
            }
            kept => kept?,
        }
    }
    Ok(before.unwrap_or_default().max(timeout))
}

/// Longer than any lease that counts on an answer of this node from before it was started.
pub fn wait_after_restart(promised: Duration) -> Duration {
    promised.mul_f32(1.2)
}

/// From now on no more than this is promised.
pub fn keep(directory: &Path, timeout: Duration) -> io::Result<()> {
    replace_file(&directory.join(FILE_NAME), &[format!("{}\n", timeout.as_millis()).as_bytes()])
}

fn read(directory: &Path) -> io::Result<Option<Duration>> {
    let path = directory.join(FILE_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(&path, &error)),
    };
    let damaged = |_| {
        let text = format!(
            "{} is damaged: write the election-timeout-max-ms that this node was last run with into it",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    text.trim().parse().map(Duration::from_millis).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_timeout_is_kept_only_when_the_longer_one_is_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let [short, long] = [400, 4000].map(Duration::from_millis);
        let start = |timeout| renew(directory.path(), timeout).expect("is kept");
        assert_eq!([start(short), start(long), start(short), start(short)], [short, long, long, long]);
        keep(directory.path(), short).expect("is kept");
        assert_eq!(start(short), short);
        fs::write(directory.path().join(FILE_NAME), "soon").expect("writes");
        let error = renew(directory.path(), short).expect_err("refused").to_string();
        assert!(error.contains(FILE_NAME) && error.contains("damaged"), "{error}");
    }
}
