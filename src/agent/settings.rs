//! What each module is told of the configuration.

use crate::command;
use crate::config::Config;
use crate::link::{Key, Scheme, Target};
use crate::sys::environment::Environment;
use crate::terminal;
use std::path::PathBuf;

/// The variables of the agent that no child may see.
pub(super) const SECRETS: &[&str] = &["SINDRI_CONSOLE_API_KEY"];

pub(super) fn target(config: &Config) -> Target {
    let url = &config.console_url;
    Target {
        scheme: if url.is_tls() { Scheme::Tls } else { Scheme::Plain },
        host: url.host().to_owned(),
        port: url.port(),
        prefix: url.path("").trim_end_matches('/').to_owned(),
        key: Key::new(config.api_key.expose()),
        ca_file: config.ca_file.clone(),
    }
}

pub(super) fn terminals(config: &Config) -> terminal::Settings {
    terminal::Settings {
        shell: Some(config.shell.clone().into_os_string()),
        secrets: SECRETS.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub(super) fn commands(config: &Config) -> command::Settings {
    command::Settings {
        environment: Environment::inherited(SECRETS),
        home: config.home.clone().unwrap_or_else(|| PathBuf::from("/")),
    }
}
