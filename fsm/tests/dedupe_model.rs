//! Compares the memory of past commands with a model: a list of all commands that ever ran.

use draupnir_fsm::delivery::dedupe::{Dedupe, IDS_MAX, RESULTS_BYTES_MAX, RESULTS_MAX, Verdict};
use draupnir_fsm::id::CommandKey;
use draupnir_fsm::random::Random;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A command that was accepted once.
#[derive(Clone, Copy, Debug)]
struct Ran {
    hash: u128,
    key: u32,
    /// How many commands had ended before it, and the size of its result.
    ended: Option<(usize, usize)>,
    /// The order in which ids are forgotten. A command that still ran when its id would have been forgotten moves to
    /// the end.
    rank: u64,
}

#[derive(Default)]
struct Model {
    ran: Vec<Ran>,
    ended: usize,
    ranks: u64,
}

impl Model {
    /// The remembered results: the last ones, within the bounds of number and size.
    fn remembered(&self) -> BTreeSet<u32> {
        let mut ended: Vec<_> =
            self.ran.iter().filter_map(|ran| ran.ended.map(|(place, size)| (place, size, ran.key))).collect();
        ended.sort_unstable();
        let mut bytes = 0;
        ended
            .iter()
            .rev()
            .take(RESULTS_MAX)
            .take_while(|(_, size, _)| {
                bytes += size;
                bytes <= RESULTS_BYTES_MAX
            })
            .map(|(_, _, key)| *key)
            .collect()
    }

    fn verdict(&self, hash: u128, remembered: &BTreeSet<u32>) -> Verdict {
        match self.ran.iter().find(|ran| ran.hash == hash) {
            None => Verdict::New,
            Some(Ran { ended: None, key, .. }) => Verdict::Running(CommandKey(*key)),
            Some(Ran { key, .. }) if remembered.contains(key) => Verdict::Ended(CommandKey(*key)),
            Some(_) => Verdict::Forgotten,
        }
    }

    fn accept(&mut self, hash: u128, key: u32) {
        self.ranks += 1;
        self.ran.push(Ran { hash, key, ended: None, rank: self.ranks });
        self.bound();
    }

    fn end(&mut self, key: u32, size: usize) {
        let place = self.ended;
        if let Some(ran) = self.ran.iter_mut().find(|ran| ran.key == key && ran.ended.is_none()) {
            ran.ended = Some((place, size));
            self.ended += 1;
        }
    }

    /// Keeps only the last ids.
    fn bound(&mut self) {
        while self.ran.len() > IDS_MAX {
            self.ran.sort_by_key(|ran| ran.rank);
            let oldest = self.ran.remove(0);
            if oldest.ended.is_none() {
                self.ranks += 1;
                self.ran.push(Ran { rank: self.ranks, ..oldest });
            }
        }
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
                    running.push(key);
                }
            }
            _ if !running.is_empty() => {
                let key = running.remove(usize::from(value) % running.len());
                let size = if value & 7 == 0 { 700_000 } else { usize::from(value) };
                dedupe.ended(CommandKey(key), size);
                model.end(key, size);
            }
            _ => {}
        }
        // As in the agent, at most this many run or wait at once.
        if running.len() > 272 {
            let key = running.remove(0);
            dedupe.ended(CommandKey(key), 10);
            model.end(key, 10);
        }
        forgotten.extend(std::iter::from_fn(|| dedupe.take_forgotten()));
        assert!(dedupe.result_bytes() <= RESULTS_BYTES_MAX);
        assert!(dedupe.ids() <= IDS_MAX);
        if at % compare_every == 0 {
            compare(&dedupe, &model, &forgotten);
        }
    }
    compare(&dedupe, &model, &forgotten);
}

fn compare(dedupe: &Dedupe, model: &Model, forgotten: &[CommandKey]) {
    let remembered = model.remembered();
    for ran in &model.ran {
        assert_eq!(dedupe.verdict(ran.hash), model.verdict(ran.hash, &remembered), "{ran:?}");
    }
    assert_eq!(dedupe.ids(), model.ran.len());
    // Each forgotten result was reported once, and no repeat may get it.
    let mut reported = forgotten.to_vec();
    reported.sort_unstable();
    reported.dedup();
    assert_eq!(reported.len(), forgotten.len());
    assert!(remembered.iter().all(|key| !reported.contains(&CommandKey(*key))));
    assert_eq!(reported.len() + remembered.len(), model.ended);
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
