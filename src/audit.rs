//! The audit: one JSON line for each terminal and command that begins or ends (`SINDRI_AGENT_AUDIT`).
//!
//! A line names ids, programs and their arguments, exit codes and byte counts; never output, never an environment. The
//! caller enqueues a line, goes on, and starts a terminal or command only after [`AuditReport::Written`] for its line.
//! The file is only ever appended to, readable by its owner alone (`own_file`); each line is one write, off the loop's
//! thread (`writer`).

use crate::protocol::Timestamp;
use crate::report::{REPORTS_MAX, Reporter};
use crate::writer::{ANSWER_TIMEOUT, Answer, Refused, Writer, not_answering};
use async_channel::Sender;
use serde::Serialize;
use smol::LocalExecutor;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How much may wait for the file, in bytes: the lines of four dispatches with the longest arguments that a message
/// holds.
const QUEUE_BYTES_MAX: usize = 4 << 20;

/// What the queue counts for a line besides its text, in bytes.
const LINE_OVERHEAD_BYTES: usize = 128;

/// The number that the caller gives a line, to recognize its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

/// What happened to a line. Each line that was [queued](Accepted::Queued) has exactly one report, in the order of the
/// lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditReport {
    /// It is in the file.
    Written {
        /// The line.
        id: EntryId,
    },
    /// It is not in the file, or only in part. The caller must not begin what the line announces.
    Failed {
        /// The line.
        id: EntryId,
        /// Why, for the operator: it names the file.
        error: String,
    },
}

/// What [`Audit::write`] did with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is enqueued; a [`AuditReport`] follows.
    Queued,
    /// No audit is configured: no report follows, and the caller may begin.
    NotConfigured,
}

/// An entry of the audit.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum AuditLine<'a> {
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
    /// The console asks for logs.
    LogsSubscribed {
        /// Which, in its words.
        paths: &'a [String],
    },
}

/// The audit cannot be written, so nothing may begin: the operator must make room, or correct the path.
#[derive(Debug, thiserror::Error)]
#[error("the audit {} cannot be written: {cause}", .path.display())]
pub struct Unavailable {
    path: PathBuf,
    cause: io::Error,
}

/// The audit, if one is configured.
#[derive(Debug)]
pub struct Audit {
    configured: Option<Configured>,
}

#[derive(Debug)]
struct Configured {
    path: PathBuf,
    /// Locked on the writer's thread alone.
    log: Arc<Mutex<AuditFile>>,
    writer: Writer,
    reports: Sender<AuditReport>,
}

/// The opening of the file, which may take long.
#[derive(Debug)]
pub struct Opening {
    asked: Option<(PathBuf, Answer<Result<(), Unavailable>>)>,
}

impl Opening {
    /// Waits until the file is open; returns an error if no terminal or command may begin.
    pub fn wait(self, deadline: Instant) -> Option<Unavailable> {
        let (path, answer) = self.asked?;
        answer.wait(deadline).unwrap_or_else(|cause| Err(Unavailable { path, cause })).err()
    }
}

impl Audit {
    /// Begins to open the file. Reports reach `reporter` by a task on the executor of the loop.
    pub fn open(path: Option<PathBuf>, executor: &LocalExecutor<'static>, reporter: Reporter) -> (Self, Opening) {
        let (sender, reports) = async_channel::bounded(REPORTS_MAX);
        if path.is_some() {
            let forward = async move {
                while let Ok(report) = reports.recv().await {
                    reporter.report(report).await;
                }
            };
            executor.spawn(forward).detach();
        }
        Self::reporting_to(path, sender)
    }

    fn reporting_to(path: Option<PathBuf>, reports: Sender<AuditReport>) -> (Self, Opening) {
        let Some(path) = path else { return (Self { configured: None }, Opening { asked: None }) };
        let log = Arc::new(Mutex::new(AuditFile { path: path.clone(), file: None, is_torn: false }));
        let writer = Writer::new("audit", QUEUE_BYTES_MAX);
        let file = Arc::clone(&log);
        let answer = writer.ask(move || file.lock().unwrap_or_else(PoisonError::into_inner).reopen());
        let opening = Opening { asked: Some((path.clone(), answer)) };
        (Self { configured: Some(Configured { path, log, writer, reports }) }, opening)
    }

    /// Enqueues one line, and returns at once.
    ///
    /// # Errors
    /// Too much waits, or the file system has not answered for 5 s. No report follows; the caller must not begin.
    pub fn write(&self, id: EntryId, entry: AuditLine<'_>) -> Result<Accepted, Unavailable> {
        #[derive(Serialize)]
        struct Line<'a> {
            at: Timestamp,
            #[serde(flatten)]
            entry: AuditLine<'a>,
        }
        let Some(configured) = &self.configured else { return Ok(Accepted::NotConfigured) };
        let unavailable = |cause| Unavailable { path: configured.path.clone(), cause };
        if configured.writer.is_stalled(ANSWER_TIMEOUT) {
            return Err(unavailable(not_answering()));
        }
        let mut line = serde_json::to_vec(&Line { at: Timestamp::now(), entry }).map_err(|e| unavailable(e.into()))?;
        line.push(b'\n');
        let (file, reports) = (Arc::clone(&configured.log), configured.reports.clone());
        let enqueued = configured.writer.push(line.len() + LINE_OVERHEAD_BYTES, move || {
            let written = file.lock().unwrap_or_else(PoisonError::into_inner).append(&line);
            let report = match written {
                Ok(()) => AuditReport::Written { id },
                Err(error) => AuditReport::Failed { id, error: error.to_string() },
            };
            // The loop drops the other end only when the process ends.
            let _ = reports.send_blocking(report);
        });
        enqueued.map(|()| Accepted::Queued).map_err(|refused| {
            unavailable(match refused {
                Refused::NoThread(cause) => cause,
                full @ Refused::Full => io::Error::other(full),
            })
        })
    }
}

/// The file, and what is known of it.
#[derive(Debug)]
struct AuditFile {
    path: PathBuf,
    file: Option<File>,
    /// The last line may have been written in part: the next one begins on a line of its own.
    is_torn: bool,
}

impl AuditFile {
    fn append(&mut self, line: &[u8]) -> Result<(), Unavailable> {
        self.reopen()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = if self.is_torn { file.write_all(&[b"\n", line].concat()) } else { file.write_all(line) };
        self.is_torn = written.is_err();
        written.map_err(|cause| self.unavailable(cause))
    }

    /// Opens the file unless it is open. A file that was removed is created again, or rotation would lose lines.
    fn reopen(&mut self) -> Result<(), Unavailable> {
        use std::os::unix::fs::MetadataExt as _;
        let is_linked = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
        if self.file.as_ref().is_some_and(is_linked) {
            return Ok(());
        }
        let opened = crate::own_file::open(&self.path);
        self.is_torn = false;
        self.file = Some(opened.map_err(|cause| self.unavailable(cause))?);
        Ok(())
    }

    fn unavailable(&self, cause: io::Error) -> Unavailable {
        Unavailable { path: self.path.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_channel::Receiver;
    use serde_json::Value;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    const STARTED: AuditLine<'static> = AuditLine::CommandStarted { command_id: "c", program: "/bin/true", args: &[] };

    /// An audit, and what it reports.
    struct Audited {
        audit: Audit,
        reports: Receiver<AuditReport>,
        next: u64,
    }

    impl Audited {
        fn open(path: &Path) -> (Self, Option<Unavailable>) {
            let (sender, reports) = async_channel::bounded(REPORTS_MAX);
            let (audit, opening) = Audit::reporting_to(Some(path.to_owned()), sender);
            (Self { audit, reports, next: 0 }, opening.wait(Instant::now() + Duration::from_secs(30)))
        }

        /// Enqueues a line and waits for its report.
        fn write(&mut self, entry: AuditLine<'_>) -> Result<(), String> {
            self.next += 1;
            let sent = EntryId(self.next);
            assert_eq!(self.audit.write(sent, entry).expect("there is room"), Accepted::Queued);
            match self.reports.recv_blocking().expect("the audit reports") {
                AuditReport::Written { id } if id == sent => Ok(()),
                AuditReport::Failed { id, error } if id == sent => Err(error),
                other => panic!("{other:?}"),
            }
        }

        /// The file as the writer's thread sees it.
        fn file<T>(&self, change: impl FnOnce(&mut AuditFile) -> T) -> T {
            let configured = self.audit.configured.as_ref().expect("it is configured");
            change(&mut configured.log.lock().expect("no test panics with it"))
        }
    }

    #[test]
    fn each_entry_is_one_line_in_a_private_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, problem) = Audited::open(&path);
        assert!(problem.is_none());
        audit.write(STARTED).expect("there is room");
        let ended = AuditLine::CommandEnded { command_id: "c", exit_code: 0, stdout_bytes: 3, stderr_bytes: 0 };
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
    fn full_disk_is_reported_until_there_is_room() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, _) = Audited::open(Path::new("/dev/full"));
        let error = audit.write(STARTED).expect_err("no room");
        assert!(error.contains("/dev/full"), "{error}");
        audit.file(|file| (file.path, file.file) = (path.clone(), None));
        audit.write(STARTED).expect("there is room now");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there").lines().count(), 1);
    }

    #[test]
    fn torn_line_does_not_spoil_the_next() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, _) = Audited::open(&path);
        std::fs::write(&path, "{\"at\":\"20").expect("half a line");
        audit.file(|file| file.is_torn = true);
        audit.write(STARTED).expect("there is room");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(text.lines().last().is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    }

    #[test]
    fn removed_file_is_created_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("audit.jsonl");
        let (mut audit, _) = Audited::open(&path);
        std::fs::remove_file(&path).expect("it is there");
        audit.write(STARTED).expect("created again");
        assert!(path.exists());
    }

    #[test]
    fn without_a_file_nothing_is_written_or_refused() {
        let (sender, reports) = async_channel::bounded(REPORTS_MAX);
        let (audit, opening) = Audit::reporting_to(None, sender);
        assert!(opening.wait(Instant::now()).is_none());
        assert_eq!(audit.write(EntryId(1), STARTED).expect("nothing to write"), Accepted::NotConfigured);
        assert!(reports.is_empty());
    }

    #[test]
    fn hung_file_holds_up_no_caller_and_fills_the_queue() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (audited, _) = Audited::open(&directory.path().join("audit.jsonl"));
        let (audit, reports) = (&audited.audit, &audited.reports);
        let argument = ["x".repeat(1 << 20)];
        let long = AuditLine::CommandStarted { command_id: "c", program: "/bin/true", args: &argument };
        let queued = audited.file(|_| {
            // Here the writer's thread waits, as it does in a write that does not return.
            let mut queued = 0;
            while audit.write(EntryId(queued), long).is_ok() {
                queued += 1;
            }
            assert!(reports.is_empty() && (3..=5).contains(&queued), "{queued}");
            queued
        });
        for expected in 0..queued {
            let report = reports.recv_blocking().expect("the audit reports");
            assert_eq!(report, AuditReport::Written { id: EntryId(expected) });
        }
    }
}
