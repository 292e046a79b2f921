//! The journal as a disk would have it: what was handed over, what was written, and what a new process finds.
//!
//! It outlives the process. When that dies, the records that were handed over and not reported are written up to some
//! point, and the one there is torn: it counts for nothing. It knows no byte, only which message a record holds.

use crate::violation::Violation;
use draupnir_fsm::driver::{AppendId, ConsoleId, Kind, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A record, and the place of the message in it.
#[derive(Clone, Copy, Debug)]
struct Stored {
    append: AppendId,
    record: Record,
    place: Option<u32>,
}

/// What counts of all records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) numbers_up_to: u64,
    pub(crate) ended: Vec<ConsoleId>,
    pub(crate) commands: BTreeSet<ConsoleId>,
    pub(crate) sessions: BTreeSet<ConsoleId>,
    /// By number: kind, id, place.
    pub(crate) messages: BTreeMap<u64, (Kind, Option<ConsoleId>, u32)>,
    /// The position in the log.
    pub(crate) log_line: u32,
}

/// The disk, and what is on its way there.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    written: Vec<Stored>,
    /// In the order in which they were handed over.
    pending: VecDeque<Stored>,
    /// Commands and messages of this life that may go on without their record: it failed.
    excused_commands: BTreeSet<ConsoleId>,
    excused_messages: BTreeSet<u32>,
    /// What each message of this life reports, by its number, whether or not its record was written.
    reports: BTreeMap<u64, Option<ConsoleId>>,
}

impl Journal {
    /// The driver hands over a record.
    pub(crate) fn append(&mut self, append: AppendId, record: Record, place: Option<u32>) -> Result<(), Violation> {
        self.pending.push_back(Stored { append, record, place });
        let Record::Message { number, of, .. } = record else { return Ok(()) };
        let first = *self.reports.entry(number).or_insert(of);
        if first == of { Ok(()) } else { Err(Violation::CutRecordDiffers(number)) }
    }

    /// What was handed over up to this record is written, or fails.
    pub(crate) fn report(&mut self, append: AppendId, is_written: bool) {
        while let Some(stored) = self.pending.pop_front_if(|stored| stored.append <= append) {
            match (is_written, stored.record) {
                (true, _) => self.written.push(stored),
                (false, Record::Accepted { id, .. }) => {
                    self.excused_commands.insert(id);
                }
                (false, Record::Message { .. }) => self.excused_messages.extend(stored.place),
                (false, _) => {}
            }
        }
    }

    /// All that was handed over is written.
    pub(crate) fn flush(&mut self) {
        self.written.extend(self.pending.drain(..));
    }

    /// The process has gone, and these many records more had been written.
    pub(crate) fn die(&mut self, written: usize) {
        self.written.extend(self.pending.drain(..).take(written));
        self.excused_commands.clear();
        self.excused_messages.clear();
        self.reports.clear();
    }

    /// How many records are on their way.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether a repeat of this id must not start anything.
    pub(crate) fn remembers(&self, id: ConsoleId) -> bool {
        let of = |record: &Record| match *record {
            Record::Accepted { id, .. } | Record::Ended { id } => Some((id, true)),
            Record::Message { kind: Kind::Result, of: Some(id), .. } => Some((id, true)),
            Record::Withdrawn { id } => Some((id, false)),
            _ => None,
        };
        let mut last = self.written.iter().rev().filter_map(|stored| of(&stored.record));
        last.find(|(of, _)| *of == id).is_some_and(|(_, remembered)| remembered)
    }

    /// Whether the result of this id is still to come, or to be acknowledged, whatever dies.
    pub(crate) fn owes_result(&self, id: ConsoleId) -> bool {
        let found = self.found();
        found.commands.contains(&id)
            || found.messages.values().any(|(kind, of, _)| *kind == Kind::Result && *of == Some(id))
    }

    /// A command starts now.
    pub(crate) fn starts(&self, id: ConsoleId, dispatch: u32) -> Result<(), Violation> {
        let is_recorded = self.remembers(id) || self.excused_commands.contains(&id);
        if is_recorded { Ok(()) } else { Err(Violation::StartedUnrecorded(dispatch)) }
    }

    /// A message is written to a link now.
    pub(crate) fn sends(&self, place: u32) -> Result<(), Violation> {
        let is_recorded = self.written.iter().any(|stored| stored.place == Some(place));
        if is_recorded || self.excused_messages.contains(&place) {
            Ok(())
        } else {
            Err(Violation::SentUnrecorded(place))
        }
    }

    /// What a new process finds.
    pub(crate) fn found(&self) -> Found {
        let mut found = Found::default();
        for Stored { record, place, .. } in &self.written {
            match *record {
                Record::Accepted { id, .. } => {
                    found.commands.insert(id);
                }
                Record::Started { .. } => {}
                Record::Ended { id } => found.end(id),
                Record::Withdrawn { id } => {
                    found.commands.remove(&id);
                }
                Record::Opened { id, .. } => {
                    found.sessions.insert(id);
                }
                Record::Unopened { id } => {
                    found.sessions.remove(&id);
                }
                Record::Message { number, kind, of, .. } => {
                    found.numbers_up_to = found.numbers_up_to.max(number);
                    let of = of.or_else(|| found.messages.get(&number).and_then(|(_, of, _)| *of));
                    match (kind, of) {
                        (Kind::Result, Some(id)) => {
                            // The same again, for a repeat.
                            found.messages.retain(|_, (kind, of, _)| *kind != Kind::Result || *of != Some(id));
                            found.commands.remove(&id);
                            found.ended.retain(|ended| *ended != id);
                        }
                        (Kind::Closed, Some(id)) => {
                            found.sessions.remove(&id);
                        }
                        (Kind::Result | Kind::Closed | Kind::Event, _) => {}
                    }
                    if let Some(place) = place {
                        found.messages.insert(number, (kind, of, *place));
                    }
                }
                // Its place is the line.
                Record::Logs { .. } => found.log_line = place.unwrap_or(found.log_line),
                Record::Done { number } => {
                    if let Some((Kind::Result, Some(id), _)) = found.messages.remove(&number) {
                        found.end(id);
                    }
                }
            }
        }
        found
    }
}

impl Found {
    fn end(&mut self, id: ConsoleId) {
        self.commands.remove(&id);
        self.ended.retain(|ended| *ended != id);
        self.ended.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::driver::CommandKey;

    #[test]
    fn what_was_torn_by_a_death_counts_for_nothing() {
        let mut journal = Journal::default();
        let accepted = |number: u64| Record::Accepted { command: CommandKey(1), id: ConsoleId(number.into()) };
        for number in 1..=3 {
            journal.append(AppendId(number), accepted(number), None).expect("it breaks no rule");
        }
        journal.report(AppendId(1), true);
        journal.die(1);
        let commands = journal.found().commands;
        assert!(commands.contains(&ConsoleId(2)) && !commands.contains(&ConsoleId(3)));
        assert!(journal.starts(ConsoleId(2), 0).is_ok() && journal.starts(ConsoleId(3), 0).is_err());
    }

    #[test]
    fn shorter_form_without_the_id_breaks_a_rule() {
        let mut journal = Journal::default();
        let result = |of| Record::Message { number: 1, kind: Kind::Result, of, command: None };
        assert_eq!(journal.append(AppendId(1), result(Some(ConsoleId(7))), Some(0)), Ok(()));
        assert_eq!(journal.append(AppendId(2), result(Some(ConsoleId(7))), Some(0)), Ok(()));
        let differs = Err(Violation::CutRecordDiffers(1));
        assert_eq!(journal.append(AppendId(3), result(None), Some(0)), differs);
        // A new process may give the number to another message.
        journal.die(0);
        assert_eq!(journal.append(AppendId(4), result(None), Some(1)), Ok(()));
    }
}
