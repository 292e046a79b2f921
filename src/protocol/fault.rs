//! What is wrong with a payload that was meant for us.
//!
//! Faults are shown to the console's users (in a result or in `terminal:closed`) and logged, so they name fields and
//! what is allowed, and repeat nothing of the content but the names of malformed environment entries, shortened.

use std::fmt;

/// Most malformed environment entries that are named; the others are counted.
const ENTRIES_NAMED_MAX: usize = 8;

/// Longest part of a malformed entry that is shown, in characters: enough to find it.
const ENTRY_CHARACTERS_MAX: usize = 40;

/// One thing that is wrong. The console must be corrected, or its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The payload is not an object, or there is none.
    #[error("payload must be an object")]
    NotAnObject,
    /// A field that is needed is not there.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field stands there twice: readers disagree on which one counts.
    #[error("{field} is given twice")]
    Twice {
        /// The field.
        field: &'static str,
    },
    /// A field has another type.
    #[error("{field} must be {wanted}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What is allowed.
        wanted: &'static str,
    },
    /// An id is too long or holds control characters.
    #[error("{field} must have 1–128 characters and no control characters")]
    IllegalId {
        /// The field.
        field: &'static str,
    },
    /// A text that the operating system cannot be given.
    #[error("{field} must not contain a NUL character")]
    Nul {
        /// The field.
        field: &'static str,
    },
    /// Bytes that are not standard base64 with padding.
    #[error("{field} must be standard base64 with padding")]
    NotBase64 {
        /// The field.
        field: &'static str,
    },
    /// Environment entries that are not `NAME=value`.
    #[error("env entries must be NAME=value: {0}")]
    MalformedEnv(MalformedEntries),
}

/// The malformed entries of an environment, the first few by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MalformedEntries {
    named: Vec<String>,
    more: usize,
}

impl MalformedEntries {
    /// Adds one; of a long entry only the beginning is kept.
    pub(super) fn add(&mut self, entry: &str) {
        if self.named.len() == ENTRIES_NAMED_MAX {
            self.more += 1;
            return;
        }
        // What follows a '=' is a value, and values may be secret.
        let name = entry.split('=').next().unwrap_or_default();
        let mut shown: String = name.chars().take(ENTRY_CHARACTERS_MAX).collect();
        if shown.len() < entry.len() {
            shown.push('…');
        }
        self.named.push(shown);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl fmt::Display for MalformedEntries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, entry) in self.named.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(formatter, "{separator}{entry:?}")?;
        }
        if self.more > 0 {
            write!(formatter, " and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Everything that is wrong with one payload, in the order in which it was found; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// What was collected, if there is anything.
    pub(super) fn of(faults: Vec<Fault>) -> Option<Self> {
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The faults.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_entries_are_named_and_bounded() {
        let mut entries = MalformedEntries::default();
        for number in 0..10 {
            entries.add(&format!("entry{number}"));
        }
        let text = Fault::MalformedEnv(entries).to_string();
        assert!(text.starts_with("env entries must be NAME=value: \"entry0\", "), "{text}");
        assert!(text.ends_with(" and 2 more"), "{text}");
    }

    #[test]
    fn the_value_of_a_malformed_entry_is_not_repeated() {
        let mut entries = MalformedEntries::default();
        entries.add("=secret");
        entries.add(&"x".repeat(1000));
        let text = entries.to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.len() < 100, "{text}");
    }
}
