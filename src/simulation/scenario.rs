//! What a run is of: the cluster, and what happens to it.

use crate::config::ReadMode;
use crate::raft::Fsync;
use crate::simulation::faults;
use crate::simulation::world::World;

#[derive(Clone, Copy)]
pub struct Scenario {
    /// By which a failing seed of it is run again.
    pub name: &'static str,
    pub nodes: usize,
    /// Machines beside those, whose nodes join when they are told to.
    pub spares: usize,
    /// One for each node if none.
    pub groups: Option<u32>,
    pub replicas: u32,
    pub election_ms_max: u64,
    pub fsync: Fsync,
    pub read_mode: ReadMode,
    /// Seconds after which a node that is away is given up.
    pub node_down_after: u32,
    /// Clocks are turned back too, and not ahead only; see `faults.rs`.
    pub late_clocks: bool,
    /// After it everything works again, and what clients were told is checked.
    pub disturb: fn(&mut World) -> Result<(), String>,
}

/// Of what seeds draw, when no script is named.
pub const DRAWN: &str = "drawn";

impl Scenario {
    /// Three nodes and any faults.
    pub const fn drawn() -> Self {
        Self {
            name: DRAWN,
            late_clocks: false,
            nodes: 3,
            spares: 0,
            groups: None,
            replicas: 3,
            election_ms_max: 400,
            fsync: Fsync::Always,
            read_mode: ReadMode::Lease,
            node_down_after: 300,
            disturb: faults::drawn,
        }
    }

    /// Of the seeds that are run for what they may find, every fifth has a log that is not synced before each acknowledgement: a power loss
    /// of one node may lose what it alone has, and that node must join anew.
    pub const fn of_seed(seed: u64) -> Self {
        let fsync = match seed % 10 {
            4 => Fsync::No,
            9 => Fsync::EverySec,
            _ => Fsync::Always,
        };
        Self { fsync, ..Self::drawn() }
    }
}
