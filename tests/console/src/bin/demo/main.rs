//! `cargo demo`: the real agent and a console, side by side, for people to look at.
//!
//! It starts the agent against a console on a free loopback port and shows what arrives: live in a terminal, as plain
//! lines elsewhere. `launch` builds both. Without a terminal its exit status shows whether the agent registered,
//! connected, sent heartbeats and drained.
//!
//!     cargo demo [--seconds N] [--plain] [--web] [--agent PROGRAM]
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
mod web;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use draupnir_console::{Console, Keep, Personality};

/// How long the plain form watches by default.
const SECONDS: u64 = 10;

const USAGE: &str = "\
usage: cargo demo [--seconds N] [--plain] [--web] [--agent PROGRAM] [--packages FOLDER]
  --seconds N        without a terminal: drain the agent after N seconds (10; with --web never)
  --plain            plain lines even on a terminal
  --web              serve a page for a browser, and show its address; on a terminal the key w does so later
  --agent PROGRAM    start this agent instead of the one of the same build
  --packages FOLDER  where the npm packages of the page are, or are installed (target/web)";

/// The options of the command line.
struct Wanted {
    seconds: Option<u64>,
    plain: bool,
    web: bool,
    agent: Option<PathBuf>,
    packages: PathBuf,
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
    // The console notices the end of a stalled connection long after the agent has dialled again. With the routing
    // fault no key would reach a terminal after that.
    personality.loses_routes = false;
    let console = Console::builder(personality).keep(Keep::Counts).start();
    let agent = agent::Agent::start(&program, &console)?;
    let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let web = web::Web { console: console.clone(), recording: agent.recording(), packages: wanted.packages };
    if wanted.plain || !on_terminal {
        let page = if wanted.web { plain::open(&web)? } else { None };
        let seconds = wanted.seconds.or(if page.is_some() { None } else { Some(SECONDS) });
        plain::run(&console, agent, seconds.map(Duration::from_secs))
    } else {
        run::run(&console, agent, web, wanted.web)
    }
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted { seconds: None, plain: false, web: false, agent: None, packages: web::PACKAGES.into() };
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--seconds" => wanted.seconds = Some(arguments.next()?.parse().ok()?),
            "--plain" => wanted.plain = true,
            "--web" => wanted.web = true,
            "--packages" => wanted.packages = arguments.next()?.into(),
            "--agent" => wanted.agent = Some(arguments.next()?.into()),
            "--" => {} // cargo's own separator, given twice: the alias ends with one
            _ => return None,
        }
    }
    Some(wanted)
}
