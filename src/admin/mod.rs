//! What an operator touches: the command line, the HTTP port, logs, and the commands that look at or run clusters.
//!
//! Below the server: nothing here executes a client's command. `main` gives [`run`] the function that runs a node.

mod cli;
mod client;
mod config_file;
mod http;
mod local;
mod local_directory;
mod logging;
mod moving;
mod operate;
mod signals;
mod status;

pub use cli::{NodeError, RunNode, run};
pub use config_file::rewrite_config_file;
pub use http::{Health, HttpPages, serve_http};
pub use logging::{LogControl, init_logging};
pub use signals::shutdown_signal;
