//! `sindri-agent doctor`: looks for what is wrong between this machine and its console, and says what to do about it.
//!
//! It mends nothing, writes no file and registers nothing. It goes the agent's own way, by its own code: the
//! configuration, the link's steps, the spawning of children, the metrics. It speaks to the console under an id that no
//! instance has, because a second connection under one id throws out the first, and an agent may be running.
//!
//! Each check is one line: its verdict, its name, and what was found and is to be done. A check that an earlier failure
//! makes pointless says so. Invariants: neither the key nor a proxy's credentials are printed; every check ends, each
//! step of the network within the deadline that the agent gives it.

mod console;
mod finding;
mod machine;

use crate::config::{Config, Problems, unknown_variables};
use crate::link::Target;
use finding::Sheet;
use futures_lite::future::block_on;
use smol::LocalExecutor;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

/// What `doctor` says after all checks have passed, if only with warnings.
const HEALTHY: u8 = 0;

/// What it says when a check has failed.
const FAULTY: u8 = 1;

/// Checks everything, prints it to standard output, and tells the exit status: 0, or 1 where a check has failed.
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
