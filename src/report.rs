//! The one channel through which the modules report to the loop.
//!
//! It is bounded: a module waits while the channel is full, and reads nothing meanwhile. The loop never waits for a
//! module, so there is no deadlock.

use crate::agent::{sampling, signals};
use crate::{audit, command, link, terminal};
use async_channel::{Receiver, Sender};

/// How many reports may wait for the loop. As many as it takes in one turn: more would only add delay.
pub const REPORTS_MAX: usize = 64;

/// A report from any module.
#[derive(Debug)]
pub enum Report {
    /// From the link.
    Link(link::Report),
    /// From a terminal.
    Terminal(terminal::Report),
    /// From a command.
    Command(command::Report),
    /// From the audit.
    Audit(audit::Report),
    /// From the sampler.
    Sample(sampling::Report),
    /// From the signal handlers.
    Signal(signals::Report),
}

impl From<audit::Report> for Report {
    fn from(report: audit::Report) -> Self {
        Self::Audit(report)
    }
}

impl From<sampling::Report> for Report {
    fn from(report: sampling::Report) -> Self {
        Self::Sample(report)
    }
}

impl From<signals::Report> for Report {
    fn from(report: signals::Report) -> Self {
        Self::Signal(report)
    }
}

impl From<link::Report> for Report {
    fn from(report: link::Report) -> Self {
        Self::Link(report)
    }
}

impl From<terminal::Report> for Report {
    fn from(report: terminal::Report) -> Self {
        Self::Terminal(report)
    }
}

impl From<command::Report> for Report {
    fn from(report: command::Report) -> Self {
        Self::Command(report)
    }
}

/// The sending end: each module has one and sends its own kind of report.
#[derive(Clone, Debug)]
pub struct Reporter {
    sender: Sender<Report>,
}

impl Reporter {
    /// Sends a report to the loop and waits while the channel is full. Drops the report if the loop has ended.
    pub async fn report(&self, report: impl Into<Report>) {
        // The loop drops the channel only when the process ends.
        let _ = self.sender.send(report.into()).await;
    }
}

/// The channel, once per process.
pub fn channel() -> (Reporter, Receiver<Report>) {
    let (sender, receiver) = async_channel::bounded(REPORTS_MAX);
    (Reporter { sender }, receiver)
}
