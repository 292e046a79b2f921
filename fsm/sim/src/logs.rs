//! A log, its reader in the agent, and what the console has of it.
//!
//! All lines are of one length, so that offsets of the stream are numbers of lines. The log itself outlives every
//! process and is never rotated: what the reader does with files is tested with files. Its decisions are drawn from a
//! generator of its own, so that worlds without logs stay as they were.

use crate::planted::Planted;
use crate::violation::Violation;
use crate::wire::Down;
use crate::work::SCHEDULE;
use crate::world::{Event, World};
use draupnir_fsm::driver::{ConsoleMessage, Input, LOG_BURST_SECONDS, LinkId, LogRequest};
use draupnir_fsm::random::Random;
use std::collections::BTreeSet;

/// Bytes of an encoded line.
pub(crate) const LINE_BYTES: u64 = 40;

/// The most lines of a batch.
const LINES_MAX: u64 = 500;

/// What the reader holds at most, in lines.
const HELD_LINES_MAX: u64 = (256 << 10) / LINE_BYTES;

/// The most lines of a log: as many as the calm has time for.
const WRITTEN_MAX: u64 = 12_000;

/// What is known of the log.
#[derive(Debug)]
pub(crate) struct Logs {
    random: Random,
    /// Lines of the file.
    pub(crate) written: u64,
    /// Lines that the console has.
    pub(crate) received: u64,
    /// The links on which it asked.
    asked_on: BTreeSet<LinkId>,
    /// The agent follows it.
    pub(crate) is_followed: bool,
    /// Where the reader goes on after a stop.
    pub(crate) acked: u64,
    /// The line at offset 0 of this link's stream, and the next one to read.
    base: u64,
    next: u64,
    /// Lines that may be read on this link, and in this life how many were.
    allowed: u64,
    read_in_life: u64,
    is_reading: bool,
    requests: u32,
}

impl Logs {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(!seed),
            written: 0,
            received: 0,
            asked_on: BTreeSet::new(),
            is_followed: false,
            acked: 0,
            base: 0,
            next: 0,
            allowed: 0,
            read_in_life: 0,
            is_reading: false,
            requests: 0,
        }
    }

    /// A process begins and finds this position.
    pub(crate) fn start_over(&mut self, position: u64) {
        (self.is_followed, self.is_reading) = (false, false);
        (self.acked, self.read_in_life) = (position, 0);
    }

    /// Lines from an offset on: the first, and how many.
    pub(crate) fn cut(&self, from: u64, bytes_max: usize) -> (u64, u64) {
        let first = self.base + from / LINE_BYTES;
        let lines = (bytes_max as u64 / LINE_BYTES).clamp(1, LINES_MAX).min(self.next - first);
        (first, lines)
    }

    fn line_at(&self, offset: u64) -> u64 {
        self.base + offset / LINE_BYTES
    }
}

impl World {
    /// A program writes lines: mostly a few, sometimes more than may be sent at once.
    pub(crate) fn write_logs(&mut self) {
        if !self.plan.has_logs() {
            return;
        }
        let most = if self.logs.random.between(0, 9) == 0 { 6_000 } else { 60 };
        let lines = self.logs.random.between(0, most);
        self.logs.written = (self.logs.written + lines).min(WRITTEN_MAX);
        self.read_logs_soon();
    }

    /// The console asks for logs, sometimes twice.
    pub(crate) fn ask_for_logs(&mut self, link: LinkId) {
        if self.plan.has_logs() {
            self.send_down(link, Down::Subscribe);
            if self.logs.random.between(0, 2) == 0 {
                self.send_down(link, Down::Subscribe);
            }
            self.logs.asked_on.insert(link);
        }
    }

    pub(crate) fn subscribed(&mut self, link: LinkId) {
        self.logs.requests += 1;
        let request = LogRequest(self.logs.requests);
        self.receive(link, ConsoleMessage::LogSubscribe { request });
    }

    pub(crate) fn follow_logs(&mut self) {
        let logs = &mut self.logs;
        if !std::mem::replace(&mut logs.is_followed, true) {
            (logs.base, logs.next, logs.allowed) = (logs.acked, logs.acked, 0);
        }
    }

    pub(crate) fn allow_logs(&mut self, up_to_lines: u64) {
        let burst = u64::from(SCHEDULE.log_lines_per_s) * LOG_BURST_SECONDS;
        let read = self.logs.next - self.logs.base;
        if up_to_lines.saturating_sub(read) > burst {
            self.fail(Violation::OverItsBound("lines of logs that may be read at once"));
        }
        self.logs.allowed = up_to_lines;
        self.read_logs_soon();
    }

    /// The console has the stream up to here, says the driver.
    pub(crate) fn logs_acknowledged(&mut self, offset: u64) {
        let line = self.logs.line_at(offset);
        if line > self.logs.received {
            self.fail(Violation::LogsAcknowledgedUnread);
        }
        self.logs.acked = self.logs.acked.max(line);
        self.read_logs_soon();
    }

    pub(crate) fn stop_logs(&mut self, acked: u64) {
        self.logs_acknowledged(acked);
        if self.planted == Some(Planted::ForgetsUnsentLogs) {
            self.logs.acked = self.logs.next;
        }
        self.logs.is_followed = false;
    }

    /// The line behind a position that is recorded.
    pub(crate) fn recorded_line(&mut self, up_to: u64) -> u32 {
        let line = self.logs.line_at(up_to);
        if line > self.logs.received {
            self.fail(Violation::LogsAcknowledgedUnread);
        }
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn read_logs_soon(&mut self) {
        let logs = &mut self.logs;
        let may_read = logs.allowed > logs.next - logs.base && logs.next - logs.acked.max(logs.base) < HELD_LINES_MAX;
        if logs.is_followed && !logs.is_reading && logs.next < logs.written && may_read {
            logs.is_reading = true;
            let (in_ms, program) = (logs.random.between(1, 30), self.host.program);
            self.note_in(in_ms, Event::LogsRead { program });
        }
    }

    pub(crate) fn logs_read(&mut self) {
        let own_ms = self.own_now().as_ms();
        let logs = &mut self.logs;
        logs.is_reading = false;
        if !logs.is_followed {
            return;
        }
        let held = logs.next - logs.acked.max(logs.base);
        let bounds = [
            LINES_MAX,
            logs.written - logs.next,
            logs.allowed.saturating_sub(logs.next - logs.base),
            HELD_LINES_MAX.saturating_sub(held),
        ];
        let lines = bounds.into_iter().min().unwrap_or(0);
        if lines > 0 {
            logs.next += lines;
            logs.read_in_life += lines;
            let rate = u64::from(SCHEDULE.log_lines_per_s);
            let is_too_fast = logs.read_in_life > rate * LOG_BURST_SECONDS + rate * own_ms / 1_000 + 1;
            let end = (logs.next - logs.base) * LINE_BYTES;
            if is_too_fast {
                self.fail(Violation::OverItsBound("lines of logs in a life"));
            }
            self.handle(Input::LogsRead { end, lines: u32::try_from(lines).unwrap_or(u32::MAX) });
        }
        self.read_logs_soon();
    }

    /// The console takes in lines: none may be missing, and it must have asked.
    pub(crate) fn store_lines(&mut self, link: LinkId, first: u64, lines: u64) {
        if !self.logs.asked_on.contains(&link) {
            return self.fail(Violation::LogsUnasked(link));
        }
        if first > self.logs.received {
            let received = self.logs.received;
            self.log(|| format!("{lines} lines from {first} on, and it has {received}"));
            return self.fail(Violation::LogHole);
        }
        self.logs.received = self.logs.received.max(first + lines);
    }

    /// Whether the console still waits for lines that it asked for.
    pub(crate) fn waits_for_lines(&self) -> bool {
        self.logs.is_followed && self.logs.received < self.logs.written
    }
}
