//! How many files and sockets the process may have open, and how many clients that leaves room for.
//!
//! Without room for one more file the log could begin no segment, no snapshot could be written and no peer be accepted: clients get what is
//! left after a reserve for those. As in Redis the soft limit is raised to the hard one, and `maxclients` lowered where that does not suffice.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::NodeError;
use crate::config::Config;

/// For segments of the log, snapshots that are written, sent and received, peers, the HTTP port, and what each worker thread waits by.
const RESERVED: u64 = 256;
/// As many as `maxclients` can ask for.
const OPEN_FILES_MAX: u64 = 1_000_000 + RESERVED;

/// Lowers `maxclients` if need be; returns the most that it may be set to later.
pub fn make_room_for_clients(config: &mut Config) -> Result<u32, NodeError> {
    let most = clients_max(raise_limit())?;
    if config.maxclients > most {
        tracing::warn!(
            asked_for = config.maxclients,
            maxclients = most,
            reserved = RESERVED,
            "the limit of open files is too low for maxclients, which is lowered: raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
        config.maxclients = most;
    }
    Ok(most)
}

/// What the limit is then.
fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (current, wanted) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX).min(OPEN_FILES_MAX));
    if current >= wanted {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, current, wanted, "the limit of open files cannot be raised");
            current
        }
    }
}

fn clients_max(limit: u64) -> Result<u32, NodeError> {
    match limit.min(OPEN_FILES_MAX).saturating_sub(RESERVED) {
        0 => Err(format!(
            "at most {limit} files may be open (ulimit -n), and a node needs {RESERVED} beside its clients: raise the limit to {} at least",
            RESERVED + 1
        )
        .into()),
        most => Ok(u32::try_from(most).expect("below OPEN_FILES_MAX")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_reserve_leaves() {
        for (limit, most) in [(RESERVED + 1, 1), (1024, 768), (u64::MAX, 1_000_000)] {
            assert_eq!(clients_max(limit).unwrap(), most);
        }
        for limit in [0, 100, RESERVED] {
            let error = clients_max(limit).unwrap_err().to_string();
            assert!(
                error.contains(&format!("at most {limit} files")) && error.contains("raise the limit to 257"),
                "{error}"
            );
        }
    }
}
