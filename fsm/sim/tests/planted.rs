//! The simulation finds what it is for: each deliberate fault is caught by one of the seeds that every run of the tests
//! runs.

use draupnir_sim::plan::Plan;
use draupnir_sim::planted::Planted;
use draupnir_sim::run::run;

/// As many seeds as `tests/run` runs.
const SEEDS: u64 = 20_000;

/// The first seed that catches a fault, and how it does.
fn caught(fault: Planted) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| {
        let violation = run(Plan::of(seed), Some(fault), false).violation?;
        Some((seed, violation.to_string()))
    })
}

#[test]
fn every_planted_fault_is_caught() {
    let mut missed = Vec::new();
    for fault in Planted::ALL {
        match caught(fault) {
            Some((seed, violation)) => println!("{fault:?}: seed {seed}, {violation}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not caught by {SEEDS} seeds: {missed:?}");
}
