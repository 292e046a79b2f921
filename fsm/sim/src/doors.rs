//! What the driver asks of its host: bodies of messages and bytes of streams, here as sizes.
//!
//! A body is the frame that it will be on the wire, so that the network carries what the driver hands over.

use crate::agenda::Agenda;
use crate::logs::{LINE_BYTES, Logs};
use crate::messages::Messages;
use crate::planted::Planted;
use crate::tap::{self, Encoded};
use crate::violation::Violation;
use crate::wire::Up;
use crate::work::{Made, Stage, Subject, Work};
use crate::world::Event;
use draupnir_fsm::driver::{
    Body, ByteSource, Chunk, CommandKey, Encode, ErrorEvent, Kind, MadeSnapshot, Message, SessionKey, SessionRefusal,
    StreamKey, USAGE_RECORDS_MAX,
};
use draupnir_fsm::id::LinkId;
use draupnir_fsm::random::Random;
use std::ops::Range;

/// What a message costs that carries nothing but ids and a reason, in bytes.
const SMALL_BYTES: usize = 250;

/// A message as the socket takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    pub(crate) up: Up,
    size_bytes: usize,
}

impl Body for Text {
    fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// The parts of the world that the answers come from.
pub(crate) struct Doors<'a> {
    pub(crate) life: u32,
    pub(crate) program: u32,
    pub(crate) now_ms: u64,
    pub(crate) link: Option<LinkId>,
    pub(crate) draining: bool,
    pub(crate) planted: Option<Planted>,
    pub(crate) random: &'a mut Random,
    pub(crate) agenda: &'a mut Agenda<Event>,
    pub(crate) work: &'a mut Work,
    pub(crate) messages: &'a mut Messages,
    pub(crate) logs: &'a mut Logs,
    pub(crate) violation: &'a mut Option<Violation>,
}

impl Doors<'_> {
    fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// Notes a reliable message; its body.
    fn reliable(
        &mut self,
        kind: Kind,
        size_bytes: usize,
        after: [Option<(StreamKey, u64)>; 2],
        dispatch: Option<u32>,
    ) -> Text {
        let place = self.messages.add(self.life, kind, size_bytes, after, dispatch);
        Text { up: Up::Message(place), size_bytes }
    }

    /// Reads what is left of a stream; where it ends.
    fn read_all(&mut self, stream: StreamKey) -> Option<(StreamKey, u64)> {
        let source = self.work.sources.get_mut(&stream)?;
        source.read_all();
        Some((stream, source.end))
    }

    fn closed(&mut self, session: SessionKey) -> Option<Text> {
        let end = self.read_all(StreamKey::Terminal(session));
        let Some(shell) = self.work.shells.get_mut(&session) else {
            self.fail(Violation::ForgottenOrdered("session"));
            return None;
        };
        shell.stage = Stage::Over;
        Some(self.reliable(Kind::Closed, SMALL_BYTES, [end, None], None))
    }

    fn unopened(&mut self, session: SessionKey, refusal: SessionRefusal) -> Option<Text> {
        let Some(shell) = self.work.shells.get_mut(&session) else {
            self.fail(Violation::ForgottenOrdered("session"));
            return None;
        };
        if self.planted == Some(Planted::AdmitsTooMany) && refusal == SessionRefusal::Busy {
            shell.stage = Stage::Open;
            return None;
        }
        shell.stage = Stage::Over;
        let (terminal, had_room, is_closing) = (shell.terminal, shell.had_room, shell.closing);
        self.work.settle_audit(Subject::Session(session));
        let is_true = match refusal {
            SessionRefusal::Draining => self.draining,
            SessionRefusal::Policy => false,
            SessionRefusal::Busy => !had_room || self.messages.was_nearly_full,
            SessionRefusal::Ending => self.work.is_ending(terminal),
            SessionRefusal::Closed => is_closing,
            SessionRefusal::AuditUnavailable => self.work.audited,
            SessionRefusal::Invalid => false,
        };
        if !is_true {
            self.fail(Violation::WronglyRefused(refusal));
        }
        Some(self.reliable(Kind::Closed, SMALL_BYTES, [None; 2], None))
    }

    fn result(&mut self, command: CommandKey) -> Option<Text> {
        let Some(job) = self.work.jobs.get_mut(&command) else {
            self.fail(Violation::ForgottenOrdered("command"));
            return None;
        };
        job.stage = Stage::Over;
        let (job, dispatch) = (*job, job.dispatch);
        self.work.settle_audit(Subject::Command(command));
        let asked = self.work.dispatches.get(dispatch as usize).copied()?;
        let mut after = [None; 2];
        if asked.streams && !job.is_interrupted {
            // What is in the pipes is read before the result is written.
            after = [self.read_all(StreamKey::Stdout(command)), self.read_all(StreamKey::Stderr(command))];
        }
        if self.planted == Some(Planted::LosesResults) && command.0 % 8 == 7 {
            return None;
        }
        let printed = if after[0].is_some() || job.is_interrupted { 0 } else { asked.prints_bytes };
        let size_bytes = SMALL_BYTES + usize::try_from(printed).unwrap_or(0);
        let body = self.own_result(command, size_bytes, after, dispatch);
        if let Up::Message(place) = body.up {
            self.messages.set_final(place);
        }
        Some(body)
    }

    /// A result that may be asked for again.
    fn own_result(
        &mut self,
        command: CommandKey,
        size_bytes: usize,
        after: [Option<(StreamKey, u64)>; 2],
        dispatch: u32,
    ) -> Text {
        let body = self.reliable(Kind::Result, size_bytes, after, Some(dispatch));
        if let Up::Message(place) = body.up {
            self.work.results.insert(command, place);
        }
        body
    }

    fn usage(&mut self, records: u32) -> Option<Text> {
        let count = records as usize;
        if records == 0 || records > USAGE_RECORDS_MAX || count > self.work.usage.len() {
            self.fail(Violation::WrongBatch(records));
            return None;
        }
        self.work.usage.drain(..count);
        Some(self.reliable(Kind::Event, 120 + 250 * count, [None; 2], None))
    }

    fn cut_lines(&mut self, from: u64, bytes_max: usize) -> (usize, Option<Text>) {
        let (first, lines) = self.logs.cut(from, bytes_max);
        if self.planted == Some(Planted::MovesLogsWhenSent) {
            self.logs.acked = first + lines;
        }
        let size_bytes = usize::try_from(lines * LINE_BYTES).unwrap_or(0);
        let body = Text { up: Up::Lines { life: self.life, first, lines }, size_bytes: size_bytes + 100 };
        (size_bytes, Some(body))
    }

    fn error(&mut self, event: ErrorEvent) -> Option<Text> {
        match event {
            ErrorEvent::Gap(gap) => {
                let hides = match self.planted {
                    Some(Planted::HidesGaps) => true,
                    Some(Planted::ReportsOneGap) => std::mem::replace(&mut self.work.gap_reported, true),
                    Some(_) | None => false,
                };
                if hides {
                    return None;
                }
                if let Some(source) = self.work.sources.get_mut(&gap.stream) {
                    source.gaps.push((gap.from, gap.to));
                }
            }
            ErrorEvent::Drops(drops) => self.messages.drops_reported(drops),
            ErrorEvent::Note(_)
            | ErrorEvent::SessionRefused(..)
            | ErrorEvent::SpawnFailed(_)
            | ErrorEvent::CommandRefused(_)
            | ErrorEvent::Exhausted(_)
            | ErrorEvent::AuditUnavailable => {}
        }
        Some(self.reliable(Kind::Event, 300, [None; 2], None))
    }
}

impl Encode for Doors<'_> {
    type Body = Text;

    fn encode(&mut self, message: &Message) -> Option<Text> {
        tap::show(Encoded::Message(*message));
        match *message {
            Message::State(kind) => Some(Text { up: Up::State(kind), size_bytes: 400 }),
            Message::Event(_) => Some(self.reliable(Kind::Event, 300, [None; 2], None)),
            Message::Usage { records } => self.usage(records),
            Message::Error(event) => self.error(event),
            Message::Closed { session, .. } => self.closed(session),
            Message::Unopened { session, refusal } => self.unopened(session, refusal),
            Message::Result { command, .. } => self.result(command),
            Message::Restored { number } => {
                let place = self.work.restored.remove(&number)?;
                let size_bytes = self.messages.restore(place);
                Some(Text { up: Up::Message(place), size_bytes })
            }
            Message::Unrun { command, .. } => {
                let job = self.work.jobs.get_mut(&command)?;
                job.stage = Stage::Over;
                let dispatch = job.dispatch;
                self.work.settle_audit(Subject::Command(command));
                Some(self.own_result(command, SMALL_BYTES, [None; 2], dispatch))
            }
        }
    }

    fn shorten(&mut self, body: &Text, bytes_max: usize) -> Option<Text> {
        let size_bytes = body.size_bytes.min(bytes_max);
        if let Up::Message(place) = body.up {
            self.messages.cut(place, size_bytes);
        }
        Some(Text { size_bytes, ..*body })
    }
}

impl ByteSource for Doors<'_> {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        self.work.sources.get(&stream).map_or(0..0, |source| source.retained..source.end)
    }

    /// Sometimes fewer than asked for: characters are not split.
    fn cut(&mut self, stream: StreamKey, cut: Chunk) -> (usize, Option<Text>) {
        if let (StreamKey::Logs, Chunk::Bytes { from, max, .. }) = (stream, cut) {
            return self.cut_lines(from, max);
        }
        let few = self.random.between(0, 7);
        let bytes = match (cut, self.work.sources.get_mut(&stream)) {
            (_, None) => return (0, None),
            (Chunk::Bytes { from, .. }, Some(source)) if from < source.acked => {
                self.fail(Violation::SentAgain(stream));
                return (0, None);
            }
            (Chunk::Snapshot { max, .. }, Some(source)) => {
                source.made.iter_mut().for_each(|made| made.is_begun = true);
                (max as u64).saturating_sub(few).max(1)
            }
            (Chunk::Bytes { from, max }, Some(source)) => {
                let there = source.end.saturating_sub(from.max(source.retained)).min(max as u64);
                if there > 8 {
                    there - few.min(3)
                } else if few == 0 && !source.holds_back {
                    // The beginning of a character: the rest of it, or the end of the wait for that, comes soon.
                    (source.holds_back, source.reading) = (true, true);
                    self.agenda.note(self.now_ms + 20, Event::Read { program: self.program, stream });
                    0
                } else {
                    there
                }
            }
        };
        let skips = self.planted == Some(Planted::SkipsOnReattach) && matches!(cut, Chunk::Snapshot { .. });
        let counts = self.planted == Some(Planted::CountsBytesThatWereNotSent) && bytes > 3;
        let reported = bytes + u64::from(skips || counts);
        let is_frame = bytes > 0;
        if is_frame {
            tap::show(Encoded::Chunk { stream, cut, bytes });
        }
        let body = Text {
            up: Up::Stream { life: self.life, stream, cut, bytes },
            size_bytes: usize::try_from(bytes * 4 / 3 + 150).unwrap_or(0),
        };
        (usize::try_from(reported).unwrap_or(0), is_frame.then_some(body))
    }

    fn snapshot(&mut self, session: SessionKey, from: u64, _size: Option<(u16, u16)>) -> MadeSnapshot {
        let stream = StreamKey::Terminal(session);
        let end = self.work.sources.get(&stream).map_or(from, |source| source.end);
        // Sometimes a sequence lies across the place, and its end goes before the snapshot.
        let at = (from + self.random.between(0, 30).saturating_sub(20)).clamp(from, end.max(from));
        let bytes = self.random.between(4, 80_000);
        if let Some((source, link)) = self.work.sources.get_mut(&stream).zip(self.link)
            && !source.snapshot_made(Made { link, bytes, is_begun: false })
        {
            self.fail(Violation::SnapshotTooSoon(stream));
        }
        let bytes = usize::try_from(bytes).unwrap_or(0);
        MadeSnapshot { at, bytes, exact: self.random.between(0, 1) > 0 }
    }
}
