//! `event`: something happened that the console should remember.
//!
//! It does not decide when. The production console reads `eventType` and stores what it does not know as DEPLOY, so the
//! type is an enum and stands there twice: as designed and as that console wants it (CONSOLE.md, "Events").

use super::encode::{Payload, encode, json, sealed};
use super::id::InstanceId;
use super::number::Count;
#[cfg(test)]
use super::schema;
use super::timestamp::Timestamp;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Longest text that an event carries, in bytes; longer ones are cut. It is for people, and reliable messages are held
/// in memory.
const TEXT_BYTES_MAX: usize = 4096;

/// One event.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// The id by which the console knows the instance.
    pub instance_id: &'a InstanceId,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// By which a receiver recognises an event that it has already seen.
    pub id: MessageId,
    /// What happened, in words.
    pub message: Option<&'a str>,
    /// What happened, in figures.
    pub metadata: Metadata,
    /// When it happened, which may be long before it is sent.
    pub timestamp: Timestamp,
}

impl Event<'_> {
    /// The message.
    pub fn message(&self) -> String {
        encode(&EventWire {
            instance_id: self.instance_id,
            event_type: self.event_type.lower_case(),
            stored_as: self.event_type.upper_case(),
            id: self.id,
            message: self.message.map(cut),
            metadata: &self.metadata.0,
            timestamp: self.timestamp,
        })
    }
}

/// The kinds of event that the agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename_all = "snake_case"))]
pub enum EventType {
    /// The agent started and registered for the first time.
    Deploy,
    /// A connection is up.
    Connect,
    /// A connection is gone.
    Disconnect,
    /// Sindri installed or upgraded an extension.
    ExtensionInstall,
    /// Sindri removed an extension.
    ExtensionRemove,
    /// Something is wrong that an operator should look at.
    Error,
}

impl EventType {
    const fn lower_case(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::ExtensionInstall => "extension_install",
            Self::ExtensionRemove => "extension_remove",
            Self::Error => "error",
        }
    }

    const fn upper_case(self) -> &'static str {
        match self {
            Self::Deploy => "DEPLOY",
            Self::Connect => "CONNECT",
            Self::Disconnect => "DISCONNECT",
            Self::ExtensionInstall => "EXTENSION_INSTALL",
            Self::ExtensionRemove => "EXTENSION_REMOVE",
            Self::Error => "ERROR",
        }
    }
}

/// The id of a message that may arrive twice: unique for as long as processes differ in their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Drawn at random once per process.
    pub process: u64,
    /// Counts the messages of the process.
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}-{}", self.process, self.number)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The figures of an event, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Figure>);

/// One figure of an event: a text or a whole number, so that none can be null or nested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Figure {
    /// A text, cut to what an event carries.
    Text(#[cfg_attr(test, schemars(length(max = TEXT_BYTES_MAX)))] String),
    /// A number of things.
    Count(Count),
}

impl From<&str> for Figure {
    fn from(text: &str) -> Self {
        Self::Text(cut(text).to_owned())
    }
}

impl From<String> for Figure {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<u64> for Figure {
    fn from(number: u64) -> Self {
        Self::Count(number.into())
    }
}

/// As it goes into a log.
impl fmt::Display for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&json(&self.0))
    }
}

impl Metadata {
    /// No figures yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one figure more; an earlier one of that name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Figure>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

/// The beginning of a text, at most [`TEXT_BYTES_MAX`] long.
fn cut(text: &str) -> &str {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// Something happened that the console should remember.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Event"))]
pub(super) struct EventWire<'a> {
    instance_id: &'a InstanceId,
    #[cfg_attr(test, schemars(with = "EventType"))]
    event_type: &'static str,
    /// The same in upper case, for the production console.
    #[serde(rename = "eventType")]
    #[cfg_attr(test, schemars(schema_with = "schema::upper_case_event_type"))]
    stored_as: &'static str,
    /// The same event sent again has the same one.
    id: MessageId,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(max = TEXT_BYTES_MAX)))]
    message: Option<&'a str>,
    /// Figures by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, Figure>,
    /// When it happened, which may be long before it arrives.
    timestamp: Timestamp,
}

impl sealed::Object for EventWire<'_> {}

impl Payload for EventWire<'_> {
    const KIND: &'static str = "event";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_type_stands_there_in_both_forms() {
        for event_type in [
            EventType::Deploy,
            EventType::Connect,
            EventType::Disconnect,
            EventType::ExtensionInstall,
            EventType::ExtensionRemove,
            EventType::Error,
        ] {
            let event = Event {
                instance_id: &InstanceId::new("web-1").expect("an id"),
                event_type,
                id: MessageId { process: 7, number: 1 },
                message: None,
                metadata: Metadata::new(),
                timestamp: UNIX_EPOCH.into(),
            };
            let frame: Value = serde_json::from_str(&event.message()).expect("JSON");
            let (lower, upper) = (event_type.lower_case(), event_type.upper_case());
            assert_eq!(lower.to_ascii_uppercase(), upper);
            assert_eq!(frame["payload"]["event_type"], lower);
            assert_eq!(frame["payload"]["eventType"], upper);
            assert_eq!(frame["payload"]["id"], "0000000000000007-1");
            assert_eq!(frame.get("session_id"), None);
        }
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(cut("é"), "é");
        let long = "x".to_owned() + &"é".repeat(TEXT_BYTES_MAX);
        assert_eq!(cut(&long).len(), TEXT_BYTES_MAX - 1);
        let metadata = Metadata::new().with("text", long.as_str()).with("count", 3_u64);
        assert!(json_len(&metadata) < TEXT_BYTES_MAX + 64);
    }

    fn json_len(metadata: &Metadata) -> usize {
        json(&metadata.0).len()
    }
}
