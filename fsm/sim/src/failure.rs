//! What is made of a seed that fails: the smallest world that fails alike, its story, and a scenario for the machine.
//!
//! It judges nothing. A world is made smaller by taking away its faults one at a time and shortening its storm; a
//! scenario by taking away steps, as long as the machine still breaks the same rule or panics at the same place. Where it
//! is not the machine alone that does, the scenario holds all of its steps up to there.

use crate::breach::Breach;
use crate::panics::caught;
use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Outcome, run};
use crate::work::SCHEDULE;
use draupnir_fsm::limits::Policy;
use draupnir_fsm::machine::Machine;
use draupnir_fsm::machine::invariants::Observer;
use draupnir_fsm::order::Order;
use draupnir_fsm::scenario::{Header, Scenario, Step, VERSION};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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
    let scenario = scenario(seed, &outcome, &breach, planted);
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

    /// Writes the scenario into `folder`; the file that it is now.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Path) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("seed_{}.jsonl", self.outcome.plan.seed));
        std::fs::write(&path, self.scenario.to_string())?;
        Ok(path)
    }
}

/// Takes away what is not needed for the same breach.
fn smallest(plan: Plan, breach: &Breach, broke_ms: u64, planted: Option<Planted>) -> Plan {
    let fails = |plan: &Plan| {
        let found = run(plan.clone(), planted, false).breach;
        found.is_some_and(|found| found.is_like(breach))
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

fn scenario(seed: u64, outcome: &Outcome, breach: &Breach, planted: Option<Planted>) -> Scenario {
    let alone = Alone { policy: Planted::policy(planted), seed: outcome.machine_seed };
    let steps = alone.retold(alone.fewest(outcome.steps.clone(), breach));
    let about = format!("Seed {seed} of the simulation breaks a rule here: {breach}.");
    let header = Header { scenario: VERSION, about, seed: outcome.machine_seed, config: SCHEDULE };
    Scenario { header, steps: (2..).zip(steps).collect(), end: None }
}

/// The machine without the world around it, with the policy and the seed that it had there.
struct Alone {
    policy: Policy,
    seed: u64,
}

impl Alone {
    /// Takes away steps as long as the machine still breaks the same rule: halves first, then quarters, then single
    /// ones. Takes nothing away where it does not break it alone.
    fn fewest(&self, mut steps: Vec<Step>, breach: &Breach) -> Vec<Step> {
        let Some(last) = self.breaks_at(&steps, breach) else { return steps };
        steps.truncate(last + 1);
        let mut chunk = steps.len() / 2;
        while chunk > 0 {
            let mut from = 0;
            while from < steps.len() {
                let until = (from + chunk).min(steps.len());
                let fewer: Vec<Step> = steps.iter().take(from).chain(steps.iter().skip(until)).cloned().collect();
                if self.breaks_at(&fewer, breach).is_some() {
                    steps = fewer;
                } else {
                    from = until;
                }
            }
            chunk /= 2;
        }
        steps
    }

    /// The step at which a new machine breaks the same rule.
    fn breaks_at(&self, steps: &[Step], breach: &Breach) -> Option<usize> {
        let mut machine = self.machine();
        // The rules are those of production, whatever the machine goes by.
        let mut observer = Observer::new(Policy::default());
        for (place, step) in steps.iter().enumerate() {
            let lived = caught(|| {
                let orders = hear(&mut machine, step);
                observer.step(step.at_ms, &step.fact, &orders, &machine.snapshot())
            });
            let found = match lived {
                Ok(Ok(())) => continue,
                Ok(Err(violation)) => Breach::Machine(violation),
                // There is nothing after it.
                Err(panic) => return Breach::Panicked(panic).is_like(breach).then_some(place),
            };
            if found.is_like(breach) {
                return Some(place);
            }
        }
        None
    }

    /// The same facts with what the machine makes of them, as far as it comes.
    fn retold(&self, mut steps: Vec<Step>) -> Vec<Step> {
        let mut machine = self.machine();
        for step in &mut steps {
            let Ok(orders) = caught(|| hear(&mut machine, step)) else { break };
            let seen = machine.snapshot();
            (step.orders, step.state, step.next) = (orders, Some(seen.state.to_owned()), seen.next);
        }
        steps
    }

    fn machine(&self) -> Machine {
        Machine::new(self.policy.clone(), SCHEDULE, self.seed)
    }
}

fn hear(machine: &mut Machine, step: &Step) -> Vec<Order> {
    machine.handle(step.at_ms, &step.fact);
    std::iter::from_fn(|| machine.poll_order()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fault of the machine itself: it goes by another policy, and its observer by the table.
    const FAULT: Planted = Planted::RedialsAtOnce;

    #[test]
    fn steps_are_taken_away_until_each_of_them_is_needed() {
        let seed = (0..1_000).find(|seed| run(Plan::of(*seed), Some(FAULT), false).breach.is_some());
        let outcome = run(Plan::of(seed.expect("one is caught")), Some(FAULT), true);
        let breach = outcome.breach.clone().expect("it is caught again");
        assert!(matches!(breach, Breach::Machine(_)), "{breach}");
        let alone = Alone { policy: Planted::policy(Some(FAULT)), seed: outcome.machine_seed };
        let fewest = alone.retold(alone.fewest(outcome.steps.clone(), &breach));
        assert!(fewest.len() * 2 < outcome.steps.len(), "{} of {} steps", fewest.len(), outcome.steps.len());
        assert_eq!(alone.breaks_at(&fewest, &breach), Some(fewest.len() - 1));
        for left_out in 0..fewest.len() {
            let mut fewer = fewest.clone();
            fewer.remove(left_out);
            assert_eq!(alone.breaks_at(&fewer, &breach), None, "step {left_out} is not needed");
        }
        let sound = Alone { policy: Policy::default(), seed: outcome.machine_seed };
        assert_eq!(sound.breaks_at(&fewest, &breach), None, "it is the fault that breaks the rule");
    }

    #[test]
    fn where_the_machine_alone_breaks_nothing_all_steps_are_kept() {
        let outcome = run(Plan::of(0), None, true);
        let alone = Alone { policy: Policy::default(), seed: outcome.machine_seed };
        assert_eq!(alone.fewest(outcome.steps.clone(), &Breach::Unreachable), outcome.steps);
        assert_eq!(alone.retold(outcome.steps.clone()), outcome.steps);
    }
}
