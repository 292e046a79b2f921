//! Scenarios: recorded runs of the driver, a JSON line a turn, and their exact replay.
//!
//! The same format serves a scenario in `tests/scenarios`, a recording of a production agent and a failing seed of the
//! simulation. The first line is the [`Header`]; each other line is a [`Step`]: when, what happened, and exactly what
//! was wanted. This module reads and writes no files.
//!
//! Strict: an unknown key, a missing output and a surplus output are errors that name their line.

mod replay;
mod text;

pub use crate::driver::Step;
pub use replay::{Difference, Path, replay, rewritten};
pub use text::{ParseError, parse};

use crate::limits::Schedule;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The version of the format that this code reads and writes. Version 1 recorded the connection alone;
/// version 2 named an input in a `kind` beside its fields.
pub const VERSION: u32 = 3;

/// The first line: everything that the driver depends on besides its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The version of the format.
    pub scenario: u32,
    /// The rule that the scenario shows; for a recording, where it comes from.
    pub about: String,
    /// The seed of the jitter generator.
    pub seed: u64,
    /// What the operator chose.
    pub config: Schedule,
    /// Nothing is opened or started before its audit line is written.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub audited: bool,
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
