//! The settings of each module, from the configuration.

use crate::command::CommandSettings;
use crate::config::Config;
use crate::sys::environment::Environment;
use crate::terminal::TerminalSettings;
use std::path::PathBuf;

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
