//! What the agent keeps of commands beside the processes: the console's ids, and what is to be started.

use super::host::ErrorNote;
use super::policy::Policy;
use crate::audit::AuditLine;
use crate::command::{self, Line, Spec};
use crate::config::Config;
use crate::hand_over::state::{Command as Saved, Stream as SavedStream};
use crate::hand_over::table;
use crate::journal::{Process, SessionRemains};
use crate::protocol::{
    Captured, CommandId, CommandOutput, CommandResult, Dispatch, Metadata, OutputStream, ResultReason,
};
use crate::report::Reporter;
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{CommandEnd, CommandKey, CommandRefusal, Refusal, StreamKey, effective_timeout_ms};
use litemap::LiteMap;
use smol::LocalExecutor;
use std::ops::Range;
use std::rc::Rc;

/// The exit code of a command that this instance does not run, or not now: that of a shell that may not execute.
const EXIT_REFUSED: i32 = 126;

/// All commands that the driver may still ask about.
pub(super) struct Commands {
    pub(super) runner: command::CommandRunner,
    policy: Policy,
    entries: LiteMap<CommandKey, Entry>,
    /// What earlier processes left.
    remains: LiteMap<CommandKey, Process>,
    next_key: CommandKey,
}

struct Entry {
    id: CommandId,
    /// What to start, until it is.
    spec: Option<Spec>,
    /// How long it may run.
    timeout_ms: u64,
    /// Why it was refused, or could not be started.
    failure: Option<String>,
    /// What its last audit line says of it, once it has ended.
    ended: Ended,
    /// What a panic hands over of it, as long as it runs.
    kept: Option<table::Kept>,
}

#[derive(Clone, Copy, Default)]
struct Ended {
    exit_code: i32,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

impl Commands {
    pub(super) fn new(
        config: &Config,
        executor: &Rc<LocalExecutor<'static>>,
        reporter: &Reporter,
        budget: &Rc<Budget>,
    ) -> Self {
        let settings = super::settings::commands(config);
        Self {
            runner: command::CommandRunner::new(settings, Rc::clone(executor), reporter.clone(), Rc::clone(budget)),
            policy: Policy::new(config),
            entries: LiteMap::new(),
            remains: LiteMap::new(),
            next_key: CommandKey::default().next(),
        }
    }

    /// Keeps a dispatch under a number of its own; the memory that it takes, and whether the operator allows it.
    pub(super) fn add(&mut self, dispatch: Dispatch) -> (CommandKey, usize, bool) {
        let refused = self.policy.refuses(&dispatch);
        let (id, timeout_ms) = (dispatch.command_id.clone(), effective_timeout_ms(dispatch.timeout_ms));
        let spec = Spec::from(dispatch);
        let bytes = spec.bytes();
        let key = self.insert(id, Some(spec), timeout_ms, refused.map(str::to_owned));
        (key, bytes, refused.is_none())
    }

    /// Keeps the id of a dispatch that cannot be followed, and why.
    pub(super) fn add_invalid(&mut self, id: CommandId, fault: String) -> CommandKey {
        self.insert(id, None, 0, Some(fault))
    }

    fn insert(&mut self, id: CommandId, spec: Option<Spec>, timeout_ms: u64, failure: Option<String>) -> CommandKey {
        let key = self.next_key();
        self.entries.insert(key, Entry { id, spec, timeout_ms, failure, ended: Ended::default(), kept: None });
        key
    }

    /// A number that no command of this process had before.
    pub(super) fn next_key(&mut self) -> CommandKey {
        let key = self.next_key;
        self.next_key = key.next();
        key
    }

    /// Keeps the id of a command whose agent died, and what is left of it.
    pub(super) fn add_interrupted(&mut self, id: CommandId, remains: SessionRemains) -> CommandKey {
        let key = self.insert(id, None, 0, None);
        if let SessionRemains::Certain(process) = remains {
            self.remains.insert(key, process);
        }
        key
    }

    /// The number of the next command, and all of them, for the next program.
    pub(super) fn save(&self) -> (CommandKey, Vec<Saved>, Vec<SavedStream>) {
        let saved = self.entries.iter().map(|(key, Entry { id, spec, timeout_ms, .. })| {
            let (spec, script) = spec.as_ref().map(Spec::save).unzip();
            let (id, process, script) = (id.as_str().to_owned(), self.runner.save(*key), script.unwrap_or_default());
            Saved { key: *key, id, timeout_ms: *timeout_ms, process, spec, script }
        });
        let streams = self.runner.save_streams().map(|(command, stream, saved)| {
            let is_stderr = stream == OutputStream::Stderr;
            SavedStream { command, is_stderr, saved }
        });
        (self.next_key, saved.collect(), streams.collect())
    }

    /// Whether a command of this id is there.
    pub(super) fn is_known(&self, id: &str) -> bool {
        self.entries.values().any(|entry| entry.id.as_str() == id)
    }

    /// Lets a panic hand over a command that runs.
    pub(super) fn keep(&mut self, command: CommandKey) {
        let (saved, is_streamed) = (self.runner.save_process(command), self.runner.is_streamed(command));
        if let (Some(entry), Some(saved)) = (self.entries.get_mut(&command), saved) {
            let Entry { id, timeout_ms, kept, .. } = entry;
            *kept = table::Kept::command(command, id.as_str(), &saved, *timeout_ms, is_streamed);
        }
    }

    /// What a panic would hand over of an output of a command, and its number there.
    pub(super) fn kept(&self, stream: StreamKey) -> Option<(&table::Kept, usize)> {
        let (command, part) = part(stream)?;
        let output = usize::from(part == OutputStream::Stderr);
        Some((self.entries.get(&command)?.kept.as_ref()?, output))
    }

    /// Goes on with the commands of the program before this one.
    pub(super) fn take_over(&mut self, next: CommandKey, streams: Vec<SavedStream>, saved: Vec<Saved>) {
        self.next_key = next;
        for SavedStream { command, is_stderr, saved } in streams {
            let stream = if is_stderr { OutputStream::Stderr } else { OutputStream::Stdout };
            self.runner.take_over_stream(command, stream, &saved);
        }
        for Saved { key, id, timeout_ms, process, spec, script } in saved {
            let Some(id) = CommandId::new(&id) else { continue };
            let spec = spec.and_then(|spec| Spec::restore(spec, script));
            self.entries
                .insert(key, Entry { id, spec, timeout_ms, failure: None, ended: Ended::default(), kept: None });
            if let Some(process) = process {
                self.runner.take_over(key, process);
                self.keep(key);
            }
        }
    }

    /// What an earlier process left of this command.
    pub(super) fn take_remains(&mut self, command: CommandKey) -> Option<Process> {
        self.remains.remove(&command)
    }

    /// The exit code of a command that has ended.
    pub(super) fn exit_code(&self, command: CommandKey) -> Option<i32> {
        self.entries.get(&command).map(|entry| entry.ended.exit_code)
    }

    pub(super) fn forget(&mut self, command: CommandKey) {
        self.entries.remove(&command);
        self.remains.remove(&command);
    }

    /// The console's id of a command.
    pub(super) fn id(&self, command: CommandKey) -> Option<&CommandId> {
        self.entries.get(&command).map(|entry| &entry.id)
    }

    pub(super) fn start(&mut self, command: CommandKey) {
        if let Some(spec) = self.entries.get_mut(&command).and_then(|entry| entry.spec.take()) {
            self.runner.start(command, spec);
        }
    }

    /// The command could not be started, for this reason.
    pub(super) fn failed(&mut self, command: CommandKey, failure: String) {
        if let Some(entry) = self.entries.get_mut(&command) {
            entry.failure = Some(failure);
        }
    }

    pub(super) fn give_credit(&self, stream: StreamKey, bytes: usize) {
        if let Some((command, part)) = part(stream) {
            self.runner.grant(command, part, bytes);
        }
    }

    pub(super) fn release(&mut self, stream: StreamKey) {
        if let Some((command, part)) = part(stream) {
            self.runner.release(command, part);
        }
    }

    /// The audit line about the begin of a command.
    pub(super) fn started_entry(&self, command: CommandKey) -> Option<AuditLine<'_>> {
        let entry = self.entries.get(&command)?;
        let (program, args) = match &entry.spec.as_ref()?.line {
            Line::Shell(line) => (line, &[][..]),
            Line::Program { program, arguments } => (program, arguments.as_slice()),
        };
        Some(AuditLine::CommandStarted { command_id: entry.id.as_str(), program, args })
    }

    /// The audit line about its end.
    pub(super) fn ended_entry(&self, command: CommandKey) -> Option<AuditLine<'_>> {
        let Entry { id, ended: Ended { exit_code, stdout_bytes, stderr_bytes }, .. } = self.entries.get(&command)?;
        let (exit_code, stdout_bytes, stderr_bytes) = (*exit_code, *stdout_bytes, *stderr_bytes);
        Some(AuditLine::CommandEnded { command_id: id.as_str(), exit_code, stdout_bytes, stderr_bytes })
    }

    /// The result of a command that was started, with what it printed so far; frees the process.
    pub(super) fn result(&mut self, command: CommandKey, end: CommandEnd, exit_code: i32) -> Option<String> {
        if let Some(entry) = self.entries.get_mut(&command) {
            entry.kept = None;
        }
        let mut captured = self.runner.finish(command);
        let entry = self.entries.get_mut(&command)?;
        let exit_code = captured.exit_code(exit_code);
        if end == CommandEnd::TimedOut {
            captured.note_timeout(entry.timeout_ms);
        }
        if end == CommandEnd::Interrupted {
            captured.note_interruption();
        }
        let (stdout_bytes, stderr_bytes) = (captured.stdout.bytes(), captured.stderr.bytes());
        entry.ended = Ended { exit_code, stdout_bytes, stderr_bytes };
        tracing::info!(command = command.0, ?end, exit_code, duration_ms = captured.duration_ms, "command ended");
        let result = CommandResult {
            command_id: &entry.id,
            stdout: captured.stdout.kept(),
            stderr: captured.stderr.kept(),
            exit_code,
            duration_ms: captured.duration_ms,
            timed_out: end == CommandEnd::TimedOut,
            cancelled: matches!(end, CommandEnd::Cancelled | CommandEnd::Drained),
            reason: match end {
                CommandEnd::Interrupted => Some(ResultReason::Interrupted),
                CommandEnd::Exited | CommandEnd::TimedOut | CommandEnd::Cancelled | CommandEnd::Drained => {
                    captured.not_started.map(|_| ResultReason::SpawnFailed)
                }
            },
        };
        Some(result.message())
    }

    /// The result in answer to a dispatch of which nothing ran.
    pub(super) fn unrun(&self, command: CommandKey, refusal: CommandRefusal, audit_problem: &str) -> Option<String> {
        let entry = self.entries.get(&command)?;
        let failure = entry.failure.as_deref().unwrap_or_default();
        let (reason, text) = match refusal {
            CommandRefusal::Refused(Refusal::Busy) => {
                (ResultReason::Busy, "too many commands wait already, or results cannot be held: try later")
            }
            CommandRefusal::Refused(Refusal::Forgotten) => {
                (ResultReason::Forgotten, "this command ran before; its result is no longer remembered")
            }
            CommandRefusal::Refused(Refusal::Draining) => (ResultReason::Draining, "the agent is stopping"),
            CommandRefusal::Policy => (ResultReason::RefusedByPolicy, failure),
            CommandRefusal::AuditUnavailable => (ResultReason::AuditUnavailable, audit_problem),
            CommandRefusal::Invalid => (ResultReason::Invalid, failure),
        };
        let text = format!("{text}\n");
        let result = CommandResult {
            command_id: &entry.id,
            stdout: Captured::default(),
            stderr: Captured::all(text.as_bytes()),
            exit_code: EXIT_REFUSED,
            duration_ms: 0,
            timed_out: false,
            cancelled: false,
            reason: Some(reason),
        };
        Some(result.message())
    }

    pub(super) fn refused_note(&self, command: CommandKey) -> ErrorNote {
        let why = self.entries.get(&command).and_then(|entry| entry.failure.clone()).unwrap_or_default();
        let text = "a command was refused by this instance's own policy".to_owned();
        ErrorNote { source: "command", text, metadata: self.metadata(command).with("why", why) }
    }

    pub(super) fn failed_note(&self, command: CommandKey) -> ErrorNote {
        let text = self.entries.get(&command).and_then(|entry| entry.failure.clone()).unwrap_or_default();
        ErrorNote { source: "command", text, metadata: self.metadata(command) }
    }

    fn metadata(&self, command: CommandKey) -> Metadata {
        self.id(command).into_iter().fold(Metadata::new(), |data, id| data.with("command_id", id.as_str()))
    }

    pub(super) fn held(&self, command: CommandKey, stream: StreamKey) -> Range<u64> {
        let held = part(stream).map_or(0..0, |(_, part)| self.runner.held(command, part));
        if let Some((kept, output)) = self.kept(stream) {
            kept.set_end(output, held.end);
        }
        held
    }

    /// Cuts bytes from a streamed output: how many, and the message that carries them.
    pub(super) fn cut(&self, command: CommandKey, stream: StreamKey, from: u64, max: usize) -> (usize, Option<String>) {
        let Some((_, part)) = part(stream) else { return (0, None) };
        let chunk = self.runner.chunk(command, part, from, max);
        let Some(command_id) = self.id(command).filter(|_| !chunk.data.is_empty()) else { return (0, None) };
        let message = CommandOutput { command_id, stream: part, data: &chunk.data, offset: chunk.offset }.message();
        (chunk.data.len(), Some(message))
    }
}

fn part(stream: StreamKey) -> Option<(CommandKey, OutputStream)> {
    match stream {
        StreamKey::Stdout(command) => Some((command, OutputStream::Stdout)),
        StreamKey::Stderr(command) => Some((command, OutputStream::Stderr)),
        StreamKey::Terminal(_) | StreamKey::Logs => None,
    }
}
