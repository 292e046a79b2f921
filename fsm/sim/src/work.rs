//! What the agent is used for: sessions and commands, as the console asks for them and as their processes behave.
//!
//! It holds no byte, only how many there are and where they stand. What the ledger must be told of them is the host's.

use draupnir_fsm::delivery::StreamKey;
use draupnir_fsm::id::{CommandKey, SessionKey};
use draupnir_fsm::limits::Schedule;
use std::collections::BTreeMap;

/// What a scrollback holds, in bytes.
pub(crate) const SCROLLBACK_BYTES: u64 = 256 << 10;

/// What the operator chose, in every world.
pub(crate) const SCHEDULE: Schedule = Schedule { heartbeat_ms: 30_000, metrics_ms: 60_000 };

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
    /// The life of the agent that took it.
    pub(crate) taken_in_life: Option<u32>,
    /// It was started in that life.
    pub(crate) started: bool,
    pub(crate) answered: bool,
}

/// A session as the console knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    pub(crate) key: Option<SessionKey>,
    pub(crate) life: u32,
    /// The place of its `closed` among the messages.
    pub(crate) closed: Option<u32>,
    /// The shell ends by itself.
    pub(crate) exits: bool,
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
    pub(crate) may_read: u64,
    /// A read is on its way.
    pub(crate) reading: bool,
    /// Where the console has it up to.
    pub(crate) received: u64,
    /// What was told to be lost.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// The last bytes are the beginning of a character.
    pub(crate) holds_back: bool,
    pub(crate) finished: bool,
    /// Some of it was sent on the way out to a console that had not greeted.
    pub(crate) unsure: bool,
}

impl Source {
    pub(crate) fn new(to_print: u64) -> Self {
        Self {
            to_print,
            unread: 0,
            end: 0,
            retained: 0,
            may_read: 0,
            reading: false,
            received: 0,
            gaps: Vec::new(),
            holds_back: false,
            finished: false,
            unsure: false,
        }
    }

    /// Takes in what the console received; false where bytes before it are missing and were not told to be lost.
    pub(crate) fn receive(&mut self, from: u64, bytes: u64) -> bool {
        let whole = from <= self.received || self.is_told(self.received, from);
        self.received = self.received.max(from + bytes);
        whole
    }

    /// Was everything between the two told to be lost?
    pub(crate) fn is_told(&self, from: u64, to: u64) -> bool {
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
    pub(crate) runs: bool,
}

/// All of it, of one life of the agent but for what the console keeps.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) terminals: Vec<Terminal>,
    pub(crate) sources: BTreeMap<StreamKey, Source>,
    pub(crate) jobs: BTreeMap<CommandKey, Job>,
    pub(crate) sessions: BTreeMap<SessionKey, u32>,
    /// The results that may be asked for again: the dispatch, and the place of the message.
    pub(crate) results: BTreeMap<CommandKey, (u32, Option<u32>)>,
    pub(crate) next_key: u32,
}

impl Work {
    /// The agent starts anew: what it held is gone.
    pub(crate) fn start_over(&mut self) {
        self.sources.clear();
        self.jobs.clear();
        self.sessions.clear();
        self.results.clear();
        self.next_key = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_be_missing_only_where_that_was_told() {
        let mut source = Source::new(0);
        assert!(source.receive(0, 10));
        assert!(source.receive(5, 10));
        source.gaps.extend([(20, 30), (15, 20)]);
        assert!(source.receive(30, 1));
        assert!(!source.receive(32, 1));
    }
}
