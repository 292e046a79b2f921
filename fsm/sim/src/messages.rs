//! The reliable messages of one world: what was pushed, what arrived, and what may be missing.
//!
//! It does not see the ledger's inside: it compares what the ledger says it still keeps with what the console has.

use crate::violation::Violation;
use draupnir_fsm::delivery::RELIABLE_MESSAGES_MAX;
use draupnir_fsm::driver::{Drops, Kind, LinkId, RELIABLE_BYTES_MAX, StreamKey};
use std::collections::BTreeSet;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) life: u32,
    pub(crate) kind: Kind,
    pub(crate) size_bytes: usize,
    /// The bytes that go before it.
    pub(crate) after: [Option<(StreamKey, u64)>; 2],
    /// The dispatch that it answers.
    pub(crate) dispatch: Option<u32>,
    pub(crate) stored: bool,
    /// It was sent on the way out to a console that had not greeted: that cannot be waited for.
    unsure: bool,
    /// It may be out of its turn: it was cut, or asked for again.
    out_of_turn: bool,
    sent_on: Option<LinkId>,
    may_repeat: bool,
    /// It reports the end of its command, and nothing else may.
    pub(crate) is_final: bool,
}

/// All of them, in the order in which they were encoded.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    all: Vec<Message>,
    /// How many of this life are neither stored nor unsure.
    unstored: usize,
    /// How many of those the driver may have given up without having reported it yet.
    lost: usize,
    /// How many the driver reported as dropped in this life.
    reported: Drops,
    /// The driver once held so much that it may have dropped some, or refused what would bring more.
    pub(crate) was_nearly_full: bool,
    /// The place after the latest that arrived.
    newest_stored: u32,
    /// The place of the first of this life.
    first: u32,
    /// Places of messages of earlier lives that this one has taken over.
    restored: BTreeSet<u32>,
}

impl Messages {
    pub(crate) fn message(&self, place: u32) -> Option<&Message> {
        self.all.get(place as usize)
    }

    /// Notes a message that is encoded; its place.
    pub(crate) fn add(
        &mut self,
        life: u32,
        kind: Kind,
        size_bytes: usize,
        after: [Option<(StreamKey, u64)>; 2],
        dispatch: Option<u32>,
    ) -> u32 {
        let place = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.unstored += 1;
        self.all.push(Message {
            life,
            kind,
            size_bytes,
            after,
            dispatch,
            stored: false,
            unsure: false,
            out_of_turn: false,
            sent_on: None,
            may_repeat: false,
            is_final: false,
        });
        place
    }

    /// A message of an earlier life is this one's to deliver.
    pub(crate) fn restore(&mut self, place: u32) -> usize {
        let is_current = self.is_current(place);
        let Some(message) = self.all.get_mut(place as usize) else { return 0 };
        if is_current {
            // It was handed over.
            return message.size_bytes;
        }
        (message.sent_on, message.unsure, message.after) = (None, false, [None; 2]);
        if self.restored.insert(place) && !message.stored {
            self.unstored += 1;
        }
        message.size_bytes
    }

    /// No other message may report the end of its command.
    pub(crate) fn set_final(&mut self, place: u32) {
        if let Some(message) = self.all.get_mut(place as usize) {
            message.is_final = true;
        }
    }

    /// Whether this life has to deliver a message.
    fn is_current(&self, place: u32) -> bool {
        place >= self.first || self.restored.contains(&place)
    }

    /// A message was cut.
    pub(crate) fn cut(&mut self, place: u32, size_bytes: usize) {
        if let Some(message) = self.all.get_mut(place as usize) {
            (message.size_bytes, message.out_of_turn) = (size_bytes, true);
        }
    }

    /// A message may be sent once more.
    pub(crate) fn may_repeat(&mut self, place: u32) {
        if let Some(message) = self.all.get_mut(place as usize) {
            (message.may_repeat, message.out_of_turn) = (true, true);
        }
    }

    /// The driver gave up one that is not named.
    pub(crate) fn lose(&mut self) {
        self.lost += 1;
    }

    /// The driver reports how many it dropped.
    pub(crate) fn drops_reported(&mut self, drops: Drops) {
        self.reported.results += drops.results;
        self.reported.closed += drops.closed;
        self.reported.events += drops.events;
    }

    /// How many results of this life were reported as dropped.
    pub(crate) fn results_dropped(&self) -> u64 {
        self.reported.results
    }

    /// Compares with how much the driver keeps: the console must have the rest.
    pub(crate) fn check_kept(&mut self, messages: usize, bytes: usize, promised_bytes: usize) -> Result<(), Violation> {
        self.was_nearly_full |= messages > RELIABLE_MESSAGES_MAX / 2 || bytes + promised_bytes > RELIABLE_BYTES_MAX / 2;
        if messages + self.lost < self.unstored && !self.was_nearly_full {
            let missing = self.missing_place(|message| !message.stored && !message.unsure);
            return Err(Violation::AcknowledgedUnread(missing.unwrap_or(u32::MAX)));
        }
        Ok(())
    }

    /// A message was written to a link; `unsure` where nothing shows that the console listens.
    pub(crate) fn sent(&mut self, place: u32, link: LinkId, unsure: bool) -> Result<(), Violation> {
        let Some(message) = self.all.get_mut(place as usize) else { return Ok(()) };
        if unsure && !message.stored && !std::mem::replace(&mut message.unsure, true) {
            self.unstored -= 1;
        }
        let twice = message.sent_on.replace(link) == Some(link);
        if twice && !std::mem::take(&mut message.may_repeat) { Err(Violation::SentTwice(place)) } else { Ok(()) }
    }

    /// The console has read a message; true where it had not before.
    pub(crate) fn store(&mut self, place: u32) -> Result<bool, Violation> {
        let (newest, first, is_current) = (self.newest_stored, self.first, self.is_current(place));
        let Some(message) = self.all.get_mut(place as usize) else { return Ok(false) };
        if std::mem::replace(&mut message.stored, true) {
            return Ok(false);
        }
        if is_current && !message.unsure {
            self.unstored -= 1;
        }
        let waits = message.after.iter().any(Option::is_some) || message.out_of_turn;
        let late = place >= first && newest > place + 1 && !waits;
        self.newest_stored = newest.max(place + 1);
        if late { Err(Violation::OutOfOrder(place)) } else { Ok(true) }
    }

    /// One that the console does not have, where more of its kind are missing than were reported as dropped.
    pub(crate) fn missing(&self) -> Option<u32> {
        let kinds = [
            (Kind::Result, self.reported.results),
            (Kind::Closed, self.reported.closed),
            (Kind::Event, self.reported.events),
        ];
        kinds.into_iter().find_map(|(kind, reported)| {
            let missing = self.current().filter(|(_, message)| message.kind == kind && !message.stored).count() as u64;
            (missing > reported)
                .then(|| self.missing_place(|message| message.kind == kind && !message.stored))
                .flatten()
        })
    }

    fn missing_place(&self, is_missing: impl Fn(&Message) -> bool) -> Option<u32> {
        self.current().find(|(_, message)| is_missing(message)).map(|(place, _)| place)
    }

    /// The messages that this life has to deliver.
    fn current(&self) -> impl Iterator<Item = (u32, &Message)> {
        let old = self.restored.iter().filter_map(|place| Some((*place, self.all.get(*place as usize)?)));
        old.chain((self.first..).zip(self.all.iter().skip(self.first as usize)))
    }

    /// A new life of the agent: what the old one kept is lost with it.
    pub(crate) fn start_over(&mut self) {
        let all = std::mem::take(&mut self.all);
        let first = u32::try_from(all.len()).unwrap_or(u32::MAX);
        *self = Self { all, first, newest_stored: first, ..Self::default() };
    }
}
