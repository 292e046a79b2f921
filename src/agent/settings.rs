//! The settings of each module, from the configuration.

use crate::command::CommandSettings;
use crate::config::{Config, LogPolicy};
use crate::logs::LogRoot;
use crate::logs::journald::JOURNALD;
use crate::logs::root::Root;
use crate::sys::environment::Environment;
use crate::terminal::TerminalSettings;
use std::path::{Path, PathBuf};

/// The variables of the agent that no child may see.
pub(super) const SECRETS: &[&str] = &[crate::config::API_KEY_VARIABLE];

pub(super) fn terminals(config: &Config) -> TerminalSettings {
    TerminalSettings {
        shell: config.shell.clone().into_os_string(),
        home: config.home.clone(),
        secrets: SECRETS.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub(super) fn commands(config: &Config) -> CommandSettings {
    CommandSettings {
        environment: Environment::inherited(SECRETS),
        home: config.home.clone().unwrap_or_else(|| PathBuf::from("/")),
    }
}

/// Where logs are, in the order of precedence.
pub(super) fn log_roots(config: &Config) -> Vec<LogRoot> {
    match &config.logs {
        LogPolicy::Off => Vec::new(),
        LogPolicy::On(paths) => {
            let of_home = config.home.as_deref().filter(|home| !is_served(home)).map(Root::of_home);
            let named = paths.iter().filter_map(|path| match path.as_str() {
                JOURNALD => Some(LogRoot::Journald(Environment::inherited(SECRETS))),
                path => Root::configured(path).map(LogRoot::Files),
            });
            of_home.map(LogRoot::Files).into_iter().chain(named).collect()
        }
    }
}

/// Whether a file system that may never answer holds this directory: a process with a thread in it does not end. An
/// operator who wants its logs names them.
fn is_served(home: &Path) -> bool {
    let is_served = crate::metrics::is_path_served(home);
    if is_served {
        tracing::info!(home = %home.display(), "logs of Sindri not followed: another machine or a program serves the home directory");
    }
    is_served
}
