//! The problems of a configuration, as texts with which the operator can correct it.
//!
//! Every text of a problem is made here, from fixed words and the value of one variable. A value that holds the key is
//! not shown, nor any part of it, whichever variable it is in; control characters are escaped and long values are cut.

use super::secret::REDACTED;
use std::fmt;

/// Longest part of a value that is shown, in characters.
const VALUE_CHARACTERS_MAX: usize = 200;

/// One variable that the operator must correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub variable: &'static str,
    /// What it holds, fit to be shown; none where it is not set.
    value: Option<String>,
    /// What is allowed.
    allowed: String,
}

impl Problem {
    /// A variable whose value is not allowed.
    pub(super) fn new(variable: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self { variable, value: Some(value.to_owned()), allowed: allowed.into() }
    }

    /// A variable that is needed and not set.
    pub(super) fn missing(variable: &'static str, allowed: impl Into<String>) -> Self {
        Self { variable, value: None, allowed: allowed.into() }
    }

    /// Hides a value that `holds_key`, even if the part that would be shown does not hold it, and cuts other values.
    fn fit_to_be_shown(&mut self, was_set: &str, holds_key: impl Fn(&str) -> bool) {
        let Some(value) = &mut self.value else { return };
        // An escape can spell what the value itself does not hold.
        if holds_key(was_set) || holds_key(&format!("{value:?}")) {
            *value = REDACTED.to_owned();
        }
        if let Some((end, _)) = value.char_indices().nth(VALUE_CHARACTERS_MAX) {
            value.truncate(end);
            value.push('…');
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, allowed } = self;
        match value {
            None => write!(formatter, "{variable} is not set; it must be {allowed}"),
            Some(value) if value == REDACTED => {
                write!(formatter, "{variable} is {value}; it must be {allowed}")
            }
            Some(value) => write!(formatter, "{variable} is {value:?}; it must be {allowed}"),
        }
    }
}

/// All problems; never empty. It prints one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The collected problems, if there are any. `was_set` returns the value of a variable.
    pub(super) fn of(
        mut problems: Vec<Problem>,
        was_set: impl Fn(&str) -> String,
        holds_key: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        for problem in &mut problems {
            problem.fit_to_be_shown(&was_set(problem.variable), &holds_key);
        }
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// The problems, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
