//! What happens next in a turn: what was decided is done first, then what time or the ledger brings.

use super::output::{Action, ErrorEvent, Message, Notice, Output};
use super::ports::{Body, ByteSource};
use super::{Driver, Record, Todo};
use crate::delivery::{Drops, Kind, StateKind};
use crate::fact::{CommandFact, Fact, SessionFact};
use crate::id::{CommandKey, SessionKey};
use crate::order::{ConsoleEvent, Order};
use crate::time::Time;

/// How many ticks of the machine one turn may have. More than it has timers: one that re-arms itself in the past would
/// spin otherwise.
const TICKS_PER_TURN_MAX: u32 = 16;

impl<B: Body> Driver<B> {
    pub(super) fn next_output(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> Option<Output<B>> {
        self.journal.see(now);
        loop {
            if let Some(output) = self.ready.pop_front() {
                return Some(output);
            }
            let Some(todo) = self.todo.pop_front() else {
                if self.advance(now, host) {
                    continue;
                }
                break;
            };
            if let Todo::GoOn(waiter) = todo {
                // As from a report: what follows from it comes behind what was decided before.
                self.go_on(now, waiter);
                continue;
            }
            self.is_performing = true;
            match todo {
                Todo::Do(action) => self.out(action),
                Todo::Order(order) => self.perform(now, order, host),
                Todo::Send(message) => self.send(&message, host),
                Todo::Error(event) => self.send(&Message::Error(event), host),
                Todo::Restore(what) => self.restore(now, what, host),
                Todo::TakeOver(what) => self.take_over(now, what, host),
                Todo::Append { record, waiter } => self.append_queued(record, waiter),
                Todo::GoOn(_) => {}
            }
            self.is_performing = false;
        }
        let output = self.batch(now, host).or_else(|| self.read_credit(now));
        if output.is_none() {
            self.ticks = 0;
            self.end_snapshot_turn(now);
        }
        output
    }

    /// Lets one thing happen that time or the ledger brings; false where nothing is left.
    pub(super) fn advance(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> bool {
        if let Some(link) = self.ledger.tick(now) {
            self.step(now, Fact::WriteStalled { link });
        } else if let Some(stream) = self.ledger.take_finished() {
            self.ledger.forget_stream(stream);
            self.release(stream);
        } else if let Some(gap) = self.ledger.take_gap() {
            // Each is reported: it takes a lost link or a lack of memory to make one.
            self.vitals.gaps += 1;
            self.todo.push_back(Todo::Error(ErrorEvent::Gap(gap)));
        } else if let Some(drops) = self.take_drops() {
            self.vitals.dropped += drops.total();
            self.todo.push_back(Todo::Error(ErrorEvent::Drops(drops)));
        } else if let Some(poison) = self.poison.take() {
            self.treat(poison, host);
        } else if !self.machine.is_stopped() && self.ledger.is_settled() != self.machine.believes_settled() {
            // Only now: what was ordered before may have been a message. A stopped machine believes nothing new.
            self.step(now, Fact::DeliverySettled { settled: self.ledger.is_settled() });
        } else if !self.room_for_results && self.ledger.promise(Kind::Result) {
            self.ledger.break_promise(Kind::Result);
            self.set_room(now, true);
        } else if let Some(subject) = self.audits.take_overdue(now) {
            self.unaudited(now, subject);
        } else if let Some(number) = self.ledger.take_removed() {
            self.journal.forget_message(number);
            self.append(Record::Done { number }, None, None);
        } else if let Some(waiter) = self.journal.take_overdue(now) {
            self.go_on(now, waiter);
        } else if self.journal.take_sync(now) {
            self.out(Action::SyncJournal);
        } else if self.advance_usage(now)
            || self.advance_logs(now)
            || self.check_rings(now, host)
            || self.advance_snapshots(now, host)
        {
            // It is queued.
        } else if self.ticks < TICKS_PER_TURN_MAX
            && self.machine.next_deadline().is_some_and(|deadline| deadline <= now)
        {
            self.ticks += 1;
            self.step(now, Fact::Tick);
        } else if let Some(shrink) = self.budget.take_shrink() {
            self.out(Action::ShrinkScrollback { session: shrink.session, to_bytes: shrink.to_bytes });
        } else if self.advance_hand_over(now) {
            // It is queued. Last, so that all else of this turn is done when the program is replaced.
        } else {
            return self.log_ignored();
        }
        true
    }

    /// Takes what was dropped, once there is room for the event that reports it: one that is dropped, or displaces
    /// another, would be reported in turn, and so on without end.
    pub(super) fn take_drops(&mut self) -> Option<Drops> {
        if !self.ledger.has_room_for_event() {
            return None;
        }
        self.ledger.take_drops()
    }

    /// Hands one fact to the machine and queues what it orders.
    pub(super) fn step(&mut self, now: Time, fact: Fact) {
        let before = self.machine.link();
        self.machine.handle(now, &fact);
        let orders = self.machine.take_orders();
        if let Some(observer) = &mut self.observer {
            observer(now, &fact, &orders, &self.machine.snapshot());
        }
        if let Some(recording) = &mut self.recording {
            recording.stepped(now);
        }
        self.follow_link(now, &fact, before, self.machine.link());
        self.vitals.note_state(now, self.machine.state_name());
        for order in orders {
            match order {
                // Both take effect before anything else that happens in this turn.
                Order::OpenGate { gate, .. } => {
                    self.vitals.note_online(now);
                    self.ledger.open_gate(now, gate);
                }
                Order::SendPing { .. } => self.ledger.request_ping(),
                Order::Emit { event: ConsoleEvent::Disconnect { cause, .. } } => self.vitals.note_offline(now, cause),
                _ => {}
            }
            self.todo.push_back(Todo::Order(order));
        }
    }

    pub(super) fn perform(&mut self, now: Time, order: Order, host: &mut dyn ByteSource<Body = B>) {
        let late = !self.machine.is_draining();
        match order {
            Order::Register { attempt, path, provider } => self.out(Action::Register { attempt, path, provider }),
            Order::AbandonRegistration { attempt } => self.out(Action::AbandonRegistration { attempt, late }),
            Order::Dial { link } if self.hand_over.hold_dial(link) => {}
            Order::Dial { link } => self.out(Action::Dial { link }),
            Order::AbandonDial { link } => self.out(Action::AbandonDial { link, late }),
            Order::ProbePort { probe } => self.out(Action::ProbePort { probe }),
            Order::AbandonPortProbe { probe } => self.out(Action::AbandonPortProbe { probe }),
            Order::CloseLink { link, code, reason } => self.out(Action::CloseLink { link, code, reason }),
            Order::DropLink { link } => self.out(Action::DropLink { link }),
            Order::OpenGate { link, gate } => self.log(Notice::GateOpened { link, gate }),
            Order::SendPing { link: _ } => {}
            Order::SendRegistration { link: _ } => self.send(&Message::State(StateKind::Registration), host),
            Order::SendHeartbeat { link: _ } => self.out(Action::TakeSample { sample: StateKind::Heartbeat }),
            Order::SendMetrics { link: _ } => self.out(Action::TakeSample { sample: StateKind::Metrics }),
            Order::Emit { event } => self.send(&Message::Event(event), host),
            Order::Report { problem } => self.out(Action::Report { problem }),
            Order::ForgetIdentity => self.out(Action::ForgetIdentity),
            Order::ReadHostName => self.out(Action::ReadHostName),
            Order::HangUpSession { session } => self.out(Action::HangUpSession { session }),
            Order::KillSession { session } => self.out(Action::KillSession { session }),
            Order::FinishSession { session, reason, exit_code } => {
                self.finish_session(session, reason, exit_code, host);
            }
            Order::StartCommand { command } => self.start_command(now, command),
            Order::RefuseCommand { command, refusal } => self.refuse_command(command, refusal, host),
            Order::RepeatResult { command, of } => self.repeat_result(command, of, host),
            Order::ForgetResult { command } => self.forget_result(command),
            Order::TerminateCommand { command } => self.out(Action::TerminateCommand { command }),
            Order::KillCommand { command } => self.out(Action::KillCommand { command }),
            Order::FinishCommand { command, end, exit_code } => {
                self.finish_command(now, command, end, exit_code, host);
            }
            Order::Exit => {
                if self.journal.take_last_sync() {
                    self.out(Action::SyncJournal);
                }
                self.out(Action::Exit);
            }
        }
    }

    /// Wants this done: next, where something is being performed, else behind what was decided before.
    pub(super) fn out(&mut self, action: Action) {
        if self.is_performing {
            self.ready.push_back(Output::Do(action));
        } else {
            self.todo.push_back(Todo::Do(action));
        }
    }

    pub(super) fn log(&mut self, notice: Notice) {
        self.out(Action::Log { notice });
    }

    pub(super) fn set_room(&mut self, now: Time, room: bool) {
        if room != self.room_for_results {
            self.room_for_results = room;
            self.step(now, Fact::RoomForResults { room });
        }
    }

    /// Queues a line about facts that the machine had no use for; false where there were none.
    pub(super) fn log_ignored(&mut self) -> bool {
        let totals = self.machine.ignored();
        if totals == self.ignored {
            return false;
        }
        self.ignored = totals;
        self.log(Notice::FactsIgnored { unhandled: totals.0, stale: totals.1 });
        true
    }

    pub(super) fn tell_session(&mut self, now: Time, session: SessionKey, what: SessionFact) {
        self.step(now, Fact::Session { session, what });
    }

    pub(super) fn tell_command(&mut self, now: Time, command: CommandKey, what: CommandFact) {
        self.step(now, Fact::Command { command, what });
    }
}
