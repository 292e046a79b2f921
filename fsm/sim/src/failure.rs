//! Reduces a failing seed to the smallest world with the same violation, and returns its story and a scenario.
//!
//! It removes faults from the world one at a time, and shortens the storm, as long as the violation stays the same.

use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Outcome, run};
use crate::violation::Violation;
use crate::work::SCHEDULE;
use draupnir_fsm::scenario::{Header, Scenario, VERSION};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A failing seed, with its story.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run of the smallest world with the same violation.
    pub outcome: Outcome,
    /// The driver's part of this run.
    pub scenario: Scenario,
}

/// Runs a seed again and reports its failure; `None` if it does not fail.
pub fn report(seed: u64, planted: Option<Planted>) -> Option<Failure> {
    let first = run(Plan::of(seed), planted, false);
    let plan = smallest(first.plan, first.violation.as_ref()?, first.stats.ms, planted);
    let outcome = run(plan, planted, true);
    let violation = outcome.violation.clone()?;
    let about = format!("Seed {seed} of the simulation breaks a rule here: {violation}.");
    let scenario = scenario(&outcome, about);
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

    /// Writes the scenario into `folder` and returns its path.
    ///
    /// # Errors
    /// The errors of the file system.
    pub fn write(&self, folder: &Path) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("seed_{}.jsonl", self.outcome.plan.seed));
        std::fs::write(&path, self.scenario.to_string())?;
        Ok(path)
    }
}

/// Removes everything that the violation does not need.
fn smallest(plan: Plan, violation: &Violation, broke_ms: u64, planted: Option<Planted>) -> Plan {
    let fails = |plan: &Plan| {
        let found = run(plan.clone(), planted, false).violation;
        found.is_some_and(|found| found.is_like(violation))
    };
    let mut plan = plan;
    // Each round removes at least one fault, or is the last.
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

/// The driver's part of a seed in its last life: its inputs, its outputs, and the answers of its host.
pub fn scenario(outcome: &Outcome, about: String) -> Scenario {
    let audited = outcome.plan.audited;
    let header = Header { scenario: VERSION, about, seed: outcome.driver_seed, config: SCHEDULE, audited };
    Scenario { header, steps: (2..).zip(outcome.steps.iter().cloned()).collect(), end: None }
}
