//! What one program gives the next in a hand-over, and what the next makes of it.
//!
//! It is a list of inputs rather than a copy of the driver, so that it has a form of its own which versions can share:
//! [`Driver::inheritance`] makes it, [`Input::TakenOver`](super::Input::TakenOver) takes it in. Keys and numbers stay
//! as they were. What the system knows (that a shell has exited, that output has ended) is not in it: the adapter finds
//! it out again.
//!
//! Invariants:
//! - a session or command that is taken over is answered as if it had been admitted here;
//! - a message keeps its number, and what must be sent before it;
//! - bytes are sent again from the acknowledged offset, as on any new link.

use super::input::ConsoleId;
use super::journal::Record;
use super::output::{Action, Message, Notice};
use super::ports::{Body, ByteSource};
use super::{Driver, Todo};
use crate::delivery::budget::Use;
use crate::delivery::{After, Drops, Kind, Reliable, StreamKey};
use crate::fact::Fact;
use crate::id::{CommandKey, SessionKey};
use crate::machine::SavedConnection;
use crate::order::{CommandEnd, SessionEnd};
use crate::time::Time;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One thing that the program before this one had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TakenOver {
    /// The program before this one gave its place; it closed its link just now. Handed over first.
    Begun {
        /// The numbers of messages up to this one are used.
        numbers_up_to: u64,
        /// Its connection.
        #[serde(default, skip_serializing_if = "SavedConnection::is_default")]
        connection: SavedConnection,
        /// What it dropped and did not report.
        #[serde(default, skip_serializing_if = "Drops::is_empty")]
        drops: Drops,
    },
    /// A command ran, and its result is no longer remembered.
    Ended {
        /// Its id.
        id: ConsoleId,
    },
    /// A session whose shell was started.
    Session {
        /// Its number.
        session: SessionKey,
        /// Its id.
        id: ConsoleId,
        /// Up to where the console has its output.
        at: u64,
        /// The time that is left to re-attach, where no console used it, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        orphan_in_ms: Option<u64>,
        /// Why it was asked to end, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end: Option<SessionEnd>,
        /// A snapshot for a console that re-attached was not sent, or not acknowledged.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        replay: bool,
    },
    /// A command whose process was started.
    Command {
        /// Its number.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
        /// The time that it has left, in milliseconds.
        timeout_in_ms: u64,
        /// Up to where the console has its two outputs, where they are streamed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        streams: Option<[u64; 2]>,
        /// Why it was asked to end, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        end: Option<CommandEnd>,
    },
    /// A command that waits for its start, the first first.
    Waiting {
        /// Its number.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
        /// How long it may run, in milliseconds.
        timeout_ms: u64,
        /// The memory that it takes while it waits, in bytes.
        bytes: usize,
        /// Its output is sent while it runs.
        streams: bool,
    },
    /// A stream whose source has ended, and that the console does not have yet.
    Stream {
        /// Which.
        stream: StreamKey,
        /// Up to where the console has it.
        at: u64,
    },
    /// A message that waits for the console.
    Message {
        /// Its number in the ledger.
        number: u64,
        /// What it is.
        kind: Kind,
        /// The id whose end it reports.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<ConsoleId>,
        /// The session whose `closed` it is, as long as its id is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionKey>,
        /// The command whose result it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<CommandKey>,
        /// What must be sent before it.
        #[serde(default)]
        after: After,
    },
    /// The result of a command is remembered for repeats.
    Result {
        /// The command.
        command: CommandKey,
        /// Its id.
        id: ConsoleId,
        /// Its number in the ledger, if it was sent with one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        number: Option<u64>,
    },
}

impl<B: Body> Driver<B> {
    /// Everything that the next program needs, in the order in which it takes it in, each with the body of its message.
    /// It changes nothing. Complete at [`HandOverStep::Replace`](super::HandOverStep::Replace).
    pub fn inheritance(&self, now: Time) -> Vec<(TakenOver, Option<B>)> {
        let mut all = Vec::new();
        let mut add = |what| all.push((what, None));
        let connection = self.machine.connection_to_hand_over(now);
        let drops = self.ledger.unreported_drops();
        add(TakenOver::Begun { numbers_up_to: self.ledger.numbers_up_to(), connection, drops });
        self.machine.forgotten_commands().for_each(|id| add(TakenOver::Ended { id: ConsoleId(id) }));
        for (session, id) in self.sessions.open() {
            let stream = StreamKey::Terminal(session);
            let (orphan_at, end) = self.machine.session_to_hand_over(session);
            add(TakenOver::Session {
                session,
                id,
                at: self.acknowledged(stream),
                orphan_in_ms: orphan_at.map(|at| at.ms_since(now)),
                end,
                replay: self.ledger.owes_snapshot(stream),
            });
        }
        for (command, id, streams) in self.commands.running() {
            let Some((deadline, end)) = self.machine.command_to_hand_over(command) else { continue };
            let streams = streams.map(|streams| streams.map(|stream| self.acknowledged(stream)));
            add(TakenOver::Command { command, id, timeout_in_ms: deadline.ms_since(now), streams, end });
        }
        for (command, timeout_ms) in self.machine.waiting_commands() {
            if let Some((id, bytes, streams)) = self.commands.waiting(command) {
                add(TakenOver::Waiting { command, id, timeout_ms, bytes, streams });
            }
        }
        for stream in self.ledger.ended_streams() {
            add(TakenOver::Stream { stream, at: self.acknowledged(stream) });
        }
        for (number, kind, after, body) in self.ledger.messages_to_hand_over() {
            let session = self.sessions.closed_by(number);
            let (of, command) = self.journal.reported_by(number);
            let of = of.or_else(|| self.sessions.id(session?));
            let command = command.or_else(|| self.commands.answered_by(number));
            let of = of.or_else(|| self.machine.command_id(command?).map(ConsoleId));
            all.push((TakenOver::Message { number, kind, of, session, command, after }, Some(body.clone())));
        }
        for (id, command) in self.machine.remembered_commands() {
            let (number, body) = self.commands.answer(command);
            let body = body.filter(|_| number.is_some_and(|number| !self.ledger.is_waiting(number)));
            all.push((TakenOver::Result { command, id: ConsoleId(id), number }, body.cloned()));
        }
        all
    }

    /// A number from which the next program draws its jitter.
    pub fn next_seed(&mut self) -> u64 {
        self.machine.draw()
    }

    fn acknowledged(&self, stream: StreamKey) -> u64 {
        self.ledger.position(stream).map_or(0, |position| position.acked)
    }

    /// The program before this one gave this. What needs the host waits for the turn.
    pub(super) fn taken_over(&mut self, now: Time, what: TakenOver) {
        if let TakenOver::Begun { numbers_up_to, connection, drops } = what {
            self.ledger.skip_numbers(numbers_up_to);
            self.ledger.take_over_drops(drops);
            self.journal.take_over(now);
            self.step(now, Fact::TakenOver { connection });
        } else {
            self.todo.push_back(Todo::TakeOver(what));
        }
    }

    /// Takes in what the program before this one gave.
    pub(super) fn take_over(&mut self, now: Time, what: TakenOver, host: &mut dyn ByteSource<Body = B>) {
        match what {
            // Taken in at once.
            TakenOver::Begun { .. } => {}
            TakenOver::Ended { id } => self.machine.restore_command(id.0, None),
            TakenOver::Session { session, id, at, orphan_in_ms, end, replay } => {
                if !self.sessions.take_over(session, id) || !self.ledger.promise(Kind::Closed) {
                    return self.out(Action::ForgetSession { session });
                }
                self.machine.take_over_session(now, session, orphan_in_ms, end);
                self.budget.detached(session, now);
                self.take_over_stream(StreamKey::Terminal(session), at, host);
                if replay {
                    self.ledger.want_snapshot(StreamKey::Terminal(session));
                }
            }
            TakenOver::Command { command, id, timeout_in_ms, streams, end } => {
                if !self.machine.take_over_command(now, command, id.0, timeout_in_ms, end) {
                    return self.out(Action::ForgetCommand { command });
                }
                self.ledger.promise(Kind::Result);
                self.commands.take_over(command, id, streams.is_some());
                let keys = super::commands::streams(command);
                for (stream, at) in keys.into_iter().zip(streams.into_iter().flatten()) {
                    self.take_over_stream(stream, at, host);
                }
            }
            TakenOver::Waiting { command, id, timeout_ms, bytes, streams } => {
                if !self.machine.take_over_waiting(command, id.0, timeout_ms) {
                    return self.out(Action::ForgetCommand { command });
                }
                self.ledger.promise(Kind::Result);
                let bytes = if self.budget.grant(Use::Waiting, bytes) { bytes } else { 0 };
                self.commands.take_over_waiting(command, id, bytes, streams);
            }
            TakenOver::Stream { stream, at } => {
                self.take_over_stream(stream, at, host);
                if let StreamKey::Stdout(command) | StreamKey::Stderr(command) = stream {
                    self.commands.take_over_ended(command);
                }
                self.ledger.end_stream(stream);
            }
            TakenOver::Message { number, kind, of, session, command, after } => {
                let Some(body) = host.encode(&Message::Restored { number }) else { return };
                let message = Reliable { kind, size_bytes: body.size_bytes(), after, promised: false };
                if !self.ledger.restore(number, message, body) {
                    self.log(Notice::MessageDropped { message: kind });
                    self.append(Record::Done { number }, None, None);
                    return;
                }
                if let Some(id) = of {
                    self.journal.note_report(number, id, command);
                }
                if let Some((session, id)) = session.zip(of) {
                    self.sessions.restore(session, id, number);
                }
            }
            TakenOver::Result { command, id, number } => {
                self.machine.restore_command(id.0, Some(command));
                let kept = number.and_then(|number| self.ledger.body(number)).cloned();
                let body = kept.or_else(|| host.encode(&Message::Restored { number: number? }));
                self.remember_result(now, command, number, body);
            }
        }
    }

    /// Opens a stream of which the console has everything up to `at`.
    fn take_over_stream(&mut self, stream: StreamKey, at: u64, host: &mut dyn ByteSource<Body = B>) {
        self.ledger.take_over_stream(stream, at);
        let held = host.held(stream);
        self.source_holds(stream, held.start, held.end);
    }
}
