//! Bytes to requests, replies to bytes. Knows RESP2, RESP3 and inline commands; knows no command.

mod args;

pub use args::{ArgRange, Args, OwnedArgs};
