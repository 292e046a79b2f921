//! The audit: one JSON line for each terminal and command that begins or ends (`SINDRI_AGENT_AUDIT`).
//!
//! It names ids, programs and their arguments, exit codes and byte counts; never output, never an environment. What
//! begins is written down before it does: while that cannot be done, nothing may begin. It decides nothing else, and
//! holds nothing in memory. The file is only ever appended to, its owner's alone (`own_file`), a line by one write.

use crate::protocol::Timestamp;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// Something that is written down.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Entry<'a> {
    /// A terminal is about to be opened.
    TerminalOpened {
        /// The console's id of it.
        session_id: &'a str,
        /// The shell to be started: the one that was asked for, or else the configured one.
        shell: &'a str,
    },
    /// A terminal is over.
    TerminalClosed {
        /// The console's id of it.
        session_id: &'a str,
        /// The exit code of its shell.
        exit_code: i32,
        /// How much was printed.
        output_bytes: u64,
        /// How much was typed.
        input_bytes: u64,
    },
    /// A command is about to be started.
    CommandStarted {
        /// The console's id of it.
        command_id: &'a str,
        /// A program, or with no arguments a shell line.
        program: &'a str,
        /// The arguments.
        args: &'a [String],
    },
    /// A command is over.
    CommandEnded {
        /// The console's id of it.
        command_id: &'a str,
        /// Its exit code.
        exit_code: i32,
        /// How much it printed on standard output.
        stdout_bytes: u64,
        /// How much it printed on standard error.
        stderr_bytes: u64,
    },
}

/// Why nothing may begin: the operator must make room, or correct the path.
#[derive(Debug, thiserror::Error)]
#[error("the audit {} cannot be written: {cause}", .path.display())]
pub struct Unavailable {
    path: PathBuf,
    cause: io::Error,
}

/// The audit, if one is configured.
#[derive(Debug)]
pub struct Audit {
    path: Option<PathBuf>,
    file: Option<File>,
    /// The last line may have been written in part: the next one begins on a line of its own.
    is_torn: bool,
}

impl Audit {
    /// Opens the file, or says why nothing may begin until that works.
    pub fn open(path: Option<PathBuf>) -> (Self, Option<Unavailable>) {
        let mut audit = Self { path, file: None, is_torn: false };
        let problem = audit.reopen().err();
        (audit, problem)
    }

    /// Writes one line.
    ///
    /// # Errors
    /// It could not be written whole. What was to begin must not.
    pub fn write(&mut self, entry: Entry<'_>) -> Result<(), Unavailable> {
        #[derive(Serialize)]
        struct Line<'a> {
            at: Timestamp,
            #[serde(flatten)]
            entry: Entry<'a>,
        }
        if self.path.is_none() {
            return Ok(());
        }
        self.reopen()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = if self.is_torn { vec![b'\n'] } else { Vec::new() };
        let written = serde_json::to_writer(&mut line, &Line { at: Timestamp::now(), entry })
            .map_err(io::Error::from)
            .and_then(|()| {
                line.push(b'\n');
                file.write_all(&line)
            });
        self.is_torn = written.is_err();
        written.map_err(|cause| self.unavailable(cause))
    }

    /// Opens the file if it is not; one that was removed meanwhile is made anew, or rotation would lose lines.
    fn reopen(&mut self) -> Result<(), Unavailable> {
        use std::os::unix::fs::MetadataExt as _;
        let Some(path) = &self.path else { return Ok(()) };
        let is_linked = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        if self.file.as_ref().is_some_and(is_linked) {
            return Ok(());
        }
        let opened = crate::own_file::open(path);
        self.is_torn = false;
        self.file = Some(opened.map_err(|cause| self.unavailable(cause))?);
        Ok(())
    }

    fn unavailable(&self, cause: io::Error) -> Unavailable {
        Unavailable { path: self.path.clone().unwrap_or_default(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::os::unix::fs::PermissionsExt as _;

    const STARTED: Entry<'static> = Entry::CommandStarted { command_id: "c", program: "/bin/true", args: &[] };

    #[test]
    fn each_entry_is_a_line_of_its_own_in_a_file_of_ones_own() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, problem) = Audit::open(Some(path.clone()));
        assert!(problem.is_none());
        audit.write(STARTED).expect("there is room");
        let ended = Entry::CommandEnded { command_id: "c", exit_code: 0, stdout_bytes: 3, stderr_bytes: 0 };
        audit.write(ended).expect("there is room");
        let text = std::fs::read_to_string(&path).expect("it is there");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["what"], "command_started");
        assert_eq!(lines[0]["program"], "/bin/true");
        assert_eq!(lines[1]["stdout_bytes"], 3);
        assert!(lines.iter().all(|line| line["at"].is_string()));
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_full_disk_is_an_error_and_room_made_ends_it() {
        if !std::path::Path::new("/dev/full").exists() {
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, _) = Audit::open(Some("/dev/full".into()));
        let error = audit.write(STARTED).expect_err("no room").to_string();
        assert!(error.contains("/dev/full"), "{error}");
        audit.path = Some(path.clone());
        audit.file = None;
        audit.write(STARTED).expect("there is room now");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there").lines().count(), 1);
    }

    #[test]
    fn a_line_torn_by_a_full_disk_does_not_spoil_the_next() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, _) = Audit::open(Some(path.clone()));
        std::fs::write(&path, "{\"at\":\"20").expect("half a line");
        audit.is_torn = true;
        audit.write(STARTED).expect("there is room");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(text.lines().last().is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    }

    #[test]
    fn a_file_that_was_moved_away_and_removed_is_made_anew() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, _) = Audit::open(Some(path.clone()));
        std::fs::remove_file(&path).expect("it is there");
        audit.write(STARTED).expect("made anew");
        assert!(path.exists());
    }

    #[test]
    fn without_a_file_nothing_is_written_and_nothing_refused() {
        let (mut audit, problem) = Audit::open(None);
        assert!(problem.is_none());
        audit.write(STARTED).expect("nothing to write");
    }
}
