//! The command line: what the agent was asked to do, and what `--help` says.
//!
//! It configures nothing: that is the environment's part, whose table it prints. Anything that is not below is a
//! mistake, answered by the usage and exit status 64.

use crate::config;
use std::ffi::OsString;
use std::path::PathBuf;

/// Exit status for a command line that is not understood (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Exit status for a configuration that cannot be used (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// What the agent was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Be the agent.
    Run,
    /// Print the version.
    Version,
    /// Print the help.
    Help,
    /// Run a recording through the machine.
    Replay {
        /// The recording.
        file: PathBuf,
    },
    /// Look for what is wrong.
    Doctor {
        /// Print JSON.
        json: bool,
    },
}

/// A command line that is not understood. It prints as the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{USAGE}")]
pub struct Misused;

const USAGE: &str = "\
usage: sindri-agent                  run; the environment configures it (see --help)
       sindri-agent replay <file>    run a recording through the state machine
       sindri-agent doctor [--json]  check everything between this machine and the console
       sindri-agent --version
       sindri-agent --help";

/// Reads the arguments, the program's name not among them.
///
/// # Errors
/// They are not understood: usage and [`EXIT_USAGE`] are due.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Misused> {
    let mut arguments = arguments.into_iter();
    // Nothing takes more than two: the rest need not even be read.
    let given = [arguments.next(), arguments.next(), arguments.next()];
    let words =
        given.each_ref().map(|argument| argument.as_ref().map(|argument| argument.to_str().unwrap_or_default()));
    match words {
        [None, ..] => Ok(Invocation::Run),
        [Some("--version"), None, _] => Ok(Invocation::Version),
        [Some("--help"), None, _] => Ok(Invocation::Help),
        [Some("doctor"), None, _] => Ok(Invocation::Doctor { json: false }),
        [Some("doctor"), Some("--json"), None] => Ok(Invocation::Doctor { json: true }),
        [Some("replay"), Some(_), None] => {
            let [_, file, _] = given;
            file.filter(|file| !file.is_empty()).map(|file| Invocation::Replay { file: file.into() }).ok_or(Misused)
        }
        _ => Err(Misused),
    }
}

/// What `--version` prints, but for the end of the line: the version and, where it is known, the commit.
pub fn version() -> &'static str {
    concat!("sindri-agent ", env!("DRAUPNIR_VERSION"))
}

/// What `--help` prints.
pub fn help() -> String {
    format!(
        "{}: connects this machine to its console\n\n{USAGE}\n\nThe environment configures it:\n\n{}\n\
         Exit status: 0 after SIGTERM or SIGINT, {EXIT_USAGE} for a wrong command line, {EXIT_CONFIG} for a wrong \
         configuration.",
        version(),
        config::help_table(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Invocation, Misused> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn what_is_understood() {
        assert_eq!(parsed(&[]), Ok(Invocation::Run));
        assert_eq!(parsed(&["--version"]), Ok(Invocation::Version));
        assert_eq!(parsed(&["--help"]), Ok(Invocation::Help));
        assert_eq!(parsed(&["replay", "a.jsonl"]), Ok(Invocation::Replay { file: "a.jsonl".into() }));
        assert_eq!(parsed(&["doctor"]), Ok(Invocation::Doctor { json: false }));
        assert_eq!(parsed(&["doctor", "--json"]), Ok(Invocation::Doctor { json: true }));
    }

    #[test]
    fn anything_else_is_a_mistake() {
        for words in [
            &["run"][..],
            &["-h"],
            &[""],
            &["--version", "--help"],
            &["replay"],
            &["replay", ""],
            &["replay", "a", "b"],
            &["doctor", "--xml"],
            &["doctor", "--json", "--json"],
        ] {
            assert_eq!(parsed(words), Err(Misused), "{words:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_may_have_any_name() {
        use std::os::unix::ffi::OsStringExt;
        let file = OsString::from_vec(b"\xff".to_vec());
        assert_eq!(parse(["replay".into(), file.clone()]), Ok(Invocation::Replay { file: file.into() }));
    }

    #[test]
    fn the_help_names_every_variable() {
        for variable in config::table() {
            assert!(help().contains(variable.name), "{}", variable.name);
        }
    }
}
