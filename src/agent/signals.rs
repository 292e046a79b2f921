//! Signals that the agent handles; `sys::disposition` says which it ignores.
//!
//! The first one that asks it to stop drains. A second SIGTERM, SIGINT or SIGQUIT ends the process at once, and does
//! not go through the loop, so it works even when the loop hangs. SIGCHLD matters only to PID 1, which inherits the
//! orphans of the whole container.

use crate::report::Reporter;
use crate::sys;
use async_signal::{Signal, Signals};
use futures_lite::StreamExt as _;

/// The report of a signal to the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalReport {
    /// The process received SIGTERM.
    Stop,
    /// The process received SIGUSR2.
    HandOver,
}

/// What the agent does at a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Drains; at the second of this kind it exits at once.
    Stop,
    /// Drains, however often it comes.
    Drain,
    /// Lets the program at the agent's own path take over.
    HandOver,
}

/// Every signal that is handled. SIGHUP is not where it was ignored at the start.
const SIGNALS: &[(Signal, &str, Action)] = &[
    (Signal::Term, "SIGTERM", Action::Stop),
    (Signal::Int, "SIGINT", Action::Stop),
    (Signal::Quit, "SIGQUIT", Action::Stop),
    (Signal::Hup, "SIGHUP", Action::Drain), // a terminal or session that ends sends it more than once
    (Signal::Usr1, "SIGUSR1", Action::Drain),
    (Signal::Xcpu, "SIGXCPU", Action::Drain), /* comes every second from the soft limit on, until SIGKILL at the
                                               * hard one */
    (Signal::Usr2, "SIGUSR2", Action::HandOver), // systemctl reload
];

/// Waits for signals for as long as the process lives.
///
/// # Errors
/// The handlers could not be installed.
pub fn listen(reporter: Reporter) -> std::io::Result<impl Future<Output = ()>> {
    let is_kept = |signal: Signal| signal == Signal::Hup && sys::disposition::is_hang_up_ignored();
    let mut signals = Signals::new(SIGNALS.iter().map(|(signal, ..)| *signal).filter(|signal| !is_kept(*signal)))?;
    Ok(async move {
        let (mut drains, mut stops) = (false, false);
        while let Some(signal) = signals.next().await {
            let Some((signal, name, action)) =
                signal.ok().and_then(|signal| SIGNALS.iter().find(|(handled, ..)| *handled == signal))
            else {
                continue;
            };
            match action {
                Action::HandOver => {
                    tracing::info!("received SIGUSR2");
                    reporter.report(SignalReport::HandOver).await;
                    continue;
                }
                Action::Stop if stops => {
                    tracing::warn!("received {name} again; exiting at once");
                    crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
                    std::process::exit(EXIT_BY_SIGNAL.saturating_add(*signal as i32));
                }
                Action::Stop => stops = true,
                Action::Drain => {}
            }
            if !std::mem::replace(&mut drains, true) {
                tracing::info!("received {name}; draining");
                reporter.report(SignalReport::Stop).await;
            }
        }
    })
}

/// The exit status of a process that a signal ended: this and its number.
const EXIT_BY_SIGNAL: i32 = 128;

/// Reaps what others leave behind, for as long as the process lives: as PID 1, and where an earlier program of the
/// process `left` children. Nothing to do for any other. To be polled once all that was taken over is known.
///
/// # Errors
/// The handler could not be installed.
pub fn reap_orphans(left: bool) -> std::io::Result<Option<impl Future<Output = ()>>> {
    if std::process::id() != 1 && !left {
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
