//! The findings of the checks, and how they are printed.
//!
//! A finding is printed as soon as it is known; with `--json` all of them are printed as one object at the end.

use serde::Serialize;
use std::io::Write;

/// The width of the column of names.
const NAME_WIDTH: usize = 14;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Nothing to do.
    Ok,
    /// The agent works, but the operator should look at this.
    Warn,
    /// The agent cannot do its work, or not all of it.
    Fail,
    /// Not checked, because an earlier check has failed.
    Skip,
}

/// One line of the output.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
}

/// All findings.
pub(super) struct Sheet {
    json: bool,
    output: Box<dyn Write>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Summary<'a> {
    version: &'static str,
    healthy: bool,
    checks: &'a [Finding],
}

impl Sheet {
    pub(super) fn new(json: bool, output: impl Write + 'static) -> Self {
        Self { json, output: Box::new(output), findings: Vec::new() }
    }

    pub(super) fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Ok, text.into());
    }

    pub(super) fn warn(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Warn, text.into());
    }

    pub(super) fn fail(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, Verdict::Fail, text.into());
    }

    /// Reports these checks as not made, and why.
    pub(super) fn skip(&mut self, checks: impl IntoIterator<Item = &'static str>, because: &str) {
        for check in checks {
            self.add(check, Verdict::Skip, format!("not checked: {because}"));
        }
    }

    /// Prints the JSON object, if it was asked for; true if no check has failed.
    pub(super) fn finish(mut self) -> bool {
        let healthy = !self.findings.iter().any(|finding| finding.verdict == Verdict::Fail);
        if self.json {
            let summary = Summary { version: env!("CARGO_PKG_VERSION"), healthy, checks: &self.findings };
            let text = serde_json::to_string_pretty(&summary).expect("texts and numbers can be written as JSON");
            self.print(&text);
        }
        healthy
    }

    fn add(&mut self, check: &'static str, verdict: Verdict, text: String) {
        // A finding stays one line, even if a console's text or a file name has line breaks.
        let text = text.replace(char::is_control, " ");
        if !self.json {
            let word = match verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warn",
                Verdict::Fail => "fail",
                Verdict::Skip => "skip",
            };
            self.print(&format!("{word:<5} {check:<NAME_WIDTH$} {text}"));
        }
        self.findings.push(Finding { check, verdict, text });
    }

    fn print(&mut self, line: &str) {
        // If the reader has closed our standard output, the exit status still says whether a check failed.
        let _ = writeln!(self.output, "{line}").and_then(|()| self.output.flush());
    }
}
