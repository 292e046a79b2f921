//! The wire as types: what the agent and the console say to each other.
//!
//! It knows no socket, no clock and no state: text goes in and messages come out, or the other way round. Decoding
//! ([`decode`]) is strict about the envelope, which decides whether a frame may act at all, and lenient about
//! everything it does not need. Encoding makes the frames that would take the production console down impossible:
//! each message is a type of its own, and [`encode()`] is the only way out.
//!
//! Invariants: a native or hybrid frame never becomes an action (the type that actions are read from cannot be made
//! of one); no outbound frame holds a NUL, a null payload, or a number that is not finite; decoding takes time linear
//! in the frame and holds at most [`DECODE_ALLOCATION_FACTOR`] times its length plus
//! [`DECODE_ALLOCATION_BASE_BYTES`].
//!
//! The public description of the same protocol, for the authors of consoles, is `PROTOCOL.md` beside this file; its
//! examples are checked by `tests/protocol_document.rs`.

pub mod close;
mod dispatch;
mod echo;
mod encode;
mod envelope;
mod event;
mod fault;
mod heartbeat;
mod id;
mod inbound;
mod inventory;
mod log;
pub mod metrics;
mod number;
mod output;
mod payload;
mod registration;
mod result;
#[cfg(test)]
mod schema;
mod timestamp;
mod usage;

pub use dispatch::Dispatch;
pub use echo::echo;
pub use encode::{Payload, encode};
pub use envelope::DecodeError;
pub use event::{Event, EventType, Figure, MessageId, Metadata};
pub use fault::{Fault, Faults};
pub use heartbeat::Heartbeat;
pub use id::{CommandId, InstanceId, InvalidInstanceId, SessionId};
pub use id::{ID_BYTES_MAX, ID_CHARACTERS_MAX, INSTANCE_ID_CHARACTERS_MAX};
pub use inbound::{COLS_DEFAULT, Decoded, Ignored, Inbound, ROWS_DEFAULT, TerminalMessage, decode};
pub use inventory::{EXTENSIONS_MAX, Inventory, NAME_CHARACTERS_MAX};
pub use log::{LOG_LINES_MAX, LogLine, LogMetadata, LogSource, log_batch};
pub use number::{COUNT_MAX, Count, Percent, Ratio};
pub use output::{ClosedReason, CommandOutput, OutputStream, TerminalClosed, TerminalOutput, frame_len_max};
pub use registration::Registration;
pub use result::{Captured, CommandResult, RESULT_BYTES_MAX, ResultReason, shortened};
pub use timestamp::Timestamp;
pub use usage::UsageRecord;

/// The version that every outbound message carries.
pub const VERSION: &str = "1.0";

/// Longest inbound message in bytes. The console's longest is a script of 64 KiB in base64; a paste may be longer.
pub const INBOUND_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of an inbound message, the envelope being the first level. No message needs more than three.
pub const NESTING_MAX: u32 = 64;

/// Most bytes that decoding holds at once for each byte of a frame. The worst frame is a list of empty texts, three
/// bytes each for 24 of a `String`, twice over while the list grows; lists are bounded, so that it never comes to 8
/// MiB.
pub const DECODE_ALLOCATION_FACTOR: usize = 32;

/// What decoding may hold beyond that, in bytes: the list of keys, names and faults of small frames.
pub const DECODE_ALLOCATION_BASE_BYTES: usize = 16 * 1024;
