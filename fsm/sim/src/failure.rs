//! What is made of a seed that fails: the smallest world that fails alike, its story, and a scenario for the machine.
//!
//! It judges nothing. A world is made smaller by taking away its faults one at a time and shortening its storm; a
//! scenario by taking away steps, as long as the machine still breaks the same rule. Where it is not the machine alone
//! that broke one, the scenario holds all of its steps up to there.

use crate::breach::Breach;
use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Outcome, run};
use crate::work::SCHEDULE;
use draupnir_fsm::limits::Policy;
use draupnir_fsm::machine::Machine;
use draupnir_fsm::machine::invariants::{Observer, Violation};
use draupnir_fsm::scenario::{Header, Scenario, Step, VERSION, rewritten};
use std::fmt::Write as _;
use std::mem::discriminant;

/// A failing seed, told.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The smallest world that was found to fail alike.
    pub outcome: Outcome,
    /// The machine's part in it.
    pub scenario: Scenario,
}

/// Tells of a seed that fails; nothing where it does not.
pub fn tell(seed: u64, planted: Option<Planted>) -> Option<Failure> {
    let first = run(Plan::of(seed), planted, false);
    let plan = smallest(first.plan, first.breach.as_ref()?, first.tally.ms, planted);
    let outcome = run(plan, planted, true);
    let breach = outcome.breach.clone()?;
    let scenario = scenario(seed, &outcome, &breach);
    Some(Failure { outcome, scenario })
}

impl Failure {
    /// The story, for a reader.
    pub fn story(&self) -> String {
        let Outcome { plan, story, .. } = &self.outcome;
        let faults: Vec<String> = plan.faults.iter().map(|fault| format!("{fault:?}")).collect();
        let mut text = format!(
            "seed {}, as small as it became: {} after a storm of at most {} s\n",
            plan.seed,
            if faults.is_empty() { "no fault".to_owned() } else { faults.join(", ") },
            plan.storm_ms / 1_000,
        );
        for line in story {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Takes away what is not needed for the same breach.
fn smallest(plan: Plan, breach: &Breach, broke_ms: u64, planted: Option<Planted>) -> Plan {
    let fails = |plan: &Plan| {
        let found = run(plan.clone(), planted, false).breach;
        found.is_some_and(|found| discriminant(&found) == discriminant(breach))
    };
    let mut plan = plan;
    // Each round takes something away, or is the last.
    loop {
        let before = plan.faults;
        for fault in before.iter() {
            let smaller = Plan { faults: plan.faults.without(fault), ..plan.clone() };
            if fails(&smaller) {
                plan = smaller;
            }
        }
        if plan.faults == before {
            break;
        }
    }
    let mut storm_ms = broke_ms.min(plan.storm_ms);
    while storm_ms > 1_000 {
        let smaller = Plan { storm_ms, ..plan.clone() };
        if fails(&smaller) {
            plan = smaller;
        }
        storm_ms /= 2;
    }
    plan
}

fn scenario(seed: u64, outcome: &Outcome, breach: &Breach) -> Scenario {
    let steps = match breach {
        Breach::Machine(violation) => fewest(outcome.machine_seed, outcome.steps.clone(), violation),
        _ => outcome.steps.clone(),
    };
    let about = format!("Seed {seed} of the simulation breaks a rule here: {breach}.");
    let header = Header { scenario: VERSION, about, seed: outcome.machine_seed, config: SCHEDULE };
    let scenario = Scenario { header, steps: (2..).zip(steps).collect(), end: None };
    rewritten(&scenario)
}

/// Takes away steps as long as the machine still breaks the same rule: halves first, then quarters, then single ones.
fn fewest(machine_seed: u64, steps: Vec<Step>, violation: &Violation) -> Vec<Step> {
    let mut steps = up_to_breach(machine_seed, steps, violation);
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut from = 0;
        while from < steps.len() {
            let until = (from + chunk).min(steps.len());
            let fewer: Vec<Step> = steps.iter().take(from).chain(steps.iter().skip(until)).cloned().collect();
            if breaks_at(machine_seed, &fewer, violation).is_some() {
                steps = fewer;
            } else {
                from = until;
            }
        }
        chunk /= 2;
    }
    steps
}

fn up_to_breach(machine_seed: u64, mut steps: Vec<Step>, violation: &Violation) -> Vec<Step> {
    if let Some(place) = breaks_at(machine_seed, &steps, violation) {
        steps.truncate(place + 1);
    }
    steps
}

/// The step at which a new machine breaks the same rule.
fn breaks_at(machine_seed: u64, steps: &[Step], violation: &Violation) -> Option<usize> {
    let mut machine = Machine::new(Policy::default(), SCHEDULE, machine_seed);
    let mut observer = Observer::new(Policy::default());
    steps.iter().position(|step| {
        machine.handle(step.at_ms, &step.fact);
        let orders: Vec<_> = std::iter::from_fn(|| machine.poll_order()).collect();
        let broken = observer.step(step.at_ms, &step.fact, &orders, &machine.snapshot()).err();
        broken.is_some_and(|broken| discriminant(&broken) == discriminant(violation))
    })
}
