//! One seed from its beginning to its end, and what is told of it.
//!
//! It does not panic: a panic on the way is the breach of that seed, which would be unknown otherwise.

use crate::breach::Breach;
use crate::panics::caught;
use crate::plan::Plan;
use crate::planted::Planted;
pub use crate::world::Tally;
use crate::world::World;
use draupnir_fsm::scenario::Step;

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was.
    pub plan: Plan,
    /// What was counted.
    pub tally: Tally,
    /// The first rule that was broken, if any.
    pub breach: Option<Breach>,
    /// What happened, a line each, if that was asked for.
    pub story: Vec<String>,
    /// The facts of the machine in its last life, likewise.
    pub steps: Vec<Step>,
    /// The seed of the machine's jitter in that life.
    pub machine_seed: u64,
}

/// Lives through one world.
pub fn run(plan: Plan, planted: Option<Planted>, tells: bool) -> Outcome {
    let mut world = World::new(plan, planted, tells);
    if let Err(panic) = caught(|| world.run()) {
        world.break_off(panic);
    }
    Outcome {
        tally: world.tally,
        breach: world.breach.clone(),
        story: world.story.take().unwrap_or_default(),
        steps: world.host.take_steps(),
        machine_seed: world.host.seed,
        plan: world.plan,
    }
}
