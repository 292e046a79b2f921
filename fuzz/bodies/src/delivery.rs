//! Bytes become operations of the delivery ledger, which is compared with a simple and slow reference model.
//!
//! The model is that of the ledger's own tests; here the fuzzer chooses steps and sizes. The model states what must
//! hold at every step and at the end, wherever the link breaks: every reliable message that was not reported as dropped
//! arrives, in order; no message counts as acknowledged before it arrived; bounds hold; lost bytes are reported once;
//! at the end nothing waits.
//!
//! An input is one byte for the seed (it chooses how often links break and whether messages come in bursts), then one
//! byte for each step, followed by one or two bytes of details: how many frames are written or read, sizes, offsets,
//! which stream. After the last byte the link works again, and everything must arrive.

/// The world, the model and their comparison.
#[allow(dead_code, reason = "the ledger's own tests tell more of their worlds")]
#[path = "../../../fsm/tests/delivery_model/world/mod.rs"]
mod world;

use world::World;

/// The most bytes of an input that are read: enough for hundreds of steps, few enough for hundreds of inputs a second.
const BYTES_MAX: usize = 2_048;

/// Checks one input.
pub fn run(input: &[u8]) {
    let Some((seed, steps)) = input.split_first() else { return };
    let mut world = World::of(u64::from(*seed), steps.iter().copied().take(BYTES_MAX).collect());
    while world.step_as_chosen() {}
    world.heal();
}
