//! The agent's side of the driver's two doors: encodes messages and cuts bytes from terminals and commands.

use super::commands::Commands;
use super::events::{self, Events};
use super::health::NotedError;
use super::sampling::Sampling;
use super::sessions::Sessions;
use crate::audit::Audit;
use crate::config::Config;
use crate::identity::{Identity, IdentityStore};
use crate::link::Link;
use crate::llm::Listeners;
use crate::logs::Logs;
use crate::protocol::metrics::Stamped;
use crate::protocol::{Heartbeat, InstanceId, Inventory, Metadata, Registration, Timestamp, UsageRecord};
use crate::sindri::Change;
use crate::status::textfile::Textfile;
use async_tungstenite::tungstenite::Utf8Bytes;
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{
    Body, ByteSource, Chunk, ConsoleEvent, Drops, Encode, ErrorEvent, Gap, Input, MadeSnapshot, Message, NoteId,
    RegisterPath, SessionKey, StateKind, StreamKey,
};
use litemap::LiteMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// The body of a message, ready for the socket. In a replay its length alone is known.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(super) text: Utf8Bytes,
    size_bytes: usize,
}

impl Body for Text {
    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { size_bytes: text.len(), text: text.into() }
    }
}

impl From<Utf8Bytes> for Text {
    fn from(text: Utf8Bytes) -> Self {
        Self { size_bytes: text.len(), text }
    }
}

/// For replays, so that they run the very driver of the agent and the program holds no second one.
impl From<usize> for Text {
    fn from(size_bytes: usize) -> Self {
        Self { text: Utf8Bytes::default(), size_bytes }
    }
}

/// Something that the console should hear of, until the driver says whether it is sent.
pub(super) enum Note {
    /// Something failed.
    Error(ErrorNote),
    /// Another program has the port of the proxy of AI tools.
    PortTaken(String),
    /// An extension was installed, removed, or failed.
    Extension(Change),
}

/// A text about something that failed.
pub(super) struct ErrorNote {
    pub(super) source: &'static str,
    pub(super) text: String,
    pub(super) metadata: Metadata,
}

/// Everything but the driver.
pub(super) struct Host {
    pub(super) config: Rc<Config>,
    pub(super) epoch: super::clocks::Epoch,
    pub(super) link: Link,
    /// Which id and path are known, as long as the process lives.
    pub(super) identity: Identity,
    /// The same, across restarts.
    pub(super) store: IdentityStore,
    /// The path of the registration in flight: the one that worked is remembered.
    pub(super) registering_at: Option<RegisterPath>,
    pub(super) hostname: String,
    /// The operator set the id; otherwise the host name stands in for it.
    pub(super) is_named: bool,
    /// The software as it was last looked at.
    pub(super) inventory: Inventory,
    /// A heartbeat of the current link has reported it.
    pub(super) inventory_sent: bool,
    pub(super) events: Events,
    pub(super) sampling: Sampling,
    pub(super) sessions: Sessions,
    pub(super) commands: Commands,
    pub(super) audit: Audit,
    pub(super) logs: Logs,
    pub(super) kept: super::journal::Kept,
    /// What all buffers share.
    pub(super) budget: Rc<Budget>,
    /// What went wrong last.
    pub(super) last_error: Option<NotedError>,
    /// The file for a collector of metrics.
    pub(super) textfile: Option<Textfile>,
    /// The metrics of this turn, for that file.
    pub(super) sample_text: Option<Utf8Bytes>,
    /// The last audit line was not written.
    pub(super) is_audit_failing: bool,
    /// Why the audit log could not be written, as it last failed.
    pub(super) audit_problem: String,
    pub(super) notes: LiteMap<NoteId, Note>,
    pub(super) next_note: u32,
    /// Versions that were warned of on the current link.
    pub(super) versions_warned: Vec<String>,
    /// What keeps the agent from the console, as it was last logged: the same is not worth a line at each retry.
    pub(super) last_connect_error: Option<String>,
    /// How the console put its last refusal, until a problem is reported with it.
    pub(super) console_text: Option<String>,
    /// The sockets for AI tools; nothing where no tool is pointed at the agent.
    pub(super) listeners: Option<Listeners>,
    /// What a hand-over needs.
    pub(super) hand_over: super::hand_over::Steps,
    /// What the program before this one gave the driver, until its first turn.
    pub(super) taken_over: Vec<Input>,
    /// Usage records until the driver sends them.
    pub(super) usage: VecDeque<UsageRecord>,
}

impl Host {
    /// The id by which the console knows this instance: the one it gave, else the configured one.
    pub(super) fn instance_id(&self) -> &InstanceId {
        self.identity.id.as_ref().unwrap_or(&self.config.instance_id)
    }

    /// What the instance says about itself: by the configured id to register, by the console's on the link.
    pub(super) fn registration(&self, on_link: bool) -> Registration<'_> {
        Registration {
            instance_id: if on_link { self.instance_id() } else { &self.config.instance_id },
            hostname: &self.hostname,
            name: self.is_named.then_some(&self.config.instance_id),
            provider: self.config.provider.as_deref(),
            region: self.config.region.as_deref(),
            tags: &self.config.tags,
            inventory: &self.inventory,
            timestamp: Timestamp::now(),
        }
    }

    /// Keeps a text about something that failed until the driver has decided about it.
    pub(super) fn error_note(&mut self, source: &'static str, text: String, metadata: Metadata) -> NoteId {
        self.keep(Note::Error(ErrorNote { source, text, metadata }))
    }

    /// Keeps a note until the driver has decided about it.
    pub(super) fn keep(&mut self, note: Note) -> NoteId {
        let id = NoteId(self.next_note);
        self.next_note = self.next_note.wrapping_add(1);
        self.notes.insert(id, note);
        id
    }

    /// Takes in what software is installed now; the next heartbeat says so where that has changed.
    pub(super) fn learn(&mut self, inventory: Inventory) {
        self.inventory_sent &= self.inventory == inventory;
        self.inventory = inventory;
    }

    fn event(&mut self, event: ConsoleEvent) -> String {
        match event {
            ConsoleEvent::Deploy => {}
            ConsoleEvent::Connect { attempts, offline_ms } => {
                tracing::info!(instance_id = %self.instance_id(), attempts, offline_ms, "connected");
            }
            ConsoleEvent::Disconnect { cause, code } => tracing::info!(?cause, code, "disconnected"),
            ConsoleEvent::Error { problem } => tracing::debug!(?problem, "reporting an error to the console"),
        }
        let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
        self.events.encode(event, instance_id)
    }

    /// Logs an error and makes the event that reports it.
    fn error(&mut self, event: ErrorEvent) -> Option<String> {
        let ErrorNote { source, text, metadata } = match event {
            ErrorEvent::Note(note) => match self.notes.remove(&note)? {
                Note::Error(note) => note,
                Note::PortTaken(text) => {
                    tracing::error!("{text}");
                    let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
                    return Some(self.events.error("llm", &text, Metadata::new(), instance_id));
                }
                Note::Extension(change) => {
                    let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
                    return Some(self.events.extension(&change, instance_id));
                }
            },
            ErrorEvent::SessionRefused(session, refusal) => self.sessions.refused_note(session, refusal),
            ErrorEvent::SpawnFailed(session) => self.sessions.failed_note(session),
            ErrorEvent::CommandRefused(command) => self.commands.refused_note(command),
            ErrorEvent::Exhausted(command) => self.commands.failed_note(command),
            ErrorEvent::AuditUnavailable => {
                ErrorNote { source: "audit", text: self.audit_problem.clone(), metadata: Metadata::new() }
            }
            ErrorEvent::Gap(gap) => {
                let metadata =
                    Metadata::new().with("from", gap.from).with("to", gap.to).with("lost_bytes", gap.lost_bytes);
                let metadata = match self.id_of(gap.stream) {
                    Some((name, id)) => metadata.with(name, id),
                    None => metadata,
                };
                ErrorNote { source: "output", text: "output was lost while the console was away".into(), metadata }
            }
            ErrorEvent::Drops(drops) => {
                let metadata = Metadata::new()
                    .with("results", drops.results)
                    .with("closed", drops.closed)
                    .with("events", drops.events);
                let text = "messages that waited for the console were dropped".into();
                ErrorNote { source: "delivery", text, metadata }
            }
        };
        match event {
            ErrorEvent::Gap(Gap { stream, from, to, lost_bytes }) => {
                tracing::warn!(?stream, from, to, lost_bytes, "{text}");
            }
            ErrorEvent::Drops(Drops { results, closed, events }) => {
                tracing::error!(results, closed, events, "{text}");
            }
            ErrorEvent::Note(_)
            | ErrorEvent::SessionRefused(..)
            | ErrorEvent::SpawnFailed(_)
            | ErrorEvent::CommandRefused(_)
            | ErrorEvent::Exhausted(_)
            | ErrorEvent::AuditUnavailable => tracing::warn!(source, %metadata, "{text}"),
        }
        self.note_error(&format!("{source}: {text}"));
        let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
        Some(self.events.error(source, &text, metadata, instance_id))
    }

    fn id_of(&self, stream: StreamKey) -> Option<(&'static str, String)> {
        match stream {
            StreamKey::Terminal(session) => Some(("session_id", self.sessions.id(session)?.as_str().to_owned())),
            StreamKey::Stdout(command) | StreamKey::Stderr(command) => {
                Some(("command_id", self.commands.id(command)?.as_str().to_owned()))
            }
            StreamKey::Logs => None,
        }
    }

    fn state(&mut self, kind: StateKind) -> Option<String> {
        let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
        let timestamp = Timestamp::now();
        match kind {
            StateKind::Registration => Some(self.registration(true).message()),
            StateKind::Heartbeat => {
                let live = Some(self.sampling.live.take()?);
                let uptime_seconds = (self.epoch.elapsed().as_ms() / 1_000).into();
                // Once for each connection, and once after a change.
                let inventory = (!std::mem::replace(&mut self.inventory_sent, true)).then_some(&self.inventory);
                Some(Heartbeat { instance_id, timestamp, uptime_seconds, live, inventory }.message())
            }
            StateKind::Metrics => {
                let metrics = &self.sampling.metrics.take()?;
                Some(Stamped { instance_id, timestamp, metrics }.message())
            }
        }
    }

    fn encoded(&mut self, message: &Message) -> Option<String> {
        match *message {
            Message::State(kind) => self.state(kind),
            Message::Event(event) => Some(self.event(event)),
            Message::Error(event) => self.error(event),
            Message::Closed { session, end, exit_code } => {
                let id = self.events.next_id();
                self.sessions.closed(session, end, exit_code, id)
            }
            Message::Unopened { session, refusal } => {
                let id = self.events.next_id();
                self.sessions.unopened(session, refusal, &self.audit_problem, id)
            }
            Message::Result { command, end, exit_code } => self.commands.result(command, end, exit_code),
            // Its text is ready, see `encode`.
            Message::Restored { .. } => None,
            Message::Usage { records } => {
                let count = usize::try_from(records).map_or(0, |records| records.min(self.usage.len()));
                let records: Vec<UsageRecord> = self.usage.drain(..count).collect();
                (!records.is_empty()).then(|| UsageRecord::batch(&records))
            }
            Message::Unrun { command, refusal } => self.commands.unrun(command, refusal, &self.audit_problem),
        }
    }
}

impl Encode for Host {
    type Body = Text;

    fn encode(&mut self, message: &Message) -> Option<Text> {
        if let Message::Restored { number } = *message {
            return self.kept.take_text(number);
        }
        let text = self.encoded(message).map(Text::from)?;
        if self.textfile.is_some() && matches!(message, Message::State(StateKind::Metrics)) {
            self.sample_text = Some(text.text.clone());
        }
        Some(text)
    }

    fn shorten(&mut self, body: &Text, bytes_max: usize) -> Option<Text> {
        crate::protocol::shortened(&body.text, bytes_max).map(Text::from)
    }
}

impl ByteSource for Host {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        match stream {
            StreamKey::Terminal(session) => self.sessions.held(session),
            StreamKey::Stdout(command) | StreamKey::Stderr(command) => self.commands.held(command, stream),
            StreamKey::Logs => self.logs.offsets(),
        }
    }

    fn cut(&mut self, stream: StreamKey, cut: Chunk) -> (usize, Option<Text>) {
        let (bytes, text) = match (stream, cut) {
            (StreamKey::Terminal(session), cut) => self.sessions.cut(session, cut),
            (StreamKey::Stdout(command) | StreamKey::Stderr(command), Chunk::Bytes { from, max }) => {
                self.commands.cut(command, stream, from, max)
            }
            (StreamKey::Logs, Chunk::Bytes { from, max }) => self.logs.cut(from, max),
            // Commands and logs have no screen.
            (StreamKey::Stdout(_) | StreamKey::Stderr(_) | StreamKey::Logs, Chunk::Snapshot { .. }) => (0, None),
        };
        (bytes, text.map(Text::from))
    }

    fn snapshot(&mut self, session: SessionKey, from: u64, size: Option<(u16, u16)>) -> MadeSnapshot {
        self.sessions.snapshot(session, from, size)
    }
}

/// What the log says about a problem of the connection.
pub(super) fn problem_text(problem: draupnir_fsm::driver::Problem, instance_id: &InstanceId) -> String {
    events::problem_text(problem, instance_id.as_str())
}
