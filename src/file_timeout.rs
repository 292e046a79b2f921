//! Limits the time of calls that open or read a file, so that a hanging file system does not block the start.
//!
//! The thread of a call that timed out stays until the file system answers or the process ends.

use async_io::Timer;
use futures_lite::future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Time limit of one call. A disk in standby takes some seconds to spin up.
pub const FILE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a call that may hang on another thread, and waits for it.
///
/// # Errors
/// The call's own error, or [`io::ErrorKind::TimedOut`] after [`FILE_TIMEOUT`].
pub fn run<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (sender, answer) = mpsc::channel();
    // A thread of its own: the pool of `blocking` tries for ever where this machine has no thread left.
    thread::Builder::new().name("file".into()).spawn(move || drop(sender.send(call())))?;
    answer.recv_timeout(FILE_TIMEOUT).unwrap_or_else(|_| Err(timed_out()))
}

/// Limits the time of what runs already.
///
/// # Errors
/// As [`run`].
pub async fn limit<T>(running: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timeout = async {
        Timer::after(FILE_TIMEOUT).await;
        Err(timed_out())
    };
    future::or(running, timeout).await
}

fn timed_out() -> io::Error {
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
        let (hold, held) = mpsc::channel::<()>();
        let error = run(move || held.recv().map_err(io::Error::other)).expect_err("it hangs");
        assert_eq!(error.to_string(), "its file system did not answer within 5 s");
        drop(hold);
    }
}
