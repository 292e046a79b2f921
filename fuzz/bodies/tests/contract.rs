//! Writes the frames of the simulation with the types of the wire, and records them for the check against the schema.

use draupnir_fuzz::contract;
use draupnir_sim::plan::Plan;
use draupnir_sim::{run, tap};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How many seeds run if no frames are recorded: they show every kind of message.
const SEEDS_MIN: u64 = 8;

/// The most seeds: no number of frames needs more.
const SEEDS_MAX: u64 = 100_000;

#[test]
fn simulated_messages_are_written_in_full() {
    let kinds = Rc::new(RefCell::new(BTreeMap::<String, u64>::new()));
    let seen = Rc::clone(&kinds);
    tap::observe(move |encoded| {
        let Some(frame) = contract::frame(encoded) else { return };
        contract::note("simulation", "AgentMessage", &frame);
        let value: serde_json::Value = serde_json::from_str(&frame).expect("JSON");
        *seen.borrow_mut().entry(value["type"].as_str().expect("a type").to_owned()).or_default() += 1;
    });
    for seed in 0..SEEDS_MAX {
        if seed >= SEEDS_MIN && !contract::is_wanted() {
            break;
        }
        assert_eq!(run::run(Plan::of(seed), None, false).violation, None, "seed {seed}");
    }
    let kinds = kinds.borrow();
    assert_eq!(kinds.len(), 9, "every message type of the agent: {kinds:?}");
}
