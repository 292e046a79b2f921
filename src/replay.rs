//! `sindri-agent replay <file>`: runs a recording through the machine and says where the orders first differ.
//!
//! It judges nothing itself; [`draupnir_fsm::scenario`] does.

use crate::agent::Text;
use draupnir_fsm::scenario;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The longest file that is read, in bytes: twice what a recording may be.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Replays `file`: 0 if the machine does today what is written, 1 if not or if the file is none.
pub fn run(file: &Path, out: &mut impl Write) -> ExitCode {
    let told = match replayed(file) {
        Ok(path) => writeln!(out, "{}: as recorded, {} outputs\n{path}", file.display(), path.outputs).map(|()| true),
        Err(problem) => writeln!(out, "{}: {problem}", file.display()).map(|()| false),
    };
    // Somebody who does not read the answer gets it as the exit status all the same.
    if told.unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replayed(file: &Path) -> Result<scenario::Path, Box<dyn std::error::Error>> {
    let length = std::fs::metadata(file)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{length} bytes long; a recording has at most {FILE_BYTES_MAX}").into());
    }
    let scenario = scenario::parse(&std::fs::read_to_string(file)?)?;
    Ok(scenario::replay::<Text>(&scenario)?)
}
