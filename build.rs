//! Tells the program which commit it was made from, for `--version`.
//!
//! It does not look at the work tree, the time, or the machine: two builds of one commit give the same bytes. The
//! commit is, in this order, the value of `DRAUPNIR_COMMIT` (for packagers), what git says when this is its work tree,
//! what `git archive` wrote into `.commit`, or nothing. The result is `DRAUPNIR_VERSION`: `1.2.3 (0123456789ab)` or
//! `1.2.3`.

use std::path::Path;
use std::process::Command;

/// Digits of the commit that are shown: no project of this size has two that agree in so many.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DRAUPNIR_COMMIT");
    println!("cargo::rerun-if-changed=.commit");
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets the version");
    let commit = std::env::var("DRAUPNIR_COMMIT")
        .ok()
        .and_then(|commit| digits(&commit))
        .or_else(from_git)
        .or_else(from_archive);
    match commit {
        Some(commit) => println!("cargo::rustc-env=DRAUPNIR_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=DRAUPNIR_VERSION={version}"),
    }
}

/// The commit of the work tree that this file is at the top of, if git is installed and knows it.
fn from_git() -> Option<String> {
    // A directory, or a file in a work tree beside the first one. An unpacked archive may lie inside another
    // repository.
    if !Path::new(".git").exists() {
        return None;
    }
    // The commit moves when one of these does.
    for file in ["HEAD", "logs/HEAD", "packed-refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    digits(&git(&["rev-parse", "HEAD"])?)
}

/// What `git archive` put in the place of the form in `.commit`.
fn from_archive() -> Option<String> {
    digits(std::fs::read_to_string(".commit").ok()?.trim())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The first digits of a commit; nothing if it is not one.
fn digits(commit: &str) -> Option<String> {
    let shown = commit.get(..DIGITS)?;
    shown.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| shown.to_owned())
}
