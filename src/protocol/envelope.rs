//! Reads the envelope of an inbound frame and decides whether the frame may act at all.
//!
//! It does not read payloads. The rules (PROTOCOL.md, "WebSocket"; CONSOLE.md, "What it sends"): one JSON object; the
//! same top-level key twice is refused, after unescaping; unknown keys are ignored; a top-level `channel` or
//! `protocolVersion`, however it is spelt and whatever its value, makes the frame native, and a native frame never
//! acts. That last rule is a matter of type: actions are read from [`Designed`] alone, whose only constructor is in
//! this file, below the check.
//!
//! Nesting is measured before anything is parsed, and every value is skipped or borrowed without recursion.

use super::payload::Text;
use super::{INBOUND_BYTES_MAX, NESTING_MAX, VERSION};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Most top-level keys of a frame. The envelope has four; each key is compared with those before it, so a bound
/// keeps the time linear.
pub(super) const KEYS_MAX: usize = 256;

/// Longest part of a foreign text (a key, a type, a version) that is kept for the log, in characters.
pub(super) const QUOTED_CHARACTERS_MAX: usize = 64;

/// Why a frame says nothing at all. In every case the console must be corrected; the link stays up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is longer than [`INBOUND_BYTES_MAX`].
    #[error("message of {bytes} bytes is over the limit of {INBOUND_BYTES_MAX}")]
    TooBig {
        /// Its length.
        bytes: usize,
    },
    /// Objects and lists are nested deeper than [`NESTING_MAX`].
    #[error("message is nested deeper than {NESTING_MAX}")]
    TooDeep,
    /// The frame is not JSON.
    #[error("message is not JSON at line {line} column {column}")]
    Syntax {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, in bytes from 1.
        column: usize,
    },
    /// The frame is JSON, but not an object.
    #[error("message is not a JSON object")]
    NotAnObject,
    /// The same top-level key stands there twice.
    #[error("message has the key {key:?} twice")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
    },
    /// There are more than 256 top-level keys.
    #[error("message has more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// `type` is missing or not a text.
    #[error("message has no type")]
    NoType,
}

/// What an envelope says about its frame.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// In the console's native form, or a hybrid of both: never to be acted upon.
    Native,
    /// In the designed form.
    Designed(Designed<'a>),
}

/// A frame in the designed form: the only thing that actions are read from.
#[derive(Debug)]
pub(super) struct Designed<'a> {
    kind: Cow<'a, str>,
    version: Option<&'a RawValue>,
    session_id: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Reads one text frame.
    pub(super) fn read(text: &'a str) -> Result<Self, DecodeError> {
        if text.len() > INBOUND_BYTES_MAX {
            return Err(DecodeError::TooBig { bytes: text.len() });
        }
        if is_too_deep(text.as_bytes()) {
            return Err(DecodeError::TooDeep);
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let envelope = json.deserialize_map(EnvelopeVisitor).map_err(syntax)?;
        json.end().map_err(syntax)?;
        // The order matters: nothing else about a native frame is of interest, not even that it is also malformed.
        if envelope.is_native {
            return Ok(Self::Native);
        }
        if let Some(key) = envelope.duplicate {
            return Err(DecodeError::DuplicateKey { key: quoted(&key) });
        }
        if envelope.has_too_many_keys {
            return Err(DecodeError::TooManyKeys);
        }
        let kind = envelope.kind.and_then(Text::read).ok_or(DecodeError::NoType)?;
        let Envelope { version, session_id, payload, .. } = envelope;
        Ok(Self::Designed(Designed { kind, version, session_id, payload }))
    }
}

impl<'a> Designed<'a> {
    /// The message type.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// `session_id` of the envelope, as it stands there.
    pub(super) fn session_id(&self) -> Option<&'a RawValue> {
        self.session_id
    }

    /// `payload`, as it stands there.
    pub(super) fn payload(&self) -> Option<&'a RawValue> {
        self.payload
    }

    /// The version, if it is not ours: shortened, `none` where there is none.
    pub(super) fn version_mismatch(&self) -> Option<String> {
        let Some(raw) = self.version else {
            return Some("none".to_owned());
        };
        match Text::read(raw) {
            Some(version) if version == VERSION => None,
            Some(version) => Some(quoted(&version)),
            None => Some(quoted(raw.get())),
        }
    }
}

/// The beginning of a foreign text, for logs and errors.
pub(super) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARACTERS_MAX).collect()
}

/// What the top level of a frame holds.
#[derive(Default)]
struct Envelope<'a> {
    is_native: bool,
    duplicate: Option<Cow<'a, str>>,
    has_too_many_keys: bool,
    kind: Option<&'a RawValue>,
    version: Option<&'a RawValue>,
    session_id: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        let mut seen: Vec<Cow<'de, str>> = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "channel" | "protocolVersion" => {
                    envelope.is_native = true;
                    map.next_value::<IgnoredAny>()?;
                }
                "type" => envelope.kind = Some(map.next_value()?),
                "protocol_version" => envelope.version = Some(map.next_value()?),
                "session_id" => envelope.session_id = Some(map.next_value()?),
                "payload" => envelope.payload = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if envelope.is_native || envelope.duplicate.is_some() || envelope.has_too_many_keys {
                continue; // The verdict stands, unless the rest is not JSON or makes the frame native.
            }
            if seen.contains(&key) {
                envelope.duplicate = Some(key);
            } else if seen.len() == KEYS_MAX {
                envelope.has_too_many_keys = true;
            } else {
                seen.push(key);
            }
        }
        Ok(envelope)
    }
}

/// Whether brackets outside texts are ever nested deeper than [`NESTING_MAX`]. What is not JSON may be measured
/// wrongly; it is refused anyway.
fn is_too_deep(text: &[u8]) -> bool {
    let mut depth = 0_u32;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' if depth == NESTING_MAX => return true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// Describes the fault without the content, which the parser's own message would quote.
fn syntax(error: serde_json::Error) -> DecodeError {
    if error.is_data() {
        DecodeError::NotAnObject
    } else {
        DecodeError::Syntax { line: error.line(), column: error.column() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_native(text: &str) -> bool {
        matches!(Frame::read(text), Ok(Frame::Native))
    }

    #[test]
    fn a_native_key_is_seen_in_every_spelling() {
        for frame in [
            r#"{"channel":"commands","type":"command:dispatch","payload":{"command_id":"x","command":"id"}}"#,
            r#"{"type":"command:dispatch","payload":{"command_id":"x","command":"id"},"channel":null}"#,
            r#"{"protocolVersion":null,"protocol_version":"1.0","type":"command:dispatch"}"#,
            r#"{"\u0063hannel":{},"type":"terminal:input"}"#,
            r#"{"type":"terminal:input","protocol\u0056ersion":[]}"#,
            r#"{"type":"a","type":"b","channel":1}"#,
            r#"{"channel":1,"channel":2}"#,
            "{\n \"type\" : \"x\" ,\t\"channel\" : false }",
        ] {
            assert!(is_native(frame), "{frame}");
        }
    }

    #[test]
    fn a_native_key_below_the_top_or_in_another_case_is_unknown() {
        for frame in [
            r#"{"type":"x","payload":{"channel":"a","protocolVersion":"1.0"}}"#,
            r#"{"type":"x","Channel":1,"protocolversion":2,"channel ":3}"#,
        ] {
            assert!(matches!(Frame::read(frame), Ok(Frame::Designed(_))), "{frame}");
        }
    }

    #[test]
    fn a_native_key_is_seen_behind_any_number_of_others() {
        let mut frame = String::from(r#"{"type":"command:dispatch""#);
        for number in 0..5000 {
            frame.push_str(&format!(",\"k{number}\":0"));
        }
        let many = format!("{frame}}}");
        assert_eq!(Frame::read(&many).expect_err("too many keys"), DecodeError::TooManyKeys);
        assert!(is_native(&format!("{frame},\"channel\":0}}")));
    }

    #[test]
    fn a_key_twice_is_refused_after_unescaping() {
        for frame in
            [r#"{"type":"a","type":"b"}"#, r#"{"type":"a","ty\u0070e":"b"}"#, r#"{"x":1,"type":"a","\u0078":2}"#]
        {
            assert!(matches!(Frame::read(frame), Err(DecodeError::DuplicateKey { .. })), "{frame}");
        }
    }

    #[test]
    fn nesting_is_bounded_wherever_it_stands() {
        let nested = |levels: usize| format!(r#"{{"type":"x","y":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(Frame::read(&nested(63)).is_ok());
        assert_eq!(Frame::read(&nested(64)).expect_err("too deep"), DecodeError::TooDeep);
        assert_eq!(Frame::read(&"[".repeat(INBOUND_BYTES_MAX)).expect_err("too deep"), DecodeError::TooDeep);
        let text = format!(r#"{{"type":"x","y":"\"{}"}}"#, "[".repeat(200));
        assert!(Frame::read(&text).is_ok());
    }

    #[test]
    fn non_object_frames_are_refused() {
        for frame in [
            "",
            " ",
            "{",
            "null",
            "[]",
            "\"type\"",
            "{}",
            "{\"type\":null}",
            "{\"type\":1}",
            "{} {}",
            "{\"type\":\"x\"},",
        ] {
            assert!(Frame::read(frame).is_err(), "{frame}");
        }
        let long = format!("{{\"type\":\"x\"}}{}", " ".repeat(INBOUND_BYTES_MAX));
        assert!(matches!(Frame::read(&long), Err(DecodeError::TooBig { .. })));
    }

    #[test]
    fn an_error_repeats_nothing_of_the_content() {
        let error = Frame::read("\"hunter2\"").expect_err("a text");
        assert_eq!(error.to_string(), "message is not a JSON object");
    }

    #[test]
    fn other_version_is_reported() {
        let mismatch = |text| match Frame::read(text) {
            Ok(Frame::Designed(designed)) => designed.version_mismatch(),
            other => panic!("{other:?}"),
        };
        assert_eq!(mismatch(r#"{"protocol_version":"1.0","type":"x"}"#), None);
        assert_eq!(mismatch(r#"{"protocol_version":"2.0","type":"x"}"#).as_deref(), Some("2.0"));
        assert_eq!(mismatch(r#"{"protocol_version":1.0,"type":"x"}"#).as_deref(), Some("1.0"));
        assert_eq!(mismatch(r#"{"protocol_version":null,"type":"x"}"#).as_deref(), Some("null"));
        assert_eq!(mismatch(r#"{"type":"x"}"#).as_deref(), Some("none"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = Frame::read(&text);
        }

        #[test]
        fn escaping_a_native_key_anyhow_hides_nothing(escaped in proptest::collection::vec(any::<bool>(), 7)) {
            let mut key = String::new();
            for (character, escape) in "channel".chars().zip(escaped) {
                if escape {
                    key.push_str(&format!("\\u{:04X}", u32::from(character)));
                } else {
                    key.push(character);
                }
            }
            let frame = format!("{{\"type\":\"command:dispatch\",\"payload\":{{}},\"{key}\":0}}");
            prop_assert!(is_native(&frame));
        }
    }
}
