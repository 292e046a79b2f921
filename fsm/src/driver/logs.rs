//! Which logs are sent, how fast, and how far the console has them.
//!
//! Lines of all logs are one stream ([`StreamKey::Logs`]) of encoded lines, which starts at 0 with each link: what a
//! lost link had not acknowledged is read again from its file. The adapter reads files as far as it is
//! [allowed](Action::AllowLogs), reports what it [holds](super::Input::LogsRead), and knows which bytes of the stream
//! are which line of which file.
//!
//! Invariants:
//! - nothing is sent to a console that did not ask on this link, nor while the agent drains;
//! - the adapter reads no more lines than [`LOG_LINES_PER_SECOND`] over any long time, and no more than
//!   [`LOG_BURST_SECONDS`] of them at once, across links;
//! - a line waits at most [`LOG_DELAY_MS`] for others before the ledger may send it;
//! - positions are recorded behind their acknowledgement, and at once where nothing else is under way;
//! - without lines there is no deadline: quiet logs do not wake the agent.

use super::input::LogRequest;
use super::journal::Record;
use super::output::{Action, AuditEntry};
use super::ports::Body;
use super::{Driver, FRAME_BYTES_MAX};
use crate::delivery::StreamKey;
use crate::time::Time;

/// How many lines a second are read, unless the operator says otherwise: an instance must not fill the database of its
/// console, which stores some 2,000 a second of all instances.
pub const LOG_LINES_PER_SECOND: u32 = 500;

/// What may be read at once, in seconds of that rate: the lines of a build that fails.
pub const LOG_BURST_SECONDS: u64 = 10;

/// How long a line waits for others, in milliseconds: a frame for each line would cost the console more than the line.
pub const LOG_DELAY_MS: u64 = 100;

/// How often more lines are allowed while all are used up, in milliseconds.
const ALLOW_MS: u64 = 100;

/// The least time between two records of positions while lines are under way, in milliseconds.
const RECORD_MS: u64 = 250;

/// Thousandths of a line.
const MILLI: u64 = 1_000;

/// What is known of logs.
#[derive(Clone, Debug, Hash)]
pub(super) struct Logs {
    bucket: Bucket,
    /// On this link the console has asked for some.
    open: Option<Open>,
}

/// The token bucket.
#[derive(Clone, Debug, Hash)]
struct Bucket {
    /// `None`: no limit.
    lines_per_s: Option<u32>,
    /// What is missing to a full bucket, in thousandths of a line, and when that was so.
    missing: Option<(u64, Time)>,
}

/// The stream of this link.
#[derive(Clone, Debug, Default, Hash)]
struct Open {
    /// Up to where the adapter holds it, and up to where the ledger knows that.
    end: u64,
    shown: u64,
    /// Lines that were read, and that may be.
    read_lines: u64,
    allowed_lines: u64,
    send_at: Option<Time>,
    allow_at: Option<Time>,
    /// Up to where the acknowledgement is recorded, and since when.
    recorded: u64,
    recorded_at: Option<Time>,
    /// The agent drains: only acknowledgements count.
    is_ending: bool,
}

impl Bucket {
    fn full(&self) -> u64 {
        self.lines_per_s.map_or(u64::MAX, |lines| u64::from(lines) * LOG_BURST_SECONDS * MILLI)
    }

    /// How many lines may be read now.
    fn lines(&mut self, now: Time) -> u64 {
        let Some(lines_per_s) = self.lines_per_s else { return u64::MAX };
        let full = self.full();
        if let Some((missing, since)) = self.missing {
            // A thousandth of a second is as many thousandths of a line as a second is lines.
            let left = missing.saturating_sub(now.ms_since(since).saturating_mul(lines_per_s.into()));
            self.missing = (left > 0).then_some((left, now));
        }
        (full - self.missing.map_or(0, |(missing, _)| missing.min(full))) / MILLI
    }

    fn take(&mut self, now: Time, lines: u32) {
        if self.lines_per_s.is_some() {
            self.lines(now);
            let missing = self.missing.map_or(0, |(missing, _)| missing) + u64::from(lines) * MILLI;
            self.missing = (missing > 0).then_some((missing, now));
        }
    }
}

impl Logs {
    /// At most so many lines a second; 0: no limit.
    pub(super) fn new(lines_per_s: u32) -> Self {
        Self { bucket: Bucket { lines_per_s: Some(lines_per_s).filter(|lines| *lines > 0), missing: None }, open: None }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let open = self.open.as_ref()?;
        open.send_at.into_iter().chain(open.allow_at).min()
    }
}

impl<B: Body> Driver<B> {
    /// `log:subscribe`
    pub(super) fn subscribe_logs(&mut self, now: Time, request: LogRequest) {
        if self.machine.is_draining() {
            return self.out(Action::ForgetLogRequest { request });
        }
        self.audit(AuditEntry::LogsSubscribed { request });
        if self.logs.open.is_none() {
            self.ledger.open_stream(StreamKey::Logs);
            self.logs.open = Some(Open::default());
        }
        self.out(Action::FollowLogs { request });
        self.allow_logs(now);
    }

    /// `log:unsubscribe`. Files that are no longer wanted keep their positions.
    pub(super) fn unsubscribe_logs(&mut self, request: LogRequest) {
        self.out(match self.logs.open {
            Some(_) => Action::UnfollowLogs { request },
            None => Action::ForgetLogRequest { request },
        });
    }

    /// The adapter holds the stream up to `end`, which is so many lines more.
    pub(super) fn logs_read(&mut self, now: Time, end: u64, lines: u32) {
        let Some(open) = self.logs.open.as_mut().filter(|open| !open.is_ending) else { return };
        open.end = open.end.max(end);
        open.read_lines += u64::from(lines);
        self.logs.bucket.take(now, lines);
        let is_full = open.end - open.shown >= FRAME_BYTES_MAX as u64;
        open.send_at = Some(if is_full { now } else { open.send_at.unwrap_or(now.after_ms(LOG_DELAY_MS)) });
        self.allow_logs(now);
    }

    /// Allows as many lines as there are tokens, where that is worth telling.
    fn allow_logs(&mut self, now: Time) {
        let Some(open) = &mut self.logs.open else { return };
        let lines = self.logs.bucket.lines(now);
        let allowed = open.read_lines.saturating_add(lines);
        open.allow_at = (lines == 0).then(|| now.after_ms(ALLOW_MS));
        // What is allowed never shrinks: lines that were read beyond it are missing in the bucket.
        if allowed > open.allowed_lines {
            open.allowed_lines = allowed;
            self.out(Action::AllowLogs { up_to_lines: allowed });
        }
    }

    /// Does what of all this is due; false where nothing is.
    pub(super) fn advance_logs(&mut self, now: Time) -> bool {
        let Some(open) = &mut self.logs.open else { return false };
        if open.send_at.take_if(|due| *due <= now).is_some() {
            open.shown = open.end;
            self.ledger.grew(StreamKey::Logs, open.end);
            return true;
        }
        if open.allow_at.take_if(|due| *due <= now).is_some() {
            self.allow_logs(now);
            return true;
        }
        false
    }

    /// The console may have more of the stream than before: its positions are recorded.
    pub(super) fn logs_acknowledged(&mut self, now: Time) {
        let Some(open) = &mut self.logs.open else { return };
        let Some(at) = self.ledger.position(StreamKey::Logs) else { return };
        let is_due = open.recorded_at.is_none_or(|since| now.ms_since(since) >= RECORD_MS) || at.acked == open.end;
        if at.acked > open.recorded && is_due {
            (open.recorded, open.recorded_at) = (at.acked, Some(now));
            self.append(Record::Logs { up_to: at.acked }, None, None);
        }
    }

    /// The agent drains: nothing more is sent. What is under way is acknowledged before the last message is.
    pub(super) fn drain_logs(&mut self) {
        let Some(open) = &mut self.logs.open else { return };
        self.ledger.truncate(StreamKey::Logs);
        let end = self.ledger.position(StreamKey::Logs).map_or(0, |at| at.end);
        (open.is_ending, open.end, open.shown, open.send_at, open.allow_at) = (true, end, end, None, None);
    }

    /// The link is gone: what is not acknowledged is read again when it is asked for.
    pub(super) fn stop_logs(&mut self) {
        let Some(open) = self.logs.open.take() else { return };
        let acked = self.ledger.position(StreamKey::Logs).map_or(0, |at| at.acked);
        if acked > open.recorded {
            self.append(Record::Logs { up_to: acked }, None, None);
        }
        self.ledger.forget_stream(StreamKey::Logs);
        self.out(Action::StopLogs { acked });
    }
}
