//! The peer transport of one node: one TCP connection per pair of nodes, carrying the frames of all groups.
//!
//! | file | what |
//! |---|---|
//! | `endpoint` | what the rest of the node uses: peers, replicas, hints, asks, shutdown |
//! | `network` | openraft's client side: encode, queue, await the reply |
//! | `peer` | dialling, accepting, running a connection until it ends |
//! | `handshake` | the first bytes: who is there, and is it one of us |
//! | `link` | one live connection: queue, pending requests, write loop, dead-peer watch |
//! | `lanes` | the queue: control overtakes bulk, groups take turns, large messages are cut |
//! | `frame`, `codec` | the format: frames and their bodies |
//! | `inbound` | what comes in, to the replica it names or to the node layer |
//! | `registry` | the replicas that take part |
//! | `appends` | appends on the receiving side, pipelined |
//! | `throttle` | which messages about strangers are logged |
//! | `send_snapshot`, `receive_snapshot` | a snapshot as a file, chunk by chunk |
//!
//! Nothing here decides anything: a frame that cannot be delivered is refused, and Raft sends again.

mod appends;
mod codec;
#[cfg(test)]
mod copies;
mod endpoint;
mod errors;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handshake;
mod inbound;
mod lanes;
mod link;
mod network;
mod pace;
mod peer;
mod receive_snapshot;
mod registry;
mod send_snapshot;
mod stats;
mod tasks;
mod throttle;
mod wire;

#[cfg(test)]
pub use copies::{Copied, WrittenFrames};
pub use endpoint::{ASK_BYTES_MAX, PeerState, Transport, TransportConfig};
pub use errors::{CallError, Refusal};
pub use inbound::{AskReply, Receiver};
pub use network::{GroupNetwork, PeerNetwork};
pub use registry::{RaftPort, SnapshotPlace};
#[cfg(test)]
pub use wire::{Listener, Stream};
pub use wire::{Tcp, Wire};

#[cfg(test)]
mod tests;
