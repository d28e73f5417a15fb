//! Bytes to requests, replies to bytes. Knows RESP2, RESP3 and inline commands; knows no command.

mod args;
mod inline;
mod limits;
mod reply;
mod request;

pub use args::{ArgRange, Args, OwnedArgs};
pub use limits::{LINE_BYTES_MAX, ProtocolError, ReadLimits};
pub use reply::{Protocol, Reply};
pub use request::{RequestReader, Requests};
