//! The reliable messages of one world: what was pushed, what arrived, and what may be missing.
//!
//! It does not see the ledger's inside: it compares what the ledger says it still keeps with what the console has.

use crate::breach::Breach;
use draupnir_fsm::delivery::{Delivery, StreamKey};
use draupnir_fsm::id::LinkId;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) life: u32,
    /// Its number in the ledger.
    pub(crate) number: u64,
    pub(crate) size_bytes: usize,
    /// The bytes that go before it.
    pub(crate) after: [Option<(StreamKey, u64)>; 2],
    /// The dispatch that it answers.
    pub(crate) dispatch: Option<u32>,
    pub(crate) stored: bool,
    /// The ledger said that it was dropped.
    pub(crate) dropped: bool,
    /// It was sent on the way out to a console that had not greeted: that cannot be waited for.
    pub(crate) unsure: bool,
    /// It may be out of its turn: it was cut, or asked for again.
    pub(crate) out_of_turn: bool,
    sent_on: Option<LinkId>,
    may_repeat: bool,
}

/// All of them, in the order in which they were pushed.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) all: Vec<Message>,
    /// Those that the ledger keeps, as far as was seen.
    kept: Vec<u32>,
    /// The place after the latest that arrived.
    newest_stored: u32,
    /// The place of the first of this life.
    first: u32,
}

impl Messages {
    /// The place that the next one will have.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn message(&self, place: u32) -> Option<&Message> {
        self.all.get(place as usize)
    }

    pub(crate) fn message_mut(&mut self, place: u32) -> Option<&mut Message> {
        self.all.get_mut(place as usize)
    }

    pub(crate) fn pushed(
        &mut self,
        life: u32,
        number: u64,
        size_bytes: usize,
        after: [Option<(StreamKey, u64)>; 2],
        dispatch: Option<u32>,
    ) {
        self.kept.push(self.next());
        self.all.push(Message {
            life,
            number,
            size_bytes,
            after,
            dispatch,
            stored: false,
            dropped: false,
            unsure: false,
            out_of_turn: false,
            sent_on: None,
            may_repeat: false,
        });
    }

    /// The message with this number in the ledger of this life.
    pub(crate) fn by_number(&self, number: u64) -> Option<u32> {
        self.kept.iter().copied().find(|place| self.message(*place).is_some_and(|message| message.number == number))
    }

    pub(crate) fn may_repeat(&mut self, place: u32) {
        if let Some(message) = self.message_mut(place) {
            message.may_repeat = true;
            message.out_of_turn = true;
        }
    }

    /// A message was written to a link.
    pub(crate) fn sent(&mut self, place: u32, link: LinkId) -> Result<(), Breach> {
        let Some(message) = self.message_mut(place) else { return Ok(()) };
        let twice = message.sent_on.replace(link) == Some(link);
        if twice && !std::mem::take(&mut message.may_repeat) { Err(Breach::SentTwice(place)) } else { Ok(()) }
    }

    /// The console has read a message; true where it had not before.
    pub(crate) fn store(&mut self, place: u32) -> Result<bool, Breach> {
        let (newest, first) = (self.newest_stored, self.first);
        let Some(message) = self.message_mut(place) else { return Ok(false) };
        if std::mem::replace(&mut message.stored, true) {
            return Ok(false);
        }
        let waits = message.after.iter().any(Option::is_some) || message.out_of_turn;
        let late = place >= first && newest > place + 1 && !waits;
        self.newest_stored = newest.max(place + 1);
        if late { Err(Breach::OutOfOrder(place)) } else { Ok(true) }
    }

    /// Compares with what the ledger keeps, after a Pong: whatever is gone must be with the console.
    pub(crate) fn acknowledged(&mut self, ledger: &Delivery<u32>) -> Result<(), Breach> {
        if ledger.messages() == self.kept.len() {
            return Ok(());
        }
        let all = &self.all;
        let mut result = Ok(());
        self.kept.retain(|place| {
            let Some(message) = all.get(*place as usize) else { return false };
            let kept = ledger.is_waiting(message.number);
            if !kept && !message.stored && !message.unsure {
                result = Err(Breach::AcknowledgedUnread(*place));
            }
            kept
        });
        result
    }

    /// The ledger made room: that many events, or what it calls poison, are no longer kept.
    pub(crate) fn displaced(&mut self, ledger: &Delivery<u32>) {
        let Self { all, kept, .. } = self;
        kept.retain(|place| {
            let Some(message) = all.get_mut(*place as usize) else { return false };
            let is_kept = ledger.is_waiting(message.number);
            message.dropped |= !is_kept;
            is_kept
        });
    }

    /// Is everything of this life with the console, or told to be dropped?
    pub(crate) fn missing(&self) -> Option<u32> {
        let mut all = self.all.iter().enumerate().skip(self.first as usize);
        let missing = all.find(|(_, message)| !message.stored && !message.dropped);
        missing.and_then(|(place, _)| u32::try_from(place).ok())
    }

    /// A new life of the agent: what the old one kept is lost with it.
    pub(crate) fn start_over(&mut self) {
        self.kept.clear();
        self.first = self.next();
        self.newest_stored = self.first;
    }
}
