//! Bytes to requests, replies to bytes. Knows RESP2, RESP3 and inline commands; knows no command.

mod args;
mod client;
mod inline;
mod limits;
mod reply;
mod request;

pub use args::{ArgRange, Args, OwnedArgs};
pub use client::{FRAME_BYTES_MAX, FRAME_DEPTH_MAX, Frame, FrameError, decode_frame, encode_command};
pub use limits::{LINE_BYTES_MAX, ProtocolError, ReadLimits};
pub use reply::{Cursor, Protocol, REPLY_BYTES_MAX, Replies, Reply};
pub use request::{RequestReader, Requests};
