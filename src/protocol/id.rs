//! Names by which the console and the agent know instances, sessions and commands.
//!
//! They are checked once, where they enter, and carried as types from then on. This does not say where an id comes
//! from. Lengths are in characters, as in PROTOCOL.md.

#[cfg(test)]
use super::schema;
use std::fmt;

/// Longest id of a session or command, in characters. The console's are UUIDs of 36.
pub const ID_CHARACTERS_MAX: usize = 128;

/// The same in bytes: a character has at most four.
pub const ID_BYTES_MAX: usize = 4 * ID_CHARACTERS_MAX;

/// Longest id of an instance, in characters: a longer `X-Instance-ID` takes the production console down.
pub const INSTANCE_ID_CHARACTERS_MAX: usize = 100;

/// The identity of this instance: 1–100 visible ASCII characters, so that it is a legal header value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InstanceId(
    #[cfg_attr(test, schemars(length(min = 1, max = INSTANCE_ID_CHARACTERS_MAX), regex(pattern = "^[!-~]+$")))]
    Box<str>,
);

/// A text that cannot be the id of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instance id has 1–{INSTANCE_ID_CHARACTERS_MAX} visible ASCII characters")]
pub struct InvalidInstanceId;

impl InstanceId {
    /// Checks and wraps.
    ///
    /// # Errors
    /// The text is empty, too long, or holds anything but visible ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidInstanceId> {
        let legal = !text.is_empty()
            && text.len() <= INSTANCE_ID_CHARACTERS_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if legal { Ok(Self(text.into())) } else { Err(InvalidInstanceId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl serde::Serialize for InstanceId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Declares an id that the console gives: 1–128 characters, none of them a control character, so that it can be
/// logged, sent back and stored as it is.
macro_rules! console_id {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub struct $name(
            #[cfg_attr(test, schemars(length(min = 1, max = ID_CHARACTERS_MAX), regex(pattern = schema::NO_CONTROLS)))]
            Box<str>,
        );

        impl $name {
            /// Checks and wraps; `None` for what cannot be an id.
            pub fn new(text: &str) -> Option<Self> {
                is_legal(text).then(|| Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

console_id!(
    /// The console's id of a terminal session: 1–128 characters, no control characters.
    SessionId
);

console_id!(
    /// The console's id of a command: 1–128 characters, no control characters.
    CommandId
);

fn is_legal(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_BYTES_MAX
        && text.chars().count() <= ID_CHARACTERS_MAX
        && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_short_and_visible() {
        assert!(InstanceId::new("").is_err());
        assert!(InstanceId::new("with space").is_err());
        assert!(InstanceId::new("tab\t").is_err());
        assert!(InstanceId::new("zoë").is_err());
        assert!(InstanceId::new(&"x".repeat(100)).is_ok());
        assert!(InstanceId::new(&"x".repeat(101)).is_err());
    }

    #[test]
    fn a_console_id_is_counted_in_characters() {
        assert!(SessionId::new(&"é".repeat(128)).is_some());
        assert!(SessionId::new(&"é".repeat(129)).is_none());
        assert!(CommandId::new("").is_none());
        assert!(CommandId::new("a\u{0}b").is_none());
        assert!(CommandId::new("a b\"c\\").is_some());
    }
}
