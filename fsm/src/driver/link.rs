//! The live link: what arrives on it, what is written to it, and what a Pong means.

use super::Driver;
use super::input::ConsoleMessage;
use super::output::{Action, Frame, Output};
use super::ports::{Body, ByteSource};
use crate::delivery::ping::{PAYLOAD_BYTES, Purpose};
use crate::delivery::{LinkEnd, OutboundFrame, UNLIMITED};
use crate::fact::Fact;
use crate::id::LinkId;
use crate::time::Time;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

/// How many frames make a batch, however small: the bound of the list.
const BATCH_FRAMES_MAX: usize = 256;

/// Pongs that leave others unanswered are passed to the machine no more often than this: each gives the link ten
/// seconds, and a terminal in use brings several a second.
const PONG_NOTICE_MS: u64 = 1_000;
const PONG_NOTICE_HASHED_MS: u32 = 1_000;

/// What is known of the link beside what the machine and the ledger know.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkState {
    greeted: bool,
    bytes_written: u64,
    pings_to_write: usize,
    pong_noted_at: Option<Time>,
}

/// A Pong that was passed on [`PONG_NOTICE_MS`] ago no longer holds up another.
impl Hash for LinkState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { greeted, bytes_written, pings_to_write, pong_noted_at } = self;
        (greeted, bytes_written, pings_to_write).hash(state);
        pong_noted_at.unwrap_or(Time::START).hash_within(PONG_NOTICE_HASHED_MS, state);
    }
}

impl<B: Body> Driver<B> {
    pub(super) fn received(&mut self, now: Time, link: LinkId, message: ConsoleMessage) {
        if self.machine.link() != Some(link) {
            return self.discard(message);
        }
        if !core::mem::replace(&mut self.link.greeted, true) {
            self.step(now, Fact::Greeted { link });
        }
        match message {
            ConsoleMessage::Create { session, id, cols, rows, allowed } => {
                self.create(now, session, id, (cols, rows), allowed);
            }
            ConsoleMessage::InvalidCreate { session, id } => self.invalid_create(session, id),
            ConsoleMessage::Keys { id } => self.keys(now, id),
            ConsoleMessage::Resize { id, cols, rows } => self.resize(now, id, (cols, rows)),
            ConsoleMessage::Close { id } => self.close(now, id),
            ConsoleMessage::Dispatch { command, id, timeout_ms, bytes, streams, allowed } => {
                self.dispatch(now, command, id, timeout_ms, bytes, streams, allowed);
            }
            ConsoleMessage::InvalidDispatch { command } => self.invalid_dispatch(command),
            ConsoleMessage::Cancel { id } => self.cancel(now, id),
            ConsoleMessage::LogSubscribe { request } => self.subscribe_logs(now, request),
            ConsoleMessage::LogUnsubscribe { request } => self.unsubscribe_logs(request),
            ConsoleMessage::Unusable { note, cause } => self.note(now, note, Some(cause)),
            ConsoleMessage::Other => {}
        }
    }

    /// Frees what the adapter keeps for a message of a link that is gone.
    fn discard(&mut self, message: ConsoleMessage) {
        match message {
            ConsoleMessage::Create { session, .. } | ConsoleMessage::InvalidCreate { session, .. } => {
                self.out(Action::ForgetSession { session });
            }
            ConsoleMessage::Dispatch { command, .. } | ConsoleMessage::InvalidDispatch { command } => {
                self.out(Action::ForgetCommand { command });
            }
            ConsoleMessage::Keys { .. } => self.out(Action::TakeInput { session: None }),
            ConsoleMessage::LogSubscribe { request } | ConsoleMessage::LogUnsubscribe { request } => {
                self.out(Action::ForgetLogRequest { request });
            }
            ConsoleMessage::Unusable { note, .. } => self.out(Action::DropNote { note }),
            ConsoleMessage::Resize { .. }
            | ConsoleMessage::Close { .. }
            | ConsoleMessage::Cancel { .. }
            | ConsoleMessage::Other => {}
        }
    }

    pub(super) fn write_progress(&mut self, now: Time, bytes: u64) {
        self.link.bytes_written = bytes;
        self.ledger.write_progress(now, bytes);
    }

    /// The socket has taken the whole batch of frames.
    pub(super) fn written(&mut self, now: Time, link: LinkId) {
        if self.machine.link() != Some(link) {
            return;
        }
        self.ledger.written();
        // A Ping that was answered before the rest of its batch was taken awaits nothing.
        if core::mem::take(&mut self.link.pings_to_write) > 0 && self.ledger.unanswered_pings() > 0 {
            self.step(now, Fact::PingWritten { link });
        }
    }

    pub(super) fn pong(&mut self, now: Time, link: LinkId, payload: &[u8; PAYLOAD_BYTES]) {
        let Some(ack) = self.ledger.pong(now, link, payload) else { return };
        self.vitals.round_trip_ms = Some(ack.round_trip_ms);
        if ack.messages > 0 {
            self.forget_closed_sessions();
        }
        self.logs_acknowledged(now);
        let lately = self.link.pong_noted_at.is_some_and(|at| now.ms_since(at) < PONG_NOTICE_MS);
        // The time for a Pong starts when its Ping is written: a Ping that waits to be written does not count yet.
        let last = self.ledger.unanswered_pings() <= self.link.pings_to_write;
        if last || !lately {
            self.link.pong_noted_at = Some(now);
            self.step(now, Fact::PongReceived { link, last });
        }
    }

    /// Reports new and ended links to the ledger, the sessions and the budget.
    pub(super) fn follow_link(&mut self, now: Time, fact: &Fact, before: Option<LinkId>, after: Option<LinkId>) {
        if before == after {
            return;
        }
        if before.is_some() {
            let end = match fact {
                Fact::CloseReceived { code, .. } => LinkEnd::Closed { code: *code },
                _ => LinkEnd::Broken,
            };
            // Before the ledger forgets what was under way.
            self.stop_logs();
            self.poison = self.ledger.link_closed(now, end).or(self.poison.take());
            self.detach_sessions(now);
        }
        self.link = LinkState::default();
        if let Some(link) = after {
            self.ledger.link_opened(now, link);
        }
    }

    /// The next batch of frames, if the socket is done with the last one. What is urgent waits for no more than that.
    pub(super) fn batch(&mut self, now: Time, host: &mut dyn ByteSource<Body = B>) -> Option<Output<B>> {
        let link = self.machine.link()?;
        if self.ledger.is_writing() {
            return None;
        }
        let batch_bytes = self.ledger.batch_bytes();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < batch_bytes && frames.len() < BATCH_FRAMES_MAX {
            let frame = match self.ledger.next(now) {
                None => break,
                Some(OutboundFrame::Ping { payload, purpose }) => {
                    match purpose {
                        Purpose::KeepAlive | Purpose::Marker => self.link.pings_to_write += 1,
                    }
                    Some(Frame::Ping(payload))
                }
                Some(OutboundFrame::State { body, .. }) => Some(Frame::Text(body)),
                Some(OutboundFrame::Reliable { body, .. }) => Some(Frame::Text(body.clone())),
                Some(OutboundFrame::Stream { stream, cut }) => {
                    let (cut_bytes, body) = host.cut(stream, cut);
                    self.ledger.cut(cut_bytes);
                    body.map(Frame::Text)
                }
            };
            bytes += frame.as_ref().map_or(0, Frame::bytes);
            frames.extend(frame);
        }
        if frames.is_empty() {
            return None;
        }
        self.ledger.write_started(now, self.link.bytes_written);
        Some(Output::Write { link, frames })
    }

    /// The next source that may read another amount than before.
    pub(super) fn read_credit(&mut self, now: Time) -> Option<Output<B>> {
        let (stream, bytes) = self.ledger.poll_credit()?;
        let bytes = (bytes != UNLIMITED).then_some(bytes);
        // Without a link the oldest makes room; with one, what the console may still need is kept.
        let position = self.ledger.position(stream).filter(|_| bytes.is_some());
        let keep_from = position.map(|position| position.acked);
        if let (Some(position), Some(bytes)) = (position, bytes) {
            self.rings.granted(now, stream, position.end - position.acked + bytes as u64);
        }
        Some(Output::Do(Action::ReadCredit { stream, bytes, keep_from }))
    }
}

impl<B: Body> Frame<B> {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(body) => body.size_bytes(),
            Self::Ping(payload) => payload.len(),
        }
    }
}
