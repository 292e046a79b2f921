//! Replaying a scenario: the facts go through a new machine, and its orders must be exactly those written down.

use super::{Scenario, Step};
use crate::limits::Policy;
use crate::machine::invariants::{Observer, Violation};
use crate::machine::{Machine, Snapshot};
use crate::order::Order;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

/// The states that a replay went through, each with the line of the step that led there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Line and state, in order, without repetition.
    pub states: Vec<(usize, &'static str)>,
    /// How many orders were compared.
    pub orders: usize,
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
    /// The orders.
    Orders {
        /// Those written.
        expected: Vec<Order>,
        /// Those that the machine gave.
        got: Vec<Order>,
    },
    /// The state after the step.
    State {
        /// The one written.
        expected: String,
        /// The machine's.
        got: &'static str,
    },
    /// The next deadline.
    Next {
        /// The one written.
        expected: String,
        /// The machine's.
        got: String,
    },
    /// The machine did what it must never do.
    Invariant(Violation),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}: the replay differs", self.line)?;
        match &self.what {
            What::Orders { expected, got } => write_orders(f, expected, got)?,
            What::State { expected, got } => writeln!(f, "  state: expected {expected}, got {got}")?,
            What::Next { expected, got } => writeln!(f, "  next: expected {expected}, got {got}")?,
            What::Invariant(violation) => writeln!(f, "  an invariant is broken: {violation:?}")?,
        }
        write!(f, "  path so far: {}", self.path)
    }
}

impl core::error::Error for Difference {}

/// Plays `scenario` through a new machine with the production policy.
///
/// # Errors
/// The first step whose orders, state, deadline or invariants differ.
pub fn replay(scenario: &Scenario) -> Result<Path, Difference> {
    let mut player = Player::new(scenario);
    for (line, step) in &scenario.steps {
        let (got, seen, broken) = player.step(step);
        player.note(*line, seen.state, got.len());
        let what = broken.map(What::Invariant).or_else(|| compare(step, got, &seen));
        if let Some(what) = what {
            return Err(Difference { line: *line, what, path: player.path });
        }
    }
    Ok(player.path)
}

/// The same facts at the same times, with the orders, states and deadlines that the machine gives today.
pub fn rewritten(scenario: &Scenario) -> Scenario {
    let mut player = Player::new(scenario);
    let mut rewritten = scenario.clone();
    for (_, step) in &mut rewritten.steps {
        let (orders, seen, _) = player.step(step);
        step.orders = orders;
        step.state = step.state.take().map(|_| seen.state.to_string());
        step.next = step.next.and(seen.next);
    }
    rewritten
}

struct Player {
    machine: Machine,
    observer: Observer,
    path: Path,
}

impl Player {
    fn new(scenario: &Scenario) -> Self {
        let policy = Policy::default();
        let observer = Observer::new(policy.clone());
        let machine = Machine::new(policy, scenario.header.config, scenario.header.seed);
        Self { machine, observer, path: Path::default() }
    }

    fn step(&mut self, step: &Step) -> (Vec<Order>, Snapshot, Option<Violation>) {
        self.machine.handle(step.at_ms, &step.fact);
        let orders: Vec<_> = core::iter::from_fn(|| self.machine.poll_order()).collect();
        let seen = self.machine.snapshot();
        let broken = self.observer.step(step.at_ms, &step.fact, &orders, &seen).err();
        (orders, seen, broken)
    }

    fn note(&mut self, line: usize, state: &'static str, orders: usize) {
        self.path.orders += orders;
        if self.path.states.last().is_none_or(|(_, last)| *last != state) {
            self.path.states.push((line, state));
        }
    }
}

fn compare(step: &Step, got: Vec<Order>, seen: &Snapshot) -> Option<What> {
    if step.orders != got {
        return Some(What::Orders { expected: step.orders.clone(), got });
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

/// A line for each order: `=` where both agree, `-` what was expected, `+` what came instead.
fn write_orders(f: &mut fmt::Formatter<'_>, expected: &[Order], got: &[Order]) -> fmt::Result {
    for place in 0..expected.len().max(got.len()) {
        match (expected.get(place), got.get(place)) {
            (Some(one), Some(other)) if one == other => writeln!(f, "  = {one:?}")?,
            (one, other) => {
                one.iter().try_for_each(|order| writeln!(f, "  - expected {order:?}"))?;
                other.iter().try_for_each(|order| writeln!(f, "  + got      {order:?}"))?;
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
        r#"{"scenario":1,"about":"a cold start","seed":7,"config":{"heartbeat_ms":30000,"metrics_ms":60000}}"#,
        "\n",
        r#"{"at_ms":0,"fact":{"kind":"started","id":"configured"}}"#,
        "\n",
        r#"{"at_ms":0,"fact":{"kind":"tick"},"orders":[{"kind":"register","attempt":1,"path":"designed","provider":"configured"}],"state":"registering","next":15000}"#,
        "\n",
    );

    #[test]
    fn a_story_replays_and_prints_itself() {
        let scenario = parse(STORY).expect("the story is well-formed");
        let path = replay(&scenario).expect("the story is true");
        assert_eq!(path.to_string(), "unregistered (2) → registering.requesting (3)");
        assert_eq!(scenario.to_string(), STORY);
    }

    #[test]
    fn a_missing_a_leftover_and_a_wrong_order_are_told_with_their_line() {
        for (from, to, told) in [
            (r#""attempt":1"#, r#""attempt":2"#, "- expected Register { attempt: 2"),
            (r#"[{"kind":"register""#, r#"[{"kind":"exit"},{"kind":"register""#, "- expected Exit"),
            (r#""state":"registering""#, r#""state":"connected""#, "expected connected, got registering.requesting"),
            (r#""next":15000"#, r#""next":1"#, "expected 1 ms, got 15000 ms"),
        ] {
            let scenario = parse(&STORY.replace(from, to)).expect("still well-formed");
            let difference = replay(&scenario).expect_err("no longer true").to_string();
            assert!(difference.starts_with("line 3:"), "{difference}");
            assert!(difference.contains(told), "{difference}");
            assert_eq!(rewritten(&scenario).steps[1].1.orders.len(), 1);
        }
    }

    #[test]
    fn a_text_that_is_no_scenario_is_refused_with_its_line() {
        for (from, to, line) in [
            (r#""seed":7"#, r#""seed":7,"x":1"#, 1),
            (r#""scenario":1"#, r#""scenario":2"#, 1),
            (r#""id":"configured""#, r#""id":"configured","y":0"#, 2),
            (r#""at_ms":0,"fact":{"kind":"tick"}"#, r#""fact":{"kind":"tick"}"#, 3),
            (r#"{"kind":"tick"}"#, r#"{"kind":"tick","x":1}"#, 3),
            (r#"{"kind":"tick"}"#, r#"{"kind":"tick","x":null}"#, 3),
            (r#"{"kind":"tick"}"#, r#"{"kind":"tick","orders":[{"kind":"exit"}]}"#, 3),
            (r#"{"kind":"tick"}"#, r#"{"kind":"session","session":1,"what":{"is":"opened","code":0}}"#, 3),
            (r#"[{"kind":"register""#, r#"[{"kind":"exit","link":1},{"kind":"register""#, 3),
        ] {
            assert_eq!(parse(&STORY.replace(from, to)).expect_err("refused").line, line, "{to}");
        }
        assert!(parse("").is_err());
    }

    #[test]
    fn a_key_that_nothing_reads_is_named() {
        let surplus = STORY.replace(r#"{"kind":"tick"}"#, r#"{"kind":"tick","until_ms":1}"#);
        let told = parse(&surplus).expect_err("refused").to_string();
        assert_eq!(told, "line 3: the field `until_ms` is unknown, or says nothing here");
        let outright = STORY.replace(
            r#""fact":{"kind":"started","id":"configured"}"#,
            r#""orders":[],"state":null,"next":null,"fact":{"kind":"started","id":"configured"}"#,
        );
        assert_eq!(parse(&outright), parse(STORY), "what there is not may be said");
    }
}
