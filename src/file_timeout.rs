//! Limits the time of calls that open or read a file, so that a hanging file system does not block the start.
//!
//! The thread of a call that timed out stays until the file system answers or the process ends.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Time limit of one call. A disk in standby takes some seconds to spin up.
pub const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a call that may hang on its own thread, and waits for it.
///
/// # Errors
/// The call's own error, [`io::ErrorKind::TimedOut`] after [`FILE_TIMEOUT`], or the reason why no thread could be started.
pub fn run<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (sender, outcome) = sync_channel(1);
    thread::Builder::new().name("file".to_owned()).spawn(move || {
        // Fails only after the timeout, when the receiver is gone.
        let _ = sender.send(call());
    })?;
    match outcome.recv_timeout(FILE_TIMEOUT) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(timed_out()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread that read it failed")),
    }
}

/// The error of a call that timed out.
pub fn timed_out() -> io::Error {
    let text = format!("its file system did not answer within {} s", FILE_TIMEOUT.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_that_returns_gives_its_outcome() {
        assert_eq!(run(|| Ok(7)).expect("it returns"), 7);
        let error = run::<()>(|| Err(io::ErrorKind::NotFound.into())).expect_err("it failed");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn call_that_hangs_times_out() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let error = run(move || held.recv().map_err(io::Error::other)).expect_err("it hangs");
        assert_eq!(error.to_string(), "its file system did not answer within 5 s");
        drop(hold);
    }
}
