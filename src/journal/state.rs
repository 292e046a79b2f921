//! What the records of a file say together: what counts still, and what a new process has to know.

use super::frame::Frames;
use super::key::{Hash, Key};
use super::place::{self, Process, SessionRemains};
use super::record::{Body, Entry, What};
use crate::logs::position::Position;
use draupnir_fsm::driver::{COMMAND_IDS_MAX, Kind};
use litemap::LiteMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// The most logs whose positions are kept; a position takes some hundred bytes.
const LOG_POSITIONS_MAX: usize = 4_096;

/// The bytes of a frame within the file.
type Place = Range<usize>;

/// What an earlier process left, in the order in which a new one must know it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The numbers of messages up to this one are used.
    pub numbers_up_to: u64,
    /// By owner, in the order of the file.
    pub left: Vec<(Hash, Left)>,
}

/// One thing that an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// A command that ran, whose result is not kept.
    Ended {
        /// The hash of its id.
        id: Hash,
    },
    /// A command whose end is not known.
    Command {
        /// The hash of its id.
        id: Hash,
        /// Its id.
        text: Box<str>,
        /// What is left of it.
        remains: SessionRemains,
    },
    /// A session whose end is not known.
    Session {
        /// The hash of its id.
        id: Hash,
        /// Its id.
        text: Box<str>,
    },
    /// A message that the console is not known to have.
    Message {
        /// Its number.
        number: u64,
        /// What it is.
        kind: Kind,
        /// The hash of the id whose end it reports.
        of: Option<Hash>,
        /// Its text.
        body: Body,
    },
    /// How far the console has a log.
    LogPosition {
        /// The path by which the console knows it.
        path: Box<str>,
        /// Where.
        position: Position,
        /// Where in the system's journal.
        cursor: Option<Box<str>>,
    },
    /// How far the status ledger of Sindri was reported.
    Position {
        /// The position.
        text: Box<str>,
    },
}

/// What counts of a file, as places in it.
#[derive(Debug, Default)]
pub(super) struct State {
    machine: Option<(Hash, Place)>,
    commands: BTreeMap<(Hash, Hash), Command>,
    sessions: LiteMap<(Hash, Hash), Place>,
    positions: LiteMap<Hash, Place>,
    log_positions: LiteMap<(Hash, Box<str>), Place>,
    messages: BTreeMap<u64, Message>,
    /// Commands that have ended, oldest first, each with the number of that end; some have gone or come again since.
    ended: VecDeque<(u64, Hash, Hash)>,
    ends: u64,
    numbers_up_to: u64,
}

#[derive(Debug)]
enum Command {
    Accepted {
        at: Place,
        started: Option<(Place, Process)>,
    },
    /// Its result is this message.
    Answered {
        number: u64,
    },
    /// The number says which of its ends was the last.
    Ended {
        exit_code: i32,
        end: u64,
    },
}

#[derive(Debug)]
struct Message {
    owner: Hash,
    kind: Kind,
    of: Option<Hash>,
    exit_code: i32,
    at: Place,
}

impl State {
    /// Reads the frames of a file.
    pub(super) fn read(frames: &mut Frames<'_>) -> Self {
        let mut state = Self::default();
        for (place, payload) in frames {
            // A kind of a later version counts for nothing here.
            if let Some(entry) = Entry::decode(payload) {
                state.take(entry, place);
            }
        }
        state
    }

    fn take(&mut self, Entry { owner, what }: Entry, at: Place) {
        match what {
            What::Began { machine } => self.machine = Some((machine, at)),
            What::Accepted { id, .. } => {
                let before = self.commands.insert((owner, id), Command::Accepted { at, started: None });
                self.detach(before);
            }
            What::Started { id, process } => {
                if let Some(Command::Accepted { started, .. }) = self.commands.get_mut(&(owner, id)) {
                    *started = Some((at, process));
                }
            }
            What::Ended { id, exit_code } => self.end(owner, id, exit_code),
            What::Withdrawn { id } => {
                let before = self.commands.remove(&(owner, id));
                self.detach(before);
            }
            What::Opened { id, .. } => {
                self.sessions.insert((owner, id), at);
            }
            What::Unopened { id } => {
                self.sessions.remove(&(owner, id));
            }
            What::Message { number, kind, of, exit_code, .. } => {
                self.numbers_up_to = self.numbers_up_to.max(number);
                // The same number again is a shorter form: what it reports stays.
                let before = self.messages.get(&number).map(|message| (message.of, message.exit_code));
                let (of, exit_code) = before.unwrap_or((of, exit_code));
                match (kind, of) {
                    (Kind::Result, Some(id)) => {
                        // The same again, for a repeat, takes the place of what was there.
                        let before = self.commands.insert((owner, id), Command::Answered { number });
                        if let Some(Command::Answered { number: old }) = before
                            && old != number
                        {
                            self.messages.remove(&old);
                        }
                    }
                    (Kind::Closed, Some(id)) => {
                        self.sessions.remove(&(owner, id));
                    }
                    (Kind::Result | Kind::Closed | Kind::Event, _) => {}
                }
                self.messages.insert(number, Message { owner, kind, of, exit_code, at });
            }
            What::Position { .. } => {
                self.positions.insert(owner, at);
            }
            What::LogPosition { path, .. } => {
                self.log_positions.insert((owner, path), at);
                self.bound_log_positions();
            }
            What::Done { number } => {
                self.numbers_up_to = self.numbers_up_to.max(number);
                let Some(message) = self.messages.remove(&number) else { return };
                if let (Kind::Result, Some(id)) = (message.kind, message.of) {
                    self.end(message.owner, id, message.exit_code);
                }
            }
        }
    }

    /// Lets go of the position that was not written for longest: its log is most likely gone.
    fn bound_log_positions(&mut self) {
        if self.log_positions.len() > LOG_POSITIONS_MAX
            && let Some((oldest, _)) = self.log_positions.iter().min_by_key(|(_, at)| at.start)
        {
            let oldest = oldest.clone();
            self.log_positions.remove(&oldest);
        }
    }

    /// A result whose id stands for something else now is a message like any other.
    fn detach(&mut self, before: Option<Command>) {
        if let Some(Command::Answered { number }) = before
            && let Some(message) = self.messages.get_mut(&number)
        {
            message.of = None;
        }
    }

    fn end(&mut self, owner: Hash, id: Hash, exit_code: i32) {
        self.ends += 1;
        let before = self.commands.insert((owner, id), Command::Ended { exit_code, end: self.ends });
        self.detach(before);
        self.ended.push_back((self.ends, owner, id));
        if self.ended.len() > COMMAND_IDS_MAX
            && let Some((end, owner, id)) = self.ended.pop_front()
            && self.exit_code_of(end, owner, id).is_some()
        {
            self.commands.remove(&(owner, id));
        }
    }

    /// The exit code of a command whose last end was this one.
    fn exit_code_of(&self, number: u64, owner: Hash, id: Hash) -> Option<i32> {
        match self.commands.get(&(owner, id)) {
            Some(Command::Ended { exit_code, end }) if *end == number => Some(*exit_code),
            Some(Command::Ended { .. } | Command::Accepted { .. } | Command::Answered { .. }) | None => None,
        }
    }

    /// Whether the file was last written on this machine, as far as both are known.
    pub(super) fn is_of_this_machine(&self, key: &Key) -> bool {
        let here = place::machine(key);
        self.machine.as_ref().is_none_or(|(machine, _)| *machine == here || *machine == 0 || here == 0)
    }

    /// What a new process has to know.
    pub(super) fn found(&self, key: &Key, bytes: &[u8]) -> Found {
        let mut left = Vec::new();
        // Ids first, in the order in which they ended, so that the oldest are forgotten first.
        let ended = self.ended.iter().filter(|(end, owner, id)| self.exit_code_of(*end, *owner, *id).is_some());
        left.extend(ended.map(|(_, owner, id)| (*owner, Left::Ended { id: *id })));
        for (number, message) in &self.messages {
            let Some(What::Message { body, .. }) = entry(bytes, &message.at) else { continue };
            let (number, kind, of) = (*number, message.kind, message.of);
            left.push((message.owner, Left::Message { number, kind, of, body }));
        }
        for ((owner, id), command) in &self.commands {
            let Command::Accepted { at, started } = command else { continue };
            let Some(What::Accepted { text, .. }) = entry(bytes, at) else { continue };
            let remains = started.as_ref().map_or(SessionRemains::Doubtful, |(_, process)| process.remains(key));
            left.push((*owner, Left::Command { id: *id, text, remains }));
        }
        for ((owner, id), at) in &self.sessions {
            let Some(What::Opened { text, .. }) = entry(bytes, at) else { continue };
            left.push((*owner, Left::Session { id: *id, text }));
        }
        for (owner, at) in &self.positions {
            let Some(What::Position { text }) = entry(bytes, at) else { continue };
            left.push((*owner, Left::Position { text }));
        }
        for ((owner, _), at) in &self.log_positions {
            let Some(What::LogPosition { path, position, cursor }) = entry(bytes, at) else { continue };
            left.push((*owner, Left::LogPosition { path, position, cursor }));
        }
        Found { numbers_up_to: self.numbers_up_to, left }
    }

    /// The frames that count, as parts of a new file of at most `bytes_max`; where that is too little, records of other
    /// owners than `own` go first, the oldest of them first.
    pub(super) fn parts(&self, key: &Key, bytes: &[u8], own: &BTreeSet<Hash>, bytes_max: usize) -> Vec<Vec<u8>> {
        let mut parts: Vec<(Hash, usize, Vec<u8>)> = Vec::new();
        let copy = |place: &Place| bytes.get(place.clone()).unwrap_or_default().to_vec();
        // First of all, since what follows may be about an id that has come again.
        for (number, Message { owner, kind, of, exit_code, at }) in &self.messages {
            let Some(What::Message { body, .. }) = entry(bytes, at) else { continue };
            // A shorter form does not say what it reports.
            let what = What::Message { number: *number, kind: *kind, of: *of, exit_code: *exit_code, body };
            let mut frame = Vec::new();
            super::frame::push(key, &Entry { owner: *owner, what }.encode(key), &mut frame);
            parts.push((*owner, at.start, frame));
        }
        for (end, owner, id) in &self.ended {
            if let Some(exit_code) = self.exit_code_of(*end, *owner, *id) {
                let entry = Entry { owner: *owner, what: What::Ended { id: *id, exit_code } };
                let mut frame = Vec::new();
                super::frame::push(key, &entry.encode(key), &mut frame);
                parts.push((*owner, 0, frame));
            }
        }
        for ((owner, _), command) in &self.commands {
            if let Command::Accepted { at, started } = command {
                let mut frames = copy(at);
                frames.extend(started.iter().flat_map(|(place, _)| copy(place)));
                parts.push((*owner, at.start, frames));
            }
        }
        parts.extend(self.sessions.iter().map(|((owner, _), at)| (*owner, at.start, copy(at))));
        parts.extend(self.positions.iter().map(|(owner, at)| (*owner, at.start, copy(at))));
        parts.extend(self.log_positions.iter().map(|((owner, _), at)| (*owner, at.start, copy(at))));
        // A message that was cut may stand behind a later one: numbers say the order, places only the age.
        let mut total: usize = parts.iter().map(|(_, _, frame)| frame.len()).sum();
        let mut foreign: Vec<usize> = (0..parts.len()).filter(|at| !own.contains(&parts[*at].0)).collect();
        foreign.sort_by_key(|at| parts[*at].1);
        for at in foreign {
            if total <= bytes_max {
                break;
            }
            total -= parts[at].2.len();
            parts[at].2 = Vec::new();
        }
        let machine = self.machine.iter().map(|(_, place)| copy(place));
        // The last number that was used is among those of messages; a record of its own keeps it when none is left.
        let mut last = Vec::new();
        let done = Entry { owner: 0, what: What::Done { number: self.numbers_up_to } };
        super::frame::push(key, &done.encode(key), &mut last);
        std::iter::once(last).chain(machine).chain(parts.into_iter().map(|(_, _, frame)| frame)).collect()
    }
}

fn entry(bytes: &[u8], place: &Place) -> Option<What> {
    let payload = bytes.get(place.start + super::frame::FRAME_BYTES..place.end)?;
    Entry::decode(payload).map(|entry| entry.what)
}
