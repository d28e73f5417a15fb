//! The one integration-test binary: a single link, and tests that start real nodes can share their harness.

mod cluster;
mod command_line;
mod faults;
mod host;
mod tidy;
