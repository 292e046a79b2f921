//! What the running agent says about itself on its Unix socket, and the programs that ask: `status` and `health`.
//!
//! The agent reads nothing from a connection: it writes one answer and closes. The answer is two lines of JSON. The
//! first is `Vital`, all that `health` reads; the second is `Status`. Both are made by the loop itself, so that an
//! answer proves that the loop turns.
//!
//! | file | what it does |
//! |---|---|
//! | `socket` | where the socket is, how it is served and asked |
//! | `screen` | `sindri-agent status` and `sindri-agent health` |
//! | `textfile` | the figures for a collector of text files |
//!
//! Units: seconds, milliseconds, bytes. `extension/OPERATIONS.md` describes the fields.

mod screen;
pub(crate) mod socket;
pub(crate) mod textfile;

pub use screen::{health, status};

use crate::protocol::Timestamp;
use async_channel::Sender;
use draupnir_fsm::driver::LinkPhase;
use serde::Serialize;

/// A question on the socket.
#[derive(Debug)]
pub struct StatusReport {
    /// Where the loop puts the answer.
    pub answer: Sender<Vec<u8>>,
}

/// The first line of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Vital {
    pub(crate) link: &'static str,
    /// Seconds since there was a link that the console had accepted; 0 while there is one.
    pub(crate) offline_seconds: u64,
}

/// The second line of an answer.
#[derive(Debug, Serialize)]
pub(crate) struct Status<'a> {
    pub(crate) link: &'static str,
    pub(crate) offline_seconds: u64,
    /// The path of the machine's state, such as `connected.ready`.
    pub(crate) state: &'static str,
    pub(crate) state_since: Timestamp,
    pub(crate) state_seconds: u64,
    pub(crate) console: String,
    pub(crate) instance_id: &'a str,
    pub(crate) version: &'static str,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: u64,
    pub(crate) last_heartbeat_seconds: Option<u64>,
    pub(crate) round_trip_ms: Option<u64>,
    pub(crate) reconnects_last_hour: u64,
    pub(crate) reconnect_causes: Vec<Cause>,
    pub(crate) last_error: Option<LastError<'a>>,
    pub(crate) terminals: usize,
    pub(crate) commands: usize,
    pub(crate) unacknowledged_messages: usize,
    pub(crate) unacknowledged_bytes: u64,
    pub(crate) dropped_messages: u64,
    pub(crate) output_gaps: u64,
    pub(crate) buffer_bytes: usize,
    pub(crate) buffer_limit_bytes: usize,
    pub(crate) journal: &'static str,
    pub(crate) terminals_lock: &'static str,
    pub(crate) commands_lock: &'static str,
    pub(crate) audit: &'static str,
    /// Whether logs may be asked for, and all file systems of those that were answer.
    pub(crate) logs: &'static str,
    /// How many log files are followed.
    pub(crate) log_files: usize,
    /// Where the usage of AI tools is counted; `null` where it is not.
    pub(crate) llm_port: Option<u16>,
    pub(crate) llm_records_waiting: u32,
}

/// Why connections ended, and how many.
#[derive(Debug, Serialize)]
pub(crate) struct Cause {
    pub(crate) cause: &'static str,
    pub(crate) count: u32,
}

/// The last thing that went wrong, in words.
#[derive(Debug, Serialize)]
pub(crate) struct LastError<'a> {
    pub(crate) seconds_ago: u64,
    pub(crate) text: &'a str,
}

pub(crate) const ONLINE: &str = "online";
pub(crate) const OFFLINE: &str = "offline";
pub(crate) const DRAINING: &str = "draining";

/// The word for a phase.
pub(crate) const fn word(phase: LinkPhase) -> &'static str {
    match phase {
        LinkPhase::Online => ONLINE,
        LinkPhase::Offline => OFFLINE,
        LinkPhase::Draining => DRAINING,
    }
}
