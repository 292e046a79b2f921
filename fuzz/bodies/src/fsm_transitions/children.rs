//! Checks the orders for sessions and commands: each is answered once, and no order follows an answer.
//!
//! At its end the target checks that none is left without an answer.

use draupnir_fsm::command::{RUNNING_MAX, WAITING_MAX};
use draupnir_fsm::fact::{CommandFact, Fact, SessionFact};
use draupnir_fsm::id::{CommandKey, SessionKey};
use draupnir_fsm::order::{CommandEnd, Order, Refusal, SessionEnd};
use std::collections::{BTreeMap, VecDeque};

/// The number of command ids, a power of two: few, so that ids repeat.
pub(super) const IDS: u128 = 64;

/// All sessions and commands so far.
#[derive(Debug, Default)]
pub(super) struct Children {
    sessions: BTreeMap<SessionKey, Session>,
    commands: BTreeMap<CommandKey, Command>,
    /// In order of arrival.
    waiting: VecDeque<CommandKey>,
    running: usize,
    /// The ids, as bits, of commands that wait or run, that have ever run, and whose result is forgotten.
    live_ids: u64,
    ran_ids: u64,
    forgotten_ids: u64,
    draining: bool,
    no_room: bool,
}

#[derive(Debug, Default)]
struct Session {
    /// Its shell ran.
    opened: bool,
    hung_up: bool,
    killed: bool,
    /// The exit code, if its shell exited before SIGHUP.
    exited: Option<i32>,
    finished: bool,
}

#[derive(Debug, Default)]
struct Command {
    id_hash: u128,
    stage: Stage,
    /// Its process was reported as running.
    ran: bool,
    failed: bool,
    terminated: bool,
    killed: bool,
    forgotten: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waits,
    Runs,
    /// Answered with its own result.
    Finished,
    /// Answered in another way.
    Answered,
}

impl Children {
    /// A session or command without an answer.
    pub(super) fn unanswered(&self) -> Option<String> {
        let session = self.sessions.iter().find(|(_, session)| !session.finished);
        let command = self.commands.iter().find(|(_, command)| matches!(command.stage, Stage::Waits | Stage::Runs));
        session.map(|(key, _)| format!("session {key}")).or(command.map(|(key, _)| format!("command {key}")))
    }

    /// Learns from an input of the machine.
    pub(super) fn learn(&mut self, fact: &Fact) {
        match *fact {
            Fact::Session { session, what: SessionFact::Opening } => {
                self.sessions.entry(session).or_default();
            }
            Fact::Session { session, what: SessionFact::Exited { code } } => {
                let session = self.sessions.get_mut(&session).filter(|session| !session.hung_up && !session.finished);
                session.map(|session| session.exited.get_or_insert(code));
            }
            Fact::Command { command, what: CommandFact::Requested { id_hash, .. } } => {
                self.waiting.push_back(command);
                self.live_ids |= 1 << id_hash;
                self.commands.insert(command, Command { id_hash, ..Command::default() });
            }
            Fact::Session { session, what: SessionFact::Opened } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.opened |= !session.finished;
                }
            }
            Fact::Command { command, what: CommandFact::Started | CommandFact::Exited { .. } } => {
                if let Some(command) = self.commands.get_mut(&command) {
                    command.ran |= command.stage == Stage::Runs;
                }
            }
            Fact::Command { command, what: CommandFact::Failed } => {
                if let Some(command) = self.commands.get_mut(&command) {
                    command.failed |= command.stage == Stage::Runs;
                }
            }
            Fact::RoomForResults { room } => self.no_room = !room,
            Fact::ShutdownRequested => self.draining = true,
            _ => {}
        }
    }

    /// Checks an order.
    pub(super) fn see(&mut self, order: &Order) {
        match *order {
            Order::HangUpSession { .. } | Order::KillSession { .. } | Order::FinishSession { .. } => {
                self.see_session(order);
            }
            Order::StartCommand { command } => self.started(command),
            Order::TerminateCommand { command } => {
                let command = self.command(command);
                let may = command.stage == Stage::Runs && !command.terminated && !command.killed;
                assert!(may, "{order:?}: {command:?}");
                command.terminated = true;
            }
            Order::KillCommand { command } => {
                let command = self.command(command);
                let may = command.stage == Stage::Runs && command.terminated && !command.killed;
                assert!(may, "{order:?}: {command:?}");
                command.killed = true;
            }
            Order::FinishCommand { command, end, .. } => self.finished(command, end),
            Order::RefuseCommand { command, refusal } => self.refused(command, refusal),
            Order::RepeatResult { command, of } => {
                self.wait_ends(command, Stage::Answered);
                let id_hash = self.command(command).id_hash;
                let original = self.command(of);
                let may = original.stage == Stage::Finished && !original.forgotten && original.id_hash == id_hash;
                assert!(may, "{order:?}: {original:?}");
            }
            Order::ForgetResult { command } => {
                let command = self.command(command);
                assert!(command.stage == Stage::Finished && !command.forgotten, "{order:?}: {command:?}");
                command.forgotten = true;
                let id = 1 << command.id_hash;
                self.forgotten_ids |= id;
            }
            // Orders of the connection, which has its own observer.
            Order::Register { .. }
            | Order::AbandonRegistration { .. }
            | Order::Dial { .. }
            | Order::AbandonDial { .. }
            | Order::ProbePort { .. }
            | Order::AbandonPortProbe { .. }
            | Order::CloseLink { .. }
            | Order::DropLink { .. }
            | Order::OpenGate { .. }
            | Order::SendRegistration { .. }
            | Order::SendHeartbeat { .. }
            | Order::SendMetrics { .. }
            | Order::SendPing { .. }
            | Order::Emit { .. }
            | Order::Report { .. }
            | Order::ForgetIdentity
            | Order::ReadHostName
            | Order::Exit => {}
        }
        // One more may be in the queue while it is being refused.
        assert!(self.waiting.len() <= WAITING_MAX + 1, "{} wait", self.waiting.len());
    }

    fn see_session(&mut self, order: &Order) {
        let (Order::HangUpSession { session: key }
        | Order::KillSession { session: key }
        | Order::FinishSession { session: key, .. }) = *order
        else {
            return;
        };
        let session = self.session(key);
        assert!(!session.finished, "{order:?}: {session:?}");
        if let Order::FinishSession { reason, exit_code, .. } = *order {
            match session.exited {
                Some(code) => assert_eq!((reason, exit_code), (SessionEnd::Exited, code), "{session:?}"),
                None => assert!(session.hung_up || !session.opened, "{order:?}: {session:?}"),
            }
            session.finished = true;
            return;
        }
        // Processes that survive a shell which exited by itself are not signalled.
        assert!(session.exited.is_none() && !session.killed, "{order:?}: {session:?}");
        let kills = matches!(order, Order::KillSession { .. });
        assert_eq!(session.hung_up, kills, "{order:?}: {session:?}");
        (session.hung_up, session.killed) = (true, kills);
    }

    fn started(&mut self, key: CommandKey) {
        assert!(!self.draining, "{key} starts in a drain");
        assert_eq!(self.waiting.front(), Some(&key), "out of turn");
        self.wait_ends(key, Stage::Runs);
        let id = 1 << self.command(key).id_hash;
        self.running += 1;
        assert!(self.running <= RUNNING_MAX);
        assert_eq!(self.ran_ids & id, 0, "{key}: its id ran before");
        (self.live_ids, self.ran_ids) = (self.live_ids | id, self.ran_ids | id);
    }

    fn refused(&mut self, key: CommandKey, refusal: Refusal) {
        // Its own place in the queue counts, too.
        let full = self.waiting.len() > WAITING_MAX;
        self.wait_ends(key, Stage::Answered);
        let id = 1 << self.command(key).id_hash;
        let may = match refusal {
            Refusal::Busy => full || self.no_room,
            Refusal::Draining => self.draining,
            Refusal::Forgotten => self.forgotten_ids & id != 0,
        };
        assert!(may, "{key} is refused as {refusal:?}");
    }

    fn finished(&mut self, key: CommandKey, end: CommandEnd) {
        let command = self.command(key);
        match command.stage {
            Stage::Runs if command.terminated && !command.failed => {
                assert!(command.killed, "{command:?} leaves its group alive");
                assert_ne!(end, CommandEnd::Exited, "{command:?}");
            }
            Stage::Runs => assert!(end == CommandEnd::Exited || !command.ran, "{command:?}"),
            Stage::Waits => assert_eq!(end, CommandEnd::Cancelled, "{command:?}"),
            Stage::Finished | Stage::Answered => panic!("answered twice: {command:?}"),
        }
        if command.stage == Stage::Waits {
            self.wait_ends(key, Stage::Finished);
        } else {
            command.stage = Stage::Finished;
            let id = 1 << command.id_hash;
            self.live_ids &= !id;
            self.running -= 1;
        }
    }

    fn wait_ends(&mut self, key: CommandKey, stage: Stage) {
        let command = self.command(key);
        assert!(command.stage == Stage::Waits, "{key} to {stage:?}: {command:?}");
        command.stage = stage;
        let id = 1 << command.id_hash;
        self.live_ids &= !id;
        let place = self.waiting.iter().position(|waiting| *waiting == key).expect("a waiting command is in the queue");
        self.waiting.remove(place);
    }

    fn session(&mut self, key: SessionKey) -> &mut Session {
        self.sessions.get_mut(&key).expect("only what is opening is ordered about")
    }

    fn command(&mut self, key: CommandKey) -> &mut Command {
        self.commands.get_mut(&key).expect("only what was requested is ordered about")
    }
}
