//! Scenarios as text: reading with errors that name the line, and writing a line at a time.

use super::{End, Header, Scenario, Step, VERSION};
use crate::time::Time;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use serde::Serialize;
use serde_json::Value;

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
        let step = read_step(text).map_err(|what| error(line, what))?;
        if step.at_ms < earliest {
            return Err(error(line, format!("{} is before {earliest}, when the last step was", step.at_ms)));
        }
        earliest = step.at_ms;
        scenario.steps.push((line, step));
    }
    Ok(scenario)
}

/// Reads a step. Variants without fields take any key from serde, so what was read is held against what would be
/// written.
fn read_step(text: &str) -> Result<Step, String> {
    let read: Value = serde_json::from_str(text).map_err(|problem| problem.to_string())?;
    let step: Step = serde_json::from_str(text).map_err(|problem| problem.to_string())?;
    let written: Value = serde_json::from_str(&step.to_line()).map_err(|problem| problem.to_string())?;
    // What stands beside these belongs to the step itself, and serde knows all of it.
    let mut parts = ["inputs", "outputs"].into_iter().filter_map(|part| Some((read.get(part)?, written.get(part)?)));
    match parts.find_map(|(read, written)| surplus(read, written)) {
        Some(key) => Err(format!("the field `{key}` is unknown, or says nothing here")),
        None => Ok(step),
    }
}

/// The first key that was read and would not be written.
fn surplus<'a>(read: &'a Value, written: &Value) -> Option<&'a str> {
    if let (Value::Object(read), Value::Object(written)) = (read, written) {
        return read.iter().find_map(|(key, value)| match written.get(key) {
            Some(written) => surplus(value, written),
            None => Some(key.as_str()),
        });
    }
    let (read, written) = (read.as_array()?, written.as_array()?);
    read.iter().zip(written).find_map(|(read, written)| surplus(read, written))
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
