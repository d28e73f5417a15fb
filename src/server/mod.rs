//! Clients: accepting them, their connections, what becomes of each request, and the commands that a node answers itself.
//!
//! `listener` accepts, `connection` reads and writes, `turn` answers what one read completed, `dispatch` decides about one request,
//! `stretch` runs reads and plans writes, `settle` waits for commits and leaders, `places` puts replies in order.

mod clients;
mod commands;
mod connection;
mod dispatch;
mod latency;
mod listener;
mod migrations;
mod node_questions;
mod notifications;
mod output;
mod parking;
mod pause;
mod places;
mod process;
mod rates;
mod session;
mod settle;
mod shared;
#[cfg(test)]
mod simulated;
mod slot_intents;
mod slowlog;
mod stats;
mod stretch;
mod turn;

pub use clients::{Client, ClientFilter, ClientNames, Clients, Signal};
pub use commands::REDIS_VERSION;
pub use listener::Listener;
pub use notifications::notify_clients;
pub use shared::Shared;
#[cfg(test)]
pub use simulated::SimulatedConnection;
pub use stats::Stats;
