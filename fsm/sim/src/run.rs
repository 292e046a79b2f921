//! One seed from its beginning to its end, and its story.
//!
//! It does not panic: a panic on the way is the violation of that seed, which would be unknown otherwise.

use crate::panics::caught;
use crate::plan::Plan;
use crate::planted::Planted;
use crate::violation::Violation;
pub use crate::world::Stats;
use crate::world::World;
use draupnir_fsm::scenario::Step;

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was.
    pub plan: Plan,
    /// What was counted.
    pub stats: Stats,
    /// The first rule that was broken, if any.
    pub violation: Option<Violation>,
    /// What happened, a line each, if that was asked for.
    pub story: Vec<String>,
    /// What the driver was recorded to do in its last life, likewise.
    pub steps: Vec<Step>,
    /// The seed of the driver's jitter in that life.
    pub driver_seed: u64,
}

/// Runs one world.
pub fn run(plan: Plan, planted: Option<Planted>, with_story: bool) -> Outcome {
    let mut world = World::new(plan, planted, with_story);
    if let Err(panic) = caught(|| world.run()) {
        world.break_off(panic);
    }
    Outcome {
        stats: world.stats,
        violation: world.violation.clone(),
        story: world.story.take().unwrap_or_default(),
        steps: world.host.take_steps(),
        driver_seed: world.host.seed,
        plan: world.plan,
    }
}
