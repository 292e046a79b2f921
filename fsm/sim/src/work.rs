//! What the agent is used for: sessions and commands, as the console asks for them and as their processes behave.
//!
//! It holds no byte, only how many there are and where they stand. The host reports them to the driver.

use draupnir_fsm::driver::{CommandKey, LinkId, Schedule, SessionKey, StreamKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a scrollback holds, in bytes.
pub(crate) const SCROLLBACK_BYTES: u64 = 256 << 10;

/// What the operator chose, in every world.
pub(crate) const SCHEDULE: Schedule = Schedule { heartbeat_ms: 30_000, metrics_ms: 60_000, log_lines_per_s: 500 };

/// How long a usage record may wait for others, in milliseconds: the default of `SINDRI_LLM_REPORT_INTERVAL`.
pub(crate) const USAGE_WITHIN_MS: u64 = 30_000;

/// A command as the console dispatched it; its place in the list is its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dispatch {
    pub(crate) timeout_ms: u64,
    /// How long it takes; a long time stands for ever.
    pub(crate) lasts_ms: u64,
    /// It ignores SIGTERM.
    pub(crate) stubborn: bool,
    /// It leaves a child behind that holds its pipes open.
    pub(crate) leaves_child: bool,
    pub(crate) fails: bool,
    pub(crate) streams: bool,
    /// How much it prints.
    pub(crate) prints_bytes: u64,
    /// The console cannot take its result.
    pub(crate) poison: Option<Poison>,
    /// The life of the agent that took it.
    pub(crate) taken_in_life: Option<u32>,
    /// It was started in that life.
    pub(crate) started: bool,
    pub(crate) answered: bool,
    /// The place of the result that the console has, where it is of the command's own end.
    pub(crate) result: Option<u32>,
}

/// A result that the console cannot take: it closes the link each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poison {
    /// With which code.
    pub(crate) code: u16,
    /// It can take a shorter one.
    pub(crate) only_long: bool,
}

/// A terminal as the console knows it; its place in the list is its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// The shell ends by itself.
    pub(crate) exits: bool,
    /// One of very many, which print next to nothing.
    pub(crate) crowded: bool,
}

/// How far a shell or a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The console asked for it.
    Requested,
    /// The driver ordered its start.
    Opening,
    /// It runs.
    Open,
    /// Its end was reported.
    Over,
}

/// What an audit line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Session(SessionKey),
    Command(CommandKey),
}

/// One `terminal:create` in the agent, and the shell that comes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shell {
    pub(crate) terminal: u32,
    pub(crate) crowded: bool,
    pub(crate) stage: Stage,
    /// There were fewer sessions than there may be when it came.
    pub(crate) had_room: bool,
    /// The link that the request came on.
    pub(crate) link: LinkId,
    /// The console asked for the end of this terminal.
    pub(crate) closing: bool,
    /// It ends with this code as soon as it runs.
    pub(crate) ends_with: Option<i32>,
    /// Its exit code, once it has one.
    pub(crate) exit_code: Option<i32>,
}

/// Where the bytes of a stream come from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// How much is still to be printed.
    pub(crate) to_print: u64,
    /// What was printed and not read: the program waits.
    pub(crate) unread: u64,
    pub(crate) end: u64,
    pub(crate) retained: u64,
    pub(crate) credit: u64,
    /// The console may still need the bytes from there on.
    pub(crate) keep_from: Option<u64>,
    /// The console has it up to here, said the driver.
    pub(crate) acked: u64,
    /// A read is on its way.
    pub(crate) reading: bool,
    /// Where the console has it up to.
    pub(crate) received: u64,
    /// What was reported as lost.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The last bytes are the beginning of a character.
    pub(crate) holds_back: bool,
    pub(crate) finished: bool,
    /// Some of it was sent on the way out to a console that had not greeted.
    pub(crate) unsure: bool,
    /// How much of a snapshot the console has read on this link.
    pub(crate) snapshot: Option<(LinkId, u64)>,
    /// The last snapshot that was made.
    pub(crate) made: Option<Made>,
}

/// A snapshot that was made for a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) link: LinkId,
    pub(crate) bytes: u64,
    /// Some of it was sent.
    pub(crate) is_begun: bool,
}

impl Job {
    /// One that a console asked for.
    pub(crate) const fn new(dispatch: u32) -> Self {
        let (stage, ends_with, is_interrupted) = (Stage::Requested, None, false);
        Self { dispatch, stage, ends_with, is_interrupted, began_ms: 0, exit_code: None, output_ended: false }
    }
}

impl Source {
    pub(crate) fn new(to_print: u64) -> Self {
        Self {
            to_print,
            unread: 0,
            end: 0,
            retained: 0,
            credit: 0,
            keep_from: None,
            acked: 0,
            reading: false,
            received: 0,
            gaps: Vec::new(),
            holds_back: false,
            finished: false,
            unsure: false,
            snapshot: None,
            made: None,
        }
    }

    /// The program waits for a read that is permitted and not under way.
    pub(crate) fn wants_to_read(&self) -> bool {
        self.unread > 0 && self.credit > 0 && !self.reading
    }

    /// Reads what the program has printed, as much as is allowed.
    pub(crate) fn read(&mut self) {
        (self.reading, self.holds_back) = (false, false);
        let bytes = self.unread.min(self.credit);
        self.unread -= bytes;
        self.credit -= bytes;
        self.end += bytes;
        let bound = self.end.saturating_sub(SCROLLBACK_BYTES);
        self.retained = self.retained.max(self.keep_from.map_or(bound, |keep| bound.min(keep)));
    }

    /// Reads what is left once the program is gone.
    pub(crate) fn read_all(&mut self) {
        (self.to_print, self.credit) = (0, u64::MAX);
        self.read();
    }

    /// Does the console have the bytes before `offset`, as far as it can be known and they were not reported as lost?
    pub(crate) fn has(&self, offset: u64) -> bool {
        self.received >= offset || self.unsure || self.is_reported(self.received, offset)
    }

    /// Takes in a part of a snapshot; false where one before it is missing.
    pub(crate) fn shown(&mut self, link: LinkId, from: u64, bytes: u64) -> bool {
        let read = self.snapshot.filter(|(on, _)| *on == link).map_or(0, |(_, read)| read);
        self.snapshot = Some((link, from + bytes));
        from == read || from == 0
    }

    /// Another snapshot is made; false where the console has not read all of the last one, of which it got some.
    pub(crate) fn snapshot_made(&mut self, made: Made) -> bool {
        let last = self.made.replace(made).filter(|last| last.link == made.link && last.is_begun);
        last.is_none_or(|last| self.snapshot == Some((last.link, last.bytes)))
    }

    /// Takes in what the console received; false where bytes before it are missing and were not reported as lost.
    pub(crate) fn receive(&mut self, from: u64, bytes: u64) -> bool {
        let whole = from <= self.received || self.is_reported(self.received, from);
        self.received = self.received.max(from + bytes);
        whole
    }

    /// Was everything between the two reported as lost?
    pub(crate) fn is_reported(&self, from: u64, to: u64) -> bool {
        let mut reached = from;
        // Each round reaches further, or it ends.
        loop {
            let next = self.gaps.iter().filter(|(first, _)| *first <= reached).map(|(_, last)| *last).max();
            match next {
                Some(last) if last > reached => reached = last,
                Some(_) | None => return reached >= to,
            }
        }
    }
}

/// One command in the agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) dispatch: u32,
    pub(crate) stage: Stage,
    /// It ends with this code as soon as it runs.
    pub(crate) ends_with: Option<i32>,
    /// The process that had it died.
    pub(crate) is_interrupted: bool,
    /// When it started, in the process's own time.
    pub(crate) began_ms: u64,
    /// Its exit code, once it has one, and whether all that it printed was read.
    pub(crate) exit_code: Option<i32>,
    pub(crate) output_ended: bool,
}

/// All of it, of one life of the agent but for what the console keeps.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) terminals: Vec<Terminal>,
    pub(crate) sources: BTreeMap<StreamKey, Source>,
    pub(crate) jobs: BTreeMap<CommandKey, Job>,
    pub(crate) shells: BTreeMap<SessionKey, Shell>,
    /// The terminals that were typed into and whose input was not taken yet.
    pub(crate) typed: VecDeque<u32>,
    /// The places of the results that may be asked for again.
    pub(crate) results: BTreeMap<CommandKey, u32>,
    /// Nothing may be opened or started before its audit line is written.
    pub(crate) audited: bool,
    /// Lines that were asked for, and when in the agent's own time.
    pub(crate) audits_waiting: BTreeMap<Subject, u64>,
    pub(crate) audits_written: BTreeSet<Subject>,
    /// The places of messages of an earlier process, by number, until the driver asks for them.
    pub(crate) restored: BTreeMap<u64, u32>,
    /// Usage records that wait: by when each must go, in the agent's own time.
    pub(crate) usage: VecDeque<u64>,
    /// A crowd was sent.
    pub(crate) crowded: bool,
    /// For the fault that reports only the first gap.
    pub(crate) gap_reported: bool,
    pub(crate) next_key: u32,
}

impl Work {
    /// The agent starts again: what it held is gone.
    pub(crate) fn start_over(&mut self) {
        let (dispatches, terminals) = (std::mem::take(&mut self.dispatches), std::mem::take(&mut self.terminals));
        *self = Self {
            dispatches,
            terminals,
            audited: self.audited,
            crowded: self.crowded,
            next_key: 1,
            ..Self::default()
        };
    }

    /// The program is gone, and what only it knew of what it is used for.
    pub(crate) fn forget_program(&mut self) {
        self.typed.clear();
        self.results.clear();
        self.audits_waiting.clear();
        self.audits_written.clear();
        self.restored.clear();
        self.usage.clear();
    }

    /// A number that no session or command of this life had.
    pub(crate) fn next_key(&mut self) -> u32 {
        let key = self.next_key;
        self.next_key += 1;
        key
    }

    /// What the console asked of a command.
    pub(crate) fn asked(&self, command: CommandKey) -> Option<Dispatch> {
        let job = self.jobs.get(&command)?;
        self.dispatches.get(job.dispatch as usize).copied()
    }

    /// Is there a session of this terminal?
    pub(crate) fn is_known(&self, terminal: u32) -> bool {
        self.shells.values().any(|shell| shell.terminal == terminal)
    }

    /// Is there one that has ended, or was asked to?
    pub(crate) fn is_ending(&self, terminal: u32) -> bool {
        let ends = |shell: &Shell| shell.terminal == terminal && (shell.closing || shell.stage == Stage::Over);
        self.shells.values().any(ends)
    }

    /// Sessions that were asked for and are not over.
    pub(crate) fn live_shells(&self) -> usize {
        self.shells.values().filter(|shell| shell.stage != Stage::Over).count()
    }

    /// An audit line is written.
    pub(crate) fn audit_written(&mut self, subject: Subject) {
        if self.audits_waiting.contains_key(&subject) {
            self.audits_written.insert(subject);
        }
    }

    /// What waited for an audit line goes on, or does not; true where the line is written.
    pub(crate) fn settle_audit(&mut self, subject: Subject) -> bool {
        self.audits_waiting.remove(&subject);
        self.audits_written.remove(&subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_missing_only_in_reported_gaps() {
        let mut source = Source::new(0);
        assert!(source.receive(0, 10));
        assert!(source.receive(5, 10));
        source.gaps.extend([(20, 30), (15, 20)]);
        assert!(source.receive(30, 1));
        assert!(!source.receive(32, 1));
    }
}
