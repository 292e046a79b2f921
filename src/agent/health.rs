//! Answers the status socket, and notifies the service manager.
//!
//! The driver knows what is asked; this file adds what only the process knows, and puts it into words.

use super::Agent;
use super::events::cause_name;
use super::host::Host;
use crate::config::{CommandPolicy, TerminalPolicy};
use crate::llm::Listeners;
use crate::logging::holds_key;
use crate::protocol::Timestamp;
use crate::service::{Manager, sentence};
use crate::status::{Cause, LastError, Status, StatusReport, Vital, word};
use draupnir_fsm::driver::budget::BUDGET_BYTES;
use draupnir_fsm::driver::{LinkPhase, ServiceNotifier, Time};
use std::time::{Duration, SystemTime};

/// The longest error that is kept, in characters.
const ERROR_CHARACTERS_MAX: usize = 300;

/// The service manager, and what it has heard.
pub(super) struct Notifications {
    manager: Manager,
    pub(super) notifier: ServiceNotifier,
}

impl Notifications {
    /// The manager that the configuration names, if there is one.
    pub(super) fn new(config: Option<&crate::config::Service>) -> Option<Self> {
        let config = config?;
        match Manager::of(config) {
            Ok(manager) => Some(Self { manager, notifier: ServiceNotifier::new(config.watchdog_ms) }),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used; the service manager is not notified");
                None
            }
        }
    }
}

impl Notifications {
    /// Reports that another program takes the place of this one.
    pub(super) fn replacing(&self) {
        self.manager.reloading("Another program takes over");
    }
}

/// An error in words, and when it happened.
pub(super) struct NotedError {
    text: String,
    at: Time,
}

impl Host {
    /// Keeps an error as the last one. A console's text may hold anything, such as the key that it was sent.
    pub(super) fn note_error(&mut self, text: &str) {
        let text = if holds_key(&self.config.api_key, text) { "hidden, because it holds the API key" } else { text };
        let text = text.chars().take(ERROR_CHARACTERS_MAX).collect();
        self.last_error = Some(NotedError { text, at: self.epoch.elapsed() });
    }
}

impl Agent {
    /// Puts an answer where the socket waits for it.
    pub(super) fn status_report(&mut self, report: &StatusReport) {
        let (now, host) = (self.now, &self.host);
        let health = self.driver.health(now);
        let (seen, config) = (&health.snapshot, &host.config);
        let link = word(health.phase);
        let seconds_since = |at: Time| now.ms_since(at) / 1_000;
        let offline_seconds =
            if health.phase == LinkPhase::Online { 0 } else { seconds_since(health.online_changed_at) };
        let in_state = Duration::from_millis(now.ms_since(health.state_since));
        let status = Status {
            link,
            offline_seconds,
            state: seen.connection.state,
            state_since: SystemTime::now().checked_sub(in_state).map_or_else(Timestamp::now, Timestamp::from),
            state_seconds: in_state.as_secs(),
            console: config.console_url.to_string(),
            instance_id: host.instance_id().as_str(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: now.as_ms() / 1_000,
            last_heartbeat_seconds: health.heartbeat_at.map(seconds_since),
            round_trip_ms: health.round_trip_ms,
            reconnects_last_hour: health.reconnects_last_hour.iter().map(|(_, count)| u64::from(*count)).sum(),
            reconnect_causes: health
                .reconnects_last_hour
                .iter()
                .map(|(of, count)| Cause { cause: cause_name(*of), count: *count })
                .collect(),
            last_error: host
                .last_error
                .as_ref()
                .map(|error| LastError { seconds_ago: seconds_since(error.at), text: &error.text }),
            terminals: seen.sessions,
            commands: seen.commands,
            unacknowledged_messages: seen.messages,
            unacknowledged_bytes: seen.message_bytes as u64 + seen.stream_bytes_in_flight,
            dropped_messages: health.dropped,
            output_gaps: health.gaps,
            buffer_bytes: host.budget.granted(),
            buffer_limit_bytes: BUDGET_BYTES,
            journal: if config.journal { host.kept.journal.state() } else { "off" },
            terminals_lock: match config.terminal {
                TerminalPolicy::On => "open",
                TerminalPolicy::Off => "locked",
            },
            commands_lock: match config.commands {
                CommandPolicy::On => "open",
                CommandPolicy::Off => "locked",
                CommandPolicy::Allow(_) => "listed programs",
            },
            audit: match (&config.audit, host.is_audit_failing) {
                (None, _) => "off",
                (Some(_), false) => "on",
                (Some(_), true) => "not writable",
            },
            logs: host.logs.state(),
            log_files: host.logs.files(),
            llm_port: host.listeners.as_ref().and_then(Listeners::port),
            llm_records_waiting: health.usage_records,
        };
        let lines = [serde_json::to_string(&Vital { link, offline_seconds }), serde_json::to_string(&status)];
        let lines = lines.map(|line| line.expect("texts and numbers can be written as JSON") + "\n");
        // The socket waits for this one answer.
        let _ = report.answer.try_send(lines.concat().into_bytes());
    }

    /// Sends the service manager what is due in this turn.
    pub(super) fn notify_service(&mut self) {
        let Some(service) = &mut self.service else { return };
        let Some(notice) = service.notifier.poll(self.now, self.driver.link_phase()) else { return };
        let error = self.host.last_error.as_ref().map(|error| error.text.as_str());
        let text = sentence(notice.phase, &self.host.config.console_url.to_string(), error);
        match service.manager.notify(notice, &text) {
            Ok(()) => service.notifier.sent(self.now, notice),
            Err(error) => {
                tracing::debug!(%error, "the service manager was not notified");
                service.notifier.failed(self.now);
            }
        }
    }
}
