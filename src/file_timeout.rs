//! Uses files at the start, each within a time limit: a file system that does not answer must not keep the agent from
//! starting.
//!
//! The thread of a call that does not come back stays until its file system answers or the process ends.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How long a file system has for one file. A disk that sleeps takes some seconds to wake.
pub const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a call that may hang on a thread of its own, and waits for it.
///
/// # Errors
/// The call's own, and [`io::ErrorKind::TimedOut`] where it did not come back in time. Another error says that no thread
/// could be started.
pub fn run<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (sender, outcome) = sync_channel(1);
    thread::Builder::new().name("file".to_owned()).spawn(move || {
        // Nobody listens any more where the time is over.
        let _ = sender.send(call());
    })?;
    match outcome.recv_timeout(FILE_TIMEOUT) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(timed_out()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("reading it failed")),
    }
}

/// What is said of a file system that does not answer.
pub fn timed_out() -> io::Error {
    let text = format!("its file system did not answer within {} s", FILE_TIMEOUT.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_that_comes_back_gives_its_outcome() {
        assert_eq!(run(|| Ok(7)).expect("it came back"), 7);
        let error = run::<()>(|| Err(io::ErrorKind::NotFound.into())).expect_err("it failed");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn call_that_hangs_is_given_up() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let error = run(move || held.recv().map_err(io::Error::other)).expect_err("it hangs");
        assert_eq!(error.to_string(), "its file system did not answer within 5 s");
        drop(hold);
    }
}
