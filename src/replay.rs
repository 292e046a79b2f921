//! `sindri-agent replay <file>`: runs a recording through the machine and prints where the orders first differ.
//!
//! [`draupnir_fsm::scenario`] compares them.

use crate::agent::Text;
use draupnir_fsm::scenario;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The longest file that is read, in bytes: twice what a recording may be.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Replays `file`: 0 if the machine gives the recorded orders, 1 if not or if the file is no recording.
pub fn run(file: &Path, out: &mut impl Write) -> ExitCode {
    let printed = match replayed(file) {
        Ok(path) => writeln!(out, "{}: as recorded, {} outputs\n{path}", file.display(), path.outputs).map(|()| true),
        Err(problem) => writeln!(out, "{}: {problem}", file.display()).map(|()| false),
    };
    // If the output cannot be written, the exit status still has the answer.
    if printed.unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replayed(file: &Path) -> Result<scenario::Path, Box<dyn std::error::Error>> {
    let length = std::fs::metadata(file)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{length} bytes long; a recording has at most {FILE_BYTES_MAX}").into());
    }
    let scenario = scenario::parse(&std::fs::read_to_string(file)?)?;
    Ok(scenario::replay::<Text>(&scenario)?)
}
