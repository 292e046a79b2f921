//! What a panic hands over: the descriptors, processes, ids and sizes of sessions and commands.
//!
//! It lies in memory of fixed size and needs no lock, so that no panic can spoil it or hold it. The loop's thread alone
//! writes; the panic hook reads, on whatever thread. A slot counts once its kind is set, which is done last.
//!
//! What it does not hold is lost: the scrollback, which is reported as a gap, and what commands have printed. A command
//! whose script is not written to its end is not in it: half a script must not run.

use super::state::{Command, Given, Session, State, Stream};
use crate::command::{SavedCommand, SavedOutput, SavedStream};
use crate::protocol::ID_BYTES_MAX;
use crate::terminal::{SavedSession, SavedShell};
use draupnir_fsm::driver::{
    COMMANDS_RUNNING_MAX, CommandKey, ConsoleId, Drops, SESSIONS_MAX, SavedConnection, SessionKey, TakenOver,
};
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

const SLOTS: usize = SESSIONS_MAX + COMMANDS_RUNNING_MAX;

/// What the result of a command says that lost its output.
const OUTPUT_LOST: &[u8] = b"the agent panicked while this command ran: what it printed before is lost\n";

/// What a slot holds.
mod kind {
    pub(super) const FREE: u8 = 0;
    pub(super) const SESSION: u8 = 1;
    pub(super) const COMMAND: u8 = 2;
    pub(super) const STREAMED_COMMAND: u8 = 3;
}

struct Slot {
    kind: AtomicU8,
    key: AtomicU32,
    pid: AtomicU32,
    /// The terminal, or both pipes of a command; 0 where there is none, so that the free table is not in the program.
    descriptors: [AtomicI32; 2],
    cols: AtomicU32,
    rows: AtomicU32,
    /// Where its output, or both of them, end; and up to where the console has them.
    ends: [AtomicU64; 2],
    acknowledged: [AtomicU64; 2],
    /// When a command began, and how long it may run, in milliseconds of the monotonic clock.
    began_ms: AtomicU64,
    timeout_ms: AtomicU64,
    id_bytes: AtomicUsize,
    id: [AtomicU8; ID_BYTES_MAX],
}

impl Slot {
    const fn new() -> Self {
        Self {
            kind: AtomicU8::new(kind::FREE),
            key: AtomicU32::new(0),
            pid: AtomicU32::new(0),
            descriptors: [const { AtomicI32::new(0) }; 2],
            cols: AtomicU32::new(0),
            rows: AtomicU32::new(0),
            ends: [const { AtomicU64::new(0) }; 2],
            acknowledged: [const { AtomicU64::new(0) }; 2],
            began_ms: AtomicU64::new(0),
            timeout_ms: AtomicU64::new(0),
            id_bytes: AtomicUsize::new(0),
            id: [const { AtomicU8::new(0) }; ID_BYTES_MAX],
        }
    }

    fn set_id(&self, id: &str) {
        self.id_bytes.store(id.len().min(ID_BYTES_MAX), Ordering::Relaxed);
        self.id.iter().zip(id.bytes()).for_each(|(place, byte)| place.store(byte, Ordering::Relaxed));
    }

    fn id(&self) -> Option<String> {
        let length = self.id_bytes.load(Ordering::Relaxed);
        String::from_utf8(self.id.iter().take(length).map(|byte| byte.load(Ordering::Relaxed)).collect()).ok()
    }
}

static TABLE: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// The place of a session or command in the table, until it is dropped.
#[derive(Debug)]
pub struct Kept(usize);

impl Kept {
    /// A session whose shell runs; `None` if the table is full.
    pub fn session(key: SessionKey, id: &str, shell: &SavedShell) -> Option<Self> {
        Self::take(kind::SESSION, |slot| {
            slot.key.store(key.0, Ordering::Relaxed);
            slot.set_id(id);
            slot.pid.store(shell.pid, Ordering::Relaxed);
            slot.descriptors[0].store(shell.terminal, Ordering::Relaxed);
            slot.cols.store(shell.cols.into(), Ordering::Relaxed);
            slot.rows.store(shell.rows.into(), Ordering::Relaxed);
        })
    }

    /// A command whose process runs and has its whole script; `None` for any other, or if the table is full.
    pub fn command(
        key: CommandKey,
        id: &str,
        saved: &SavedCommand,
        timeout_ms: u64,
        is_streamed: bool,
    ) -> Option<Self> {
        if saved.stdin.is_some() {
            return None;
        }
        let kind = if is_streamed { kind::STREAMED_COMMAND } else { kind::COMMAND };
        Self::take(kind, |slot| {
            slot.key.store(key.0, Ordering::Relaxed);
            slot.set_id(id);
            slot.pid.store(saved.pid, Ordering::Relaxed);
            for (place, output) in slot.descriptors.iter().zip(&saved.outputs) {
                place.store(output.pipe.unwrap_or_default(), Ordering::Relaxed);
            }
            slot.began_ms.store(now_ms().saturating_sub(saved.ran_ms), Ordering::Relaxed);
            slot.timeout_ms.store(timeout_ms, Ordering::Relaxed);
        })
    }

    fn take(kind: u8, fill: impl FnOnce(&Slot)) -> Option<Self> {
        let place = TABLE.iter().position(|slot| slot.kind.load(Ordering::Relaxed) == kind::FREE)?;
        let entry = Self(place);
        let slot = entry.slot()?;
        for number in slot.ends.iter().chain(&slot.acknowledged) {
            number.store(0, Ordering::Relaxed);
        }
        fill(slot);
        slot.kind.store(kind, Ordering::Release);
        Some(entry)
    }

    /// Notes the size of a terminal.
    pub fn set_size(&self, cols: u16, rows: u16) {
        if let Some(slot) = self.slot() {
            slot.cols.store(cols.into(), Ordering::Relaxed);
            slot.rows.store(rows.into(), Ordering::Relaxed);
        }
    }

    /// Notes where an output ends: the only one, or standard output (0) or error (1).
    pub fn set_end(&self, output: usize, end: u64) {
        if let Some(place) = self.slot().and_then(|slot| slot.ends.get(output)) {
            place.store(end, Ordering::Relaxed);
        }
    }

    /// Notes up to where the console has an output.
    pub fn set_acknowledged(&self, output: usize, at: u64) {
        if let Some(place) = self.slot().and_then(|slot| slot.acknowledged.get(output)) {
            place.store(at, Ordering::Relaxed);
        }
    }

    fn slot(&self) -> Option<&'static Slot> {
        TABLE.get(self.0)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            slot.kind.store(kind::FREE, Ordering::Release);
        }
    }
}

/// The state that a panic hands over. It is partial: what the journal has is to be read there.
pub fn state(api_key: &str) -> State {
    let mut state = State::default();
    (state.is_partial, state.api_key) = (true, api_key.as_bytes().to_vec());
    let begun = TakenOver::Begun { numbers_up_to: 0, connection: SavedConnection::default(), drops: Drops::default() };
    state.given.push(Given { what: begun, text: Vec::new() });
    for slot in &TABLE {
        let kind = slot.kind.load(Ordering::Acquire);
        let Some(id) = slot.id().filter(|_| kind != kind::FREE) else { continue };
        if kind == kind::SESSION { add_session(&mut state, slot, id) } else { add_command(&mut state, slot, id, kind) }
    }
    state
}

fn add_session(state: &mut State, slot: &Slot, id: String) {
    let key = SessionKey(slot.key.load(Ordering::Relaxed));
    let [end, at] = [&slot.ends[0], &slot.acknowledged[0]].map(|number| number.load(Ordering::Relaxed));
    let number = |number: &AtomicU32| u16::try_from(number.load(Ordering::Relaxed)).unwrap_or(1).max(1);
    let shell = SavedShell {
        pid: slot.pid.load(Ordering::Relaxed),
        terminal: descriptor(&slot.descriptors[0]).unwrap_or(-1),
        // It may be closed by now, and its number another file's.
        slave: None,
        cols: number(&slot.cols),
        rows: number(&slot.rows),
        is_ending: false,
    };
    let terminal = SavedSession { shell: Some(shell), end, ..SavedSession::default() };
    state.sessions.push(Session { key, id, input_bytes: 0, terminal: Some(terminal) });
    // The id is hashed by the new program, which knows the key of the journal.
    let what = TakenOver::Session {
        session: key,
        id: ConsoleId(0),
        at: at.min(end),
        orphan_in_ms: None,
        end: None,
        replay: false,
    };
    state.given.push(Given { what, text: Vec::new() });
    state.next_session = SessionKey(state.next_session.0.max(key.next().0));
}

fn add_command(state: &mut State, slot: &Slot, id: String, kind: u8) {
    let key = CommandKey(slot.key.load(Ordering::Relaxed));
    let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let ran_ms = now_ms().saturating_sub(number(&slot.began_ms));
    let timeout_ms = number(&slot.timeout_ms);
    let [stdout, stderr] = [0, 1].map(|at: usize| slot.descriptors.get(at).and_then(descriptor));
    let lost = OUTPUT_LOST.to_vec();
    let outputs = [
        SavedOutput { pipe: stdout, ..SavedOutput::default() },
        SavedOutput { pipe: stderr, bytes: lost.len() as u64, head: lost, tail: Vec::new() },
    ];
    let saved = SavedCommand { pid: slot.pid.load(Ordering::Relaxed), ran_ms, outputs, ..SavedCommand::default() };
    let is_streamed = kind == kind::STREAMED_COMMAND;
    if is_streamed {
        for (end, is_stderr) in slot.ends.iter().zip([false, true]) {
            let kept = SavedStream { end: number(end), ..SavedStream::default() };
            state.streams.push(Stream { command: key, is_stderr, saved: kept });
        }
    }
    let at = [0, 1].map(|at: usize| {
        let of = |numbers: &[AtomicU64; 2]| numbers.get(at).map(number).unwrap_or_default();
        of(&slot.acknowledged).min(of(&slot.ends))
    });
    let process = Some(saved);
    state.commands.push(Command { key, id, timeout_ms, process, spec: None, script: Vec::new() });
    let what = TakenOver::Command {
        command: key,
        id: ConsoleId(0),
        timeout_in_ms: timeout_ms.saturating_sub(ran_ms),
        streams: is_streamed.then_some(at),
        end: None,
    };
    state.given.push(Given { what, text: Vec::new() });
    state.next_command = CommandKey(state.next_command.0.max(key.next().0));
}

fn descriptor(number: &AtomicI32) -> Option<RawFd> {
    Some(number.load(Ordering::Relaxed)).filter(|number| *number > 2)
}

fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or_default();
    u64::try_from(now.tv_sec).unwrap_or_default().saturating_mul(1_000).saturating_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_gives_what_is_in_it_until_it_is_dropped() {
        let shell = SavedShell { pid: 7, terminal: 8, slave: Some(9), cols: 80, rows: 24, is_ending: false };
        let session = Kept::session(SessionKey(41), "sé", &shell).expect("there is room");
        session.set_end(0, 100);
        session.set_acknowledged(0, 60);
        session.set_size(100, 30);
        let saved = SavedCommand { pid: 10, ran_ms: 5, ..SavedCommand::default() };
        let command = Kept::command(CommandKey(42), "c", &saved, 60_000, true).expect("there is room");
        let feeding = SavedCommand { stdin: Some(12), ..saved };
        assert!(Kept::command(CommandKey(43), "d", &feeding, 60_000, false).is_none(), "half a script must not run");
        let state = state("key");
        // Other tests of this process may have entries of their own.
        let found = state.sessions.iter().find(|session| session.key == SessionKey(41)).expect("it is there");
        let terminal = found.terminal.as_ref().expect("a terminal");
        let kept = SavedShell { slave: None, cols: 100, rows: 30, ..shell };
        assert_eq!((&*found.id, terminal.end, terminal.shell.as_ref()), ("sé", 100, Some(&kept)));
        let given = |what: &TakenOver| match what {
            TakenOver::Session { session: SessionKey(41), at, .. } => *at == 60,
            TakenOver::Command { command: CommandKey(42), timeout_in_ms, streams: Some([0, 0]), .. } => {
                (1..60_000).contains(timeout_in_ms)
            }
            _ => false,
        };
        assert_eq!(state.given.iter().filter(|entry| given(&entry.what)).count(), 2);
        assert!(state.is_partial && state.next_session > SessionKey(41) && state.next_command > CommandKey(42));
        drop((session, command));
        let state = super::state("key");
        assert!(state.sessions.iter().all(|session| session.key != SessionKey(41)));
        assert!(state.commands.iter().all(|command| command.key != CommandKey(42)));
    }
}
