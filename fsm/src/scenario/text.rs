//! Scenarios as text: reading with errors that name the line, and writing a line at a time.

use super::{End, Header, Scenario, Step, VERSION};
use crate::time::Time;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;

/// Why a text is not a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl core::error::Error for ParseError {}

/// Reads a scenario. Blank lines are skipped.
///
/// # Errors
/// Names the first line that is not what the format wants.
pub fn parse(text: &str) -> Result<Scenario, ParseError> {
    let mut lines = (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty());
    let (line, first) = lines.next().ok_or_else(|| error(1, "the header is missing"))?;
    let header: Header = serde_json::from_str(first).map_err(|problem| error(line, problem))?;
    if header.scenario != VERSION {
        let version = header.scenario;
        return Err(error(line, format!("format version {version}; this program replays version {VERSION} alone")));
    }
    let mut scenario = Scenario { header, steps: Vec::new(), end: None };
    let mut earliest = Time::START;
    for (line, text) in lines {
        if scenario.end.is_some() {
            return Err(error(line, "nothing may follow the line that ends a recording"));
        }
        if text.starts_with("{\"ended\"") {
            scenario.end = Some(serde_json::from_str(text).map_err(|problem| error(line, problem))?);
            continue;
        }
        let step: Step = serde_json::from_str(text).map_err(|problem| error(line, problem))?;
        if step.at_ms < earliest {
            return Err(error(line, format!("{} is before {earliest}, when the last step was", step.at_ms)));
        }
        earliest = step.at_ms;
        scenario.steps.push((line, step));
    }
    Ok(scenario)
}

impl Header {
    /// The first line of a scenario, without its end of line.
    pub fn to_line(&self) -> String {
        line_of(self)
    }
}

impl Step {
    /// One line of a scenario, without its end of line.
    pub fn to_line(&self) -> String {
        line_of(self)
    }
}

impl End {
    /// The last line of a recording, without its end of line.
    pub fn to_line(&self) -> String {
        line_of(self)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.header.to_line())?;
        for (_, step) in &self.steps {
            writeln!(f, "{}", step.to_line())?;
        }
        self.end.iter().try_for_each(|end| writeln!(f, "{}", end.to_line()))
    }
}

fn line_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("inputs, outputs and headers have string keys and no failing serialisers")
}

fn error(line: usize, what: impl fmt::Display) -> ParseError {
    ParseError { line, what: what.to_string() }
}
