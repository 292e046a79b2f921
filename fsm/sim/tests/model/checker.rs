//! The world as a model of `stateright`: a state is the way to it, and the number of the world at its end.
//!
//! A world is not kept for each state: there are millions. A thread keeps those on the way to the state that it is at;
//! in a breadth-first search the next one shares most of that way.

use crate::hashing::fingerprint;
use crate::setting::Setting;
use crate::world::{Broken, CalmTimes, Draws, Move, World};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// One step: the place among what may happen in the world before, and how jitter is drawn.
pub(crate) type Step = u8;

/// A state.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    way: Box<[Step]>,
    fingerprint: u64,
    broken: Option<Broken>,
}

impl Hash for Reached {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// A model, and how far to go in it.
pub(crate) struct Exploration {
    setting: Arc<Setting>,
    states_max: usize,
    visited: AtomicUsize,
    rejected: OnceLock<Box<[Step]>>,
}

/// What a thread keeps of the model that it explores.
struct Kept {
    setting: Arc<Setting>,
    /// The worlds on the way to the current state, the start first, with the step that led to each.
    trail: Vec<(Step, World)>,
    calm_times: CalmTimes,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

fn start(setting: &Arc<Setting>) -> World {
    let mut world = World::started(setting, None);
    world.begin();
    world
}

fn parts(step: Step) -> (usize, Draws) {
    (usize::from(step / 2), if step.is_multiple_of(2) { Draws::Least } else { Draws::Greatest })
}

/// All steps from a world.
fn steps(setting: &Setting, world: &World) -> impl Iterator<Item = Step> {
    let draws = if setting.draws_both { 2 } else { 1 };
    let places = 0..Step::try_from(world.actions().len()).expect("few");
    places.flat_map(move |place| (0..draws).map(move |draw| place * 2 + draw))
}

/// The world behind one step.
fn after(world: &World, step: Step) -> World {
    let (place, draws) = parts(step);
    let mut next = world.fork(draws);
    if let Some(action) = world.actions().get(place) {
        next.step(*action);
    }
    next
}

/// Calls `what` with the world at the end of `way`.
fn at<T>(setting: &Arc<Setting>, way: &[Step], what: impl FnOnce(&World, &mut CalmTimes) -> T) -> T {
    KEPT.with_borrow_mut(|kept| {
        let kept = match kept {
            Some(kept) if Arc::ptr_eq(&kept.setting, setting) => kept,
            other => {
                let (trail, calm_times) = (vec![(0, start(setting))], CalmTimes::new());
                other.insert(Kept { setting: Arc::clone(setting), trail, calm_times })
            }
        };
        let trail = &mut kept.trail;
        let shared = trail[1..].iter().zip(way).take_while(|((step, _), wanted)| step == *wanted).count();
        trail.truncate(1 + shared);
        for step in &way[shared..] {
            let next = after(&trail[trail.len() - 1].1, *step);
            trail.push((*step, next));
        }
        what(&trail[trail.len() - 1].1, &mut kept.calm_times)
    })
}

impl Model for Exploration {
    type State = Reached;
    type Action = Step;

    fn init_states(&self) -> Vec<Reached> {
        let world = start(&self.setting);
        vec![Reached { way: Box::default(), fingerprint: fingerprint(&world), broken: world.broken }]
    }

    fn actions(&self, state: &Reached, steps: &mut Vec<Step>) {
        at(&self.setting, &state.way, |world, _| steps.extend(self::steps(&self.setting, world)));
    }

    fn next_state(&self, state: &Reached, step: Step) -> Option<Reached> {
        let next = at(&self.setting, &state.way, |world, _| after(world, step));
        let way = state.way.iter().copied().chain([step]).collect();
        let fingerprint = fingerprint(&next);
        Some(Reached { way, fingerprint, broken: next.broken })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LINK, |model: &Self, state: &Reached| model.keeps(state, LINK)),
            Property::always(DEADLINE, |model: &Self, state: &Reached| model.keeps(state, DEADLINE)),
            Property::always(ACKNOWLEDGED, |model: &Self, state: &Reached| model.keeps(state, ACKNOWLEDGED)),
            Property::always(ORDER, |model: &Self, state: &Reached| model.keeps(state, ORDER)),
            Property::always(MACHINE, |model: &Self, state: &Reached| model.keeps(state, MACHINE)),
            Property::always(CALM, |model: &Self, state: &Reached| {
                let is_calm = state.broken.is_some()
                    || at(&model.setting, &state.way, |world, known| uncalm(world, known).is_none());
                model.note(state, is_calm)
            }),
            Property::sometimes(ENOUGH, |model: &Self, _: &Reached| {
                model.visited.fetch_add(1, Ordering::Relaxed) + 1 >= model.states_max
            }),
        ]
    }
}

impl Exploration {
    fn keeps(&self, state: &Reached, wanted: &str) -> bool {
        self.note(state, state.broken.as_ref().is_none_or(|broken| rule(broken) != wanted))
    }

    /// Keeps the first way to a broken rule: the shortest. The checker goes on for a while, and keeps the last.
    fn note(&self, state: &Reached, holds: bool) -> bool {
        if !holds {
            let _ = self.rejected.set(state.way.clone()); // a later one is of no interest
        }
        holds
    }
}

const LINK: &str = "at most one live link";
const DEADLINE: &str = "every state has a deadline";
const ACKNOWLEDGED: &str = "nothing acknowledged that was not delivered";
const ORDER: &str = "nothing lost, in order";
const MACHINE: &str = "the machine keeps its invariants";
const CALM: &str = "once faults end, connected or stopped within the bound";
const ENOUGH: &str = "as many states as were asked for";

/// What breaks from here on although nothing more goes wrong, and whether what is there is silent then.
fn uncalm(world: &World, known: &mut CalmTimes) -> Option<(Broken, bool)> {
    [false, true].into_iter().find_map(|is_silent| Some((world.calms_down(is_silent, known).err()?, is_silent)))
}

const fn rule(broken: &Broken) -> &'static str {
    match broken {
        Broken::SecondLink => LINK,
        Broken::Deadline => DEADLINE,
        Broken::Acknowledged => ACKNOWLEDGED,
        Broken::Order => ORDER,
        Broken::Machine(_) => MACHINE,
        Broken::Calm => CALM,
    }
}

/// A rule that is broken, and the shortest way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) rule: &'static str,
    pub(crate) way: Vec<(Move, Draws)>,
    /// It breaks after that way, when nothing more goes wrong; whether what is there is silent then.
    pub(crate) in_calm: Option<bool>,
}

/// What an exploration found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    /// No state was left.
    pub(crate) is_closed: bool,
    pub(crate) rejection: Option<Rejection>,
}

/// Explores a model, breadth first, until it is closed, a rule is broken or so many states were visited.
pub(crate) fn explore(setting: Setting, states_max: usize, threads: usize) -> Found {
    let setting = Arc::new(setting);
    let began = Instant::now();
    let model = Exploration {
        setting: Arc::clone(&setting),
        states_max,
        visited: AtomicUsize::new(0),
        rejected: OnceLock::new(),
    };
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let took = began.elapsed();
    Found {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        is_closed: checker.discoveries().is_empty(),
        rejection: checker.model().rejected.get().map(|way| rejection(&setting, way)),
    }
}

/// Worlds that were reached by two ways under one number, of the first `states_max`: whether all that may happen next
/// leads to the same numbers, too. The result is how many there were.
///
/// # Panics
///
/// At a pair of worlds with one number and two futures.
pub(crate) fn compare_twins(setting: Setting, states_max: usize) -> usize {
    let setting = Arc::new(setting);
    let futures = |way: &[Step]| -> Vec<(Step, Move, u64)> {
        at(&setting, way, |world, _| {
            let next = |step| (step, world.actions()[parts(step).0], fingerprint(&after(world, step)));
            steps(&setting, world).map(next).collect()
        })
    };
    let mut known: HashMap<u64, Box<[Step]>> = HashMap::new();
    let mut ways = VecDeque::from([Box::<[Step]>::default()]);
    let mut twins = 0;
    while let Some(way) = ways.pop_front() {
        let number = at(&setting, &way, |world, _| fingerprint(world));
        if let Some(first) = known.get(&number) {
            twins += 1;
            assert_eq!(futures(first), futures(&way), "{first:?} and {way:?} have one number");
        } else if known.len() < states_max {
            let next: Vec<_> = at(&setting, &way, |world, _| steps(&setting, world).collect());
            ways.extend(next.into_iter().map(|step| way.iter().copied().chain([step]).collect()));
            known.insert(number, way);
        }
    }
    twins
}

/// What is broken at the end of a way, or in the calm after it.
fn rejection(setting: &Arc<Setting>, way: &[Step]) -> Rejection {
    let (broken, in_calm) = at(setting, way, |world, known| match &world.broken {
        Some(broken) => (broken.clone(), None),
        None => {
            uncalm(world, known).map(|(broken, is_silent)| (broken, Some(is_silent))).expect("a rule is broken here")
        }
    });
    Rejection { rule: rule(&broken), way: actions(setting, way), in_calm }
}

/// What the steps of a way are.
fn actions(setting: &Arc<Setting>, way: &[Step]) -> Vec<(Move, Draws)> {
    let mut world = start(setting);
    let mut actions = Vec::new();
    for step in way {
        let (place, draws) = parts(*step);
        actions.push((world.actions()[place], draws));
        world = after(&world, *step);
    }
    actions
}
