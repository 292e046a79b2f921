//! What must hold for sessions and commands, by the orders alone: each is answered once, and nothing follows an answer.
//!
//! It does not know times; the [calm](super::calm) asks at its end whether anybody was left without an answer.

use draupnir_fsm::command::{RUNNING_MAX, WAITING_MAX};
use draupnir_fsm::fact::{CommandFact, Fact, SessionFact};
use draupnir_fsm::id::{CommandKey, SessionKey};
use draupnir_fsm::order::{CommandEnd, Order, Refusal, SessionEnd};
use std::collections::VecDeque;

/// How many ids of commands there are, a power of two: few enough to be repeated.
pub(super) const IDS: u8 = 64;

/// All sessions and commands there ever were; their keys are their places.
#[derive(Debug, Default)]
pub(super) struct Children {
    sessions: Vec<Session>,
    commands: Vec<Command>,
    /// In the order in which they came.
    waiting: VecDeque<CommandKey>,
    running: usize,
    /// By bits, the ids of those that wait or run, of those that ever ran, and of those whose result is forgotten.
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
    /// Its shell exited before it was told to.
    exited: Option<i32>,
    finished: bool,
}

#[derive(Debug, Default)]
struct Command {
    id_hash: u64,
    /// Another command of this id waited or ran when it came: that one's result is the answer.
    joined: bool,
    stage: Stage,
    /// Its process ran, as far as was reported.
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
    /// Answered with a result of its own.
    Finished,
    /// Answered otherwise.
    Answered,
}

impl Children {
    /// A key that was never used.
    pub(super) fn new_session(&mut self) -> SessionKey {
        self.sessions.push(Session::default());
        SessionKey(key(self.sessions.len() - 1))
    }

    /// A key that was never used.
    pub(super) fn new_command(&mut self) -> CommandKey {
        self.commands.push(Command::default());
        CommandKey(key(self.commands.len() - 1))
    }

    /// One of the sessions, the newest for 0; none where there was never any.
    pub(super) fn some_session(&self, choice: u8) -> Option<SessionKey> {
        choose(self.sessions.len(), choice).map(SessionKey)
    }

    /// One of the commands, likewise.
    pub(super) fn some_command(&self, choice: u8) -> Option<CommandKey> {
        choose(self.commands.len(), choice).map(CommandKey)
    }

    /// The sessions that are not finished.
    pub(super) fn live_sessions(&self) -> Vec<SessionKey> {
        let live = |(place, session): (usize, &Session)| (!session.finished).then(|| SessionKey(key(place)));
        self.sessions.iter().enumerate().filter_map(live).collect()
    }

    /// The commands that run.
    pub(super) fn running_commands(&self) -> Vec<CommandKey> {
        let running =
            |(place, command): (usize, &Command)| (command.stage == Stage::Runs).then(|| CommandKey(key(place)));
        self.commands.iter().enumerate().filter_map(running).collect()
    }

    /// Is somebody left without an answer?
    pub(super) fn unanswered(&self) -> Option<String> {
        let session = self.sessions.iter().position(|session| !session.finished);
        let left = |command: &Command| !command.joined && matches!(command.stage, Stage::Waits | Stage::Runs);
        let command = self.commands.iter().position(left);
        session.map(|place| format!("session {place}")).or(command.map(|place| format!("command {place}")))
    }

    /// Takes in what the machine is about to hear.
    pub(super) fn learn(&mut self, fact: &Fact) {
        if let Fact::Session { session, what: SessionFact::Exited { code } } = *fact {
            let session = self.session(session);
            if !session.hung_up && !session.finished {
                session.exited.get_or_insert(code);
            }
        } else if let Fact::Session { session, what: SessionFact::Opened } = *fact {
            let session = self.session(session);
            session.opened |= !session.finished;
        } else if let Fact::Command { command, what: CommandFact::Requested { id_hash, .. } } = *fact {
            self.requested(command, id_hash);
        } else if let Fact::Command { command, what: CommandFact::Started | CommandFact::Exited { .. } } = *fact {
            let command = self.command(command);
            command.ran |= command.stage == Stage::Runs;
        } else if let Fact::Command { command, what: CommandFact::Failed } = *fact {
            let command = self.command(command);
            command.failed |= command.stage == Stage::Runs;
        } else if let Fact::RoomForResults { room } = *fact {
            self.no_room = !room;
        }
        self.draining |= matches!(fact, Fact::ShutdownRequested);
    }

    fn requested(&mut self, key: CommandKey, id_hash: u64) {
        let joined = self.live_ids & 1 << id_hash != 0;
        if !joined {
            self.waiting.push_back(key);
            self.live_ids |= 1 << id_hash;
        }
        let command = self.command(key);
        (command.id_hash, command.joined) = (id_hash, joined);
    }

    /// Looks at an order.
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
            // The connection's, which has an observer of its own.
            Order::Register { .. }
            | Order::AbandonRegistration { .. }
            | Order::Dial { .. }
            | Order::AbandonDial { .. }
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
        // One more while that one is refused.
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
        // What outlives a shell that exited by itself is left alone.
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
        // Its own place in the queue is one more.
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
        assert!(command.stage == Stage::Waits && !command.joined, "{key} to {stage:?}: {command:?}");
        command.stage = stage;
        let id = 1 << command.id_hash;
        self.live_ids &= !id;
        let place = self.waiting.iter().position(|waiting| *waiting == key).expect("whoever waits is in the queue");
        self.waiting.remove(place);
    }

    fn session(&mut self, key: SessionKey) -> &mut Session {
        self.sessions.get_mut(place(key.0)).expect("only what was opened is told of or ordered about")
    }

    fn command(&mut self, key: CommandKey) -> &mut Command {
        self.commands.get_mut(place(key.0)).expect("only what was requested is told of or ordered about")
    }
}

fn key(place: usize) -> u32 {
    u32::try_from(place).expect("fewer than there are facts")
}

fn place(key: u32) -> usize {
    usize::try_from(key).expect("fewer than there are facts")
}

fn choose(length: usize, choice: u8) -> Option<u32> {
    let newest = length.checked_sub(1)?;
    Some(key(newest - usize::from(choice).min(newest)))
}
