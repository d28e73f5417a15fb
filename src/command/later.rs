//! Replies that take too long to be written while a bucket is locked: large values, and LCS.

use bytes::Bytes;

use crate::keyspace::Entry;
use crate::protocol::Reply;

use super::lcs::LcsJob;

/// § At most 256 KiB are copied under a bucket's lock; a pipeline of smaller values takes the lock anew for each.
const LARGE_BYTES_MIN: usize = 64 * 1024;

/// The rest of a read, for when the bucket's lock is gone.
#[derive(Debug)]
pub enum Later {
    Bulk(Bytes),
    /// Bulks and nulls, as MGET answers.
    Array(Vec<Option<Bytes>>),
    Lcs(Box<LcsJob>),
}

impl Later {
    /// Appends the whole reply.
    pub fn reply(self, reply: &mut Reply) {
        match self {
            Self::Bulk(value) => reply.bulk_shared(&value),
            Self::Array(values) => {
                reply.array(values.len());
                for value in values {
                    match value {
                        Some(value) => reply.bulk_shared(&value),
                        None => reply.null(),
                    }
                }
            }
            Self::Lcs(job) => job.run(reply),
        }
    }
}

/// The value if it is too large to be copied under the lock.
pub(super) fn large(entry: &Entry<'_>) -> Option<Bytes> {
    entry.shared().filter(|value| value.len() >= LARGE_BYTES_MIN)
}

/// The value, large or not, to be kept beyond the lock.
pub(super) fn keep(entry: &Entry<'_>) -> Bytes {
    entry.shared().unwrap_or_else(|| Bytes::copy_from_slice(entry.value()))
}
