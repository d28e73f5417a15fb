//! A node that is alone and empty gives up the cluster of one that it is, and starts again as a member of another: CLUSTER MEET.
//!
//! § It stops first, so that nobody writes to what it gives up, and looks again whether it is empty. What it had is set aside, not deleted.
//! If the other cluster does not take it, it starts again as it was.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use super::{NodeError, open_log};
use crate::cluster::Address;
use crate::config::Config;
use crate::raft::{self, FormationConfig, NodeRecord, power_loss};

/// `alone` says why not, if the node is not.
pub async fn meet(config: &Config, formation: &FormationConfig, address: &Address, alone: Result<(), String>) {
    let joined = match alone {
        Ok(()) => raft::join_other(formation, config.replicas, address).await,
        Err(reason) => Err(reason),
    };
    let aside = joined.and_then(|record| begin_anew(config, &record).map_err(|error| error.to_string()));
    match aside {
        Ok(aside) => tracing::info!(
            %address, aside = %aside.display(),
            "this node has joined another cluster and starts again; what it was is set aside and may be deleted"
        ),
        Err(reason) => tracing::error!(
            %address, reason, "this node could not join the other cluster and starts again as it was"
        ),
    }
}

/// Where what the node had is now.
fn begin_anew(config: &Config, record: &NodeRecord) -> Result<PathBuf, NodeError> {
    power_loss::announce_new_member(&config.data_dir)?;
    let aside = power_loss::set_aside(&config.data_dir, record)?;
    open_log(config, false)?.0.close();
    power_loss::settled(&config.data_dir)?;
    Ok(aside)
}

/// As the same process, with the same flags. Returns only if that fails.
pub fn start_again() -> String {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return format!("start this node again: its program is not to be found: {error}"),
    };
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
    format!("start this node again: it could not do so itself: {error}")
}
