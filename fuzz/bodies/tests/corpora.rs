//! Runs every kept input through its target, without a fuzzer: the corpora, and the inputs that once made a target
//! fail.
//!
//! A directory of `fuzz/corpus` or `fuzz/regressions` without a target fails the test, and so does a target without a
//! corpus.

use draupnir_fuzz as targets;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest size of all corpora together, in bytes: they are part of every clone.
const CORPORA_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The least number of inputs that once made a target fail: it only grows.
const REGRESSIONS_MIN: usize = 15;

/// One test a target, so that targets run in parallel and a failure names its target.
macro_rules! targets {
    ($($target:ident => $run:path),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];

        $(
            #[test]
            fn $target() {
                holds_all(stringify!($target), $run);
            }
        )*
    };
}

targets! {
    close_frame => targets::close_frame::run,
    config => targets::config::run,
    delivery => targets::delivery::run,
    envelope_decode => targets::envelope_decode::run_wholly,
    envelope_differential => targets::envelope_differential::run,
    fsm_transitions => targets::fsm_transitions::run,
    hand_over_state => targets::hand_over_state::run,
    http_response => targets::http_response::run,
    journal_file => targets::journal_file::run,
    llm_usage => targets::llm_usage::run,
    log_lines => targets::log_lines::run,
    terminal_snapshot => targets::terminal_snapshot::run,
    terminal_stream => targets::terminal_stream::run,
    world => targets::world::run,
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the fuzz project is above").to_owned()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    paths
}

fn holds_all(target: &str, run: fn(&[u8])) {
    let corpus = entries(&fuzz().join("corpus").join(target));
    assert!(!corpus.is_empty(), "{target} has no corpus");
    for path in corpus.iter().chain(&entries(&fuzz().join("regressions").join(target))) {
        let input = fs::read(path).expect("a readable input");
        // If the target fails, the harness prints this name of the file.
        println!("{}", path.display());
        run(&input);
    }
}

#[test]
fn every_directory_of_inputs_belongs_to_a_target() {
    let known: BTreeSet<&str> = TARGETS.iter().copied().collect();
    for parent in ["corpus", "regressions"] {
        for directory in entries(&fuzz().join(parent)) {
            let name = directory.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(known.contains(name), "{parent}/{name} belongs to no target");
        }
    }
    let shims = entries(&fuzz().join("fuzz_targets"));
    let shims: BTreeSet<&str> = shims.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    assert_eq!(shims, known, "the shims of fuzz_targets and the tests here");
}

#[test]
fn no_regression_was_lost() {
    let kept = TARGETS.iter().map(|target| entries(&fuzz().join("regressions").join(target)).len()).sum::<usize>();
    assert!(kept >= REGRESSIONS_MIN, "of {REGRESSIONS_MIN} inputs that once failed {kept} are left");
}

#[test]
fn the_corpora_are_small() {
    let files = TARGETS.iter().flat_map(|target| entries(&fuzz().join("corpus").join(target)));
    let bytes: u64 = files.map(|path| fs::metadata(path).expect("a file").len()).sum();
    assert!(bytes <= CORPORA_BYTES_MAX, "the corpora take {bytes} bytes");
}
