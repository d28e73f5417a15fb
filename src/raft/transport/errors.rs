//! What can go wrong between two nodes.

use std::io;

use thiserror::Error;

/// Why a connection is given up. All of these drop the connection and nothing else: the peer is dialled again.
#[derive(Debug, Error)]
pub enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    #[error("nothing heard from the peer for {0} ms")]
    Silent(u128),
    #[error("frame of {0} bytes is outside the limits")]
    FrameLength(u32),
    #[error("unknown frame kind {0}")]
    FrameKind(u8),
    #[error("damaged frame: {0}")]
    Damaged(&'static str),
    #[error("message of {0} bytes is too large to assemble")]
    MessageLength(u64),
    #[error("the peer does not read its replies: the queue for it is full")]
    QueueFull,
    #[error("refused: {0}")]
    Refused(String),
    #[error("refused by the peer: {0}")]
    RefusedByPeer(String),
    #[error("no handshake within {0} ms")]
    HandshakeTimedOut(u128),
    #[error("replaced by a newer connection of the same peer")]
    Replaced,
    #[error("the peer was removed")]
    Removed,
    #[error("this node is stopping")]
    Stopping,
}

/// Why a request has no answer. `NotConnected`, `QueueFull`, `TooLarge` mean that it was never sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("not connected")]
    NotConnected,
    #[error("the queue to the peer is full")]
    QueueFull,
    #[error("body is too large")]
    TooLarge,
    #[error("no answer in time")]
    TimedOut,
    #[error("the connection broke before the answer came")]
    Lost,
    #[error("refused by the peer: {0}")]
    Refused(Refusal),
    #[error("the answer cannot be read: {0}")]
    Unreadable(&'static str),
    #[error("the replica is too far behind to be sent entries")]
    Behind,
}

impl CallError {
    /// § An error says whether its effect is known: true if the peer may have acted on the request.
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::TimedOut | Self::Lost | Self::Unreadable(_) | Self::Behind => true,
            Self::NotConnected | Self::QueueFull | Self::TooLarge => false,
            Self::Refused(refusal) => match refusal {
                Refusal::NoSuchReplica | Refusal::Busy | Refusal::NoSpace => false,
                Refusal::Stopped | Refusal::NoTransfer | Refusal::SnapshotDamaged | Refusal::Storage => true,
            },
        }
    }
}

/// The peer's reason not to answer; travels as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[repr(u8)]
pub enum Refusal {
    #[error("no such replica there")]
    NoSuchReplica = 1,
    #[error("busy")]
    Busy = 2,
    #[error("stopped before it could answer")]
    Stopped = 3,
    #[error("no such snapshot transfer")]
    NoTransfer = 4,
    #[error("snapshot length or checksum do not match")]
    SnapshotDamaged = 5,
    #[error("storage error")]
    Storage = 6,
    #[error("no space on the disk there")]
    NoSpace = 7,
}

impl Refusal {
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NoSuchReplica,
            2 => Self::Busy,
            3 => Self::Stopped,
            4 => Self::NoTransfer,
            5 => Self::SnapshotDamaged,
            6 => Self::Storage,
            7 => Self::NoSpace,
            _ => return None,
        })
    }
}
