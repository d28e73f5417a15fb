//! What a client may send, by name; and Redis's words for going beyond it.

use thiserror::Error;

/// Words of one request. Redis had this limit up to 6.2; since 7.0 it takes 2^31, which would be 16 GiB of offsets here.
pub const WORD_COUNT_MAX: usize = 1024 * 1024;
/// The same before AUTH, where a stranger must not make the server work.
pub const WORD_COUNT_MAX_UNAUTHENTICATED: usize = 10;
/// Bytes of one word before AUTH.
pub const WORD_BYTES_MAX_UNAUTHENTICATED: u64 = 16384;
/// An inline request, or the line that announces a count or length. The byte that ends it, LF or CR, is not counted.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// One request, line breaks and announced lengths included: offsets of words are 32 bits wide.
pub const REQUEST_BYTES_MAX: usize = u32::MAX as usize;
/// Room for words that a reader and its `Requests` keep between turns; more is given back, or one huge MSET would cost
/// its connection 8 MiB for ever.
pub const KEPT_WORD_COUNT_MAX: usize = 16 * 1024;

/// Limits that the configuration sets.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// `proto-max-bulk-len`, in bytes.
    pub word_bytes_max: u64,
    /// Requests decoded at a time.
    pub requests_max: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { word_bytes_max: 512 * 1024 * 1024, requests_max: 1024 }
    }
}

/// Malformed input: the text goes to the client after `-ERR `, then the connection closes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("Protocol error: too big mbulk count string")]
    CountTooBig,
    #[error("Protocol error: invalid multibulk length")]
    Count,
    #[error("Protocol error: unauthenticated multibulk length")]
    CountUnauthenticated,
    #[error("Protocol error: too big bulk count string")]
    LengthTooBig,
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    NoDollar(u8),
    #[error("Protocol error: invalid bulk length")]
    Length,
    #[error("Protocol error: unauthenticated bulk length")]
    LengthUnauthenticated,
}
