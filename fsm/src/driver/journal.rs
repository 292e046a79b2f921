//! The journal: what must survive the death of the process, and what waits until it is written.
//!
//! The driver decides what is recorded and what waits; the adapter frames, writes and reads ([`Append`](Output::Append)
//! goes out, [`Appended`](super::Input::Appended) comes back, [`Restored`] comes in after a start). Written means
//! handed to the kernel: that outlives the process. What outlives the machine is what was
//! [synced](Action::SyncJournal).
//!
//! | record | written | what it prevents |
//! |---|---|---|
//! | [`Record::Accepted`] | before the command starts | that a repeat runs it again after a death |
//! | [`Record::Started`] | once its process runs; nothing waits | that what is left of it is mistaken for a stranger |
//! | [`Record::Ended`] | where a command has no result to keep | the same as `Accepted` |
//! | [`Record::Withdrawn`] | nothing waits | that an id counts as run that never was |
//! | [`Record::Opened`] | before the shell starts | that a session ends without its `closed` |
//! | [`Record::Message`] | before it is first sent | that it is lost, or that a result is reported in two ways |
//! | [`Record::Logs`] | once the console has the lines; nothing waits | that lines are sent again after every start |
//! | [`Record::Done`] | once the console has it, or it was dropped | that it is sent after every start |
//!
//! Invariants:
//! - no command or shell starts, and no reliable message is written to a link, before its record is reported, failed,
//!   or [`APPEND_TIMEOUT_MS`] old;
//! - a journal that does not answer in time is not waited for again until it does;
//! - at most one sync in [`SYNC_INTERVAL_MS`], and within that time of the first record that is not synced;
//! - without records to sync or to wait for there is no deadline: an idle agent does not wake for its journal.

use super::input::ConsoleId;
use super::output::{Action, AuditEntry, Message, Notice, Output};
use super::ports::{Body, ByteSource};
use super::{Driver, Todo};
use crate::command::EXIT_KILLED;
use crate::delivery::budget::Use;
use crate::delivery::{After, Kind, Reliable};
use crate::fact::CommandFact;
use crate::id::{CommandKey, SessionKey};
use crate::order::{CommandEnd, SessionEnd};
use crate::time::Time;
use alloc::collections::{BTreeMap, VecDeque};
use serde::{Deserialize, Serialize};

/// How long a start or a message waits for its record, in milliseconds: as long as for an audit line.
pub const APPEND_TIMEOUT_MS: u64 = 5_000;

/// How long it waits once the agent drains, in milliseconds: a result must leave before the link is closed.
pub const APPEND_TIMEOUT_DRAINING_MS: u64 = 500;

/// The least time between two syncs, and the most between a record and its sync, in milliseconds.
pub const SYNC_INTERVAL_MS: u64 = 1_000;

/// A turn that happens anyway syncs what is this old, in milliseconds: so a sync seldom needs a wake-up of its own.
const SYNC_RIDE_MS: u64 = 500;

/// When the loop wakes for nothing but a sync, in milliseconds after the first record: the rest is for the wake-up.
const SYNC_WAKE_MS: u64 = 900;

/// Number of a record that is written; they rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppendId(pub u64);

/// What is written to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A command was accepted. It starts once this is written.
    Accepted {
        /// The command.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
    },
    /// Its process runs; the adapter knows which.
    Started {
        /// The command.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
    },
    /// It has ended, and there was no room for its result.
    Ended {
        /// Its id.
        id: ConsoleId,
    },
    /// It was accepted and is not run after all: its id may come again.
    Withdrawn {
        /// Its id.
        id: ConsoleId,
    },
    /// A session was admitted. Its shell starts once this is written.
    Opened {
        /// The session.
        session: SessionKey,
        /// Its id.
        id: ConsoleId,
    },
    /// It was admitted and is not opened after all.
    Unopened {
        /// Its id.
        id: ConsoleId,
    },
    /// A reliable message. It is sent once this is written, and kept until [`Done`](Self::Done). The same number again
    /// is a shorter form of the same message, which reports the same.
    Message {
        /// Its number in the ledger.
        number: u64,
        /// What it is.
        kind: Kind,
        /// The id of the command whose end it reports, or of the session.
        #[serde(skip_serializing_if = "Option::is_none")]
        of: Option<ConsoleId>,
        /// The command, for the adapter that knows its exit code.
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<CommandKey>,
    },
    /// The console has this message, or it was dropped.
    Done {
        /// Its number.
        number: u64,
    },
    /// The console has the stream of log lines up to here; the adapter knows which position of which file that is.
    Logs {
        /// Up to where.
        up_to: u64,
    },
}

impl Record {
    /// Whether something waits for it.
    pub const fn is_awaited(&self) -> bool {
        match self {
            Self::Accepted { .. } | Self::Opened { .. } | Self::Message { .. } => true,
            Self::Started { .. }
            | Self::Ended { .. }
            | Self::Withdrawn { .. }
            | Self::Unopened { .. }
            | Self::Done { .. }
            | Self::Logs { .. } => false,
        }
    }
}

/// What the journal says of an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Restored {
    /// There is a journal: from now on it is kept. Handed over before anything else that happens.
    Begun {
        /// The numbers of messages up to this one are used.
        numbers_up_to: u64,
    },
    /// A command ran, and its result is no longer remembered.
    Ended {
        /// Its id.
        id: ConsoleId,
    },
    /// A command was accepted, and its end is not known.
    Command {
        /// A number that no command of this process had before.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
        /// What is left of it.
        remains: Remains,
    },
    /// A session was admitted, and its end is not known.
    Session {
        /// A number that no session of this process had before.
        session: SessionKey,
        /// Its id.
        id: ConsoleId,
    },
    /// The result of a command waits for the console.
    Result {
        /// Its number in the ledger.
        number: u64,
        /// A number that no command of this process had before.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
    },
    /// The `closed` of a session waits for the console.
    Closed {
        /// Its number in the ledger.
        number: u64,
        /// A number that no session of this process had before.
        session: SessionKey,
        /// Its id.
        id: ConsoleId,
    },
    /// Another message waits for the console.
    Message {
        /// Its number in the ledger.
        number: u64,
        /// What it is.
        kind: Kind,
    },
}

/// What is left of a command whose agent died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remains {
    /// Nothing.
    None,
    /// Processes that are certainly its own: boot, PID namespace, session and start of the leader are the same.
    Certain,
    /// Processes that may be its own, or another's.
    Doubtful,
}

/// What waits for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waiter {
    Command(CommandKey),
    Session(SessionKey),
    Message(u64),
}

/// What a start waits for: both records go out in one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    pub(super) audit: bool,
    pub(super) record: bool,
}

impl Needs {
    pub(super) const fn is_met(self) -> bool {
        !self.audit && !self.record
    }
}

/// The records that are written and not reported yet, and when to sync.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Journal {
    is_enabled: bool,
    next: AppendId,
    /// The oldest first.
    waiting: VecDeque<(AppendId, Waiter, Time)>,
    /// It did not answer in time, and has not answered since.
    is_stalled: bool,
    unsynced_since: Option<Time>,
    synced_at: Option<Time>,
    now: Time,
    /// What the messages report that the ledger keeps, by number: the id, and the command of this process. Bounded by
    /// the messages that the ledger keeps.
    reports: BTreeMap<u64, (ConsoleId, Option<CommandKey>)>,
}

impl Journal {
    /// Records from now on carry this time.
    pub(super) fn see(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let oldest = self.waiting.iter().map(|(_, _, deadline)| *deadline).min();
        oldest.into_iter().chain(self.sync_due(SYNC_WAKE_MS)).min()
    }

    pub(super) fn shift_ms(&mut self, ms: u64) {
        for (_, _, deadline) in &mut self.waiting {
            *deadline = deadline.after_ms(ms);
        }
    }

    /// The agent drains: nothing waits for long any more.
    pub(super) fn begin_drain(&mut self, now: Time) {
        let latest = now.after_ms(APPEND_TIMEOUT_DRAINING_MS);
        for (_, _, deadline) in &mut self.waiting {
            *deadline = (*deadline).min(latest);
        }
    }

    /// The program before this one may have left records that are not synced.
    pub(super) fn take_over(&mut self, now: Time) {
        self.unsynced_since = Some(now);
    }

    /// Takes one of those that wait, once one has waited for too long.
    pub(super) fn take_overdue(&mut self, now: Time) -> Option<Waiter> {
        self.is_stalled |= self.waiting.iter().any(|(_, _, deadline)| *deadline <= now);
        // All of them, in order: what comes next does not wait, and must not overtake what did.
        self.is_stalled.then(|| self.waiting.pop_front()).flatten().map(|(_, waiter, _)| waiter)
    }

    /// Whether a turn that happens now should sync.
    pub(super) fn take_sync(&mut self, now: Time) -> bool {
        let is_due = self.sync_due(SYNC_RIDE_MS).is_some_and(|due| due <= now);
        if is_due {
            (self.unsynced_since, self.synced_at) = (None, Some(now));
        }
        is_due
    }

    /// Whether something is left to sync at the end.
    pub(super) fn take_last_sync(&mut self) -> bool {
        self.unsynced_since.take().is_some()
    }

    fn sync_due(&self, after_ms: u64) -> Option<Time> {
        let due = self.unsynced_since.filter(|_| self.is_enabled)?.after_ms(after_ms);
        Some(self.synced_at.map_or(due, |synced_at| due.max(synced_at.after_ms(SYNC_INTERVAL_MS))))
    }

    /// What waited for the records up to this one, in order.
    fn take_reported(&mut self, append: AppendId) -> VecDeque<(AppendId, Waiter, Time)> {
        self.is_stalled = false;
        let later = self.waiting.split_off(self.waiting.partition_point(|(number, _, _)| *number <= append));
        core::mem::replace(&mut self.waiting, later)
    }

    /// Whether something waits for a record.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What a message that the ledger keeps reports, as far as that is recorded.
    pub(super) fn reported_by(&self, number: u64) -> (Option<ConsoleId>, Option<CommandKey>) {
        self.reports.get(&number).map_or((None, None), |(id, command)| (Some(*id), *command))
    }

    /// Notes what a message reports that the ledger keeps.
    pub(super) fn note_report(&mut self, number: u64, id: ConsoleId, command: Option<CommandKey>) {
        if self.is_enabled {
            self.reports.insert(number, (id, command));
        }
    }

    /// The ledger no longer keeps this message.
    pub(super) fn forget_message(&mut self, number: u64) {
        self.reports.remove(&number);
    }

    fn number(&mut self) -> AppendId {
        self.next = AppendId(self.next.0 + 1);
        self.next
    }
}

impl<B: Body> Driver<B> {
    /// An earlier process left this. What needs the host waits for the turn.
    pub(super) fn restored(&mut self, what: Restored) {
        if let Restored::Begun { numbers_up_to } = what {
            self.journal.is_enabled = true;
            self.ledger.track_removed();
            self.ledger.skip_numbers(numbers_up_to);
        } else {
            self.todo.push_back(Todo::Restore(what));
        }
    }

    /// Writes a record, if there is a journal; whether `waiter` has to wait for it.
    pub(super) fn append(&mut self, record: Record, body: Option<B>, waiter: Option<Waiter>) -> bool {
        if !self.journal.is_enabled {
            return false;
        }
        // A message is only ever recorded in a turn, when nothing that was decided before is left.
        if self.is_performing || body.is_some() {
            return self.append_now(record, body, waiter);
        }
        // It has its number once it is its turn: numbers rise in the order in which records are handed over.
        self.todo.push_back(Todo::Append { record, waiter });
        waiter.is_some()
    }

    /// A record without a body whose turn it is.
    pub(super) fn append_queued(&mut self, record: Record, waiter: Option<Waiter>) {
        let waits = self.append_now(record, None, waiter);
        if let Some(waiter) = waiter.filter(|_| !waits) {
            // Behind what was decided meanwhile, which may be about the same session.
            self.todo.push_back(Todo::GoOn(waiter));
        }
    }

    fn append_now(&mut self, record: Record, body: Option<B>, waiter: Option<Waiter>) -> bool {
        let append = self.journal.number();
        self.ready.push_back(Output::Append { append, record, body });
        let now = self.journal.now;
        // A position that is lost with the machine costs repeated lines, and a sync for each would cost more.
        if !matches!(record, Record::Logs { .. }) {
            self.journal.unsynced_since.get_or_insert(now);
        }
        let Some(waiter) = waiter.filter(|_| !self.journal.is_stalled) else { return false };
        let timeout_ms = if self.machine.is_draining() { APPEND_TIMEOUT_DRAINING_MS } else { APPEND_TIMEOUT_MS };
        self.journal.waiting.push_back((append, waiter, now.after_ms(timeout_ms)));
        true
    }

    /// Writes a message that the ledger has just taken, which is sent once that is reported.
    pub(super) fn append_message(
        &mut self,
        number: u64,
        kind: Kind,
        of: Option<ConsoleId>,
        command: Option<CommandKey>,
        body: B,
    ) {
        if let Some(id) = of.filter(|_| self.journal.is_enabled) {
            self.journal.reports.insert(number, (id, command));
        }
        let record = Record::Message { number, kind, of, command };
        if self.append(record, Some(body), Some(Waiter::Message(number))) {
            self.ledger.hold(number);
        }
    }

    /// Writes the shorter form of a result that the ledger keeps. The record says whose result it is, as the first one
    /// did: that one may have failed, and without the id a new process would send another result of this command.
    pub(super) fn append_cut_result(&mut self, number: u64, body: B) {
        let (of, command) = self.journal.reported_by(number);
        self.append_message(number, Kind::Result, of, command, body);
    }

    /// The records up to this one are written, or will not be: what waited for them goes on in both cases.
    pub(super) fn append_reported(&mut self, now: Time, append: AppendId) {
        for (_, waiter, _) in self.journal.take_reported(append) {
            self.go_on(now, waiter);
        }
    }

    pub(super) fn go_on(&mut self, now: Time, waiter: Waiter) {
        match waiter {
            Waiter::Command(command) => self.command_recorded(command),
            Waiter::Session(session) => self.session_recorded(now, session),
            Waiter::Message(number) => self.ledger.release(number),
        }
    }

    /// Takes in what an earlier process left.
    pub(super) fn restore(&mut self, now: Time, what: Restored, host: &mut dyn ByteSource<Body = B>) {
        match what {
            // Taken in at once.
            Restored::Begun { .. } => {}
            Restored::Ended { id } => self.machine.restore_command(id.0, None),
            Restored::Message { number, kind } => {
                self.restore_message(number, kind, host);
            }
            Restored::Result { number, command, id } => {
                self.machine.restore_command(id.0, Some(command));
                let body = self.restore_message(number, Kind::Result, host);
                if body.is_some() {
                    self.journal.reports.insert(number, (id, Some(command)));
                }
                self.remember_result(now, command, Some(number), body);
                self.out(Action::ForgetCommand { command });
            }
            Restored::Closed { number, session, id } => {
                let is_kept = self.restore_message(number, Kind::Closed, host).is_some();
                // After a panic a session of this id may live on that was opened later.
                if is_kept && self.sessions.is_new(id) {
                    self.sessions.restore(session, id, number);
                } else {
                    self.out(Action::ForgetSession { session });
                }
            }
            Restored::Command { command, id, remains } => {
                self.log(Notice::CommandInterrupted { command, remains });
                if remains == Remains::Certain {
                    self.out(Action::KillRemains { command });
                }
                self.machine.restore_command(id.0, Some(command));
                let message = Message::Result { command, end: CommandEnd::Interrupted, exit_code: EXIT_KILLED };
                let body = host.encode(&message);
                let number =
                    body.clone().and_then(|body| self.push_of(Kind::Result, body, Some((id, Some(command))), host));
                self.remember_result(now, command, number, body);
                self.audit(AuditEntry::CommandEnded { command });
                self.out(Action::ForgetCommand { command });
            }
            Restored::Session { session, id } => {
                self.log(Notice::SessionInterrupted { session });
                let message = Message::Closed { session, end: SessionEnd::Interrupted, exit_code: EXIT_KILLED };
                let body = host.encode(&message);
                let number = body.and_then(|body| self.push_of(Kind::Closed, body, Some((id, None)), host));
                self.audit(AuditEntry::TerminalClosed { session, exit_code: EXIT_KILLED, output_bytes: 0 });
                match number {
                    Some(number) => self.sessions.restore(session, id, number),
                    None => self.out(Action::ForgetSession { session }),
                }
            }
        }
    }

    /// Puts a message back into the ledger; its body, unless there was no room for it.
    fn restore_message(&mut self, number: u64, kind: Kind, host: &mut dyn ByteSource<Body = B>) -> Option<B> {
        let body = host.encode(&Message::Restored { number })?;
        let size_bytes = body.size_bytes();
        let message = Reliable { kind, size_bytes, after: After::NOTHING, promised: false };
        if !self.ledger.restore(number, message, body.clone()) {
            self.log(Notice::MessageDropped { message: kind });
            self.append(Record::Done { number }, None, None);
            return None;
        }
        Some(body)
    }

    /// Keeps a result for repeats, as far as there is memory.
    pub(super) fn remember_result(&mut self, now: Time, command: CommandKey, number: Option<u64>, body: Option<B>) {
        let size_bytes = body.as_ref().map_or(0, Body::size_bytes);
        let body = body.filter(|_| self.budget.grant(Use::Remembered, size_bytes));
        self.commands.remember(command, number, body);
        let bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        self.tell_command(now, command, CommandFact::Answered { bytes });
    }
}
