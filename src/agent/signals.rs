//! Signals. SIGTERM and SIGINT: the first one drains, a second one ends the process at once.
//!
//! The second does not go through the loop, so that it works whatever hangs. SIGCHLD matters only to PID 1, which
//! inherits the orphans of the whole container.

use crate::report::Reporter;
use crate::restart::Past;
use crate::sys;
use async_signal::{Signal, Signals};
use futures_lite::StreamExt as _;

/// What a signal tells the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The process was told to stop.
    Stop,
}

/// Waits for signals for as long as the process lives.
///
/// # Errors
/// The handlers could not be installed.
pub fn listen(reporter: Reporter) -> std::io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    Ok(async move {
        let mut told = false;
        while let Some(signal) = signals.next().await {
            let Ok(signal) = signal else { continue };
            if told {
                tracing::warn!(signal = name(signal), "second signal: leaving at once");
                crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
                std::process::exit(exit_status(signal));
            }
            told = true;
            tracing::info!(signal = name(signal), "told to stop: draining");
            reporter.report(Report::Stop).await;
        }
    })
}

/// Reaps what others leave behind, for as long as the process lives: as PID 1, and after a restart, when there may be
/// children of an earlier life. Nothing to do for any other.
///
/// # Errors
/// The handler could not be installed.
pub fn reap_orphans(past: Past) -> std::io::Result<Option<impl Future<Output = ()>>> {
    if std::process::id() != 1 && !past.is_restart() {
        return Ok(None);
    }
    let mut signals = Signals::new([Signal::Child])?;
    Ok(Some(async move {
        loop {
            let reaped = sys::child::reap_orphans();
            tracing::debug!(reaped, "orphans reaped");
            if signals.next().await.is_none() {
                return;
            }
        }
    }))
}

/// The exit status of a process that a signal ended: 128 + its number.
fn exit_status(signal: Signal) -> i32 {
    if signal == Signal::Int { 130 } else { 143 }
}

fn name(signal: Signal) -> &'static str {
    if signal == Signal::Int { "SIGINT" } else { "SIGTERM" }
}
