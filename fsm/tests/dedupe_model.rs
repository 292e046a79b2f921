//! Compares the memory of past commands with a model: a list of all commands that ever ran.

use draupnir_fsm::delivery::dedupe::{Dedupe, IDS_MAX, RESULTS_BYTES_MAX, RESULTS_MAX, Verdict};
use draupnir_fsm::id::CommandKey;
use draupnir_fsm::random::Random;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A command that was accepted, the last with its id.
#[derive(Clone, Copy, Debug)]
struct Ran {
    key: u32,
    /// How many commands had ended before it.
    ended: Option<usize>,
}

#[derive(Default)]
struct Model {
    ran: BTreeMap<u128, Ran>,
    running: usize,
    /// The keys and the sizes of the results, in the order of the ends.
    ends: Vec<(u32, usize)>,
}

impl Model {
    /// How many results are remembered: the last ones, within the bounds of number and size.
    fn remembered(&self) -> usize {
        let mut bytes = 0;
        let fits = |(_, size): &&(u32, usize)| {
            bytes += size;
            bytes <= RESULTS_BYTES_MAX
        };
        self.ends.iter().rev().take(RESULTS_MAX).take_while(fits).count()
    }

    /// What is known of an id, where so many results are remembered.
    fn verdict(&self, hash: u128, remembered: usize) -> Verdict {
        let forgotten = self.ends.len() - remembered;
        match self.ran.get(&hash) {
            None => Verdict::New,
            Some(Ran { key, ended: None }) => Verdict::Running(CommandKey(*key)),
            Some(Ran { ended: Some(place), .. }) if *place < forgotten.saturating_sub(IDS_MAX) => Verdict::New,
            Some(Ran { key, ended: Some(place) }) if *place >= forgotten => Verdict::Ended(CommandKey(*key)),
            Some(_) => Verdict::Forgotten,
        }
    }

    fn accept(&mut self, hash: u128, key: u32) {
        assert_eq!(self.verdict(hash, self.remembered()), Verdict::New);
        self.ran.insert(hash, Ran { key, ended: None });
        self.running += 1;
    }

    fn end(&mut self, hash: u128, size: usize) {
        let ran = self.ran.get_mut(&hash).expect("it runs");
        ran.ended = Some(self.ends.len());
        self.ends.push((ran.key, size));
        self.running -= 1;
    }
}

/// Dispatches and ends commands by `choices`, and compares.
fn live(choices: impl Iterator<Item = (u8, u16)>, compare_every: usize) {
    let mut dedupe = Dedupe::new();
    let mut model = Model::default();
    let mut forgotten = Vec::new();
    let mut running = Vec::new();
    for (at, (choice, value)) in choices.enumerate() {
        let key = u32::try_from(at).expect("few steps");
        match choice % 3 {
            // A repeat of a recent command, or a new one.
            0 | 1 => {
                let hash = if choice & 64 == 0 { u128::from(value % 700) } else { 1_000 + u128::from(key) };
                if dedupe.verdict(hash) == Verdict::New {
                    dedupe.accepted(hash, CommandKey(key));
                    model.accept(hash, key);
                    running.push((hash, key));
                }
            }
            _ if !running.is_empty() => {
                let (hash, key) = running.remove(usize::from(value) % running.len());
                let size = if value & 7 == 0 { 700_000 } else { usize::from(value) };
                dedupe.ended(CommandKey(key), size);
                model.end(hash, size);
            }
            _ => {}
        }
        // As in the agent, at most this many run or wait at once.
        if running.len() > 272 {
            let (hash, key) = running.remove(0);
            dedupe.ended(CommandKey(key), 10);
            model.end(hash, 10);
        }
        forgotten.extend(std::iter::from_fn(|| dedupe.take_forgotten()));
        assert!(dedupe.result_bytes() <= RESULTS_BYTES_MAX);
        assert!(dedupe.ids() <= IDS_MAX + RESULTS_MAX + running.len());
        if at % compare_every == 0 {
            compare(&dedupe, &model, &forgotten);
        }
    }
    compare(&dedupe, &model, &forgotten);
}

fn compare(dedupe: &Dedupe, model: &Model, forgotten: &[CommandKey]) {
    let remembered = model.remembered();
    for (hash, ran) in &model.ran {
        assert_eq!(dedupe.verdict(*hash), model.verdict(*hash, remembered), "{ran:?}");
    }
    let gone = model.ends.len() - remembered;
    assert_eq!(dedupe.ids(), model.running + remembered + gone.min(IDS_MAX));
    // Each forgotten result was reported once, in order, and no repeat may get it.
    assert!(model.ends.iter().take(gone).map(|(key, _)| CommandKey(*key)).eq(forgotten.iter().copied()));
}

#[test]
fn forty_five_thousand_steps_agree_with_the_model() {
    let mut random = Random::new(5);
    let choices = std::iter::repeat_with(|| {
        let bits = random.next_u64().to_le_bytes();
        (bits[0], u16::from_le_bytes([bits[1], bits[2]]))
    });
    live(choices.take(45_000), 4_500);
}

#[test]
fn a_long_command_outlives_the_memory_of_ids() {
    let mut dedupe = Dedupe::new();
    dedupe.accepted(u128::MAX, CommandKey(1));
    for (hash, key) in (0..40_000).zip(2..) {
        dedupe.accepted(hash, CommandKey(key));
        dedupe.ended(CommandKey(key), 100);
    }
    assert_eq!(dedupe.verdict(u128::MAX), Verdict::Running(CommandKey(1)));
    assert_eq!(dedupe.verdict(0), Verdict::New, "too long ago");
    assert_eq!(dedupe.verdict(39_000), Verdict::Forgotten);
    dedupe.ended(CommandKey(1), 100);
    assert_eq!(dedupe.verdict(u128::MAX), Verdict::Ended(CommandKey(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_commands_agree_with_the_model(choices in prop::collection::vec(any::<(u8, u16)>(), 0..1_000)) {
        live(choices.into_iter(), 200);
    }
}
