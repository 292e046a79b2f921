//! Replays the scenarios of `tests/scenarios` in this crate, because the mutation check does not build the agent.
//!
//! `tests/scenarios.rs` checks the form of each.

use draupnir_fsm::scenario::{parse, replay};
use std::path::Path;

#[test]
fn every_story_is_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut stories = 0;
    for entry in std::fs::read_dir(&folder).expect("tests/scenarios can be read") {
        let path = entry.expect("tests/scenarios can be read").path();
        let text = std::fs::read_to_string(&path).expect("a story can be read");
        let scenario = parse(&text).unwrap_or_else(|error| panic!("{}, {error}", path.display()));
        if let Err(difference) = replay::<usize>(&scenario) {
            panic!("{}, {difference}", path.display());
        }
        stories += 1;
    }
    assert!(stories >= 80, "only {stories} stories are left");
}
