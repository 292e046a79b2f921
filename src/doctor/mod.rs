//! `sindri-agent doctor`: finds faults between this machine and its console and says how to mend each.
//!
//! It changes nothing, writes no file and registers nothing. It runs the agent's own code: the configuration, the
//! link's steps, the spawning of children, the metrics. It connects under an id that no instance has: a second
//! connection under one id ends the first, and an agent may be running.
//!
//! Each check prints one line: its verdict, its name, what was found and what to do. A check that needs a failed one is
//! skipped. Invariants: it prints neither the key nor a proxy's credentials; every check ends, each step of the
//! network within the agent's own deadline.

mod console;
mod finding;
mod llm;
mod machine;

use crate::config::{Config, Problems, unknown_variables};
use crate::link::Target;
use finding::Sheet;
use futures_lite::future::block_on;
use smol::LocalExecutor;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

/// The exit status if no check has failed; warnings do not count.
const HEALTHY: u8 = 0;

/// The exit status if a check has failed.
const FAULTY: u8 = 1;

/// Runs all checks, prints them to standard output and returns the exit status: 0, or 1 if a check has failed.
pub fn run(config: Result<Config, Problems>, json: bool) -> ExitCode {
    let mut sheet = Sheet::new(json, io::stdout());
    match config {
        Ok(config) => check(&config, &mut sheet),
        Err(problems) => {
            problems.iter().for_each(|problem| sheet.fail("configuration", problem.to_string()));
            unknown_variables().into_iter().for_each(|line| sheet.warn("configuration", line));
        }
    }
    ExitCode::from(if sheet.finish() { HEALTHY } else { FAULTY })
}

fn check(config: &Config, sheet: &mut Sheet) {
    let executor = Rc::new(LocalExecutor::new());
    let target = Target::of(config);
    configuration(config, target.as_ref().ok(), sheet);
    block_on(executor.run(async {
        machine::check(config, sheet).await;
        llm::check(config, sheet);
        match target {
            Ok(target) => console::check(target, Rc::clone(&executor), sheet).await,
            Err(error) => {
                sheet.fail("proxy", error.to_string());
                console::skip(config.console_url.is_tls(), sheet);
            }
        }
    }));
}

fn configuration(config: &Config, target: Option<&Target>, sheet: &mut Sheet) {
    let (url, id) = (&config.console_url, &config.instance_id);
    let provider = config.provider.as_deref().unwrap_or("none");
    sheet.ok("configuration", format!("console {url}, instance id {id}, provider {provider}"));
    for warning in config.warnings.iter().cloned().chain(unknown_variables()) {
        sheet.warn("configuration", warning);
    }
    if target.is_some_and(Target::exposes_key) {
        let text = format!("the API key travels to {} in clear text, where others can read it: use https", url.host());
        sheet.warn("clear text", text);
    }
}
