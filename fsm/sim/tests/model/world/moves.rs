//! What may happen next, and what it does.

use super::wire::{Ping, Up, Wire};
use super::{SESSION, STREAM, World};
use crate::setting::{FRAMES_MAX, NOTES_MAX, Part, RETRY_AFTER_MS};
use draupnir_fsm::driver::{
    ClockJump, CloseReason, ConsoleMessage, Failure, Input, LinkId, Loss, NoteId, PortState, SessionInput,
};
use draupnir_sim::planted::Planted;
use std::collections::VecDeque;

/// A machine that slept asks for a Pong: it sleeps no more while so many are unanswered, for the network is bounded.
const PINGS_MAX: usize = 2;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Nothing, until the driver's next deadline.
    TimePasses,
    /// The console answers the registration with this status.
    Answers(u16),
    /// It answers with this status and `Retry-After`.
    AsksToWait(u16),
    /// The registration or the dial fails.
    Fails,
    /// Every address of the console refuses the dial.
    Refuses,
    /// The probe of the port ends.
    PortIs(PortState),
    /// The console answers 101.
    Accepts,
    /// It answers the dial with 401.
    RefusesKey,
    /// It answers the dial with 503 and `Retry-After`.
    RefusesDial,
    /// A dial or registration that was given up succeeds after all.
    AcceptsLate,
    /// The console begins to listen, and says so.
    Greets,
    /// The console reads the oldest frame.
    Reads,
    /// The oldest Pong arrives.
    PongArrives,
    /// The console closes the link.
    Closes(u16, CloseReason),
    /// The connection is reset.
    Resets,
    /// The connection breaks unnoticed: nothing passes any more, and the socket takes nothing.
    Stalls,
    /// The socket of the last link is reported gone.
    SocketGone,
    /// The console reads a frame of the link before, late.
    ReadsOld,
    /// A Pong of the link before arrives.
    OldPongArrives,
    /// SIGTERM.
    Stops,
    /// The machine slept.
    Sleeps,
    /// Something happens that is reported as an event.
    Notes,
    /// The program in the terminal prints a frame.
    Prints,
    /// The program in the terminal ends.
    Exits,
}

impl World {
    /// All that may happen now.
    pub(crate) fn actions(&self) -> Vec<Move> {
        let mut actions = Vec::with_capacity(16);
        if self.is_stopped() || self.broken.is_some() {
            return actions;
        }
        let connection = self.setting.part == Part::Connection;
        if self.registering.is_some() {
            actions.extend([201, 401, 404, 422, 410, 503].map(Move::Answers));
            actions.extend([Move::AsksToWait(429), Move::Fails]);
        }
        if self.dialling.is_some() {
            actions.extend([Move::Accepts, Move::Fails]);
            if connection {
                actions.extend([Move::RefusesKey, Move::RefusesDial, Move::Refuses]);
            }
        }
        if self.probing.is_some() {
            actions.extend([PortState::Open, PortState::Refused, PortState::Unreachable].map(Move::PortIs));
        }
        if self.late_dial.is_some() || self.late_registration.is_some() {
            actions.push(Move::AcceptsLate);
        }
        if let Some(wire) = &self.wire {
            if !wire.silent {
                if !wire.greeted {
                    actions.push(Move::Greets);
                }
                if !wire.up.is_empty() {
                    actions.push(Move::Reads);
                }
                if !wire.down.is_empty() {
                    actions.push(Move::PongArrives);
                }
                actions.push(Move::Closes(1001, CloseReason::Other));
                if connection {
                    actions.extend([
                        Move::Closes(1000, CloseReason::Other),
                        Move::Closes(1001, CloseReason::Replaced),
                        Move::Closes(1008, CloseReason::Authentication),
                        Move::Closes(1008, CloseReason::UnknownInstance),
                    ]);
                }
                if !connection {
                    actions.push(Move::Stalls);
                }
            }
            actions.push(Move::Resets);
        }
        if self.closing.is_some() {
            actions.push(Move::SocketGone);
        }
        if !self.old_up.is_empty() {
            actions.push(Move::ReadsOld);
        }
        if !self.old_down.is_empty() {
            actions.push(Move::OldPongArrives);
        }
        if !self.stop_asked {
            actions.push(Move::Stops);
        }
        if connection && self.wire.as_ref().is_some_and(|wire| wire.down.len() < PINGS_MAX) {
            actions.push(Move::Sleeps);
        }
        if !connection && !self.stop_asked {
            if self.work.notes < NOTES_MAX {
                actions.push(Move::Notes);
            }
            if self.work.is_open && self.work.printed < FRAMES_MAX {
                actions.push(Move::Prints);
            }
            if self.work.is_open {
                actions.push(Move::Exits);
            }
        }
        actions.push(Move::TimePasses);
        actions
    }

    /// Lets one thing happen.
    pub(crate) fn step(&mut self, action: Move) {
        match action {
            Move::TimePasses => self.time_passes(),
            Move::Answers(status) => self.answer(status, None),
            Move::AsksToWait(status) => self.answer(status, Some(RETRY_AFTER_MS)),
            Move::Fails => self.attempt_fails(Failure::Connect, None),
            Move::Refuses => self.attempt_fails(Failure::Refused, None),
            Move::PortIs(found) => {
                if let Some(probe) = self.probing.take() {
                    self.turn(Input::PortProbed { probe, found });
                }
            }
            Move::RefusesKey => self.attempt_fails(Failure::Unauthorized, None),
            Move::RefusesDial => self.attempt_fails(Failure::Status, Some(RETRY_AFTER_MS)),
            Move::Accepts => self.accept(),
            Move::AcceptsLate => {
                if let Some(link) = self.late_dial.take() {
                    self.turn(Input::LinkOpened { link });
                } else if let Some(attempt) = self.late_registration.take() {
                    self.turn(Input::RegistrationAnswered { attempt, status: 201, retry_after_ms: None });
                }
            }
            Move::Greets => {
                if let Some(wire) = &mut self.wire {
                    (wire.listens, wire.greeted) = (true, true);
                    let link = wire.link;
                    self.turn(Input::Received { link, message: ConsoleMessage::Other });
                }
            }
            Move::Reads => self.console_reads(),
            Move::PongArrives => self.pong_arrives(),
            Move::Closes(code, reason) => {
                self.end_wire(false, |link| Input::CloseReceived { link, code, reason });
            }
            Move::Resets => self.end_wire(true, |link| Input::LinkLost { link, cause: Loss::Reset }),
            Move::Stalls => self.break_unnoticed(true),
            Move::SocketGone => {
                if let Some((link, _)) = self.closing.take() {
                    self.turn(Input::LinkClosed { link });
                }
            }
            Move::ReadsOld => {
                if let Some(Up::Text(text)) = self.old_up.pop_front() {
                    self.read(text);
                }
                self.check();
            }
            Move::OldPongArrives => self.old_pong_arrives(),
            Move::Stops => {
                self.stop_asked = true;
                self.turn(Input::ShutdownRequested);
            }
            Move::Sleeps => self.turn(Input::ClockJumped { cause: ClockJump::Suspend, gap_ms: 60_000, entropy: 0 }),
            Move::Notes => {
                self.work.notes += 1;
                self.turn(Input::Noted { note: NoteId(self.work.notes.into()), cause: None });
            }
            Move::Prints => {
                self.work.printed += 1;
                self.turn(Input::Output { stream: STREAM, from: 0, end: self.work.printed });
            }
            Move::Exits => {
                self.work.is_open = false;
                let ends = [SessionInput::Exited { code: 0 }, SessionInput::EndOfOutput, SessionInput::Reaped];
                ends.into_iter()
                    .for_each(|what| self.driver.handle(self.now, Input::Session { session: SESSION, what }));
                self.polled();
            }
        }
    }

    pub(super) fn time_passes(&mut self) {
        (self.late_dial, self.late_registration) = (None, None);
        let Some(next) = self.driver.next_deadline() else { return };
        self.now = self.now.max(next);
        let (now, within_ms) = (self.now, self.setting.listens_within_ms());
        if let Some(wire) = &mut self.wire {
            wire.listens |= now.ms_since(wire.opened) >= within_ms;
            if wire.stuck && self.setting.planted == Some(Planted::DoesNotSeeStalledWrites) {
                self.driver.handle(now, Input::WriteProgress { bytes: now.as_ms() });
            }
        }
        self.polled();
    }

    pub(super) fn answer(&mut self, status: u16, retry_after_ms: Option<u64>) {
        if let Some(attempt) = self.registering.take() {
            self.turn(Input::RegistrationAnswered { attempt, status, retry_after_ms });
        }
    }

    pub(super) fn attempt_fails(&mut self, cause: Failure, retry_after_ms: Option<u64>) {
        if let Some(attempt) = self.registering.take() {
            self.turn(Input::RegistrationFailed { attempt, cause });
        } else if let Some(link) = self.dialling.take() {
            self.turn(Input::DialFailed { link, cause, retry_after_ms });
        }
    }

    pub(super) fn accept(&mut self) {
        let Some(link) = self.dialling.take() else { return };
        self.wire = Some(Wire {
            link,
            opened: self.now,
            listens: self.setting.part == Part::Connection,
            greeted: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            newest_ping: 0,
            silent: false,
            stuck: false,
        });
        self.turn(Input::LinkOpened { link });
    }

    /// What is left of a connection may be read late; of those before it, nothing will.
    pub(super) fn leave(&mut self, up: VecDeque<Up>, down: VecDeque<Ping>) {
        if self.setting.part == Part::Delivery && !(up.is_empty() && down.is_empty()) {
            (self.old_up, self.old_down) = (up, down);
        }
    }

    pub(super) fn end_wire(&mut self, is_closed: bool, input: impl FnOnce(LinkId) -> Input) {
        let Some(wire) = self.wire.take() else { return };
        self.leave(wire.up, wire.down);
        self.closing = Some((wire.link, is_closed));
        self.turn(input(wire.link));
    }

    /// Nothing passes any more; what was under way is read late or never.
    pub(super) fn break_unnoticed(&mut self, is_stuck: bool) {
        if let Some(wire) = &mut self.wire {
            (wire.silent, wire.stuck) = (true, is_stuck);
            let (up, down) = (std::mem::take(&mut wire.up), std::mem::take(&mut wire.down));
            self.leave(up, down);
        }
    }
}
