//! Commands as the console knows them: which run, which are refused, and which are answered with an earlier result.
//!
//! A command id runs once in the life of the process, and with a journal once across its death. The result of a command
//! is kept for repeats as long as there is memory for it.

use super::audit::Subject;
use super::input::{CommandInput, ConsoleId};
use super::journal::{Needs, Record, Waiter};
use super::output::{Action, AuditEntry, CommandRefusal, ErrorEvent, Message, Notice};
use super::ports::{Body, ByteSource};
use super::{Driver, Todo};
use crate::delivery::budget::Use;
use crate::delivery::{After, Kind, StreamKey};
use crate::fact::CommandFact;
use crate::id::CommandKey;
use crate::order::{CommandEnd, Refusal};
use crate::time::Time;
use litemap::LiteMap;

/// The most memory that all commands which wait may have of the budget, in bytes. One message makes at most two thirds.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// All commands that wait, run, or have a result that may be asked for again.
#[derive(Clone, Debug, Hash)]
pub(super) struct Commands<B> {
    keys: LiteMap<ConsoleId, CommandKey>,
    live: LiteMap<CommandKey, Live>,
    /// Commands that have ended and whose streamed output the console does not have yet; how many of their streams.
    streaming: LiteMap<CommandKey, u8>,
    answered: LiteMap<CommandKey, Answered<B>>,
    waiting_bytes: usize,
}

impl<B> Default for Commands<B> {
    fn default() -> Self {
        Self {
            keys: LiteMap::new(),
            live: LiteMap::new(),
            streaming: LiteMap::new(),
            answered: LiteMap::new(),
            waiting_bytes: 0,
        }
    }
}

#[derive(Clone, Debug, Hash)]
struct Live {
    id: ConsoleId,
    /// The memory that it takes while it waits.
    waiting_bytes: usize,
    streams: bool,
    stage: Stage,
    /// What its start waits for beside the order.
    needs: Needs,
    /// The machine has taken it: its id counts as run.
    is_accepted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It was not ordered to start.
    Waiting,
    /// It was ordered to start, and waits for its audit line or its record.
    Ordered,
    /// Its process is being started.
    Starting,
    /// Its process runs.
    Running,
    /// Its audit line cannot be written.
    Unaudited,
}

/// A result that may be asked for again.
#[derive(Clone, Debug, Hash)]
struct Answered<B> {
    /// Its number in the ledger.
    number: Option<u64>,
    /// `None` where there was no memory for it.
    body: Option<B>,
}

impl<B> Commands<B> {
    /// Keeps what is known of the result of a command that is over.
    pub(super) fn remember(&mut self, command: CommandKey, number: Option<u64>, body: Option<B>) {
        self.answered.insert(command, Answered { number, body });
    }

    /// Whether one was ordered to start and does not run yet.
    pub(super) fn is_starting(&self) -> bool {
        self.live.values().any(|live| match live.stage {
            Stage::Ordered | Stage::Starting | Stage::Unaudited => true,
            Stage::Waiting | Stage::Running => false,
        })
    }

    /// Those whose process runs: the id of each, and its streams where they are sent while it runs.
    pub(super) fn running(&self) -> impl Iterator<Item = (CommandKey, ConsoleId, Option<[StreamKey; 2]>)> {
        let running = self.live.iter().filter(|(_, live)| live.stage == Stage::Running);
        running.map(|(command, live)| (*command, live.id, live.streams.then(|| streams(*command))))
    }

    /// The id of a command that waits for its start, the memory that it takes, and whether its output is streamed.
    pub(super) fn waiting(&self, command: CommandKey) -> Option<(ConsoleId, usize, bool)> {
        let live = self.live.get(&command)?;
        Some((live.id, live.waiting_bytes, live.streams))
    }

    /// The command whose result has this number in the ledger.
    pub(super) fn answered_by(&self, number: u64) -> Option<CommandKey> {
        self.answered.iter().find(|(_, answered)| answered.number == Some(number)).map(|(command, _)| *command)
    }

    /// The number of a result in the ledger, and the result, as far as they are kept.
    pub(super) fn answer(&self, command: CommandKey) -> (Option<u64>, Option<&B>) {
        self.answered.get(&command).map_or((None, None), |answered| (answered.number, answered.body.as_ref()))
    }

    /// Adds a command whose process an earlier program started.
    pub(super) fn take_over(&mut self, command: CommandKey, id: ConsoleId, streams: bool) {
        self.add_accepted(command, id, 0, streams, Stage::Running);
    }

    /// Adds a command that an earlier program accepted and did not start.
    pub(super) fn take_over_waiting(&mut self, command: CommandKey, id: ConsoleId, bytes: usize, streams: bool) {
        self.waiting_bytes += bytes;
        self.add_accepted(command, id, bytes, streams, Stage::Waiting);
    }

    /// Adds one streamed output of a command that has ended.
    pub(super) fn take_over_ended(&mut self, command: CommandKey) {
        let left = self.streaming.get(&command).copied().unwrap_or_default();
        self.streaming.insert(command, left.saturating_add(1));
    }

    fn add_accepted(&mut self, command: CommandKey, id: ConsoleId, waiting_bytes: usize, streams: bool, stage: Stage) {
        self.keys.insert(id, command);
        let live = Live { id, waiting_bytes, streams, stage, needs: Needs::default(), is_accepted: true };
        self.live.insert(command, live);
    }
}

impl<B: Body> Driver<B> {
    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    pub(super) fn dispatch(
        &mut self,
        now: Time,
        command: CommandKey,
        id: ConsoleId,
        timeout_ms: u64,
        bytes: usize,
        streams: bool,
        allowed: bool,
    ) {
        if !allowed {
            self.todo.push_back(Todo::Send(Message::Unrun { command, refusal: CommandRefusal::Policy }));
            self.report(now, ErrorEvent::CommandRefused(command));
            return self.out(Action::ForgetCommand { command });
        }
        if let Some(of) = self.machine.live_command(id.0) {
            // That one's result is the answer.
            self.log(Notice::DuplicateDispatch { of });
            return self.out(Action::ForgetCommand { command });
        }
        let waits = self.commands.waiting_bytes.saturating_add(bytes) <= WAITING_BYTES_MAX
            && self.budget.grant(Use::Waiting, bytes);
        let promised = waits && self.ledger.promise(Kind::Result);
        let waiting_bytes = if waits { bytes } else { 0 };
        self.commands.waiting_bytes += waiting_bytes;
        let needs = Needs::default();
        self.commands
            .live
            .insert(command, Live { id, waiting_bytes, streams, stage: Stage::Waiting, needs, is_accepted: false });
        self.set_room(now, promised);
        self.tell_command(now, command, CommandFact::Requested { id_hash: id.0, timeout_ms });
        if self.machine.has_command(command) {
            self.commands.keys.insert(id, command);
            let waits = self.append(Record::Accepted { command, id }, None, Some(Waiter::Command(command)));
            if let Some(live) = self.commands.live.get_mut(&command) {
                (live.needs.record, live.is_accepted) = (waits, true);
            }
        } else if promised {
            // It is answered with another's result, or with a refusal that needs no promise.
            self.ledger.break_promise(Kind::Result);
        }
    }

    pub(super) fn invalid_dispatch(&mut self, command: CommandKey) {
        self.todo.push_back(Todo::Send(Message::Unrun { command, refusal: CommandRefusal::Invalid }));
        self.out(Action::ForgetCommand { command });
    }

    pub(super) fn cancel(&mut self, now: Time, id: ConsoleId) {
        // One that is over, or was never here, needs no cancelling.
        if let Some(command) = self.commands.keys.get(&id).copied() {
            self.tell_command(now, command, CommandFact::CancelRequested);
        }
    }

    pub(super) fn start_command(&mut self, now: Time, command: CommandKey) {
        if self.audits.is_enabled() {
            if self.audits.is_full() {
                return self.unaudited(now, Subject::Command(command));
            }
            self.await_audit(now, Subject::Command(command));
        }
        if let Some(live) = self.commands.live.get_mut(&command) {
            live.stage = Stage::Ordered;
            live.needs.audit = self.audits.is_enabled();
        }
        self.begin_command(command);
    }

    pub(super) fn command_audited(&mut self, command: CommandKey) {
        if let Some(live) = self.commands.live.get_mut(&command) {
            live.needs.audit = false;
        }
        self.begin_command(command);
    }

    pub(super) fn command_recorded(&mut self, command: CommandKey) {
        if let Some(live) = self.commands.live.get_mut(&command) {
            live.needs.record = false;
        }
        self.begin_command(command);
    }

    /// Orders the start of a command that waits for nothing more; it needs no memory for waiting from now on. One that
    /// was cancelled in the same turn is over, though its result is not sent yet.
    fn begin_command(&mut self, command: CommandKey) {
        if !self.machine.has_command(command) {
            return;
        }
        let is_due = |live: &&mut Live| live.stage == Stage::Ordered && live.needs.is_met();
        if let Some(live) = self.commands.live.get_mut(&command).filter(is_due) {
            live.stage = Stage::Starting;
            let bytes = core::mem::take(&mut live.waiting_bytes);
            self.free_waiting(bytes);
            self.out(Action::StartCommand { command });
        }
    }

    pub(super) fn command_unaudited(&mut self, now: Time, command: CommandKey) {
        if let Some(live) = self.commands.live.get_mut(&command) {
            live.stage = Stage::Unaudited;
            self.tell_command(now, command, CommandFact::Failed);
        }
    }

    pub(super) fn command_input(&mut self, now: Time, command: CommandKey, what: CommandInput) {
        let what = match what {
            CommandInput::Started => {
                if let Some(live) = self.commands.live.get_mut(&command) {
                    live.stage = Stage::Running;
                    let id = live.id;
                    if live.streams {
                        streams(command).into_iter().for_each(|stream| self.ledger.open_stream(stream));
                    }
                    self.append(Record::Started { command, id }, None, None);
                }
                CommandFact::Started
            }
            CommandInput::StartFailed { exhausted } => {
                if exhausted && self.commands.live.contains_key(&command) {
                    self.report(now, ErrorEvent::Exhausted(command));
                }
                CommandFact::Failed
            }
            CommandInput::EndOfOutput => CommandFact::EndOfOutput,
            CommandInput::Exited { code } => CommandFact::Exited { code },
        };
        self.tell_command(now, command, what);
    }

    pub(super) fn finish_command(
        &mut self,
        now: Time,
        command: CommandKey,
        end: CommandEnd,
        exit_code: i32,
        host: &mut dyn ByteSource<Body = B>,
    ) {
        let Some(live) = self.take_live(command) else { return };
        let message = match live.stage {
            Stage::Unaudited => Message::Unrun { command, refusal: CommandRefusal::AuditUnavailable },
            Stage::Waiting | Stage::Ordered | Stage::Starting | Stage::Running => {
                Message::Result { command, end, exit_code }
            }
        };
        let body = host.encode(&message);
        let has_streams = live.streams && live.stage == Stage::Running;
        let mut after = After::NOTHING;
        if has_streams {
            let [stdout, stderr] = streams(command).map(|stream| {
                let held = host.held(stream);
                self.source_holds(stream, held.start, held.end);
                (stream, held.end)
            });
            after = After::streams(stdout, stderr);
        }
        let of = Some((live.id, Some(command)));
        let number = body.clone().and_then(|body| self.push(Kind::Result, body, of, after, true, host));
        if number.is_none() {
            self.append(Record::Ended { id: live.id }, None, None);
        }
        if matches!(live.stage, Stage::Starting | Stage::Running) {
            self.audit(AuditEntry::CommandEnded { command });
        }
        if has_streams {
            self.commands.streaming.insert(command, 2);
            streams(command).into_iter().for_each(|stream| self.ledger.end_stream(stream));
        } else {
            self.out(Action::ForgetCommand { command });
        }
        self.remember_result(now, command, number, body);
    }

    pub(super) fn refuse_command(
        &mut self,
        command: CommandKey,
        refusal: Refusal,
        host: &mut dyn ByteSource<Body = B>,
    ) {
        if let Some(live) = self.take_live(command) {
            if live.is_accepted {
                self.append(Record::Withdrawn { id: live.id }, None, None);
            }
            self.send(&Message::Unrun { command, refusal: CommandRefusal::Refused(refusal) }, host);
            self.out(Action::ForgetCommand { command });
        }
    }

    /// Sends the result of an earlier command again, to a console that dispatched it twice.
    pub(super) fn repeat_result(&mut self, command: CommandKey, of: CommandKey, host: &mut dyn ByteSource<Body = B>) {
        let Some(Live { id, .. }) = self.take_live(command) else { return };
        let (number, body) = self.commands.answered.get(&of).map_or((None, None), |it| (it.number, it.body.clone()));
        if number.is_some_and(|number| self.ledger.send_again(number)) {
            self.log(Notice::ResultRepeated { of });
        } else if let Some(body) = body {
            self.log(Notice::ResultRepeated { of });
            let number = self.push(Kind::Result, body, Some((id, None)), After::NOTHING, false, host);
            if let Some(answered) = self.commands.answered.get_mut(&of) {
                answered.number = number;
            }
        } else {
            let refusal = CommandRefusal::Refused(Refusal::Forgotten);
            self.send(&Message::Unrun { command, refusal }, host);
        }
        self.out(Action::ForgetCommand { command });
    }

    pub(super) fn forget_result(&mut self, command: CommandKey) {
        if let Some(body) = self.commands.answered.remove(&command).and_then(|answered| answered.body) {
            self.budget.release(Use::Remembered, body.size_bytes());
        }
    }

    /// The console has every byte of a stream that has ended.
    pub(super) fn release(&mut self, stream: StreamKey) {
        self.out(Action::Release { stream });
        let (StreamKey::Stdout(command) | StreamKey::Stderr(command)) = stream else { return };
        if let Some(left) = self.commands.streaming.get_mut(&command) {
            *left -= 1;
            if *left == 0 {
                self.commands.streaming.remove(&command);
                self.out(Action::ForgetCommand { command });
            }
        }
    }

    fn take_live(&mut self, command: CommandKey) -> Option<Live> {
        let live = self.commands.live.remove(&command)?;
        if self.commands.keys.get(&live.id) == Some(&command) {
            self.commands.keys.remove(&live.id);
        }
        self.audits.forget(Subject::Command(command));
        self.free_waiting(live.waiting_bytes);
        Some(live)
    }

    fn free_waiting(&mut self, bytes: usize) {
        self.commands.waiting_bytes -= bytes;
        self.budget.release(Use::Waiting, bytes);
    }
}

/// The two streams of a command.
pub(super) const fn streams(command: CommandKey) -> [StreamKey; 2] {
    [StreamKey::Stdout(command), StreamKey::Stderr(command)]
}
