//! Writes messages: the envelope around a payload, as one line of JSON.
//!
//! It decides nothing about content. Two of the rules about frames that would take the console down are kept here for
//! all messages (CONSOLE.md, "Frames that bring it down"): a payload is always an object, because only structs of this
//! module can be one; and no text holds a NUL, which would lose the message, because the formatter writes U+FFFD in its
//! place.

use super::VERSION;
use super::id::SessionId;
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
use std::io::{self, Write};

/// What replaces characters and bytes that cannot be sent, as JSON holds it.
pub(super) const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The payload of an outbound message.
pub trait Payload: Serialize + sealed::Object {
    /// The message type.
    const KIND: &'static str;

    /// The session that the envelope must name. For terminal messages alone: on any other, the console would take it
    /// for the id of a command.
    fn session_id(&self) -> Option<&SessionId> {
        None
    }
}

/// Keeps everything but the structs of this module from being a payload.
pub(super) mod sealed {
    /// Serialises as a JSON object, whatever it holds.
    pub trait Object {}
}

/// One message, ready for a text frame.
pub fn encode<P: Payload>(payload: &P) -> String {
    json(&Envelope { protocol_version: VERSION, kind: P::KIND, session_id: payload.session_id(), payload })
}

/// Any of our structs as JSON without a NUL.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut bytes, WireFormatter);
    value.serialize(&mut serializer).expect("invariant: our structs have text keys, and memory is no failing writer");
    String::from_utf8(bytes).expect("invariant: the serializer writes UTF-8")
}

/// Appends a JSON text, quotes included, as [`json`] would write it.
pub(super) fn push_text(frame: &mut String, text: &str) {
    frame.push('"');
    for character in text.chars() {
        match character {
            '"' => frame.push_str("\\\""),
            '\\' => frame.push_str("\\\\"),
            '\n' => frame.push_str("\\n"),
            '\r' => frame.push_str("\\r"),
            '\t' => frame.push_str("\\t"),
            '\u{8}' => frame.push_str("\\b"),
            '\u{c}' => frame.push_str("\\f"),
            '\0' => frame.push(REPLACEMENT),
            control @ '\u{1}'..='\u{1f}' => {
                let code = u32::from(control);
                frame.push_str("\\u00");
                frame.extend([code >> 4, code & 15].map(|digit| char::from_digit(digit, 16).unwrap_or('0')));
            }
            plain => frame.push(plain),
        }
    }
    frame.push('"');
}

/// Length in bytes of a character within a JSON text as [`json`] would write it.
pub(super) fn encoded_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0' => REPLACEMENT.len_utf8(),
        '\u{1}'..='\u{1f}' => 6,
        plain => plain.len_utf8(),
    }
}

#[derive(Serialize)]
struct Envelope<'a, P> {
    protocol_version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a SessionId>,
    payload: &'a P,
}

/// Compact JSON whose texts hold no NUL, not even as an escape.
struct WireFormatter;

impl Formatter for WireFormatter {
    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::AsciiControl(0) => writer.write_all(REPLACEMENT.encode_utf8(&mut [0; 4]).as_bytes()),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_nul_is_replaced() {
        assert_eq!(json(&"a\0b\\u0000"), "\"a\u{fffd}b\\\\u0000\"");
    }

    proptest! {
        #[test]
        fn a_text_written_by_hand_is_the_serializers(text: String, controls in "[\\x00-\\x1f\"\\\\é]{0,8}") {
            let text = text + &controls;
            let mut by_hand = String::new();
            push_text(&mut by_hand, &text);
            prop_assert_eq!(&by_hand, &json(&text));
            prop_assert_eq!(by_hand.len(), 2 + text.chars().map(encoded_len).sum::<usize>());
            let back: String = serde_json::from_str(&by_hand).expect("JSON");
            prop_assert_eq!(back, text.replace('\0', "\u{fffd}"));
        }
    }
}
