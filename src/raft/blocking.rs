//! Work that blocks: files, long computations.

use std::io;

/// Lets others have the core, in blocking work that is in no hurry.
pub fn rest(duration: std::time::Duration) {
    #[cfg(test)]
    if crate::clock::simulated::clocks().is_some() {
        return;
    }
    std::thread::sleep(duration);
}

/// Runs what blocks where it holds up no worker's tasks. Err if it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    // A simulation has no other threads: when they finish would depend on more than its seed. It draws when they begin.
    #[cfg(test)]
    if crate::clock::simulated::clocks().is_some() {
        let late = if crate::random::draw_u64().is_multiple_of(4) { 200 } else { 8 };
        tokio::time::sleep(std::time::Duration::from_millis(crate::random::draw_u64() % late)).await;
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
