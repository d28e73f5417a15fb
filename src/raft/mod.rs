//! Replication: the log, the transport, groups and the meta group. openraft appears here alone.

mod acks;
mod addresses;
mod batch;
mod blocking;
mod chunk;
mod cohort;
mod directory;
mod formation;
#[cfg(fuzzing)]
pub mod fuzzing;
mod group;
mod group_op;
mod leadership;
mod lease;
mod log;
mod machine;
mod members;
mod membership;
mod meta;
mod move_calls;
mod move_op;
mod node_file;
mod page_parts;
mod peers;
mod pending;
pub mod power_loss;
pub mod promise;
mod proposer;
mod replica;
mod replication;
mod retention;
mod runtime;
mod slot_loads;
mod slots;
mod snapshot;
mod snapshot_file;
mod snapshot_files;
mod snapshot_io;
mod snapshot_turns;
mod space;
mod status;
mod submissions;
mod succession;
mod transport;
mod types;
mod upkeep;
mod walls;
mod window;

pub use addresses::{announce_address, find_peers};
pub use batch::FEATURE_LEVEL;
pub use blocking::blocking;
pub use chunk::{CHUNK_BYTES_MAX, Chunk, ChunkJob, ChunkOutcome};
pub use formation::{FormationConfig, FormationError, Formed, Newcomer, form};
#[cfg(test)]
pub use group::Witnessed;
pub use group::{Group, NoLeader, OUTCOME_WAIT_MAX, TransferError};
pub use lease::LeaseGuard;
pub use log::{Disk, Fsync, GroupLog, LogError, LogOptions, NodeLog, RealDisk, Recovered};
#[cfg(test)]
pub use log::{SimulatedLog, SimulatedWriter};
pub use members::{join_other, watch_membership};
pub use membership::{ChangeError, MembershipStatus};
pub use meta::ProposeError;
pub use move_calls::{CallMoveError, MoveAnswer, PART_BYTES, STEP_WAIT_MAX};
pub use node_file::{Membership, NodeFile, NodeRecord};
pub use peers::{PeerInbox, Question, answer_questions};
pub use replica::{Reads, ReplicaSeed, Timers};
pub use replication::{Coordinator, Replication, Route, Start};
pub use slot_loads::SlotLoad;
pub use slots::{Attempt, Held, MoveOp, Outcome, checksum_of};
pub use snapshot_file::SnapshotFile;
pub use snapshot_turns::SnapshotTurns;
pub use space::{Space, watch_space};
pub use status::LedGroup;
pub use succession::Heir;
pub use transport::{
    ASK_BYTES_MAX, AskReply, CallError, GroupNetwork, PeerNetwork, PeerState, RaftPort, Receiver, Refusal,
    SnapshotPlace, Tcp, Transport, TransportConfig, Wire,
};
#[cfg(test)]
pub use transport::{Copied, Listener, Stream, WrittenFrames};
pub use types::{Batch, Completion, Entry, LogId, Member, SnapshotMeta, StoredMembership, TypeConfig, Vote};
