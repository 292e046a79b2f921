//! Collects the state of the agent from the console's records.
//!
//! It neither draws nor waits. Every field from the agent may be missing or have another type. Times are instants;
//! sizes are bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use draupnir_console::{Record, What};
use serde_json::Value;

/// The most events that are kept.
const EVENTS_MAX: usize = 200;

/// The window over which messages a second are counted.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// The state of the link on the console's side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// No record of the agent yet.
    #[default]
    Awaited,
    /// It registered.
    Registered,
    /// A WebSocket is being opened.
    Connecting,
    /// A WebSocket is up.
    Connected,
    /// It received SIGTERM and drains.
    Draining,
    /// The link is down, and why.
    Lost(String),
    /// The agent has ended, and how.
    Exited(String),
}

/// Everything that the demo shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) link: Link,
    pub(crate) registrations: u64,
    pub(crate) connections: u32,
    pub(crate) heartbeats: u64,
    pub(crate) messages: u64,
    pub(crate) id: String,
    /// The address of the page, or why there is none; empty before it is asked for.
    pub(crate) page: String,
    /// The newest `registration`, heartbeat and metrics payloads.
    pub(crate) registration: Value,
    pub(crate) heartbeat: Value,
    pub(crate) metrics: Value,
    pub(crate) heartbeat_at: Option<Instant>,
    /// Newest last, each with the console's clock in milliseconds.
    pub(crate) events: VecDeque<(u64, String)>,
    /// When the newest messages came.
    recent: VecDeque<Instant>,
}

impl Model {
    /// Updates the model with one record.
    pub(crate) fn take(&mut self, record: &Record) {
        match &record.what {
            What::Registration(_, status @ 200..=299 | status @ 409) => {
                self.registrations += 1;
                self.turn(record, Link::Registered, &format!("registered ({status})"));
            }
            What::Registration(_, status) => {
                self.note(record, &format!("registration answered {status}"));
            }
            What::Upgrade(request) => {
                self.id = request.header("X-Instance-ID").unwrap_or_default().to_owned();
                self.link = Link::Connecting;
            }
            What::Opened => {
                self.connections += 1;
                self.turn(record, Link::Connected, &format!("connection {} is up", record.connection));
            }
            What::Ended(end) => {
                self.turn(record, Link::Lost(format!("{end:?}")), &format!("connection ended: {end:?}"));
            }
            What::Closed(code, reason) => {
                self.note(record, &format!("close {} {reason}", code.unwrap_or(1005)));
            }
            What::Text(_, frame) => self.take_frame(record, frame),
            What::Poison(why) => self.note(record, &format!("POISON: {why}")),
            What::Ping(_) | What::Pong(_) | What::Binary(_) => self.count(record),
            What::Attached | What::Unheard(..) | What::Other(_) => {}
        }
    }

    /// The agent received SIGTERM.
    pub(crate) fn drain(&mut self) {
        self.link = Link::Draining;
    }

    /// Messages a second, lately.
    pub(crate) fn messages_per_second(&self, now: Instant) -> f64 {
        let lately = self.recent.iter().filter(|at| now.saturating_duration_since(**at) < RATE_WINDOW).count();
        u32::try_from(lately).map_or(0.0, f64::from) / RATE_WINDOW.as_secs_f64()
    }

    /// Whether everything happened that a healthy agent does.
    pub(crate) fn is_healthy(&self) -> bool {
        self.registrations > 0 && self.connections > 0 && self.heartbeats > 0
    }

    /// The agent's uptime: that of its last heartbeat and the time since then.
    pub(crate) fn uptime(&self, now: Instant) -> Option<Duration> {
        let said = Duration::from_secs(self.heartbeat["uptime_seconds"].as_u64()?);
        Some(said + now.saturating_duration_since(self.heartbeat_at?))
    }

    fn take_frame(&mut self, record: &Record, frame: &Value) {
        self.count(record);
        let payload = frame["payload"].clone();
        match record.kind() {
            "registration" => self.registration = payload,
            "metrics" => self.metrics = payload,
            "heartbeat" => {
                self.heartbeats += 1;
                self.heartbeat_at = Some(record.at);
                self.heartbeat = payload;
            }
            "event" => {
                let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
                self.note(record, format!("{} {}", text("event_type"), text("message")).trim());
            }
            "terminal:closed" => self.note(record, &format!("terminal closed with {}", payload["exit_code"])),
            "command:result" => self.note(record, &format!("command ended with {}", payload["exit_code"])),
            _ => {}
        }
    }

    fn turn(&mut self, record: &Record, link: Link, words: &str) {
        let stays = matches!(self.link, Link::Draining | Link::Exited(_));
        if !stays {
            self.link = link;
        }
        self.note(record, words);
    }

    fn note(&mut self, record: &Record, words: &str) {
        self.events.push_back((record.at_ms, words.to_owned()));
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    fn count(&mut self, record: &Record) {
        self.messages += 1;
        self.recent.push_back(record.at);
        while self.recent.front().is_some_and(|at| record.at.saturating_duration_since(*at) >= RATE_WINDOW) {
            self.recent.pop_front();
        }
    }
}
