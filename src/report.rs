//! The one channel through which the modules report to the loop.
//!
//! It is bounded: a module waits while the channel is full, and reads nothing meanwhile. The loop never waits for a
//! module, so there is no deadlock.

use crate::agent::sampling::SampleReport;
use crate::agent::signals::SignalReport;
use crate::audit::AuditReport;
use crate::command::CommandReport;
use crate::journal::JournalReport;
use crate::link::LinkReport;
use crate::llm::LlmReport;
use crate::logs::LogReport;
use crate::status::StatusReport;
use crate::terminal::TerminalReport;
use async_channel::{Receiver, Sender};
use draupnir_fsm::driver::HandOverInput;

/// How many reports may wait for the loop. As many as it takes in one turn: more would only add delay.
pub const REPORTS_MAX: usize = 64;

/// A report from any module.
#[derive(Debug)]
pub enum Report {
    /// From the link.
    Link(LinkReport),
    /// From a terminal.
    Terminal(TerminalReport),
    /// From a command.
    Command(CommandReport),
    /// From the audit.
    Audit(AuditReport),
    /// From the journal.
    Journal(JournalReport),
    /// From the sampler.
    Sample(SampleReport),
    /// From the signal handlers.
    Signal(SignalReport),
    /// From the proxy of AI tools.
    Llm(LlmReport),
    /// From the status socket.
    Status(StatusReport),
    /// From a follower of logs.
    Logs(LogReport),
    /// From a step of a hand-over.
    HandOver(HandOverInput),
}

impl From<HandOverInput> for Report {
    fn from(what: HandOverInput) -> Self {
        Self::HandOver(what)
    }
}

impl From<StatusReport> for Report {
    fn from(report: StatusReport) -> Self {
        Self::Status(report)
    }
}

impl From<LogReport> for Report {
    fn from(report: LogReport) -> Self {
        Self::Logs(report)
    }
}

impl From<LlmReport> for Report {
    fn from(report: LlmReport) -> Self {
        Self::Llm(report)
    }
}

impl From<AuditReport> for Report {
    fn from(report: AuditReport) -> Self {
        Self::Audit(report)
    }
}

impl From<JournalReport> for Report {
    fn from(report: JournalReport) -> Self {
        Self::Journal(report)
    }
}

impl From<SampleReport> for Report {
    fn from(report: SampleReport) -> Self {
        Self::Sample(report)
    }
}

impl From<SignalReport> for Report {
    fn from(report: SignalReport) -> Self {
        Self::Signal(report)
    }
}

impl From<LinkReport> for Report {
    fn from(report: LinkReport) -> Self {
        Self::Link(report)
    }
}

impl From<TerminalReport> for Report {
    fn from(report: TerminalReport) -> Self {
        Self::Terminal(report)
    }
}

impl From<CommandReport> for Report {
    fn from(report: CommandReport) -> Self {
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
