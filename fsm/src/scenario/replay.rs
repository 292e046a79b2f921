//! Replaying a scenario: the inputs go through a new driver, and its outputs must be exactly those written down.

use super::{Scenario, Step};
use crate::delivery::budget::Budget;
use crate::delivery::{Chunk, StreamKey};
use crate::driver::{Answer, Body, ByteSource, Driver, Encode, Input, MadeSnapshot, Message, RecordedOutput};
use crate::id::SessionKey;
use crate::limits::Policy;
use crate::machine::MachineSnapshot;
use crate::machine::invariants::{InvariantViolation, Observer};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

/// The length of a body where a scenario does not say it, in bytes.
const BODY_BYTES: usize = 300;

/// More outputs in one turn than this are a loop that does not end.
const OUTPUTS_MAX: usize = 100_000;

/// The states that a replay went through, each with the line of the step that led there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Line and state, in order, without repetition.
    pub states: Vec<(usize, &'static str)>,
    /// How many outputs were compared.
    pub outputs: usize,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (line, state)) in self.states.iter().enumerate() {
            let arrow = if place == 0 { "" } else { " → " };
            write!(f, "{arrow}{state} ({line})")?;
        }
        Ok(())
    }
}

/// Where a replay first differs from what is written.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The line of the step, counted from 1.
    pub line: usize,
    /// What differs.
    pub what: What,
    /// The states up to there.
    pub path: Path,
}

/// What differs at a step.
#[derive(Clone, Debug)]
pub enum What {
    /// The outputs.
    Outputs {
        /// Those written.
        expected: Vec<RecordedOutput>,
        /// Those that the driver gave.
        got: Vec<RecordedOutput>,
    },
    /// The driver asked its host for something else than is written, or for more or less.
    Answers,
    /// The state after the step.
    State {
        /// The one written.
        expected: String,
        /// The machine's.
        got: &'static str,
    },
    /// The next deadline of the machine.
    Next {
        /// The one written.
        expected: String,
        /// The machine's.
        got: String,
    },
    /// The machine did what it must never do.
    Invariant(InvariantViolation),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}: the replay differs", self.line)?;
        match &self.what {
            What::Outputs { expected, got } => write_outputs(f, expected, got)?,
            What::Answers => writeln!(f, "  the host was asked for something else than is written")?,
            What::State { expected, got } => writeln!(f, "  state: expected {expected}, got {got}")?,
            What::Next { expected, got } => writeln!(f, "  next: expected {expected}, got {got}")?,
            What::Invariant(violation) => writeln!(f, "  an invariant is broken: {violation:?}")?,
        }
        write!(f, "  path so far: {}", self.path)
    }
}

impl core::error::Error for Difference {}

/// Plays `scenario` through a new driver with the production policy. Bodies are made of their lengths.
///
/// # Errors
/// The first step whose outputs, state, deadline or invariants differ.
pub fn replay<B: Body + From<usize>>(scenario: &Scenario) -> Result<Path, Difference> {
    let mut player = Player::<B>::new(scenario);
    for (line, step) in &scenario.steps {
        let got = player.step(step);
        let seen = player.driver.snapshot().connection;
        player.note(*line, seen.state, got.len());
        let broken = player.watcher.borrow_mut().violation.take();
        let what = broken.map(What::Invariant).or_else(|| compare(step, got, &seen));
        if let Some(what) = what.or_else(|| player.host.differs.then_some(What::Answers)) {
            return Err(Difference { line: *line, what, path: player.path });
        }
    }
    Ok(player.path)
}

/// The same inputs at the same times, with the outputs, states and deadlines that the driver gives today.
pub fn rewritten<B: Body + From<usize>>(scenario: &Scenario) -> Scenario {
    let mut player = Player::<B>::new(scenario);
    let mut rewritten = scenario.clone();
    for (_, step) in &mut rewritten.steps {
        step.outputs = player.step(step);
        let seen = player.driver.snapshot().connection;
        step.state = step.state.take().map(|_| seen.state.to_string());
        step.next = step.next.and(seen.next);
    }
    rewritten
}

struct Player<B> {
    driver: Driver<B>,
    host: ReplayHost<B>,
    watcher: Rc<RefCell<Watcher>>,
    path: Path,
}

struct Watcher {
    observer: Observer,
    violation: Option<InvariantViolation>,
}

impl<B: Body + From<usize>> Player<B> {
    fn new(scenario: &Scenario) -> Self {
        let policy = Policy::default();
        let watcher = Watcher { observer: Observer::new(policy.clone()), violation: None };
        let watcher = Rc::new(RefCell::new(watcher));
        let header = &scenario.header;
        let mut driver = Driver::new(policy, header.config, header.seed, header.audited, Rc::new(Budget::new()));
        let watching = Rc::clone(&watcher);
        driver.observe_machine(Box::new(move |now, fact, orders, seen| {
            let Watcher { observer, violation } = &mut *watching.borrow_mut();
            let broken = observer.step(now, fact, orders, seen).err();
            *violation = violation.take().or(broken);
        }));
        let (answers, held) = (VecDeque::new(), BTreeMap::new());
        let host = ReplayHost { answers, is_given: false, differs: false, held, bodies: PhantomData };
        Self { driver, host, watcher, path: Path::default() }
    }

    fn step(&mut self, step: &Step) -> Vec<RecordedOutput> {
        for input in &step.inputs {
            if let Input::Output { stream, from, end } = *input {
                self.host.held.insert(stream, from..end);
            }
            self.driver.handle(step.at_ms, *input);
        }
        self.host.is_given = !step.answers.is_empty();
        self.host.answers = step.answers.iter().copied().collect();
        let polled = core::iter::from_fn(|| self.driver.poll(step.at_ms, &mut self.host));
        let outputs = polled.take(OUTPUTS_MAX).map(|output| RecordedOutput::new(&output)).collect();
        self.host.differs |= !self.host.answers.is_empty();
        outputs
    }

    fn note(&mut self, line: usize, state: &'static str, outputs: usize) {
        self.path.outputs += outputs;
        if self.path.states.last().is_none_or(|(_, last)| *last != state) {
            self.path.states.push((line, state));
        }
    }
}

/// Answers as written; where a scenario leaves the answers out, with bodies of one length and the reported bytes.
struct ReplayHost<B> {
    answers: VecDeque<Answer>,
    is_given: bool,
    differs: bool,
    held: BTreeMap<StreamKey, Range<u64>>,
    bodies: PhantomData<B>,
}

impl<B: Body + From<usize>> ReplayHost<B> {
    /// The next written answer, where it is one of these.
    fn next<A>(&mut self, read: impl FnOnce(Answer) -> Option<A>) -> Option<A> {
        if !self.is_given {
            return None;
        }
        let answer = self.answers.pop_front().and_then(read);
        self.differs |= answer.is_none();
        answer
    }

    fn next_body(&mut self, otherwise: usize) -> Option<B> {
        let written = self.next(|answer| match answer {
            Answer::Body(body) => Some(body),
            Answer::Cut(..) | Answer::Held { .. } | Answer::Snapshot(_) => None,
        });
        written.unwrap_or(Some(otherwise)).map(B::from)
    }

    fn next_held(&mut self, stream: StreamKey) -> Range<u64> {
        let written = self.next(|answer| match answer {
            Answer::Held { from, end } => Some(from..end),
            Answer::Body(_) | Answer::Cut(..) | Answer::Snapshot(_) => None,
        });
        written.unwrap_or_else(|| self.held.get(&stream).cloned().unwrap_or_default())
    }
}

impl<B: Body + From<usize>> Encode for ReplayHost<B> {
    type Body = B;

    fn encode(&mut self, _message: &Message) -> Option<B> {
        self.next_body(BODY_BYTES)
    }

    fn shorten(&mut self, body: &B, bytes_max: usize) -> Option<B> {
        self.next_body(body.size_bytes().min(bytes_max))
    }
}

impl<B: Body + From<usize>> ByteSource for ReplayHost<B> {
    fn held(&mut self, stream: StreamKey) -> Range<u64> {
        self.next_held(stream)
    }

    fn cut(&mut self, stream: StreamKey, cut: Chunk) -> (usize, Option<B>) {
        let written = self.next(|answer| match answer {
            Answer::Cut(bytes, body) => Some((bytes, body)),
            Answer::Body(_) | Answer::Held { .. } | Answer::Snapshot(_) => None,
        });
        let (bytes, body) = written.unwrap_or_else(|| match cut {
            Chunk::Snapshot { max, .. } => (max, Some(max + BODY_BYTES)),
            Chunk::Bytes { from, max } => {
                let end = self.held.get(&stream).map_or(0, |held| held.end);
                let bytes = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX).min(max);
                (bytes, (bytes > 0).then_some(bytes + BODY_BYTES))
            }
        });
        (bytes, body.map(B::from))
    }

    fn snapshot(&mut self, _session: SessionKey, from: u64, _size: Option<(u16, u16)>) -> MadeSnapshot {
        let written = self.next(|answer| match answer {
            Answer::Snapshot(made) => Some(made),
            Answer::Body(_) | Answer::Cut(..) | Answer::Held { .. } => None,
        });
        written.unwrap_or(MadeSnapshot { at: from, bytes: BODY_BYTES, exact: true })
    }
}

fn compare(step: &Step, got: Vec<RecordedOutput>, seen: &MachineSnapshot) -> Option<What> {
    if step.outputs != got {
        return Some(What::Outputs { expected: step.outputs.clone(), got });
    }
    if let Some(expected) = step.state.as_ref().filter(|expected| !is_within(seen.state, expected)) {
        return Some(What::State { expected: expected.clone(), got: seen.state });
    }
    let next = step.next.filter(|next| seen.next != Some(*next))?;
    let got = seen.next.map_or_else(|| "none".to_string(), |next| next.to_string());
    Some(What::Next { expected: next.to_string(), got })
}

/// Whether `state` is `outer` or lies in it.
fn is_within(state: &str, outer: &str) -> bool {
    state.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A line for each output: `=` where both agree, `-` what was expected, `+` what came instead.
fn write_outputs(f: &mut fmt::Formatter<'_>, expected: &[RecordedOutput], got: &[RecordedOutput]) -> fmt::Result {
    for place in 0..expected.len().max(got.len()) {
        match (expected.get(place), got.get(place)) {
            (Some(one), Some(other)) if one == other => writeln!(f, "  = {one}")?,
            (one, other) => {
                one.iter().try_for_each(|output| writeln!(f, "  - expected {output}"))?;
                other.iter().try_for_each(|output| writeln!(f, "  + got      {output}"))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::parse;

    const STORY: &str = concat!(
        r#"{"scenario":3,"about":"a cold start","seed":7,"config":{"heartbeat_ms":30000,"metrics_ms":60000}}"#,
        "\n",
        r#"{"at_ms":0,"inputs":[{"started":{"id":"configured"}}],"outputs":[{"register":{"attempt":1,"path":"designed","provider":"configured"}}],"state":"registering","next":15000}"#,
        "\n",
        r#"{"at_ms":9,"inputs":[{"registration_answered":{"attempt":1,"status":201}}],"outputs":[{"dial":{"link":1}}],"answers":[{"body":250}],"state":"connecting.dialling"}"#,
        "\n",
    );

    #[test]
    fn scenario_replays_and_prints_itself() {
        let scenario = parse(STORY).expect("the scenario is well-formed");
        let path = replay::<usize>(&scenario).expect("the scenario is true");
        assert_eq!(path.to_string(), "registering.requesting (2) → connecting.dialling (3)");
        assert_eq!(scenario.to_string(), STORY);
    }

    #[test]
    fn difference_is_reported_with_its_line() {
        for (from, to, line, words) in [
            (r#"{"register":{"attempt":1"#, r#"{"register":{"attempt":2"#, 2, r#"- expected {"register":{"attempt":2"#),
            (r#"[{"dial""#, r#"["exit",{"dial""#, 3, r#"- expected "exit""#),
            (r#"{"dial":{"#, r#"{"dial":{"late":true,"#, 3, r#"- expected {"dial":{"late""#),
            (r#""state":"registering""#, r#""state":"connected""#, 2, "expected connected, got registering.requesting"),
            (r#""next":15000"#, r#""next":1"#, 2, "expected 1 ms, got 15000 ms"),
            (r#"{"body":250}"#, r#"{"body":250},{"body":1}"#, 3, "the host was asked for something else"),
            (r#"{"body":250}"#, r#"{"cut":[1,2]}"#, 3, "the host was asked for something else"),
        ] {
            let scenario = parse(&STORY.replacen(from, to, 1)).expect("still well-formed");
            let difference = replay::<usize>(&scenario).expect_err("no longer true").to_string();
            assert!(difference.starts_with(&alloc::format!("line {line}:")), "{difference}");
            assert!(difference.contains(words), "{difference}");
            assert_eq!(rewritten::<usize>(&scenario).steps[1].1.outputs.len(), 1);
        }
    }

    #[test]
    fn malformed_text_is_refused_with_its_line() {
        for (from, to, line) in [
            (r#""seed":7"#, r#""seed":7,"x":1"#, 1),
            (r#""scenario":3"#, r#""scenario":1"#, 1),
            (r#""id":"configured""#, r#""id":"configured","y":0"#, 2),
            (r#""at_ms":9,"#, "", 3),
            (r#""status":201"#, r#""status":201,"x":1"#, 3),
            (r#""status":201"#, r#""status":201,"x":null"#, 3),
            (r#"{"started":{"id":"configured"}}"#, r#"{"shutdown_requested":{}}"#, 2),
        ] {
            assert_eq!(parse(&STORY.replacen(from, to, 1)).expect_err("refused").line, line, "{to}");
        }
        assert!(parse("").is_err());
    }

    #[test]
    fn unknown_key_is_named() {
        let surplus = STORY.replace(r#""status":201"#, r#""status":201,"until_ms":1"#);
        let error = parse(&surplus).expect_err("refused").to_string();
        assert!(error.starts_with("line 3: ") && error.contains("until_ms"), "{error}");
        let explicit = STORY.replace(r#""at_ms":9,"#, r#""at_ms":9,"next":null,"#);
        assert_eq!(parse(&explicit), parse(STORY), "what is absent may be written as null");
    }

    #[test]
    fn older_version_is_refused_with_both_numbers() {
        let error = parse(&STORY.replacen(r#""scenario":3"#, r#""scenario":2"#, 1)).expect_err("refused").to_string();
        assert_eq!(error, "line 1: format version 2; this program replays version 3 alone");
    }
}
