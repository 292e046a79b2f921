//! How a message becomes one of the ledger, and what is done about one that the console seems unable to take.

use super::output::{Message, Notice};
use super::ports::{Body, ByteSource};
use super::{ConsoleId, Driver};
use crate::delivery::{After, CUT_RESULT_BYTES, Kind, Poison, PushError, Reliable};
use crate::id::CommandKey;

impl<B: Body> Driver<B> {
    /// Encodes a message that needs nothing more than that, and gives it to the ledger.
    pub(super) fn send(&mut self, message: &Message, host: &mut dyn ByteSource<Body = B>) {
        let kind = match message {
            Message::State(kind) => {
                if let Some(body) = self.ledger.has_link().then(|| host.encode(message)).flatten() {
                    self.ledger.set_state(*kind, body);
                }
                return;
            }
            Message::Event(_) | Message::Error(_) | Message::Restored { .. } | Message::Usage { .. } => Kind::Event,
            Message::Closed { .. } | Message::Unopened { .. } => Kind::Closed,
            Message::Result { .. } | Message::Unrun { .. } => Kind::Result,
        };
        if let Some(body) = host.encode(message) {
            self.push(kind, body, None, After::NOTHING, false, host);
        }
    }

    /// Gives a message to the ledger that reports the end of what has this id.
    pub(super) fn push_of(
        &mut self,
        kind: Kind,
        body: B,
        of: Option<(ConsoleId, Option<CommandKey>)>,
        host: &mut dyn ByteSource<Body = B>,
    ) -> Option<u64> {
        self.push(kind, body, of, After::NOTHING, false, host)
    }

    /// Gives a reliable message to the ledger, which sends it once it is in the journal; its number, unless there was
    /// no room for it. `of` is the id whose end it reports.
    pub(super) fn push(
        &mut self,
        kind: Kind,
        body: B,
        of: Option<(ConsoleId, Option<CommandKey>)>,
        after: After,
        promised: bool,
        host: &mut dyn ByteSource<Body = B>,
    ) -> Option<u64> {
        let reliable = |body: &B| Reliable { kind, size_bytes: body.size_bytes(), after, promised };
        let (pushed, body) = match self.ledger.push(reliable(&body), body.clone()) {
            Err(PushError::TooLong { room_bytes }) => match host.shorten(&body, room_bytes) {
                Some(shorter) => (self.ledger.push(reliable(&shorter), shorter.clone()), shorter),
                None => (Err(PushError::Dropped), body),
            },
            pushed => (pushed, body),
        };
        match pushed {
            Ok(pushed) => {
                let (of, command) = of.map_or((None, None), |(id, command)| (Some(id), command));
                self.append_message(pushed.number, kind, of, command, body);
                Some(pushed.number)
            }
            Err(PushError::TooLong { .. } | PushError::Dropped) => {
                self.log(Notice::MessageDropped { message: kind });
                None
            }
        }
    }

    /// Does what is to be done about a message that the console seems unable to take.
    pub(super) fn treat(&mut self, poison: Poison, host: &mut dyn ByteSource<Body = B>) {
        match poison {
            Poison::CutResult { number } => {
                let shorter = self.ledger.body(number).and_then(|body| host.shorten(body, CUT_RESULT_BYTES));
                let replaced = shorter.filter(|body| self.ledger.replace(number, body.size_bytes(), body.clone()));
                if let Some(body) = replaced {
                    self.append_cut_result(number, body);
                    self.log(Notice::ResultCut { number });
                } else {
                    self.ledger.give_up(number);
                    self.log(Notice::PoisonDropped { number, message: Kind::Result });
                }
            }
            Poison::Dropped { number, kind } => self.log(Notice::PoisonDropped { number, message: kind }),
        }
    }
}
