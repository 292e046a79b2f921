//! Turns records of the driver into entries of the journal, and what an earlier process left into inputs.
//!
//! What belongs to another owner stays in the file. One exception: an agent that does not know its console's id yet
//! keeps all that it found until the console has given one.

use super::host::{Host, Text};
use crate::config::Config;
use crate::hand_over::state::State;
use crate::journal::{self, Entry, Found, Hash, Journal, Left, Process, What};
use crate::logs::{LogPosition, LogPositions};
use crate::protocol::{CommandId, InstanceId, SessionId};
use crate::sindri::Position;
use draupnir_fsm::driver::{AppendId, ConsoleId, Input, Kind, Record, Remains, Restored};
use std::collections::BTreeMap;

/// The journal, whose records they are, and what was found in it.
pub(super) struct Kept {
    pub(super) journal: Journal,
    owner: Hash,
    /// The owner as long as the console has given no id: what was recorded then is of the same instance.
    unnamed: Hash,
    /// What was found of owners that may still turn out to be this one.
    found: Vec<(Hash, Left)>,
    /// The texts of messages that were found, until the driver asks for them.
    texts: BTreeMap<u64, Text>,
    begun: Option<u64>,
    /// Where the status ledger of Sindri is reported up to: as it was found, or not recorded yet.
    position: Option<Position>,
    /// The number of the latest record.
    append: u64,
}

impl Kept {
    /// What `opened` found, for the instance of this id.
    pub(super) fn new(
        opened: Option<(Journal, Result<Found, journal::Error>)>,
        config: &Config,
        id: Option<&InstanceId>,
        state: Option<&State>,
    ) -> Self {
        let (mut journal, found) = match opened {
            Some((journal, Ok(found))) => (journal, Some(found)),
            Some((journal, Err(error))) => {
                journal::warn(&error);
                (journal, None)
            }
            None => (Journal::absent(), None),
        };
        if let Some(state) = state.filter(|state| !state.is_partial) {
            journal.keep_key(&state.hash_key);
        }
        let (begun, found) = found.map_or((None, Vec::new()), |found| (Some(found.numbers_up_to), found.left));
        let unnamed = owner(&journal, config, None);
        let mut kept =
            Self { journal, owner: unnamed, unnamed, found, texts: BTreeMap::new(), begun, position: None, append: 0 };
        if id.is_some() {
            kept.owner = owner(&kept.journal, config, id);
            let own = [kept.owner, unnamed];
            kept.found.retain(|(owner, _)| own.contains(owner));
        }
        kept.journal.begin([kept.owner, unnamed]);
        kept.position = kept.find_position();
        if state.is_some_and(|state| !state.is_partial) {
            // The program before this one had taken it in, and gave it.
            let own = [kept.owner, unnamed];
            let is_log = |left: &Left| matches!(left, Left::LogPosition { .. });
            kept.found.retain(|(owner, left)| !own.contains(owner) || is_log(left));
        }
        kept
    }

    /// The position that was found, as this instance or as long as it had no name.
    fn find_position(&self) -> Option<Position> {
        let of = |owner: Hash| {
            self.found.iter().find_map(|(of, left)| match left {
                Left::Position { text } if *of == owner => Position::parse(text.as_bytes()),
                _ => None,
            })
        };
        of(self.owner).or_else(|| of(self.unnamed))
    }

    /// The position that was found at the start.
    pub(super) fn take_position(&mut self) -> Option<Position> {
        self.position.take()
    }

    /// The positions in logs that were found at the start; those of this instance count more than those of a time when
    /// it had no name.
    pub(super) fn take_log_positions(&mut self) -> LogPositions {
        let mut positions = LogPositions::new();
        for wanted in [self.owner, self.unnamed] {
            for (owner, left) in &self.found {
                if let Left::LogPosition { path, position, cursor } = left
                    && *owner == wanted
                    && !positions.iter().any(|known| known.path == *path)
                {
                    let (path, position, cursor) = (path.clone(), *position, cursor.clone());
                    positions.push(LogPosition { path, position, cursor });
                }
            }
        }
        self.found.retain(|(_, left)| !matches!(left, Left::LogPosition { .. }));
        positions
    }

    /// The changes up to here are reported in this turn.
    pub(super) fn set_position(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// Hands the records of this turn to the file. The position stands behind the events that it covers, in one write
    /// with them: a process that dies reports each change once.
    pub(super) fn end_turn(&mut self) -> Option<Input> {
        if let Some(position) = self.position.take() {
            let entry = Entry { owner: self.owner, what: What::Position { text: position.encode().into() } };
            self.journal.append(self.append, entry, false);
        }
        self.journal.end_turn().map(input)
    }

    /// The console has given another id, or taken it back.
    pub(super) fn rename(&mut self, config: &Config, id: Option<&InstanceId>) {
        self.owner = owner(&self.journal, config, id);
    }

    /// The number that stands for an id of the console's.
    pub(super) fn console_id(&self, id: &str) -> ConsoleId {
        ConsoleId(self.journal.key().id(id))
    }

    /// Keeps the text of a message until the driver asks for it.
    pub(super) fn keep_text(&mut self, number: u64, text: Text) {
        self.texts.insert(number, text);
    }

    /// The text of a message that was found.
    pub(super) fn take_text(&mut self, number: u64) -> Option<Text> {
        self.texts.remove(&number)
    }
}

fn owner(journal: &Journal, config: &Config, id: Option<&InstanceId>) -> Hash {
    let (console, configured) = (config.console_url.to_string(), config.instance_id.as_str());
    journal.key().owner(&console, configured, id.map(InstanceId::as_str))
}

impl Host {
    /// What an earlier process left, as far as it is this instance's, for the driver to take in.
    pub(super) fn take_restored(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        if let Some(numbers_up_to) = self.kept.begun.take() {
            inputs.push(Restored::Begun { numbers_up_to });
        }
        let own = [self.kept.owner, self.kept.unnamed];
        let is_own = |(owner, _): &mut (Hash, Left)| own.contains(owner);
        let left: Vec<Left> = self.kept.found.extract_if(.., is_own).map(|(_, left)| left).collect();
        inputs.extend(left.into_iter().filter_map(|left| self.restored(left)));
        inputs.into_iter().map(|what| Input::Restored { what }).collect()
    }

    fn restored(&mut self, left: Left) -> Option<Restored> {
        Some(match left {
            Left::Ended { id } => Restored::Ended { id: ConsoleId(id) },
            // Taken over from a program that panicked.
            Left::Command { text, .. } if self.commands.is_known(&text) => return None,
            Left::Session { text, .. } if self.sessions.is_known(&text) => return None,
            Left::Command { id, text, remains } => {
                let command = self.commands.add_interrupted(CommandId::new(&text)?, remains);
                let remains = match remains {
                    journal::SessionRemains::None => Remains::None,
                    journal::SessionRemains::Certain(_) => Remains::Certain,
                    journal::SessionRemains::Doubtful => Remains::Doubtful,
                };
                Restored::Command { command, id: ConsoleId(id), remains }
            }
            Left::Session { id, text } => {
                let session = self.sessions.add(SessionId::new(&text)?, None, None);
                Restored::Session { session, id: ConsoleId(id) }
            }
            // The first look at the status ledger has it.
            Left::Position { .. } => return None,
            // The followers of logs have it.
            Left::LogPosition { .. } => return None,
            Left::Message { number, kind, of, body } => {
                self.kept.texts.insert(number, Text::from(body));
                match (kind, of.map(ConsoleId)) {
                    (Kind::Result, Some(id)) => Restored::Result { number, command: self.commands.next_key(), id },
                    (Kind::Closed, Some(id)) => Restored::Closed { number, session: self.sessions.next_key(), id },
                    (Kind::Result | Kind::Closed | Kind::Event, _) => Restored::Message { number, kind },
                }
            }
        })
    }

    /// Adds a record to those of this turn.
    pub(super) fn append(&mut self, append: AppendId, record: Record, body: Option<Text>) {
        let what = match record {
            Record::Accepted { command, id: ConsoleId(id) } => {
                self.commands.id(command).map(|text| What::Accepted { id, text: text.as_str().into() })
            }
            Record::Started { command, id: ConsoleId(id) } => {
                let pid = self.commands.runner.pid(command);
                pid.map(|pid| What::Started { id, process: Process::of(pid) })
            }
            Record::Ended { id: ConsoleId(id) } => Some(What::Ended { id, exit_code: 0 }),
            Record::Withdrawn { id: ConsoleId(id) } => Some(What::Withdrawn { id }),
            Record::Opened { session, id: ConsoleId(id) } => {
                self.sessions.id(session).map(|text| What::Opened { id, text: text.as_str().into() })
            }
            Record::Unopened { id: ConsoleId(id) } => Some(What::Unopened { id }),
            Record::Message { number, kind, of, command } => {
                let exit_code = command.and_then(|command| self.commands.exit_code(command)).unwrap_or_default();
                let of = of.map(|ConsoleId(id)| id);
                body.map(|body| What::Message { number, kind, of, exit_code, body: body.text })
            }
            Record::Done { number } => Some(What::Done { number }),
            Record::Logs { up_to } => {
                for LogPosition { path, position, cursor } in self.logs.take_positions(up_to) {
                    let what = What::LogPosition { position, path, cursor };
                    self.kept.journal.append(append.0, Entry { owner: self.kept.owner, what }, false);
                }
                None
            }
        };
        // What the adapter no longer knows is over: an entry that says nothing keeps the order of reports.
        let what = what.unwrap_or(What::Done { number: 0 });
        self.kept.append = append.0;
        self.kept.journal.append(append.0, Entry { owner: self.kept.owner, what }, record.is_awaited());
    }
}

/// What a report says to the driver.
pub(super) const fn input(report: journal::JournalReport) -> Input {
    let append = AppendId(report.append);
    if report.is_written { Input::Appended { append } } else { Input::AppendFailed { append } }
}
