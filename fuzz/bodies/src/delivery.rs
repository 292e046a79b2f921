//! Bytes become operations of the delivery ledger, beside a reference model that is too slow to be wrong.
//!
//! The model is that of the ledger's own tests; here it lives in a world whose steps and sizes the fuzzer chooses. What
//! must hold at every step and at the end stands there: whatever breaks and whenever, every reliable message that was
//! not reported as dropped arrives, in order; nothing counts as acknowledged that need not have arrived; bounds are
//! kept, lost bytes are reported once, and when all is well again nothing is left.
//!
//! How an input is read: a byte for the seed (it chooses how often links break and whether messages come by the dozen),
//! then one for each step and, after it, the one or two that its details ask for: how many frames are written or read,
//! sizes, offsets, which stream. When the bytes are used up the link is mended, and everything must arrive.

/// The world, the model and their comparison.
#[allow(dead_code, reason = "the ledger's own tests tell more of their worlds")]
#[path = "../../../fsm/tests/delivery_model/world/mod.rs"]
mod world;

use world::World;

/// How many bytes of an input are read: enough for hundreds of steps, few enough for hundreds of inputs in a second.
const BYTES_MAX: usize = 2_048;

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let Some((seed, steps)) = input.split_first() else { return };
    let mut world = World::of(u64::from(*seed), steps.iter().copied().take(BYTES_MAX).collect());
    while world.step_as_chosen() {}
    world.heal();
}
