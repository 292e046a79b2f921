//! What a recorder sees: one [`Step`] a turn, with everything that a replay needs.
//!
//! A turn in which nothing was handed over, nothing was wanted and no timer fired is not recorded: it changes nothing.

use super::input::Input;
use super::output::{Message, Output};
use super::ports::{Body, ByteSource, Encode, MadeSnapshot};
use crate::delivery::{Chunk, StreamKey};
use crate::id::SessionKey;
use crate::machine::MachineSnapshot;
use crate::time::Time;
use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

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
    /// All that was wanted, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<RecordedOutput>,
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

/// An [`Output`] as it stands in a recording, where bodies appear as their length in bytes. A replay compares the text,
/// so the program needs no code that makes an output of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordedOutput(Box<RawValue>);

impl RecordedOutput {
    pub(crate) fn new<B: Body>(output: &Output<B>) -> Self {
        Self(to_raw_value(output).expect("outputs have string keys and no failing serialisers"))
    }
}

impl PartialEq for RecordedOutput {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for RecordedOutput {}

/// As JSON.
impl fmt::Display for RecordedOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get())
    }
}

/// An answer of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The length of what [`Encode::encode`] or [`Encode::shorten`] gave, in bytes.
    Body(Option<usize>),
    /// How many bytes [`ByteSource::cut`] took, and the length of the body.
    Cut(usize, Option<usize>),
    /// [`ByteSource::snapshot`].
    Snapshot(MadeSnapshot),
    /// [`ByteSource::held`].
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
        self.step.outputs.push(RecordedOutput::new(output));
    }

    pub(super) fn end_turn(&mut self, now: Time, seen: &MachineSnapshot) {
        // What the host answered is part of this turn, even where nothing followed from it yet.
        if core::mem::take(&mut self.worth_it) || !self.answers.is_empty() {
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
pub(super) struct Answering<'a, B> {
    pub(super) host: &'a mut dyn ByteSource<Body = B>,
    pub(super) answers: Option<Vec<Answer>>,
}

impl<B> Answering<'_, B> {
    fn note(&mut self, answer: impl FnOnce() -> Answer) {
        if let Some(answers) = &mut self.answers {
            answers.push(answer());
        }
    }
}

impl<B: Body> Encode for Answering<'_, B> {
    type Body = B;

    fn encode(&mut self, message: &Message) -> Option<B> {
        let body = self.host.encode(message);
        self.note(|| Answer::Body(body.as_ref().map(B::size_bytes)));
        body
    }

    fn shorten(&mut self, body: &B, bytes_max: usize) -> Option<B> {
        let body = self.host.shorten(body, bytes_max);
        self.note(|| Answer::Body(body.as_ref().map(B::size_bytes)));
        body
    }
}

impl<B: Body> ByteSource for Answering<'_, B> {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        let held = self.host.held(stream);
        self.note(|| Answer::Held { from: held.start, end: held.end });
        held
    }

    fn cut(&mut self, stream: StreamKey, cut: Chunk) -> (usize, Option<B>) {
        let (bytes, body) = self.host.cut(stream, cut);
        self.note(|| Answer::Cut(bytes, body.as_ref().map(B::size_bytes)));
        (bytes, body)
    }

    fn snapshot(&mut self, session: SessionKey, from: u64, size: Option<(u16, u16)>) -> MadeSnapshot {
        let made = self.host.snapshot(session, from, size);
        self.note(|| Answer::Snapshot(made));
        made
    }
}
