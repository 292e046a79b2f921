//! `cargo demo`: the real agent and a console, side by side, for people to look at.
//!
//! It starts the agent against a console on a free loopback port and shows what arrives: live in a terminal, as plain
//! lines elsewhere. `launch` builds both. Without a terminal its exit status shows whether the agent registered,
//! connected, sent heartbeats and drained.
//!
//!     cargo demo [--seconds N] [--plain] [--agent PROGRAM]
//!
//! Invariants: every way out restores the terminal, also a panic; the agent does not outlive the demo, even after
//! SIGKILL.

mod agent;
mod command;
mod dashboard;
mod model;
mod paint;
mod plain;
mod run;
mod shell;
mod terminal;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use draupnir_console::{Console, Keep, Personality};

/// How long the plain form watches by default.
const SECONDS: u64 = 10;

const USAGE: &str = "\
usage: cargo demo [--seconds N] [--plain] [--agent PROGRAM]
  --seconds N      without a terminal: drain the agent after N seconds (10)
  --plain          plain lines even on a terminal
  --agent PROGRAM  start this agent instead of the one of the same build";

/// The options of the command line.
struct Wanted {
    seconds: u64,
    plain: bool,
    agent: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Some(wanted) = wanted(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    match demo(wanted) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(wanted: Wanted) -> std::io::Result<ExitCode> {
    let program = match wanted.agent {
        Some(program) => program,
        None => agent::built()?,
    };
    let mut personality = Personality::production();
    personality.dies_of_poison = false; // it is shown with the events, and the demo goes on
    let console = Console::builder(personality).keep(Keep::Counts).start();
    let agent = agent::Agent::start(&program, &console)?;
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if wanted.plain || !on_terminal {
        plain::run(&console, agent, Duration::from_secs(wanted.seconds))
    } else {
        run::run(&console, agent)
    }
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted { seconds: SECONDS, plain: false, agent: None };
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--seconds" => wanted.seconds = arguments.next()?.parse().ok()?,
            "--plain" => wanted.plain = true,
            "--agent" => wanted.agent = Some(arguments.next()?.into()),
            "--" => {} // cargo's own separator, given twice: the alias ends with one
            _ => return None,
        }
    }
    Some(wanted)
}
