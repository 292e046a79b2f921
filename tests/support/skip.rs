//! Reports that a test could not run here.
//!
//! The runner collects the skips and fails on one that tests/skips.txt does not allow.

use std::io::Write;

/// Notes that a test was skipped, and why: in the file named by `DRAUPNIR_SKIPS`, else on standard error.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("{test}: {reason}\n");
    let Some(path) = std::env::var_os("DRAUPNIR_SKIPS") else {
        eprint!("skipped {line}");
        return;
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list of skips can be written");
}
