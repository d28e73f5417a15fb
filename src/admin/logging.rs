//! Log lines to standard error, as text or JSON, with a level that CONFIG SET loglevel changes.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Changes the level while the node runs.
#[derive(Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
}

/// Sets up the process's logging; a second call (several nodes in one test process) leaves the first in place.
pub fn init_logging(level: LogLevel, format: LogFormat) -> LogControl {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = match format {
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(std::io::stderr).boxed(),
        LogFormat::Json => fmt::layer().json().with_writer(std::io::stderr).boxed(),
    };
    // The only error is that a subscriber is already set.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LogControl { filter: handle }
}

/// openraft tells its inner life, and warns at each heartbeat that a stopped node does not answer: that is shown from debug on. What an operator
/// has to know of it, lost peers, changes of leader and the end of a replica, is said by this crate.
fn filter_of(level: LogLevel) -> Targets {
    let (own, library) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::OFF),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::OFF),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::OFF),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
    };
    Targets::new().with_default(own).with_target("openraft", library)
}

impl LogControl {
    /// Without effect where `init_logging` found another subscriber in place.
    pub fn set_level(&self, level: LogLevel) {
        let _ = self.filter.reload(filter_of(level));
    }
}
