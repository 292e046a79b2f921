//! Scenarios: recorded lives of the machine, a JSON line a step, and their exact replay.
//!
//! The same format serves a story in `tests/scenarios`, a recording of a production agent and a failing seed of the
//! simulation. The first line is the [`Header`]; each other line is a [`Step`]: when, what happened, and exactly what
//! was ordered. It does not read or write files: text goes in and out.
//!
//! Strict: an unknown key, a missing order and a leftover order are errors, told with the line they stand in.

mod replay;
mod text;

pub use replay::{Difference, Path, replay, rewritten};
pub use text::{ParseError, parse};

use crate::fact::Fact;
use crate::limits::Schedule;
use crate::order::Order;
use crate::time::Time;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 1;

/// The first line: everything that the machine depends on besides the facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format.
    pub scenario: u32,
    /// The rule that the story shows; for a recording, where it comes from.
    pub about: String,
    /// The seed of the jitter generator.
    pub seed: u64,
    /// What the operator chose.
    pub config: Schedule,
}

/// One step: a fact, and what the machine made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, in milliseconds since the start; never less than in the step before.
    pub at_ms: Time,
    /// What happened.
    pub fact: Fact,
    /// All that was ordered, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Order>,
    /// The state after it, whole (`connected.ready`) or the outer part (`connected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The next deadline after it, in milliseconds since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
}

/// A last line that says why a recording ends where it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Why, for a reader.
    pub ended: String,
}

/// A whole scenario, with the number of the line that each step stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The first line.
    pub header: Header,
    /// The steps and their lines, counted from 1.
    pub steps: Vec<(usize, Step)>,
    /// The last line, if the recording says why it ends.
    pub end: Option<End>,
}
