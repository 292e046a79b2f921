//! Writes real frames for the driver's orders in simulation and fuzzing, and records them for the check against the
//! schema.
//!
//! If `DRAUPNIR_FRAMES` names a file, each recorded frame is a line of it, and `tests/scripts/contract.py` validates
//! all of them at the end of a run. Ids and offsets come from the order. Texts and figures are hostile on purpose:
//! every frame that the types of the wire allow must validate.

use draupnir::llm::provider::PROVIDERS;
use draupnir::logs::record::Origin;
use draupnir::logs::splitter::Record;
use draupnir::logs::time::Zone;
use draupnir::protocol::metrics::{Cpu, Disk, DiskIo, Live, Metrics, Stamped};
use draupnir::protocol::{
    Captured, ClosedReason, CommandId, CommandOutput, CommandResult, Count, Event, EventType, Heartbeat, InstanceId,
    Inventory, MessageId, Metadata, OutputStream, Percent, Ratio, Registration, ResultReason, SessionId,
    TerminalClosed, TerminalOutput, Timestamp, UsageRecord, log_batch,
};
use draupnir_fsm::delivery::StateKind;
use draupnir_fsm::driver::{self, Chunk, CommandRefusal, ErrorEvent, Message, SessionRefusal, StreamKey};
use draupnir_fsm::order::{CommandEnd, Refusal, SessionEnd};
use draupnir_sim::tap::Encoded;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most frames that one process records unless `DRAUPNIR_FRAMES_MAX` sets another number: enough of each kind,
/// seconds to validate.
const NOTED_MAX: u64 = 2_000;

/// The longest part of a stream in one frame, in bytes: longer ones show nothing else.
const CHUNK_BYTES_MAX: u64 = 512;

static FILE: LazyLock<Option<File>> = LazyLock::new(|| {
    let path = std::env::var_os("DRAUPNIR_FRAMES")?;
    Some(OpenOptions::new().create(true).append(true).open(path).expect("the list of frames can be written"))
});

static LEFT: LazyLock<AtomicU64> = LazyLock::new(|| {
    let most = std::env::var("DRAUPNIR_FRAMES_MAX").ok().and_then(|text| text.parse().ok());
    AtomicU64::new(most.unwrap_or(NOTED_MAX))
});

/// Whether another frame should be recorded.
pub fn is_wanted() -> bool {
    FILE.is_some() && LEFT.load(Ordering::Relaxed) > 0
}

/// Records a frame with its writer and its definition in the schema.
pub fn note(by: &str, definition: &str, frame: &str) {
    let Some(mut file) = FILE.as_ref() else { return };
    if LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
        return;
    }
    let line = format!("{{\"by\":\"{by}\",\"as\":\"{definition}\",\"frame\":{frame}}}\n");
    file.write_all(line.as_bytes()).expect("the list of frames can be written");
}

/// Records the frame that the agent would send.
pub fn note_encoded(by: &str, encoded: Encoded) {
    if is_wanted()
        && let Some(frame) = frame(encoded)
    {
        note(by, "AgentMessage", &frame);
    }
}

/// The frame that the agent would send; none for a message that an earlier process wrote.
pub fn frame(encoded: Encoded) -> Option<String> {
    match encoded {
        Encoded::Message(message) => Writer::new().message(message),
        Encoded::Chunk { stream, cut, bytes } => Some(chunk(stream, cut, bytes)),
    }
}

/// Counts frames, so that two of them differ.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Chooses the content of each frame by its number.
struct Writer {
    number: u64,
    instance_id: InstanceId,
}

impl Writer {
    fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { number, instance_id: InstanceId::new(&"~".repeat(100)).expect("the longest id") }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::now()
    }

    fn id(&self) -> MessageId {
        MessageId { process: self.number, number: self.number >> 3 }
    }

    /// Any bits as a number: also negative numbers, infinity and NaN.
    fn fraction(&self) -> f64 {
        [f64::from_bits(self.number), f64::NAN, f64::INFINITY, -1.5, 12.345, 1e300][self.place(6)]
    }

    fn place(&self, places: u64) -> usize {
        usize::try_from(self.number % places).unwrap_or_default()
    }

    fn text(&self) -> &'static str {
        ["", "a\0b", "\u{1}\"\\\n", "é€😀", "\u{2028}\u{fffe}\u{7f}"][self.place(5)]
    }

    fn message(&self, message: Message) -> Option<String> {
        Some(match message {
            Message::State(StateKind::Registration) => self.registration(),
            Message::State(StateKind::Heartbeat) => self.heartbeat(),
            Message::State(StateKind::Metrics) => self.metrics(),
            Message::Event(event) => self.event(event),
            Message::Error(error) => self.error(error),
            Message::Usage { records } => self.usage(records),
            Message::Closed { session, end, exit_code } => {
                let reason = match end {
                    SessionEnd::Exited => ClosedReason::Exited,
                    SessionEnd::Closed => ClosedReason::Closed,
                    SessionEnd::Drained => ClosedReason::Drained,
                    SessionEnd::Orphaned => ClosedReason::Orphaned,
                    SessionEnd::SpawnFailed => ClosedReason::SpawnFailed,
                    SessionEnd::Interrupted => ClosedReason::Interrupted,
                };
                self.closed(session.0.into(), reason, exit_code)
            }
            Message::Unopened { session, refusal } => {
                let reason = match refusal {
                    SessionRefusal::Draining => ClosedReason::Drained,
                    SessionRefusal::Closed => ClosedReason::Closed,
                    SessionRefusal::Policy => ClosedReason::RefusedByPolicy,
                    SessionRefusal::Busy | SessionRefusal::Ending => ClosedReason::Busy,
                    SessionRefusal::AuditUnavailable => ClosedReason::AuditUnavailable,
                    SessionRefusal::Invalid => ClosedReason::Invalid,
                };
                self.closed(session.0.into(), reason, 0)
            }
            Message::Result { command, end, exit_code } => {
                let reason = (end == CommandEnd::Interrupted).then_some(ResultReason::Interrupted);
                self.result(command.0.into(), Some(end), exit_code, reason)
            }
            Message::Restored { .. } => return None,
            Message::Unrun { command, refusal } => {
                let reason = match refusal {
                    CommandRefusal::Refused(Refusal::Busy) => ResultReason::Busy,
                    CommandRefusal::Refused(Refusal::Forgotten) => ResultReason::Forgotten,
                    CommandRefusal::Refused(Refusal::Draining) => ResultReason::Draining,
                    CommandRefusal::Policy => ResultReason::RefusedByPolicy,
                    CommandRefusal::AuditUnavailable => ResultReason::AuditUnavailable,
                    CommandRefusal::Invalid => ResultReason::Invalid,
                };
                self.result(command.0.into(), None, 126, Some(reason))
            }
        })
    }

    fn inventory(&self) -> Inventory {
        let names = ["b\0", "node", "node", "\u{85}", "é"].map(str::to_owned).to_vec();
        Inventory::new(Some(["ubuntu", "debian", "a\0", ""][self.place(4)]), (self.place(3) > 0).then_some(names))
    }

    fn registration(&self) -> String {
        let tags = BTreeMap::from([(self.text().to_owned(), self.text().to_owned())]);
        let registration = Registration {
            instance_id: &self.instance_id,
            hostname: self.text(),
            name: (self.place(2) == 0).then_some(&self.instance_id),
            provider: [None, Some("docker"), Some("k8s"), Some("")][self.place(4)],
            region: [None, Some("fra"), Some("")][self.place(3)],
            tags: &tags,
            inventory: &self.inventory(),
            timestamp: self.timestamp(),
        };
        registration.message()
    }

    fn heartbeat(&self) -> String {
        let count = Count::new(self.number);
        let live = Live {
            cpu_percent: Percent::new(self.fraction()),
            memory_used: count,
            memory_total: count,
            disk_used: count,
            disk_total: count,
        };
        let inventory = self.inventory();
        let heartbeat = Heartbeat {
            instance_id: &self.instance_id,
            timestamp: self.timestamp(),
            uptime_seconds: count,
            live: (self.place(2) == 0).then_some(live),
            inventory: (self.place(3) == 0).then_some(&inventory),
        };
        heartbeat.message()
    }

    fn metrics(&self) -> String {
        let (count, percent) = (Count::new(self.number), Percent::new(self.fraction()));
        let some = |value| (self.place(2) == 0).then_some(value);
        let disk = Disk {
            mount_point: self.text().into(),
            device: self.text().into(),
            fs_type: self.text().into(),
            total_bytes: count,
            used_bytes: count,
            free_bytes: count,
            usage_percent: percent,
            inodes_total: some(count),
            inodes_used: some(count),
            read_bytes_per_second: some(count),
            write_bytes_per_second: some(count),
        };
        let metrics = Metrics {
            cpu: Cpu {
                usage_percent: percent,
                load_avg_1: Ratio::new(self.fraction()),
                per_core: vec![percent; self.place(4)],
                steal_percent: (self.place(3) == 0).then_some(percent),
                ..Cpu::default()
            },
            disk: vec![disk; self.place(3)],
            disk_io: (self.place(4) == 0).then(|| DiskIo { read_bytes_per_second: count, ..DiskIo::default() }),
            ..Metrics::default()
        };
        Stamped { instance_id: &self.instance_id, timestamp: self.timestamp(), metrics: &metrics }.message()
    }

    fn event(&self, event: driver::ConsoleEvent) -> String {
        let (event_type, metadata) = match event {
            driver::ConsoleEvent::Deploy => (EventType::Deploy, Metadata::new().with("kernel_version", self.text())),
            driver::ConsoleEvent::Connect { attempts, offline_ms } => {
                let metadata = Metadata::new().with("attempts", u64::from(attempts)).with("offline_ms", offline_ms);
                (EventType::Connect, metadata)
            }
            driver::ConsoleEvent::Disconnect { cause, code } => {
                let metadata = Metadata::new().with("cause", format!("{cause:?}"));
                let metadata = code.into_iter().fold(metadata, |data, code| data.with("close_code", u64::from(code)));
                (EventType::Disconnect, metadata)
            }
            driver::ConsoleEvent::Error { problem } => {
                (EventType::Error, Metadata::new().with("problem", format!("{problem:?}")))
            }
        };
        self.event_message(event_type, metadata)
    }

    fn usage(&self, records: u32) -> String {
        let some = |value| (self.place(2) == 0).then_some(value);
        let record = UsageRecord {
            provider: PROVIDERS[self.place(PROVIDERS.len() as u64)].name,
            model: format!("m{}", self.text()),
            operation: ["chat", "embedding", "image", "audio", "rerank"][self.place(5)],
            input_tokens: self.number,
            output_tokens: self.number >> 33,
            cache_read_tokens: some(self.number),
            cache_write_tokens: some(0),
            trace_id: self.id(),
            ts: Count::new(self.number),
        };
        UsageRecord::batch(&vec![record; records as usize])
    }

    fn error(&self, error: ErrorEvent) -> String {
        let metadata = Metadata::new().with("source", "connection").with("error", format!("{error:?}"));
        self.event_message(EventType::Error, metadata)
    }

    fn event_message(&self, event_type: EventType, metadata: Metadata) -> String {
        let event = Event {
            instance_id: &self.instance_id,
            event_type,
            id: self.id(),
            message: (self.place(2) == 0).then(|| self.text()),
            metadata,
            timestamp: self.timestamp(),
        };
        event.message()
    }

    fn closed(&self, session: u64, reason: ClosedReason, exit_code: i32) -> String {
        let session_id = &session_id(session);
        let message = (self.place(2) == 0).then(|| self.text());
        TerminalClosed { session_id, exit_code, reason, message, id: self.id() }.message()
    }

    fn result(&self, command: u64, end: Option<CommandEnd>, exit_code: i32, reason: Option<ResultReason>) -> String {
        let result = CommandResult {
            command_id: &command_id(command),
            stdout: Captured { head: self.text().as_bytes(), left_out: self.number % 3, tail: b"\xff\0" },
            stderr: Captured::all(self.text().as_bytes()),
            exit_code,
            duration_ms: self.number,
            timed_out: end == Some(CommandEnd::TimedOut),
            cancelled: matches!(end, Some(CommandEnd::Cancelled | CommandEnd::Drained)),
            reason,
        };
        result.message()
    }
}

fn session_id(session: u64) -> SessionId {
    SessionId::new(&format!("{session}{}", "é".repeat(100))).expect("a long id")
}

fn command_id(command: u64) -> CommandId {
    CommandId::new(&format!("\"{command}\\")).expect("an id")
}

/// A line with everything that it may have.
fn line() -> String {
    let record = Record { start: 7, end: 9, text: b"{\"level\":\"warn\",\"a\":1}".to_vec(), dropped_bytes: 0 };
    Origin::below_logs("node/out.log").line(&record, 1_796_040_000_000, &mut Zone::default())
}

fn chunk(stream: StreamKey, cut: Chunk, bytes: u64) -> String {
    let data: Vec<u8> = (0..bytes.min(CHUNK_BYTES_MAX)).map(|byte| byte.to_le_bytes()[0]).collect();
    let (offset, replay) = match cut {
        Chunk::Bytes { from, .. } => (Some(from), false),
        Chunk::Snapshot { .. } => (None, true),
    };
    let command = |command: u64, part| {
        let command_id = &command_id(command);
        CommandOutput { command_id, stream: part, data: &data, offset: offset.unwrap_or_default() }.message()
    };
    match stream {
        StreamKey::Terminal(session) => {
            TerminalOutput { session_id: &session_id(session.0.into()), data: &data, offset, replay }.message()
        }
        StreamKey::Stdout(key) => command(key.0.into(), OutputStream::Stdout),
        StreamKey::Stderr(key) => command(key.0.into(), OutputStream::Stderr),
        StreamKey::Logs => log_batch("node/out.log", [line().as_str()].into_iter()),
    }
}
