//! The agent's process: flags, configuration, logging, exit status; nothing else.

use draupnir::cli::{self, EXIT_CONFIG, EXIT_USAGE, Invocation};
use draupnir::config::Config;
use draupnir::{agent, logging, replay, sys};
use std::io::stdout;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run) => run(),
        Ok(Invocation::Version) => print(cli::version()),
        Ok(Invocation::Help) => print(&cli::help()),
        Ok(Invocation::Replay { file }) => replay::run(&file, &mut stdout()),
        Ok(Invocation::Doctor { json: _ }) => ExitCode::FAILURE,
        Err(misused) => {
            eprintln!("{misused}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run() -> ExitCode {
    let config = match Config::from_environment() {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Err(error) = logging::start(config.log_level, &config.api_key) {
        eprintln!("sindri-agent: logging cannot be started: {error}");
        return ExitCode::FAILURE;
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    sys::process::harden();
    match agent::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the agent could not begin");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    // A reader that has gone away is no failure of ours.
    let _ = stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
