//! Events of the agent's own: builds them, each with an id by which a receiver knows it again.
//!
//! It does not decide when an event is due; the machine does, and where a capability fails, the caller that noticed.

use crate::metrics::facts;
use crate::protocol::{Event, EventType, Figure, InstanceId, MessageId, Metadata, Timestamp};
use crate::sindri::{Change, ChangeKind};
use draupnir_fsm::driver::{ConsoleEvent, Disconnect, Problem};

/// Builds events.
#[derive(Debug)]
pub(super) struct Events {
    process: u64,
    number: u64,
}

impl Events {
    /// Events whose ids begin with `process`, drawn at random.
    pub(super) fn new(process: u64) -> Self {
        Self { process, number: 0 }
    }

    /// The id of the next message that may arrive twice.
    pub(super) fn next_id(&mut self) -> MessageId {
        self.number += 1;
        MessageId { process: self.process, number: self.number }
    }

    /// An event that the machine ordered, as a message.
    pub(super) fn encode(&mut self, event: ConsoleEvent, instance_id: &InstanceId) -> String {
        match event {
            ConsoleEvent::Deploy => {
                let machine = facts();
                let metadata = Metadata::new()
                    .with("agent_version", env!("CARGO_PKG_VERSION"))
                    .with("os_version", machine.os_version.as_str())
                    .with("kernel_version", machine.kernel_version.as_str());
                self.build(EventType::Deploy, "agent started", metadata, instance_id)
            }
            ConsoleEvent::Connect { attempts, offline_ms } => {
                let metadata = Metadata::new().with("attempts", u64::from(attempts)).with("offline_ms", offline_ms);
                self.build(EventType::Connect, "connected", metadata, instance_id)
            }
            ConsoleEvent::Disconnect { cause, code } => {
                let metadata = Metadata::new().with("cause", cause_name(cause));
                let metadata =
                    code.into_iter().fold(metadata, |metadata, code| metadata.with("close_code", u64::from(code)));
                self.build(EventType::Disconnect, cause_text(cause), metadata, instance_id)
            }
            ConsoleEvent::Error { problem } => {
                self.error("connection", &problem_text(problem, instance_id.as_str()), Metadata::new(), instance_id)
            }
        }
    }

    /// An `error` event about a capability that failed, as a message.
    pub(super) fn error(&mut self, source: &str, text: &str, metadata: Metadata, instance_id: &InstanceId) -> String {
        self.build(EventType::Error, text, metadata.with("source", source), instance_id)
    }

    /// An event about an extension, at the time of the ledger's entry, as a message.
    pub(super) fn extension(&mut self, change: &Change, instance_id: &InstanceId) -> String {
        let Change { kind, at, event_id, extension, version, from_version, duration_s, cli_version, error } = change;
        let (event_type, text) = match kind {
            ChangeKind::Installed => (EventType::ExtensionInstall, format!("extension {extension} installed")),
            ChangeKind::Upgraded => (EventType::ExtensionInstall, format!("extension {extension} upgraded")),
            ChangeKind::Removed => (EventType::ExtensionRemove, format!("extension {extension} removed")),
            ChangeKind::Failed(what) => (EventType::Error, format!("{what} of extension {extension} failed")),
        };
        let metadata = Metadata::new().with("source", "sindri").with("name", extension.as_str());
        let metadata = metadata.with("ledger_event_id", event_id.as_str());
        let optional = [
            ("version", version.as_deref().map(Into::into)),
            ("from_version", from_version.as_deref().map(Into::into)),
            ("duration_seconds", duration_s.map(Into::into)),
            ("cli_version", cli_version.as_deref().map(Into::into)),
            ("error", error.as_deref().map(Into::into)),
        ];
        let known = optional.into_iter().filter_map(|(name, value): (_, Option<Figure>)| Some((name, value?)));
        let metadata = known.fold(metadata, |metadata, (name, value)| metadata.with(name, value));
        let timestamp = (std::time::UNIX_EPOCH + *at).into();
        let id = self.next_id();
        Event { instance_id, event_type, id, message: Some(&text), metadata, timestamp }.message()
    }

    fn build(&mut self, event_type: EventType, text: &str, metadata: Metadata, instance_id: &InstanceId) -> String {
        let id = self.next_id();
        Event { instance_id, event_type, id, message: Some(text), metadata, timestamp: Timestamp::now() }.message()
    }
}

/// What a problem means and who must act.
pub(super) fn problem_text(problem: Problem, instance_id: &str) -> String {
    match problem {
        Problem::KeyRefused => {
            "the console refuses the API key: set a valid one in SINDRI_CONSOLE_API_KEY; trying on, slowly".into()
        }
        Problem::RegistrationRejected => {
            format!("the console rejects the registration: going on with the configured id {instance_id}")
        }
        Problem::Redirected => {
            "the console answers with a redirect, which is not followed: correct SINDRI_CONSOLE_URL".into()
        }
        Problem::UnknownInstance => format!("the console does not know the instance {instance_id}: registering again"),
        Problem::SharedInstanceId => format!(
            "the instance id {instance_id} was taken over by another connection twice in 15 minutes: two agents \
             share it; give each its own SINDRI_INSTANCE_ID"
        ),
    }
}

pub(super) fn cause_name(cause: Disconnect) -> &'static str {
    match cause {
        Disconnect::Closed => "closed",
        Disconnect::Lost => "lost",
        Disconnect::PongTimeout => "pong_timeout",
        Disconnect::WriteStalled => "write_stalled",
        Disconnect::Resync => "resync",
        Disconnect::Shutdown => "shutdown",
        Disconnect::HandOver => "hand_over",
    }
}

fn cause_text(cause: Disconnect) -> &'static str {
    match cause {
        Disconnect::Closed => "the console closed the connection",
        Disconnect::Lost => "the connection broke",
        Disconnect::PongTimeout => "the console did not answer in time",
        Disconnect::WriteStalled => "the connection took no more data",
        Disconnect::Resync => "reconnecting once to refresh the console's routing",
        Disconnect::Shutdown => "the agent stops",
        Disconnect::HandOver => "another program takes the agent's place",
    }
}
