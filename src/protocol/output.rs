//! `terminal:output` and `command:output`: bytes on their way to the console, and `terminal:closed` behind them.
//!
//! It does not cut: characters are kept whole by the module that chooses the bytes (CONSOLE.md, "Terminals"). This is
//! the path that every byte of every terminal takes, so a frame is written with one allocation, base64 straight into
//! its place.

use super::VERSION;
use super::encode::{Payload, encode, push_text, sealed};
use super::event::MessageId;
use super::id::{CommandId, SessionId};
use super::number::Count;
#[cfg(test)]
use super::schema;
use crate::base64;
use serde::Serialize;
use std::fmt::Write as _;

/// Bytes of a frame that are neither id nor data: braces, keys, type, and the digits of an offset.
const FRAME_BYTES: usize = 192;

/// Output of a terminal.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(extend("not" = schema::both(["offset", "replay"]))))]
pub struct TerminalOutput<'a> {
    /// The session.
    pub session_id: &'a SessionId,
    /// The bytes; whole UTF-8 characters where the program wrote such.
    #[cfg_attr(test, schemars(with = "schema::Base64"))]
    pub data: &'a [u8],
    /// Where they stand, in bytes since the start of the session; none for bytes of a replay.
    #[cfg_attr(test, schemars(with = "Option<Count>", skip_serializing_if = "Option::is_none"))]
    pub offset: Option<u64>,
    /// They restore a screen.
    #[cfg_attr(test, schemars(with = "schema::True", skip_serializing_if = "is_false"))]
    pub replay: bool,
}

impl TerminalOutput<'_> {
    pub(super) const KIND: &'static str = "terminal:output";

    /// The message.
    pub fn message(&self) -> String {
        let mut frame = String::with_capacity(frame_len_max(self.session_id.as_str(), self.data.len()));
        begin(&mut frame, Self::KIND);
        frame.push_str(",\"session_id\":");
        push_text(&mut frame, self.session_id.as_str());
        frame.push_str(",\"payload\":{\"session_id\":");
        push_text(&mut frame, self.session_id.as_str());
        push_data(&mut frame, self.data);
        if let Some(offset) = self.offset {
            push_offset(&mut frame, offset);
        }
        if self.replay {
            frame.push_str(",\"replay\":true");
        }
        frame.push_str("}}");
        frame
    }
}

/// Output of a command that streams.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommandOutput<'a> {
    /// The command.
    pub command_id: &'a CommandId,
    /// Which of its outputs.
    pub stream: OutputStream,
    /// The bytes.
    #[cfg_attr(test, schemars(with = "schema::Base64"))]
    pub data: &'a [u8],
    /// Where they stand, in bytes since the start of that output.
    #[cfg_attr(test, schemars(with = "Count"))]
    pub offset: u64,
}

/// The two outputs of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl CommandOutput<'_> {
    pub(super) const KIND: &'static str = "command:output";

    /// The message.
    pub fn message(&self) -> String {
        let mut frame = String::with_capacity(frame_len_max(self.command_id.as_str(), self.data.len()));
        begin(&mut frame, Self::KIND);
        frame.push_str(",\"payload\":{\"command_id\":");
        push_text(&mut frame, self.command_id.as_str());
        frame.push_str(match self.stream {
            OutputStream::Stdout => ",\"stream\":\"stdout\"",
            OutputStream::Stderr => ",\"stream\":\"stderr\"",
        });
        push_data(&mut frame, self.data);
        push_offset(&mut frame, self.offset);
        frame.push_str("}}");
        frame
    }
}

/// The end of a terminal session, after its last output.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TerminalClosed<'a> {
    /// The session.
    pub session_id: &'a SessionId,
    /// The exit code of its shell; 128 + N for signal N.
    pub exit_code: i32,
    /// Why it ended.
    pub reason: ClosedReason,
    /// What there is to say to a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// The key by which a receiver drops a message that it has seen already.
    pub id: MessageId,
}

/// Why a terminal session ended, or never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ClosedReason {
    /// Its shell exited by itself.
    Exited,
    /// The console closed it.
    Closed,
    /// The agent is draining.
    Drained,
    /// No console came back to it.
    Orphaned,
    /// Its shell could not be started.
    SpawnFailed,
    /// This instance does not open terminals.
    RefusedByPolicy,
    /// The audit cannot be written, and nothing may run unseen.
    AuditUnavailable,
    /// The agent that had it died.
    Interrupted,
    /// There are too many sessions.
    Busy,
    /// The request could not be understood.
    Invalid,
}

impl TerminalClosed<'_> {
    /// The message.
    pub fn message(&self) -> String {
        encode(self)
    }
}

impl sealed::Object for TerminalClosed<'_> {}

impl Payload for TerminalClosed<'_> {
    const KIND: &'static str = "terminal:closed";

    fn session_id(&self) -> Option<&SessionId> {
        Some(self.session_id)
    }
}

/// Upper bound of the length of an output frame for `id` with `data_bytes` of data, in bytes. Exact to about 200 bytes,
/// for windows that count what is on the wire.
pub fn frame_len_max(id: &str, data_bytes: usize) -> usize {
    // An id holds no control characters, so that escaping at most doubles it; it stands there twice.
    FRAME_BYTES + 4 * id.len() + data_bytes.div_ceil(3) * 4
}

fn begin(frame: &mut String, kind: &str) {
    frame.push_str("{\"protocol_version\":\"");
    frame.push_str(VERSION);
    frame.push_str("\",\"type\":\"");
    frame.push_str(kind);
    frame.push('"');
}

fn push_data(frame: &mut String, data: &[u8]) {
    frame.push_str(",\"data\":\"");
    base64::encode(data, frame);
    frame.push('"');
}

fn push_offset(frame: &mut String, offset: u64) {
    let offset = Count::new(offset).value();
    write!(frame, ",\"offset\":{offset}").expect("invariant: a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::super::COUNT_MAX;
    use super::*;
    use ::base64::Engine as _;
    use ::base64::prelude::BASE64_STANDARD as BASE64;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    proptest! {
        #[test]
        fn a_frame_is_json_written_with_one_allocation(
            id in "[ -~é]{1,128}", data: Vec<u8>, offset in proptest::option::of(0..=COUNT_MAX),
            replay: bool, at in 0..=COUNT_MAX,
        ) {
            let session_id = SessionId::new(&id).expect("an id");
            let frame = TerminalOutput { session_id: &session_id, data: &data, offset, replay }.message();
            prop_assert_eq!(frame.capacity(), frame_len_max(&id, data.len()));
            let mut payload = json!({"session_id": id, "data": BASE64.encode(&data)});
            if let Some(offset) = offset {
                payload["offset"] = offset.into();
            }
            if replay {
                payload["replay"] = true.into();
            }
            let expected = json!({
                "protocol_version": "1.0", "type": "terminal:output", "session_id": id, "payload": payload,
            });
            prop_assert_eq!(serde_json::from_str::<Value>(&frame).expect("JSON"), expected);

            let command_id = CommandId::new(&id).expect("an id");
            let stream = if replay { OutputStream::Stdout } else { OutputStream::Stderr };
            let frame = CommandOutput { command_id: &command_id, stream, data: &data, offset: at }.message();
            prop_assert_eq!(frame.capacity(), frame_len_max(&id, data.len()));
            let expected = json!({"protocol_version": "1.0", "type": "command:output", "payload": {
                "command_id": id, "stream": if replay { "stdout" } else { "stderr" },
                "data": BASE64.encode(&data), "offset": at,
            }});
            prop_assert_eq!(serde_json::from_str::<Value>(&frame).expect("JSON"), expected);
        }
    }

    #[test]
    fn closed_names_its_session_in_both_places() {
        let session_id = SessionId::new("s").expect("an id");
        let closed = TerminalClosed {
            session_id: &session_id,
            exit_code: 137,
            reason: ClosedReason::SpawnFailed,
            message: None,
            id: MessageId { process: 1, number: 2 },
        };
        let frame: Value = serde_json::from_str(&closed.message()).expect("JSON");
        let payload =
            json!({"session_id": "s", "exit_code": 137, "reason": "spawn_failed", "id": "0000000000000001-2"});
        let expected =
            json!({"protocol_version": "1.0", "type": "terminal:closed", "session_id": "s", "payload": payload});
        assert_eq!(frame, expected);
    }
}
