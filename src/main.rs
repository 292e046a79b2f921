//! The agent's process: flags, configuration, logging, exit status; nothing else.

use draupnir::cli::{self, EXIT_CONFIG, EXIT_USAGE, Invocation};
use draupnir::config::{API_KEY_VARIABLE, Config, unknown_variables};
use draupnir::hand_over::state::State;
use draupnir::{agent, doctor, hand_over, logging, preflight, replay, restart, status, sys, writer};
use draupnir_fsm::driver::PanicHistory;
use std::io::stdout;
use std::process::ExitCode;

fn main() -> ExitCode {
    hand_over::own_program();
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Run) => run(),
        Ok(Invocation::Version) => print(&format!("{}\n", cli::version())),
        Ok(Invocation::Help) => print(&cli::help()),
        Ok(Invocation::Replay { file }) => replay::run(&file, &mut stdout()),
        Ok(Invocation::Doctor { json }) => examine(json),
        Ok(Invocation::Status { json }) => status::status(json),
        Ok(Invocation::CanTakeOver { schema }) => hand_over::question::answer(schema),
        Ok(Invocation::Health { ready }) => status::health(ready),
        Err(misused) => {
            eprintln!("{misused}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run() -> ExitCode {
    sys::process::harden();
    let history = restart::take_history();
    let state = match hand_over::take().transpose() {
        Ok(state) => state,
        Err(error) => {
            eprintln!("sindri-agent: cannot take over: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = match &state {
        Some(state) => Config::with_key(&state.api_key),
        None => Config::from_environment(),
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            unknown_variables().iter().for_each(|line| eprintln!("{line}"));
            hand_over::fallback::begin();
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Err(error) = logging::start(&config) {
        eprintln!("sindri-agent: logging cannot be started: {error}");
        hand_over::fallback::begin();
        return ExitCode::FAILURE;
    }
    // Before the first line, which starts a thread.
    if let Err(error) = scrub_key() {
        tracing::error!(%error, "the API key stays readable in this process's environment");
    }
    for warning in config.warnings.iter().chain(&unknown_variables()) {
        tracing::warn!("{warning}");
    }
    restart::on_panic(history, config.api_key.clone(), config.service.as_ref());
    let status = run_agent(config, history, state);
    // An end before the first turn.
    hand_over::fallback::begin();
    writer::flush_all(writer::FLUSH_TIMEOUT);
    status
}

fn run_agent(config: Config, history: PanicHistory, state: Option<State>) -> ExitCode {
    if let Err(error) = preflight::check(&config) {
        tracing::error!(%error, "the configuration cannot be used");
        return ExitCode::from(EXIT_CONFIG);
    }
    match agent::run(config, history, state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(agent::StartError::Proxy(error)) => {
            tracing::error!(%error, "the configuration cannot be used");
            ExitCode::from(EXIT_CONFIG)
        }
        Err(error) => {
            tracing::error!(%error, "failed to start");
            ExitCode::FAILURE
        }
    }
}

/// Runs `doctor` with the same protection of the key as the agent, because it starts a shell. Inlined into `main` it
/// would hold 100 KB of stack for as long as the agent lives.
#[inline(never)]
fn examine(json: bool) -> ExitCode {
    sys::process::harden();
    let config = Config::from_environment();
    if let Err(error) = scrub_key() {
        eprintln!("sindri-agent: the API key stays readable in this process's environment: {error}");
    }
    doctor::run(config, json)
}

/// Call it before the first thread: from here on no terminal of this user can read the key in /proc.
fn scrub_key() -> Result<(), sys::environment::ScrubError> {
    sys::environment::scrub(API_KEY_VARIABLE)
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    // It is no failure if the reader has closed the pipe.
    let _ = writeln!(stdout(), "{}", text.trim_end());
    ExitCode::SUCCESS
}
