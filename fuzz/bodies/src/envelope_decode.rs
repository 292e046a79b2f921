//! Any bytes, as the text of an inbound frame: what decoding must never do, and what it must always do.
//!
//! The target checks (CONSOLE.md, "What it sends") that decoding
//!
//! - never panics, and never holds more memory than the stated multiple of the frame;
//! - refuses nesting deeper than [`NESTING_MAX`], anywhere in the frame;
//! - gives no action for a native or hybrid frame, however its native key is spelt;
//! - ignores unknown fields;
//! - loses and adds nothing: a message that causes an action, encoded again, decodes to itself;
//! - quotes only short parts of a frame in errors and warnings, and never typed input.
//!
//! The WebSocket layer refuses text that is not UTF-8. Here each fault becomes U+FFFD, as a careless layer would do.
//! The costly checks run on a part of the inputs. The input itself decides, so that a finding can be reproduced;
//! [`run_wholly`] runs all checks.

use crate::contract;
use crate::heap;
use crate::planted::decode;
use draupnir::protocol::{
    DECODE_ALLOCATION_BASE_BYTES, DECODE_ALLOCATION_FACTOR, DecodeError, Decoded, INBOUND_BYTES_MAX, Ignored, Inbound,
    NESTING_MAX, echo,
};
use draupnir_fsm::command::TIMEOUT_MAX_MS;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The costly checks run on one input in this many.
const SHARE: u64 = 8;

/// The longest quoted part of a foreign text, in characters.
const QUOTED_CHARACTERS_MAX: usize = 64;

/// The longest text of an error or of a list of faults, in bytes: the names of eight entries of 40 characters, each of
/// which may be written as `\u{10ffff}`, and the other faults.
const WORDS_BYTES_MAX: usize = 8 * 40 * 10 + 1024;

/// How much a frame may grow with an added field, in bytes.
const ROOM_BYTES: usize = 4096;

/// Keys that make a frame native, in spellings that are equal in JSON.
const NATIVE_KEYS: [&str; 8] = [
    r#""channel""#,
    r#""protocolVersion""#,
    r#""\u0063hannel""#,
    r#""protocol\u0056ersion""#,
    r#""channe\u006c""#,
    r#""\u0070rotocolVersio\u006E""#,
    r#""\u0063\u0068\u0061\u006e\u006e\u0065\u006c""#,
    r#""protocolVersi\u006Fn""#,
];

/// Values of a native key. The frame is native with each of them.
const NATIVE_VALUES: [&str; 4] = ["null", "0", r#""commands""#, r#"{"type":[]}"#];

/// Checks one input.
pub fn run(input: &[u8]) {
    check(input, fingerprint(input).is_multiple_of(SHARE));
}

/// Runs every check on the input.
pub fn run_wholly(input: &[u8]) {
    check(input, true);
}

fn check(input: &[u8], wholly: bool) {
    let text = String::from_utf8_lossy(input);
    let text = text.as_ref();
    let (decoded, taken) = heap::taken_by(|| decode(text));
    let allowed = text.len() * DECODE_ALLOCATION_FACTOR + DECODE_ALLOCATION_BASE_BYTES;
    assert!(taken.at_once <= allowed, "{} bytes held at once for a frame of {}", taken.at_once, text.len());
    if !wholly {
        return;
    }
    match decoded {
        Err(error) => assert!(error.to_string().len() <= WORDS_BYTES_MAX, "a long error: {error}"),
        Ok(decoded) => {
            let fingerprint = fingerprint(input);
            says_little_of_the_frame(&decoded);
            is_no_native_frame(text, &decoded);
            comes_back(&decoded.message);
            if text.len() + ROOM_BYTES <= INBOUND_BYTES_MAX {
                ignores_what_it_does_not_know(text, &decoded, fingerprint);
                never_acts_on_a_hybrid(text, fingerprint);
                refuses_what_is_nested_too_deep(text, &decoded, fingerprint);
            }
        }
    }
}

/// The log quotes only a short part of a frame, however long the frame is, and no typed input.
fn says_little_of_the_frame(decoded: &Decoded) {
    let shown = format!("{:?}", decoded.message);
    if let Inbound::TerminalInput { data, session_id } = &decoded.message {
        assert_eq!(shown, format!("TerminalInput({session_id:?}, {} bytes)", data.len()));
    }
    let is_short =
        |text: &str| text.len() <= 4 * QUOTED_CHARACTERS_MAX && text.chars().count() <= QUOTED_CHARACTERS_MAX;
    assert!(decoded.version_mismatch.as_deref().is_none_or(is_short), "a long version: {decoded:?}");
    match &decoded.message {
        Inbound::Ignored(Ignored::Unknown(kind)) => assert!(is_short(kind), "a long type: {kind:?}"),
        Inbound::InvalidTerminal { faults, .. }
        | Inbound::InvalidDispatch { faults, .. }
        | Inbound::InvalidCancel { faults } => {
            assert!(faults.iter().next().is_some(), "invalid, and nothing is wrong");
            assert!(faults.to_string().len() <= WORDS_BYTES_MAX, "long faults: {faults}");
        }
        Inbound::TerminalCreate { .. }
        | Inbound::TerminalInput { .. }
        | Inbound::TerminalResize { .. }
        | Inbound::TerminalClose { .. }
        | Inbound::CommandDispatch(_)
        | Inbound::CommandCancel { .. }
        | Inbound::LogSubscribe { .. }
        | Inbound::LogUnsubscribe { .. }
        | Inbound::Ignored(Ignored::Native | Ignored::LogSubscription | Ignored::NonsenseSize) => {}
    }
}

/// An accepted frame has no native key, by an independent reading.
fn is_no_native_frame(text: &str, decoded: &Decoded) {
    #[derive(Deserialize)]
    struct Native {
        #[serde(default)]
        channel: Present,
        #[serde(default, rename = "protocolVersion")]
        protocol_version: Present,
    }
    // A key twice is an error here, and a native key twice is a native key.
    let is_native = match serde_json::from_str::<Native>(text) {
        Ok(native) => native.channel.0 || native.protocol_version.0,
        Err(error) => error.is_data(),
    };
    let is_said_to_be = decoded.message == Inbound::Ignored(Ignored::Native);
    assert_eq!(is_native, is_said_to_be, "native: {is_native}, decoded: {decoded:?}");
}

/// Whether a field exists, even if it is null.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// A message that causes an action, encoded again, is the same message.
fn comes_back(message: &Inbound) {
    if let Some(frame) = echo(message) {
        // The machine clamps a time-out, not the decoder.
        if !matches!(message, Inbound::CommandDispatch(dispatch) if dispatch.timeout_ms > TIMEOUT_MAX_MS) {
            contract::note("envelope_decode", "ConsoleMessage", &frame);
        }
        let again = decode(&frame).map(|decoded| decoded.message);
        assert_eq!(again.as_ref(), Ok(message), "after {frame}");
    }
}

/// One more field, at the top and in the payload, changes nothing.
fn ignores_what_it_does_not_know(text: &str, decoded: &Decoded, fingerprint: u64) {
    let key = format!(r#""unknown {fingerprint:x}""#);
    let value = r#"{"type":"command:dispatch","channel":[null,1e3,"\\"],"payload":{}}"#;
    let Some(start) = text.find('{') else { return };
    let grown = with_field(text, start, &key, value);
    match decode(&grown) {
        Ok(again) => assert_eq!(&again, decoded, "a field more at the top: {grown}"),
        // The frame had the most keys already.
        Err(DecodeError::TooManyKeys) => {}
        Err(error) => panic!("a field more at the top: {error}: {grown}"),
    }
    if let Some(start) = start_of_payload(text) {
        let grown = with_field(text, start, &key, value);
        assert_eq!(decode(&grown).as_ref(), Ok(decoded), "a field more in the payload: {grown}");
    }
}

/// With a native key at its beginning or end, any frame has no effect.
fn never_acts_on_a_hybrid(text: &str, fingerprint: u64) {
    let choice = |of: usize, shift: u32| usize::try_from(fingerprint >> shift).unwrap_or_default() % of;
    let key = NATIVE_KEYS[choice(NATIVE_KEYS.len(), 8)];
    let value = NATIVE_VALUES[choice(NATIVE_VALUES.len(), 16)];
    let hybrid = if fingerprint >> 24 & 1 == 0 {
        text.find('{').map(|start| with_field(text, start, key, value))
    } else {
        text.rfind('}').map(|end| {
            let comma = if is_empty_object(text) { "" } else { "," };
            format!("{}{comma}{key}:{value}{}", &text[..end], &text[end..])
        })
    };
    let Some(hybrid) = hybrid else { return };
    let message = decode(&hybrid).map(|decoded| decoded.message);
    assert_eq!(message, Ok(Inbound::Ignored(Ignored::Native)), "a hybrid: {hybrid}");
}

/// One level of nesting too many is refused at the top and in the payload; within a string it does not count.
fn refuses_what_is_nested_too_deep(text: &str, decoded: &Decoded, fingerprint: u64) {
    const DEEP: usize = NESTING_MAX as usize;
    let key = format!(r#""unknown {fingerprint:x}""#);
    let Some(start) = text.find('{') else { return };
    let start = if fingerprint >> 25 & 1 == 0 { start } else { start_of_payload(text).unwrap_or(start) };
    let lists = format!("{}{}", "[".repeat(DEEP), "]".repeat(DEEP));
    assert_eq!(decode(&with_field(text, start, &key, &lists)), Err(DecodeError::TooDeep), "too deep in {text}");
    let shown = format!("\"\\\"{}\"", "[".repeat(DEEP));
    match decode(&with_field(text, start, &key, &shown)) {
        Ok(again) => assert_eq!(&again, decoded, "brackets in a text: {text}"),
        Err(DecodeError::TooManyKeys) => {}
        Err(error) => panic!("brackets in a text: {error}: {text}"),
    }
}

/// The frame with one more field, the first one of the object that begins at `start`.
fn with_field(text: &str, start: usize, key: &str, value: &str) -> String {
    let (before, after) = text.split_at(start + 1);
    let comma = if after.trim_start().starts_with('}') { "" } else { "," };
    format!("{before}{key}:{value}{comma}{after}")
}

fn is_empty_object(text: &str) -> bool {
    text.trim().strip_prefix('{').is_some_and(|rest| rest.trim_start() == "}")
}

/// The offset of the payload, if it is an object.
fn start_of_payload(text: &str) -> Option<usize> {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    let payload = serde_json::from_str::<Frame<'_>>(text).ok()?.payload?.get();
    payload.starts_with('{').then(|| payload.as_ptr().addr() - text.as_ptr().addr())
}

/// A hash of the input (FNV-1a, folded).
fn fingerprint(input: &[u8]) -> u64 {
    let hash = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash ^ (hash >> 32)
}
