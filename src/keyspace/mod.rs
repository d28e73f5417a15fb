//! One group's data: 16384 buckets of packed entries, readable under a shared lock, written by apply alone.
//!
//! Pure: no clock, no file, no task. Time, budgets and positions come from the callers; the only shared mutable state
//! outside the locks are counters and access marks, and neither is replicated.

mod access;
mod bucket;
mod delta;
#[cfg(test)]
mod delta_tests;
mod digest;
mod entry;
mod expiry;
mod export;
mod import;
mod prefetch;
mod record;
mod rope;
mod scan;
mod stage;
mod store;
mod table;
mod terms;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub use access::draw_anew;
pub use bucket::Bucket;
pub use delta::{Delta, Encoded};
pub use entry::{Encoding, Entry, Lookup, ValueType};
pub use export::BucketExport;
pub use import::ImportError;
pub use rope::{PIECE_BYTES, Patch, SharedValue};
pub use scan::ScanCursor;
pub use store::{Counters, Keyspace, WARMED_AT_ONCE};
pub use table::SubTable;
pub use terms::{Applied, HashSecret, Marking, Position, SlotState, Time, Value};
