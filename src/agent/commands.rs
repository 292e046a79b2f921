//! Commands as the console knows them: which id is which number, what was dispatched, and the results that are kept for
//! repeats.
//!
//! The processes are [`crate::command`]'s; when one starts, ends and is answered is the machine's to say; results and
//! streamed output go through the ledger. Exactly once holds for one lifetime of the process.

use super::Agent;
use super::policy::Policy;
use super::sessions::Source;
use super::share::Share;
use crate::audit::Entry;
use crate::command::{self, Line, NotStarted, Report, Spec};
use crate::config::Config;
use crate::protocol::{
    Captured, CommandId, CommandOutput, CommandResult, Dispatch, Faults, Metadata, OutputStream, ResultReason,
};
use crate::report::Reporter;
use draupnir_fsm::command::{TIMEOUT_DEFAULT_MS, TIMEOUT_MAX_MS};
use draupnir_fsm::delivery::budget::{Budget, Use};
use draupnir_fsm::delivery::{After, Cut, Kind, PushError, Reliable, StreamKey};
use draupnir_fsm::engine::Requested;
use draupnir_fsm::fact::{CommandFact, Fact, Key};
use draupnir_fsm::order::{CommandEnd, Refusal};
use smol::LocalExecutor;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::rc::Rc;

/// The exit code of a command that this instance does not run, or not now: that of a shell that may not execute.
const EXIT_REFUSED: i32 = 126;

/// What a console is told that asks for a result which is gone.
const FORGOTTEN: &str = "this command ran before; its result is no longer remembered";

/// The most memory that all commands which wait may have of the budget, in bytes. One message makes at most two thirds.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// All commands that wait, run, or have a result that may be asked for again.
pub(super) struct Commands {
    runner: command::Commands,
    policy: Policy,
    live: BTreeMap<Key, Live>,
    keys: HashMap<CommandId, Key>,
    answered: BTreeMap<Key, Answered>,
    /// The commands whose streamed output the console does not have yet, and how many of their streams.
    streaming: BTreeMap<Key, (CommandId, usize)>,
    next_key: Key,
    hasher: RandomState,
    budget: Rc<Budget>,
}

struct Live {
    id: CommandId,
    /// What to start, until it is.
    spec: Option<(Spec, Option<Share>)>,
    streams: bool,
    /// How long it may run, in milliseconds.
    timeout_ms: u64,
    /// Why it was not started, where the audit could not be written.
    unaudited: Option<String>,
}

/// A result that may be asked for again.
struct Answered {
    id: CommandId,
    /// Its number in the ledger.
    number: Option<u64>,
    /// `None` where there was no memory for it.
    message: Option<(Rc<str>, Share)>,
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
            runner: command::Commands::new(settings, Rc::clone(executor), reporter.clone(), Rc::clone(budget)),
            policy: Policy::new(config),
            live: BTreeMap::new(),
            keys: HashMap::new(),
            answered: BTreeMap::new(),
            streaming: BTreeMap::new(),
            next_key: 1,
            hasher: RandomState::new(),
            budget: Rc::clone(budget),
        }
    }

    /// The console's id of a command.
    pub(super) fn id(&self, command: Key) -> Option<&CommandId> {
        self.live.get(&command).map(|live| &live.id).or(self.streaming.get(&command).map(|(id, _)| id))
    }

    pub(super) fn terminate(&mut self, command: Key) {
        self.runner.terminate(command);
    }

    pub(super) fn kill(&mut self, command: Key) {
        self.runner.kill(command);
    }

    pub(super) fn forget_result(&mut self, command: Key) {
        self.answered.remove(&command);
    }

    pub(super) fn allow(&mut self, stream: StreamKey, bytes: usize) {
        if let Some((command, stream)) = part(stream) {
            self.runner.allow(command, stream, bytes);
        }
    }

    /// The console has every byte of a stream that has ended.
    pub(super) fn free(&mut self, stream: StreamKey) {
        if let Some((command, stream)) = part(stream) {
            self.runner.release(command, stream);
            if let Some((_, streams)) = self.streaming.get_mut(&command) {
                *streams -= 1;
            }
            self.streaming.retain(|_, (_, streams)| *streams > 0);
        }
    }

    /// Memory for one more command that waits; none where all of them would take too much.
    fn share_to_wait(&self, bytes: usize) -> Option<Share> {
        let waiting = self.live.values().filter_map(|live| Some(live.spec.as_ref()?.0.bytes())).sum::<usize>();
        let fits = waiting.saturating_add(bytes) <= WAITING_BYTES_MAX;
        fits.then(|| Share::take(&self.budget, Use::Waiting, bytes)).flatten()
    }

    /// A hash of an id that nobody outside can aim at.
    fn id_hash(&self, id: &CommandId) -> u64 {
        self.hasher.hash_one(id)
    }

    fn take_live(&mut self, command: Key) -> Option<Live> {
        let live = self.live.remove(&command)?;
        if self.keys.get(&live.id) == Some(&command) {
            self.keys.remove(&live.id);
        }
        Some(live)
    }
}

impl Source for Commands {
    fn cut(&mut self, stream: StreamKey, cut: Cut) -> (usize, Option<String>) {
        let (Some((command, part)), Cut::Bytes { from, max, replay: _ }) = (part(stream), cut) else {
            return (0, None);
        };
        let chunk = self.runner.chunk(command, part, from, max);
        let Some(command_id) = self.id(command).filter(|_| !chunk.data.is_empty()) else { return (0, None) };
        let message = CommandOutput { command_id, stream: part, data: &chunk.data, offset: chunk.offset }.message();
        (chunk.data.len(), Some(message))
    }
}

impl Agent {
    pub(super) fn command_reports(&mut self, report: Report) {
        match report {
            Report::Started { command } => {
                tracing::info!(command, "command started");
                self.tell_command(command, CommandFact::Started);
            }
            Report::StartFailed { command, error } => self.command_not_started(command, &error),
            Report::Output { command } => self.note_command_output(command),
            Report::EndOfOutput { command } => {
                self.note_command_output(command);
                self.tell_command(command, CommandFact::EndOfOutput);
            }
            Report::Exited { command, code } => self.tell_command(command, CommandFact::Exited { code }),
        }
    }

    /// Tells the ledger how far the output of a streamed command has come.
    fn note_command_output(&mut self, command: Key) {
        if !self.commands.live.get(&command).is_some_and(|live| live.streams) {
            return;
        }
        for (key, part) in streams(command) {
            let held = self.commands.runner.held(command, part);
            self.engine.delivery.discarded(key, held.start);
            self.engine.delivery.grew(key, held.end);
        }
    }

    pub(super) fn dispatch(&mut self, dispatch: Dispatch) {
        if let Some(why) = self.commands.policy.refuses(&dispatch) {
            self.answer_unrun(&dispatch.command_id, EXIT_REFUSED, ResultReason::RefusedByPolicy, why);
            let metadata = Metadata::new().with("command_id", dispatch.command_id.as_str()).with("why", why);
            return self.error_event("command", "a command was refused by this instance's own policy", metadata);
        }
        let command = self.commands.next_key;
        self.commands.next_key = command.wrapping_add(1);
        let (id, timeout_ms) = (dispatch.command_id.clone(), dispatch.timeout_ms);
        let (streams, id_hash) = (dispatch.stream, self.commands.id_hash(&id));
        let spec = Spec::from(dispatch);
        let share = self.commands.share_to_wait(spec.bytes());
        let may_wait = share.is_some();
        let effective_timeout_ms = if timeout_ms == 0 { TIMEOUT_DEFAULT_MS } else { timeout_ms.min(TIMEOUT_MAX_MS) };
        self.commands.live.insert(
            command,
            Live {
                id: id.clone(),
                spec: Some((spec, share)),
                streams,
                timeout_ms: effective_timeout_ms,
                unaudited: None,
            },
        );
        let now = self.start.elapsed();
        match self.engine.command_requested(now, command, id_hash, timeout_ms, may_wait) {
            Requested::Taken => drop(self.commands.keys.insert(id, command)),
            Requested::Answered => {}
            Requested::Running => {
                tracing::debug!(command_id = %id, "dispatched again while it runs");
                self.commands.live.remove(&command);
            }
        }
    }

    pub(super) fn start_command(&mut self, command: Key) {
        let Some(live) = self.commands.live.get_mut(&command) else { return };
        let Some((spec, _)) = live.spec.take() else { return };
        let streams_output = live.streams;
        let (program, args) = match &spec.line {
            Line::Shell(line) => (line, &[][..]),
            Line::Program { program, arguments } => (program, arguments.as_slice()),
        };
        let entry = Entry::CommandStarted { command_id: live.id.as_str(), program, args };
        if let Err(problem) = self.audit.write(entry) {
            live.unaudited = Some(format!("{problem}\n"));
            live.streams = false;
            self.unaudited(&problem);
            return self.tell_command(command, CommandFact::Failed);
        }
        tracing::debug!(command, "starting command");
        self.commands.runner.start(command, spec);
        if streams_output {
            self.commands.streaming.insert(command, (live.id.clone(), 2));
            streams(command).into_iter().for_each(|(key, _)| self.engine.delivery.open_stream(key));
        }
    }

    fn command_not_started(&mut self, command: Key, error: &NotStarted) {
        // One that was given up meanwhile is answered.
        let Some(live) = self.commands.live.get(&command) else { return };
        tracing::warn!(command, %error, "a command could not be started");
        if error.is_exhaustion {
            let metadata = Metadata::new().with("command_id", live.id.as_str());
            self.error_event("command", &error.reason, metadata);
        }
        self.tell_command(command, CommandFact::Failed);
    }

    pub(super) fn finish_command(&mut self, command: Key, end: CommandEnd, exit_code: i32) {
        let mut captured = self.commands.runner.finish(command);
        self.note_command_output(command);
        let Some(live) = self.commands.take_live(command) else { return };
        let mut after = After::NOTHING;
        if live.streams {
            let [(stdout, one), (stderr, other)] = streams(command);
            let ends = (self.commands.runner.held(command, one).end, self.commands.runner.held(command, other).end);
            after = After::streams((stdout, ends.0), (stderr, ends.1));
        }
        let (exit_code, reason) = match live.unaudited {
            Some(_) => (EXIT_REFUSED, Some(ResultReason::AuditUnavailable)),
            None => (captured.exit_code(exit_code), captured.not_started.map(|_| ResultReason::SpawnFailed)),
        };
        // A command that handles the SIGTERM of a drain chooses its own exit code.
        let exit_code = captured.exited.filter(|_| end == CommandEnd::Drained).unwrap_or(exit_code);
        if end == CommandEnd::TimedOut {
            captured.note_timeout(live.timeout_ms);
        }
        let unaudited = live.unaudited.as_ref().map(|text| Captured::all(text.as_bytes()));
        let message = CommandResult {
            command_id: &live.id,
            stdout: captured.stdout.kept(),
            stderr: unaudited.unwrap_or_else(|| captured.stderr.kept()),
            exit_code,
            duration_ms: captured.duration_ms,
            timed_out: end == CommandEnd::TimedOut,
            cancelled: matches!(end, CommandEnd::Cancelled | CommandEnd::Drained),
            reason,
        }
        .message();
        if live.unaudited.is_none() {
            let (stdout_bytes, stderr_bytes) = (captured.stdout.bytes(), captured.stderr.bytes());
            let command_id = live.id.as_str();
            let entry = Entry::CommandEnded { command_id, exit_code, stdout_bytes, stderr_bytes };
            if let Err(problem) = self.audit.write(entry) {
                self.unaudited(&problem);
            }
        }
        tracing::info!(command, ?end, exit_code, duration_ms = captured.duration_ms, "command ended");
        let number = self.push_result(&message, after, true);
        if live.streams {
            streams(command).into_iter().for_each(|(key, _)| self.engine.delivery.end_stream(key));
        }
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let share = Share::take(&self.commands.budget, Use::Remembered, message.len());
        let message = share.map(|share| (message.into(), share));
        self.commands.answered.insert(command, Answered { id: live.id, number, message });
        self.tell_command(command, CommandFact::Answered { bytes });
    }

    /// Gives a result to the ledger; its number, unless there was no room for it at all.
    fn push_result(&mut self, message: &str, after: After, promised: bool) -> Option<u64> {
        let reliable = Reliable { kind: Kind::Result, size_bytes: message.len(), after, promised };
        match self.engine.delivery.push(reliable, message.to_owned()) {
            Ok(pushed) => Some(pushed.number),
            Err(PushError::TooLong { room_bytes }) => {
                let shorter = crate::protocol::shortened(message, room_bytes)?;
                let reliable = Reliable { kind: Kind::Result, size_bytes: shorter.len(), after, promised };
                self.engine.delivery.push(reliable, shorter).ok().map(|pushed| pushed.number)
            }
            Err(PushError::Dropped) => None,
        }
    }

    pub(super) fn refuse_command(&mut self, command: Key, refusal: Refusal) {
        let Some(live) = self.commands.take_live(command) else { return };
        let (reason, text) = match refusal {
            Refusal::Busy => {
                (ResultReason::Busy, "too many commands wait already, or results cannot be held: try later")
            }
            Refusal::Forgotten => (ResultReason::Forgotten, FORGOTTEN),
            Refusal::Draining => (ResultReason::Draining, "the agent is stopping"),
        };
        tracing::debug!(command_id = %live.id, ?refusal, "a command was refused");
        self.answer_unrun(&live.id, EXIT_REFUSED, reason, text);
    }

    /// Sends the result of an earlier command again, to whoever dispatched it twice.
    pub(super) fn repeat_result(&mut self, command: Key, of: Key) {
        let Some(live) = self.commands.take_live(command) else { return };
        let known = self.commands.answered.get(&of).filter(|answered| answered.id == live.id);
        let Some(answered) = known else {
            // Two ids with one hash: an answer that is honest and not another command's.
            return self.refuse_unknown(&live.id);
        };
        tracing::debug!(command_id = %live.id, "dispatched again: its result is sent again");
        if answered.number.is_some_and(|number| self.engine.delivery.send_again(number)) {
            return;
        }
        let Some(message) = answered.message.as_ref().map(|(message, _)| Rc::clone(message)) else {
            return self.answer_unrun(&live.id, EXIT_REFUSED, ResultReason::Forgotten, FORGOTTEN);
        };
        let number = self.push_result(&message, After::NOTHING, false);
        if let Some(answered) = self.commands.answered.get_mut(&of) {
            answered.number = number;
        }
    }

    fn refuse_unknown(&mut self, id: &CommandId) {
        let text = "this command's id cannot be told from that of an earlier one";
        self.answer_unrun(id, EXIT_REFUSED, ResultReason::Forgotten, text);
    }

    pub(super) fn refuse_dispatch(&mut self, id: CommandId, faults: &Faults) {
        self.answer_unrun(&id, EXIT_REFUSED, ResultReason::Invalid, &faults.to_string());
    }

    /// Answers a dispatch of which nothing ran.
    fn answer_unrun(&mut self, command_id: &CommandId, exit_code: i32, reason: ResultReason, text: &str) {
        let text = format!("{text}\n");
        let message = CommandResult {
            command_id,
            stdout: Captured::default(),
            stderr: Captured::all(text.as_bytes()),
            exit_code,
            duration_ms: 0,
            timed_out: false,
            cancelled: false,
            reason: Some(reason),
        }
        .message();
        self.push_result(&message, After::NOTHING, false);
    }

    pub(super) fn cancel_command(&mut self, id: &CommandId) {
        // One that is over, or was never here, needs no cancelling.
        if let Some(command) = self.commands.keys.get(id).copied() {
            self.tell_command(command, CommandFact::CancelRequested);
        }
    }

    fn tell_command(&mut self, command: Key, what: CommandFact) {
        self.tell(Fact::Command { command, what });
    }
}

/// A hash for what is told apart only within this process.
pub(super) fn hash_of(value: &impl Hash) -> u64 {
    std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(value)
}

/// The two streams of a command, as the ledger and as the runner name them.
fn streams(command: Key) -> [(StreamKey, OutputStream); 2] {
    [(StreamKey::Stdout(command), OutputStream::Stdout), (StreamKey::Stderr(command), OutputStream::Stderr)]
}

fn part(stream: StreamKey) -> Option<(Key, OutputStream)> {
    match stream {
        StreamKey::Stdout(command) => Some((command, OutputStream::Stdout)),
        StreamKey::Stderr(command) => Some((command, OutputStream::Stderr)),
        StreamKey::Terminal(_) => None,
    }
}
