//! When to stop: SIGTERM, SIGINT, or the end of the parent process.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Resolves once the process is asked to stop, with the reason for the log. With `exit_with_parent` the end of standard
/// input counts too: `kvorum local` holds the other end, so its death, however sudden, closes it. Errors when the
/// signals cannot be watched.
pub async fn shutdown_signal(exit_with_parent: bool) -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (parent, parent_gone) = oneshot::channel();
    if exit_with_parent {
        // A plain thread, not joined: its read of standard input cannot be cancelled and ends with the process.
        std::thread::Builder::new().name("parent".to_string()).spawn(move || {
            let mut stdin = std::io::stdin().lock();
            while matches!(stdin.read(&mut [0; 256]), Ok(count) if count > 0) {}
            // The receiver is gone when a signal came first.
            let _ = parent.send(());
        })?;
        tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
            _ = parent_gone => Ok("the parent process ended"),
        }
    } else {
        tokio::select! {
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
        }
    }
}

/// Resolves when the value is true or nobody is left to say so.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard it returns must not live on into the caller's await points.
    let _ = stop.wait_for(|stopped| *stopped).await;
}
