//! Writes: pulls what the ledger says is next, encodes it, and hands it to the link a batch at a time.
//!
//! It chooses nothing: order, windows and gates are the ledger's. One batch is under way at a time, so that what is
//! urgent waits for no more than that.

use super::Agent;
use super::sessions::Source;
use crate::link::Frame;
use crate::protocol::{Metadata, shortened};
use draupnir_fsm::delivery::{CUT_RESULT_BYTES, Next, Poison, StateKind, StreamKey, UNLIMITED};
use draupnir_fsm::id::SessionKey;
use draupnir_fsm::time::Time;

/// How many frames make a batch, however small: the bound of the list.
const BATCH_FRAMES_MAX: usize = 256;

impl Agent {
    /// Hands the link its next batch, if it is done with the last one.
    pub(super) fn feed_link(&mut self, now: Time) {
        let Some(link) = self.live_link() else { return };
        if self.engine.delivery.is_writing() {
            return;
        }
        let batch_bytes = self.engine.delivery.batch_bytes();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < batch_bytes && frames.len() < BATCH_FRAMES_MAX {
            let Some(frame) = self.next_frame(now) else { break };
            bytes += frame.as_ref().map_or(0, length);
            frames.extend(frame);
        }
        if !frames.is_empty() {
            self.engine.delivery.write_started(now, self.link.bytes_written());
            self.link.write(link, frames);
        }
    }

    /// The next frame; `Some(None)` where a stream had nothing to cut after all.
    fn next_frame(&mut self, now: Time) -> Option<Option<Frame>> {
        let (stream, cut) = match self.engine.next_frame(now)? {
            Next::Ping { payload, .. } => return Some(Some(Frame::Ping(payload.to_vec()))),
            Next::State { body, .. } => return Some(Some(Frame::Text(body))),
            Next::Reliable { body, .. } => return Some(Some(Frame::Text(body.clone()))),
            Next::Stream { stream, cut } => (stream, cut),
        };
        let source: &mut dyn Source = match stream {
            StreamKey::Terminal(_) => &mut self.sessions,
            StreamKey::Stdout(_) | StreamKey::Stderr(_) => &mut self.commands,
        };
        let (bytes, message) = source.cut(stream, cut);
        self.engine.delivery.cut(bytes);
        Some(message.map(Frame::Text))
    }

    /// Tells the sources how much they may read, and frees those of which the console has everything.
    pub(super) fn feed_sources(&mut self) {
        self.sessions.shrink();
        while let Some((stream, bytes)) = self.engine.delivery.take_allowance() {
            match stream {
                StreamKey::Terminal(session) => {
                    // Without a link the oldest makes room; with one, what the console may still need is kept.
                    let position = self.engine.delivery.position(stream).filter(|_| bytes != UNLIMITED);
                    self.sessions.allow(session, bytes, position.map(|position| position.acked));
                }
                StreamKey::Stdout(_) | StreamKey::Stderr(_) => self.commands.allow(stream, bytes),
            }
        }
    }

    /// What the ledger has found out since the last turn.
    pub(super) fn follow_deliveries(&mut self) {
        while let Some(stream) = self.engine.delivery.take_finished() {
            self.engine.delivery.forget_stream(stream);
            match stream {
                StreamKey::Terminal(session) => self.sessions.free(session),
                StreamKey::Stdout(_) | StreamKey::Stderr(_) => self.commands.free(stream),
            }
        }
        while let Some(gap) = self.engine.delivery.take_gap() {
            tracing::warn!(stream = ?gap.stream, from = gap.from, to = gap.to, lost_bytes = gap.lost_bytes, "output lost");
            let metadata = Metadata::new().with("from", gap.from).with("to", gap.to).with("lost_bytes", gap.lost_bytes);
            let metadata = match self.id_of(gap.stream) {
                Some((name, id)) => metadata.with(name, id),
                None => metadata,
            };
            // Each is told: it takes a lost link or a lack of memory to make one, and more output than an event has bytes.
            self.push_error("output", "output was lost while the console was away", metadata);
        }
        if let Some(drops) = self.engine.delivery.take_drops() {
            let (results, closed, events) = (drops.results, drops.closed, drops.events);
            tracing::error!(results, closed, events, "messages that waited for the console were dropped");
            let metadata = Metadata::new().with("results", results).with("closed", closed).with("events", events);
            // Never one too many: each count is told once, and the next comes after the next reconnect.
            self.push_error("delivery", "messages that waited for the console were dropped", metadata);
        }
        match self.engine.take_poison() {
            Some(Poison::CutResult { number }) => self.cut_result(number),
            Some(Poison::Dropped { number, kind }) => {
                tracing::error!(number, ?kind, "a message that the console cannot take was dropped");
            }
            None => {}
        }
    }

    /// Puts a shorter text in place of a result that the console seems unable to take.
    fn cut_result(&mut self, number: u64) {
        tracing::error!(number, "a result that the console cannot take is cut to {CUT_RESULT_BYTES} bytes");
        let shorter = self.engine.delivery.body(number).and_then(|body| shortened(body, CUT_RESULT_BYTES));
        let replaced = shorter.is_some_and(|text| self.engine.delivery.replace(number, text.len(), text));
        if !replaced {
            self.engine.delivery.give_up(number);
        }
    }

    pub(super) fn send_registration(&mut self) {
        let message = self.registration(true).message();
        self.engine.delivery.set_state(StateKind::Registration, message);
    }

    /// Tells the log and the console that something has failed, once a minute for each cause: neither the network nor the
    /// disk is the console's to fill.
    pub(super) fn error_event(&mut self, source: &'static str, text: &str, metadata: Metadata) {
        self.error_event_about(None, source, text, metadata);
    }

    /// The same, where each session is a cause of its own.
    pub(super) fn error_event_about(
        &mut self,
        session: Option<SessionKey>,
        source: &'static str,
        text: &str,
        metadata: Metadata,
    ) {
        let now = self.start.elapsed();
        if !self.engine.may_complain(now, super::commands::hash_of(&(session, source, text))) {
            return tracing::debug!(source, %metadata, "again: {text}");
        }
        tracing::warn!(source, %metadata, "{text}");
        self.push_error(source, text, metadata);
    }

    /// Tells the log and the console what cannot be measured here. Never too often: each figure is told once.
    pub(super) fn tell_missing(&mut self, figures: &str) {
        const TEXT: &str = "figures are 0 because this machine does not tell them";
        tracing::warn!(figures, "{TEXT}");
        self.push_error("metrics", TEXT, Metadata::new().with("figures", figures));
    }

    fn push_error(&mut self, source: &'static str, text: &str, metadata: Metadata) {
        let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
        let message = self.events.error(source, text, metadata, instance_id);
        self.push_event(message);
    }

    fn id_of(&self, stream: StreamKey) -> Option<(&'static str, String)> {
        match stream {
            StreamKey::Terminal(session) => Some(("session_id", self.sessions.id(session)?.as_str().to_owned())),
            StreamKey::Stdout(command) | StreamKey::Stderr(command) => {
                Some(("command_id", self.commands.id(command)?.as_str().to_owned()))
            }
        }
    }
}

fn length(frame: &Frame) -> usize {
    match frame {
        Frame::Text(text) => text.len(),
        Frame::Ping(payload) => payload.len(),
    }
}
