//! The local lock on commands: what the machine's owner lets the console run, which no message can change.
//!
//! It knows programs by their exact absolute paths and nothing of shell lines: a prefix of a line is no boundary. A
//! listed program gets arguments from the console and nothing else: a variable (`BASH_ENV`, `LD_PRELOAD`), an input or
//! another directory can make it do what is not its own. The path is compared, not what it leads to: a list may name a
//! symbolic link, and a user who may write to a listed file or its directory decides what it is.

use crate::config::{CommandPolicy, Config};
use crate::file_timeout;
use crate::protocol::Dispatch;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// The longest list that is read, in bytes. A longer one is refused: cut short, its last line would be another path.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// What may run.
#[derive(Debug)]
pub(super) enum Policy {
    Everything,
    Nothing,
    /// These programs, in order, dispatched with arguments and nothing else.
    Listed(Vec<String>),
    /// Nothing: the list cannot be used.
    Unusable,
}

impl Policy {
    /// Reads the list, if one is configured. A list that cannot be read lets nothing run.
    pub(super) fn new(config: &Config) -> Self {
        match &config.commands {
            CommandPolicy::On => Self::Everything,
            CommandPolicy::Off => Self::Nothing,
            CommandPolicy::Allow(file) => read_in_time(file).map_or_else(
                |error| {
                    let file = file.display();
                    tracing::error!(%file, %error, "the list of allowed programs cannot be used: no command will be run");
                    Self::Unusable
                },
                Self::Listed,
            ),
        }
    }

    /// Why this instance does not run such a command, whatever the console says.
    pub(super) fn refuses(&self, dispatch: &Dispatch) -> Option<&'static str> {
        match self {
            Self::Everything => None,
            Self::Nothing => Some("this instance runs no commands (SINDRI_AGENT_COMMANDS=off)"),
            Self::Unusable => {
                Some("this instance's list of programs cannot be used, as its log says (SINDRI_AGENT_COMMANDS=allow)")
            }
            Self::Listed(_) if dispatch.args.is_empty() => {
                Some("this instance runs no shell lines, only listed programs with args (SINDRI_AGENT_COMMANDS=allow)")
            }
            Self::Listed(_)
                if !dispatch.env.is_empty() || dispatch.script.is_some() || dispatch.working_dir.is_some() =>
            {
                Some("a listed program gets no variables, input or directory (SINDRI_AGENT_COMMANDS=allow)")
            }
            Self::Listed(programs) => programs
                .binary_search(&dispatch.command)
                .is_err()
                .then_some("this program is not on this instance's list (SINDRI_AGENT_COMMANDS=allow)"),
        }
    }
}

/// Reads the list within the time limit of a file.
fn read_in_time(file: &Path) -> io::Result<Vec<String>> {
    let file = file.to_owned();
    file_timeout::run(move || read(&file))
}

/// One absolute path a line; blank lines and lines that begin with `#` are passed over.
fn read(file: &Path) -> io::Result<Vec<String>> {
    let mut text = String::new();
    File::open(file)?.take(LIST_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIST_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {} MiB", LIST_BYTES_MAX >> 20)));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut programs, others): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with('/'));
    if !others.is_empty() {
        let ignored = others.len();
        tracing::warn!(file = %file.display(), ignored, "lines that are no absolute path were ignored");
    }
    programs.sort_unstable();
    Ok(programs.into_iter().map(str::to_owned).collect())
}
