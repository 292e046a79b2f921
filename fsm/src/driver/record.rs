//! What a recorder sees: one [`Step`] a turn, with everything that a replay needs.
//!
//! A turn in which nothing was handed over, nothing was wanted and no timer fired is not recorded: it changes nothing.

use super::input::Input;
use super::output::{Frame, Message, Output};
use super::ports::{Body, ByteSource, Encode};
use crate::delivery::{Cut, StreamKey};
use crate::id::SessionKey;
use crate::machine::Snapshot;
use crate::time::Time;
use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::ops::Range;
use serde::{Deserialize, Serialize};

/// Sees every turn.
pub type Recorder = Box<dyn FnMut(Step)>;

/// One turn: what was handed over, and what followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, in milliseconds since the start; never less than in the step before.
    pub at_ms: Time,
    /// What happened, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// All that was wanted, in order; bodies appear as their length in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Output<usize>>,
    /// What the host answered, in order. Where a scenario leaves them out, the replay makes them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// The state after it, whole (`connected.ready`) or the outer part (`connected`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The next deadline of the machine after it, in milliseconds since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
}

/// An answer of the host: the length of a body in bytes, `null` for none; for bytes cut from a stream, how many they
/// were and the length of the body; for a source or a replay, the offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// [`Encode::encode`] and [`Encode::shorten`].
    Body(Option<usize>),
    /// [`ByteSource::cut`].
    Cut(usize, Option<usize>),
    /// [`ByteSource::held`]; for [`ByteSource::replay_from`] the start alone counts.
    Held {
        /// The offset of the oldest byte.
        from: u64,
        /// The offset behind the newest.
        end: u64,
    },
}

/// The step that is being recorded.
pub(super) struct Recording {
    recorder: Recorder,
    step: Step,
    answers: Vec<Answer>,
    worth_it: bool,
}

impl Recording {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, step: Step::default(), answers: Vec::new(), worth_it: false }
    }

    pub(super) fn input(&mut self, now: Time, input: Input) {
        self.stepped(now);
        self.step.inputs.push(input);
    }

    /// Something happened in this turn.
    pub(super) fn stepped(&mut self, now: Time) {
        self.step.at_ms = now;
        self.worth_it = true;
    }

    pub(super) fn take_answers(&mut self) -> Vec<Answer> {
        core::mem::take(&mut self.answers)
    }

    pub(super) fn put_answers(&mut self, answers: Vec<Answer>) {
        self.answers = answers;
    }

    pub(super) fn output<B: Body>(&mut self, now: Time, output: &Output<B>) {
        self.stepped(now);
        self.step.outputs.push(output.sized());
    }

    pub(super) fn end_turn(&mut self, now: Time, seen: &Snapshot) {
        if core::mem::take(&mut self.worth_it) {
            let mut step = core::mem::take(&mut self.step);
            step.at_ms = now;
            step.answers = self.take_answers();
            step.state = Some(seen.state.to_string());
            step.next = seen.next;
            (self.recorder)(step);
        }
    }
}

/// A host whose answers are noted.
pub(super) struct Answering<'a, H> {
    pub(super) host: &'a mut H,
    pub(super) answers: Option<Vec<Answer>>,
}

impl<H> Answering<'_, H> {
    fn note(&mut self, answer: impl FnOnce() -> Answer) {
        if let Some(answers) = &mut self.answers {
            answers.push(answer());
        }
    }
}

impl<H: ByteSource> Encode for Answering<'_, H> {
    type Body = H::Body;

    fn encode(&mut self, message: &Message) -> Option<Self::Body> {
        let body = self.host.encode(message);
        self.note(|| Answer::Body(body.as_ref().map(Body::size_bytes)));
        body
    }

    fn shorten(&mut self, body: &Self::Body, bytes_max: usize) -> Option<Self::Body> {
        let body = self.host.shorten(body, bytes_max);
        self.note(|| Answer::Body(body.as_ref().map(Body::size_bytes)));
        body
    }
}

impl<H: ByteSource> ByteSource for Answering<'_, H> {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        let held = self.host.held(stream);
        self.note(|| Answer::Held { from: held.start, end: held.end });
        held
    }

    fn cut(&mut self, stream: StreamKey, cut: Cut) -> (usize, Option<Self::Body>) {
        let (bytes, body) = self.host.cut(stream, cut);
        self.note(|| Answer::Cut(bytes, body.as_ref().map(Body::size_bytes)));
        (bytes, body)
    }

    fn replay_from(&mut self, session: SessionKey) -> u64 {
        let from = self.host.replay_from(session);
        self.note(|| Answer::Held { from, end: from });
        from
    }
}

impl<B: Body> Output<B> {
    /// The same with lengths for bodies.
    pub fn sized(&self) -> Output<usize> {
        let sized = |frame: &Frame<B>| match frame {
            Frame::Text(body) => Frame::Text(body.size_bytes()),
            Frame::Ping(payload) => Frame::Ping(*payload),
        };
        match self {
            Self::Write { link, frames } => Output::Write { link: *link, frames: frames.iter().map(sized).collect() },
            Self::Do(action) => Output::Do(*action),
        }
    }
}
