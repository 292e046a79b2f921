//! The decoder as the targets call it: the agent's own, or one with a deliberate fault, to test the targets.
//!
//! The agent has no such code. Each fault is a wrapper that acts like a careless decoder, behind `--cfg planted="…"`,
//! which `PLANTED=…` sets (see `build.rs`). `fuzz/planted` plants each fault and waits until the targets find it.

#[cfg(not(any(planted = "hybrid_accepted", planted = "index_past_the_end", planted = "unbounded_recursion")))]
pub(crate) use draupnir::protocol::decode;

#[cfg(planted = "hybrid_accepted")]
pub(crate) use hybrid_accepted::decode;

#[cfg(planted = "index_past_the_end")]
pub(crate) use index_past_the_end::decode;

#[cfg(planted = "unbounded_recursion")]
pub(crate) use unbounded_recursion::decode;

/// Finds native keys in their usual spelling only, and takes escaped ones for unknown keys.
#[cfg(planted = "hybrid_accepted")]
mod hybrid_accepted {
    use draupnir::protocol::{self, DecodeError, Decoded, Ignored, Inbound};
    use serde_json::{Map, Value};

    pub(crate) fn decode(text: &str) -> Result<Decoded, DecodeError> {
        let decoded = protocol::decode(text)?;
        let is_native = text.contains("\"channel\"") || text.contains("\"protocolVersion\"");
        if is_native || decoded.message != Inbound::Ignored(Ignored::Native) {
            return Ok(decoded);
        }
        let Ok(mut frame) = serde_json::from_str::<Map<String, Value>>(text) else { return Ok(decoded) };
        frame.remove("channel");
        frame.remove("protocolVersion");
        protocol::decode(&Value::Object(frame).to_string())
    }
}

/// After an escaped first half of a surrogate pair, reads the second half even beyond the end of the text.
#[cfg(planted = "index_past_the_end")]
mod index_past_the_end {
    use draupnir::protocol::{self, DecodeError, Decoded};

    pub(crate) fn decode(text: &str) -> Result<Decoded, DecodeError> {
        let bytes = text.as_bytes();
        for (at, escape) in text.match_indices("\\u") {
            let digits = text.get(at + 2..at + 6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            let is_first_half = digits.is_some_and(|code| (0xd800..0xdc00).contains(&code));
            let second = at + 6;
            if is_first_half && bytes[second..second + 2] == *escape.as_bytes() && bytes[second + 5] == b'x' {
                return Err(DecodeError::NotAnObject);
            }
        }
        protocol::decode(text)
    }
}

/// Reads deep nesting recursively, and skips unknown fields.
#[cfg(planted = "unbounded_recursion")]
mod unbounded_recursion {
    use draupnir::protocol::{self, DecodeError, Decoded, NESTING_MAX};

    pub(crate) fn decode(text: &str) -> Result<Decoded, DecodeError> {
        match protocol::decode(text) {
            Err(DecodeError::TooDeep) => {
                let mut flat = Vec::new();
                let mut rest = text.as_bytes();
                while !rest.is_empty() {
                    rest = flatten(rest, 0, &mut flat);
                }
                protocol::decode(&String::from_utf8_lossy(&flat))
            }
            decoded => decoded,
        }
    }

    fn flatten<'a>(mut rest: &'a [u8], depth: u32, flat: &mut Vec<u8>) -> &'a [u8] {
        while let Some((byte, behind)) = rest.split_first() {
            rest = behind;
            if depth < NESTING_MAX {
                flat.push(*byte);
            }
            match byte {
                b'[' | b'{' => rest = flatten(rest, depth + 1, flat),
                b']' | b'}' => return rest,
                _ => {}
            }
        }
        rest
    }
}
