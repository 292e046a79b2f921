//! Checks the files that the configuration names before the agent starts, so that a mistake shows at once.
//!
//! It changes no file. A file system that does not answer costs one log line: the agent starts and reads the file when
//! it needs it.

use crate::config::{Config, TerminalPolicy};
use crate::file_timeout;
use crate::link::{self, RootsFault};
use rustix::fs::{Access, access};
use std::io;
use std::path::{Path, PathBuf};

/// Checks the shell of terminals and, for a console with TLS, the file of certificates.
///
/// # Errors
/// The operator must correct the file of certificates; the agent cannot verify the console without it.
pub fn check(config: &Config) -> Result<(), RootsFault> {
    if config.terminal == TerminalPolicy::On {
        check_shell(&config.shell);
    }
    match config.ca_file.clone().filter(|_| config.console_url.is_tls()) {
        Some(path) => check_certificates(path),
        None => Ok(()),
    }
}

fn check_certificates(path: PathBuf) -> Result<(), RootsFault> {
    let name = path.clone();
    match file_timeout::run(move || Ok(link::check_ca_file(&path))) {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(file = %name.display(), %error, "SINDRI_AGENT_CA_FILE not readable; retrying at each connection");
            Ok(())
        }
    }
}

fn check_shell(shell: &Path) {
    let wanted = shell.to_owned();
    if let Err(error) = file_timeout::run(move || is_program(&wanted)) {
        let shell = shell.display();
        tracing::warn!(%shell, %error, "shell not executable; terminals will fail until SINDRI_AGENT_SHELL names another one");
    }
}

/// Whether this path, or a program of this name in a directory of `PATH`, is executable.
fn is_program(shell: &Path) -> io::Result<()> {
    if shell.components().count() > 1 {
        return is_executable(shell);
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&directories).any(|directory| is_executable(&directory.join(shell)).is_ok());
    if found { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn is_executable(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(path, Access::EXEC_OK)?)
}
