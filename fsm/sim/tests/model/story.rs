//! The shortest way to a deliberate fault, taken by the sound driver with its own policy and jitter: a scenario.

use crate::checker::Rejection;
use crate::setting::{Part, SCHEDULE, Setting};
use crate::world::World;
use draupnir_fsm::scenario::{Header, Scenario, VERSION, parse};
use draupnir_sim::planted::Planted;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// The seed of the recorded driver.
const SEED: u64 = 27;

/// The file of a fault: `model_` and its name in snake case.
fn path(fault: Planted) -> PathBuf {
    let mut name = String::from("model");
    for letter in format!("{fault:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios").join(name).with_extension("jsonl")
}

/// Checks that the scenario of a fault is there, and about this rule; with `UPDATE_SCENARIOS=1` writes it.
pub(crate) fn check(fault: Planted, part: Part, rejection: &Rejection) {
    let rule = rejection.rule;
    let about = format!("The shortest way on which the fault {fault:?} breaks the rule \"{rule}\" in the model.");
    let path = path(fault);
    if std::env::var_os("UPDATE_SCENARIOS").is_some_and(|value| value == "1") {
        std::fs::write(&path, recorded(part, rejection, about.clone()).to_string())
            .expect("tests/scenarios can be written");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let scenario = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(scenario.header.about, about, "UPDATE_SCENARIOS=1 writes {}", path.display());
}

/// What the sound driver does on this way, as far as it can go it.
fn recorded(part: Part, rejection: &Rejection, about: String) -> Scenario {
    let setting = Arc::new(Setting::shipped(part));
    let mut world = World::started(&setting, Some(SEED));
    let steps = Rc::new(RefCell::new(Vec::new()));
    let recorded = Rc::clone(&steps);
    world.driver.record(Box::new(move |step| recorded.borrow_mut().push(step)));
    world.begin();
    for (action, _) in &rejection.way {
        if world.actions().contains(action) {
            world.step(*action);
        }
    }
    assert_eq!(world.broken, None, "the sound driver breaks no rule");
    assert_eq!(world.calm_down(rejection.in_calm.unwrap_or(false)), Ok(()), "nor in the calm after it");
    drop(world);
    let header = Header { scenario: VERSION, about, seed: SEED, config: SCHEDULE, audited: false };
    let steps = Rc::into_inner(steps).expect("the driver is gone").into_inner();
    Scenario { header, steps: (2..).zip(steps).collect(), end: None }
}
