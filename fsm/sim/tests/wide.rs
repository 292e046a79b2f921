//! Seeds of `draupnir-sim wide` that once broke a bound.

use draupnir_sim::wide::{Cell, run};

fn keep_their_bounds(seeds: &[u64]) {
    for seed in seeds {
        let cell = Cell::of_seed(*seed);
        if let Err(broken) = run(cell, *seed) {
            panic!("seed {seed}, {cell}: {broken:?}");
        }
    }
}

/// One round that gave more than a low estimate began a startup: a queue of 160 to 380 ms for an echo beside the flood.
#[test]
fn low_estimate_does_not_lead_to_a_startup() {
    // The way became shorter, and short samples were all too low by chance; the link became slower.
    keep_their_bounds(&[3385, 5352, 8138, 3703]);
}

/// The whole window of cruise went out at once into a way that a search had emptied.
#[test]
fn window_after_a_search_does_not_wait_for_itself() {
    keep_their_bounds(&[8467]);
}
