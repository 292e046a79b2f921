//! `cargo demo`: builds the agent and the demo, then becomes the demo.
//!
//! One cargo command builds both. Two commands would choose other features for each and compile most crates twice.
//! Cargo writes its progress to standard error.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The arguments of cargo after the manifest's path.
const BUILD: [&str; 9] =
    ["--release", "--package", "draupnir", "--bin", "sindri-agent", "--package", "draupnir-console", "--bin", "demo"];

fn main() -> ExitCode {
    match build().and_then(|demo| Err(Command::new(demo).args(std::env::args_os().skip(1)).exec())) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("cargo demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds both programs and returns the path of the demo, which is in the folder of its own profile.
fn build() -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../Cargo.toml");
    let status = Command::new(cargo).arg("build").arg("--manifest-path").arg(manifest).args(BUILD).status()?;
    if !status.success() {
        return Err(io::Error::other("the agent and the demo do not build"));
    }
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    Ok(target.join("release/demo"))
}
