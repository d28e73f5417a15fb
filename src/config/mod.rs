//! Every knob of a node: what it is called, what it may be, where its value comes from.
//!
//! * [`Config`] is one node's settings at start, resolved from flags, environment, file and defaults by [`load`].
//! * [`ConfigTable`] is what CONFIG GET, SET and REWRITE see: Redis's names for those settings and for the parameters
//!   Redis has and Kvorum merely remembers. The ones that take effect at run time are read through [`Tunables`].
//!
//! Layer 0: nothing here reads a file or a clock; callers bring the text.

mod load;
mod options;
mod parameters;
mod rewrite;
mod table;
mod units;

pub use load::{ConfigError, ConfigFile, Environment, LoadedConfig, load, unknown_variables};
pub use options::Config;
pub use table::{ConfigTable, Tunables};
pub use units::{Appendfsync, ByteSize, EvictionPolicy, HostPort, LogFormat, LogLevel, ReadMode, Secret, YesNo};
