//! `command:result`: how a command ended and what it printed, cut to what a message may hold.
//!
//! It captures nothing and keeps nothing. Output is text on this message (CONSOLE.md, "Commands"): invalid UTF-8 and
//! NUL become U+FFFD, and control characters grow sixfold in JSON, so that a bound on captured bytes does not bound the
//! message. What has to be left out is the middle; a line with the number of bytes stands in its place.

use super::encode::{Payload, REPLACEMENT, encode, encoded_len, sealed};
use super::id::CommandId;
use super::number::Count;
#[cfg(test)]
use super::schema;
use crate::utf8::incomplete_tail;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Longest `command:result` in encoded bytes. The console takes far more; this bounds what the ledger has to hold.
pub const RESULT_BYTES_MAX: usize = 768 * 1024;

/// Most bytes that the line about what was left out takes when encoded: its words, two newlines, twenty digits.
const MARKER_BYTES_MAX: usize = 48;

/// The end of a command.
#[derive(Clone, Copy, Debug)]
pub struct CommandResult<'a> {
    /// The command.
    pub command_id: &'a CommandId,
    /// What it printed on standard output.
    pub stdout: Captured<'a>,
    /// What it printed on standard error.
    pub stderr: Captured<'a>,
    /// Its exit code.
    pub exit_code: i32,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// It was stopped because its time was up.
    pub timed_out: bool,
    /// The console cancelled it.
    pub cancelled: bool,
    /// Why it did not run, or not to its own end.
    pub reason: Option<ResultReason>,
}

/// Output as it was captured: all of it in two slices, or its beginning and its end with a gap between.
#[derive(Clone, Copy, Debug, Default)]
pub struct Captured<'a> {
    /// The beginning.
    pub head: &'a [u8],
    /// How many bytes between head and tail were not kept.
    pub left_out: u64,
    /// The end.
    pub tail: &'a [u8],
}

/// Why a command has a result that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ResultReason {
    /// The dispatch could not be understood.
    Invalid,
    /// The program could not be started.
    SpawnFailed,
    /// Too many commands wait already, or results cannot be held.
    Busy,
    /// It ran before, and its result is no longer remembered.
    Forgotten,
    /// The agent is stopping.
    Draining,
    /// This instance does not run such commands.
    RefusedByPolicy,
    /// The audit cannot be written, and nothing may run unseen.
    AuditUnavailable,
    /// The agent that had it died; whether and how far it ran is not known.
    Interrupted,
}

impl CommandResult<'_> {
    /// The message, at most [`RESULT_BYTES_MAX`] long.
    pub fn message(&self) -> String {
        let wire = ResultWire {
            command_id: Cow::Borrowed(self.command_id.as_str()),
            stdout: Cow::Borrowed(""),
            stderr: Cow::Borrowed(""),
            exit_code: self.exit_code,
            duration_ms: self.duration_ms.into(),
            timed_out: self.timed_out,
            cancelled: self.cancelled,
            reason: self.reason,
            stdout_truncated: false,
            stderr_truncated: false,
            stdout_bytes: self.stdout.total_bytes().into(),
            stderr_bytes: self.stderr.total_bytes().into(),
        };
        wire.filled(self.stdout.whole_characters(), self.stderr.whole_characters(), RESULT_BYTES_MAX)
    }
}

/// A `command:result` message of ours, cut to `bytes_max` (of which some 500 are for what is not output): for a console
/// that closes the connection on long messages. `None` if the text is not such a message.
pub fn shortened(message: &str, bytes_max: usize) -> Option<String> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        payload: ResultWire<'a>,
    }
    let Message { kind, payload } = serde_json::from_str(message).ok()?;
    if kind != ResultWire::KIND {
        return None;
    }
    let (stdout, stderr) = (payload.stdout.clone(), payload.stderr.clone());
    Some(payload.filled(Captured::all(stdout.as_bytes()), Captured::all(stderr.as_bytes()), bytes_max))
}

impl<'a> Captured<'a> {
    /// Output that was kept whole.
    pub const fn all(bytes: &'a [u8]) -> Self {
        Self { head: bytes, left_out: 0, tail: &[] }
    }

    /// How much was printed.
    fn total_bytes(&self) -> u64 {
        (self.head.len() as u64).saturating_add(self.left_out).saturating_add(self.tail.len() as u64)
    }

    /// The same without the characters that the gap cut through.
    fn whole_characters(self) -> Self {
        if self.left_out == 0 {
            return self;
        }
        let head = self.head.get(..self.head.len() - incomplete_tail(self.head)).unwrap_or_default();
        let continuations = self.tail.iter().take(3).take_while(|byte| (**byte as i8) < -0x40).count();
        let tail = self.tail.get(continuations..).unwrap_or_default();
        let cut = (self.head.len() - head.len() + continuations) as u64;
        Self { head, left_out: self.left_out.saturating_add(cut), tail }
    }

    /// The text, cut in the middle until it takes at most `bytes_max` of a JSON text; and whether anything is left out.
    fn text(&self, bytes_max: usize) -> (String, bool) {
        if self.left_out == 0 {
            // A character may lie across the two slices.
            let joined =
                if self.tail.is_empty() { Cow::Borrowed(self.head) } else { [self.head, self.tail].concat().into() };
            if encoded_bytes(&joined) <= bytes_max {
                return (String::from_utf8_lossy(&joined).into_owned(), false);
            }
            let head = beginning(&joined, bytes_max.saturating_sub(MARKER_BYTES_MAX) / 2);
            let rest = joined.get(head.len()..).unwrap_or_default();
            return (Captured { head, left_out: 0, tail: rest }.cut(bytes_max), true);
        }
        if self.encoded_bytes() <= bytes_max {
            return (self.with_marker(), true);
        }
        (self.cut(bytes_max), true)
    }

    /// Cuts head and tail, each to half of what they may take, or to what the other leaves.
    fn cut(&self, bytes_max: usize) -> String {
        if bytes_max < MARKER_BYTES_MAX {
            return String::new();
        }
        let both_max = bytes_max - MARKER_BYTES_MAX;
        let head = beginning(self.head, both_max.saturating_sub(encoded_bytes(self.tail)).max(both_max / 2));
        let tail = end(self.tail, both_max - encoded_bytes(head).min(both_max));
        let cut = (self.head.len() - head.len() + self.tail.len() - tail.len()) as u64;
        Self { head, left_out: self.left_out.saturating_add(cut), tail }.with_marker()
    }

    fn with_marker(&self) -> String {
        let (head, tail) = (String::from_utf8_lossy(self.head), String::from_utf8_lossy(self.tail));
        format!("{head}\n[{} bytes left out]\n{tail}", self.left_out)
    }

    /// Most bytes that the whole takes in a JSON text.
    fn encoded_bytes(&self) -> usize {
        let marker = if self.left_out == 0 { 0 } else { MARKER_BYTES_MAX };
        encoded_bytes(self.head) + marker + encoded_bytes(self.tail)
    }
}

/// The characters of `bytes` and the sequences that are none: how many bytes each has here, and in a JSON text.
fn units(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let characters = chunk.valid().chars().map(|character| (character.len_utf8(), encoded_len(character)));
        let invalid = Some(chunk.invalid().len()).filter(|length| *length > 0);
        characters.chain(invalid.map(|length| (length, REPLACEMENT.len_utf8())))
    })
}

fn encoded_bytes(bytes: &[u8]) -> usize {
    units(bytes).map(|(_, encoded)| encoded).sum()
}

/// The longest beginning that takes at most `bytes_max` of a JSON text.
fn beginning(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let (mut length, mut taken) = (0, 0);
    for (here, encoded) in units(bytes) {
        taken += encoded;
        if taken > bytes_max {
            break;
        }
        length += here;
    }
    bytes.get(..length).unwrap_or_default()
}

/// The longest end that takes at most `bytes_max` of a JSON text.
fn end(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let mut left = encoded_bytes(bytes);
    let mut start = 0;
    for (here, encoded) in units(bytes) {
        if left <= bytes_max {
            break;
        }
        left -= encoded;
        start += here;
    }
    bytes.get(start..).unwrap_or_default()
}

/// How a command ended and what it printed.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CommandResult"))]
pub(super) struct ResultWire<'a> {
    #[serde(borrow)]
    #[cfg_attr(test, schemars(with = "CommandId"))]
    command_id: Cow<'a, str>,
    /// Text; NUL and what is not UTF-8 is U+FFFD.
    #[serde(borrow)]
    #[cfg_attr(test, schemars(length(max = RESULT_BYTES_MAX)))]
    stdout: Cow<'a, str>,
    /// Text; NUL and what is not UTF-8 is U+FFFD.
    #[serde(borrow)]
    #[cfg_attr(test, schemars(length(max = RESULT_BYTES_MAX)))]
    stderr: Cow<'a, str>,
    /// The exit code; 128 + N for signal N.
    exit_code: i32,
    /// How long it ran, in milliseconds.
    duration_ms: Count,
    /// Its time was up.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(test, schemars(with = "schema::True"))]
    timed_out: bool,
    /// The console cancelled it, or the agent stops.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(test, schemars(with = "schema::True"))]
    cancelled: bool,
    /// Why the command did not run, or not to its own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<ResultReason>,
    /// Not all of `stdout` is here.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(test, schemars(with = "schema::True"))]
    stdout_truncated: bool,
    /// Not all of `stderr` is here.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(test, schemars(with = "schema::True"))]
    stderr_truncated: bool,
    /// How much was printed on standard output, in bytes.
    stdout_bytes: Count,
    /// How much was printed on standard error, in bytes.
    stderr_bytes: Count,
}

impl ResultWire<'_> {
    /// The message with both outputs in it, at most `bytes_max` long. What one of them does not need, the other has.
    fn filled(mut self, stdout: Captured<'_>, stderr: Captured<'_>, bytes_max: usize) -> String {
        let was_truncated = (self.stdout_truncated, self.stderr_truncated);
        (self.stdout_truncated, self.stderr_truncated) = (true, true);
        (self.stdout, self.stderr) = (Cow::Borrowed(""), Cow::Borrowed(""));
        let room = bytes_max.saturating_sub(encode(&self).len());
        let (stdout_max, stderr_max) = match (stdout.encoded_bytes(), stderr.encoded_bytes()) {
            (_, stderr) if stderr <= room / 2 => (room - stderr, stderr),
            (stdout, _) if stdout <= room / 2 => (stdout, room - stdout),
            (_, _) => (room / 2, room / 2),
        };
        let (stdout, stdout_is_cut) = stdout.text(stdout_max);
        let (stderr, stderr_is_cut) = stderr.text(stderr_max);
        (self.stdout, self.stderr) = (stdout.into(), stderr.into());
        self.stdout_truncated = was_truncated.0 || stdout_is_cut;
        self.stderr_truncated = was_truncated.1 || stderr_is_cut;
        encode(&self)
    }
}

impl sealed::Object for ResultWire<'_> {}

impl Payload for ResultWire<'_> {
    const KIND: &'static str = "command:result";
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn payload(message: &str) -> Value {
        let mut frame: Value = serde_json::from_str(message).expect("JSON");
        assert_eq!(frame["type"], "command:result");
        assert_eq!(frame.get("session_id"), None);
        frame["payload"].take()
    }

    fn message(stdout: Captured<'_>, stderr: Captured<'_>) -> String {
        let command_id = CommandId::new("c").expect("an id");
        CommandResult {
            command_id: &command_id,
            stdout,
            stderr,
            exit_code: 0,
            duration_ms: 1,
            timed_out: false,
            cancelled: false,
            reason: None,
        }
        .message()
    }

    fn marked(payload: &Value, field: &str) -> (String, u64, String) {
        let text = payload[field].as_str().expect("a text");
        let (head, rest) = text.rsplit_once("\n[").expect("a marker");
        let (count, tail) = rest.split_once(" bytes left out]\n").expect("a marker");
        (head.to_owned(), count.parse().expect("a count"), tail.to_owned())
    }

    #[test]
    fn short_output_is_sent_whole() {
        let payload = payload(&message(Captured::all(b"o\n"), Captured { head: b"\xc3", left_out: 0, tail: b"\xa9" }));
        let expected = serde_json::json!({"command_id": "c", "stdout": "o\n", "stderr": "é", "exit_code": 0,
            "duration_ms": 1, "stdout_bytes": 2, "stderr_bytes": 2});
        assert_eq!(payload, expected);
    }

    #[test]
    fn nul_and_invalid_utf8_are_replaced() {
        let payload = payload(&message(Captured::all(b"a\0b\xffc"), Captured::default()));
        assert_eq!(payload["stdout"], "a\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn a_gap_is_said_and_cuts_no_character() {
        let output = Captured { head: b"abc\xe2\x82", left_out: 100, tail: b"\x82\xacxyz" };
        let payload = payload(&message(output, Captured::default()));
        assert_eq!(marked(&payload, "stdout"), ("abc".to_owned(), 104, "xyz".to_owned()));
        assert_eq!(payload["stdout_truncated"], true);
        assert_eq!(payload["stdout_bytes"], 110);
        assert_eq!(payload.get("stderr_truncated"), None);
    }

    #[test]
    fn control_characters_do_not_burst_the_message() {
        let bytes = vec![1; 1024 * 1024];
        let message = message(Captured::all(&bytes), Captured::all(&bytes));
        assert!(message.len() <= RESULT_BYTES_MAX, "{}", message.len());
        assert!(message.len() > RESULT_BYTES_MAX - 64, "{}", message.len());
        let payload = payload(&message);
        for field in ["stdout", "stderr"] {
            let (head, left_out, tail) = marked(&payload, field);
            assert_eq!(head.len() + tail.len() + usize::try_from(left_out).expect("a length"), bytes.len());
            assert!(head.len().abs_diff(tail.len()) < 16);
        }
    }

    #[test]
    fn a_short_output_leaves_its_room_to_the_other() {
        let bytes = vec![b'x'; 1024 * 1024];
        for (stdout, stderr) in [(&bytes[..], &b"y"[..]), (&b"y"[..], &bytes[..])] {
            let message = message(Captured::all(stdout), Captured::all(stderr));
            assert!(message.len() <= RESULT_BYTES_MAX && message.len() > RESULT_BYTES_MAX - 64, "{}", message.len());
        }
    }

    #[test]
    fn a_message_can_be_shortened_again() {
        let bytes = vec![b'\n'; 1024 * 1024];
        let first = message(Captured::all(&bytes), Captured::all(b"short"));
        let second = shortened(&first, 16 * 1024).expect("a result");
        assert!(second.len() <= 16 * 1024, "{}", second.len());
        let payload = payload(&second);
        assert_eq!(payload["stderr"], "short");
        assert_eq!(payload["stdout_bytes"], bytes.len());
        assert_eq!(payload["stdout_truncated"], true);
        assert_eq!(shortened(&second, 16 * 1024).as_deref(), Some(second.as_str()));
        assert_eq!(shortened("{}", 100), None);
    }

    proptest! {
        #[test]
        fn cutting_keeps_beginning_and_end_and_counts_the_rest(
            text in "([ -Z]|\\n|\\x01|é|€|😀){0,400}", split in 0_usize..1000, bytes_max in 0_usize..600,
        ) {
            let (head, tail) = text.as_bytes().split_at(split.min(text.len()));
            let captured = Captured { head, left_out: 0, tail };
            let (cut, is_cut) = captured.text(bytes_max);
            prop_assert!(cut.chars().map(encoded_len).sum::<usize>() <= bytes_max);
            if is_cut && bytes_max >= MARKER_BYTES_MAX {
                let (beginning, rest) = cut.rsplit_once("\n[").expect("a marker");
                let (count, end) = rest.split_once(" bytes left out]\n").expect("a marker");
                prop_assert!(text.starts_with(beginning) && text.ends_with(end));
                prop_assert_eq!(beginning.len() + count.parse::<usize>().expect("a count") + end.len(), text.len());
            } else if !is_cut {
                prop_assert_eq!(cut, text);
            }
        }

        #[test]
        fn any_bytes_make_a_message(head: Vec<u8>, left_out: u64, tail: Vec<u8>, bytes_max in 0_usize..300) {
            let captured = Captured { head: &head, left_out, tail: &tail }.whole_characters();
            let (text, is_cut) = captured.text(bytes_max);
            prop_assert!(text.chars().map(encoded_len).sum::<usize>() <= bytes_max);
            prop_assert!(is_cut || left_out == 0);
        }
    }
}
