//! Parses the command line, and prints `--help`.
//!
//! The environment configures the agent; `--help` prints the table of its variables. Any other argument is answered by
//! the usage and exit status 64. The man page and the completions of shells are made from the tables here
//! (`tests/manual.rs`).

use crate::config;
use crate::hand_over::question::ARGUMENT;
use crate::nearest::nearest;
use std::ffi::OsString;
use std::path::PathBuf;

/// Exit status for an invalid command line (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Exit status for an invalid configuration (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// The parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run the agent.
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
    /// Run the checks of `doctor`.
    Doctor {
        /// Print JSON.
        json: bool,
    },
    /// Ask the running agent for its status.
    Status {
        /// Print JSON.
        json: bool,
    },
    /// Asked by a running agent whether this program can take over the state on standard input.
    CanTakeOver {
        /// The schema of the state.
        schema: u32,
    },
    /// Ask whether the agent's loop turns.
    Health {
        /// Ask for the console, too: for how long it may be away, in seconds.
        ready: Option<u64>,
    },
}

/// An invalid command line. Its text names the unknown word and shows the usage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", unknown_word(.unknown.as_deref()), usage())]
pub struct Misused {
    /// The first unknown word; `None` if a known word is in the wrong place.
    unknown: Option<String>,
}

/// One way to call the program.
#[derive(Clone, Copy, Debug)]
pub struct Subcommand {
    /// The first word; empty for the call without arguments.
    pub word: &'static str,
    /// Other spellings of the first word.
    pub aliases: &'static [&'static str],
    /// What may follow.
    pub argument: Argument,
    /// What the program does, as a clause without a full stop.
    pub about: &'static str,
}

/// What may follow the first word of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// The path of a file, always.
    File,
    /// This option, or nothing.
    Option(&'static str),
    /// The first of these options, the first and the second with its value, or nothing.
    Options(&'static str, &'static str, &'static str),
}

/// All ways to call the program, in the order of the usage.
pub fn commands() -> &'static [Subcommand] {
    COMMANDS
}

const COMMANDS: &[Subcommand] = &[
    Subcommand {
        word: "",
        aliases: &[],
        argument: Argument::None,
        about: "run; the environment configures it (see --help)",
    },
    Subcommand {
        word: "replay",
        aliases: &[],
        argument: Argument::File,
        about: "run a recording through the state machine",
    },
    Subcommand {
        word: "doctor",
        aliases: &[],
        argument: Argument::Option("--json"),
        about: "check everything between this machine and the console",
    },
    Subcommand {
        word: "status",
        aliases: &[],
        argument: Argument::Option("--json"),
        about: "ask the running agent how it is",
    },
    Subcommand {
        word: "health",
        aliases: &[],
        argument: Argument::Options("--ready", "--max-offline", "SECONDS"),
        about: "exit 0 while the agent runs; with --ready only if the console is reached",
    },
    Subcommand { word: "--version", aliases: &["-V", "version"], argument: Argument::None, about: "print the version" },
    Subcommand {
        word: "--help",
        aliases: &["-h", "help"],
        argument: Argument::None,
        about: "print this and all variables",
    },
];

impl Subcommand {
    /// The call with its argument, as the usage shows it.
    pub fn synopsis(&self) -> String {
        let argument = match self.argument {
            Argument::None => String::new(),
            Argument::File => " <file>".to_owned(),
            Argument::Option(option) => format!(" [{option}]"),
            Argument::Options(first, second, value) => format!(" [{first} [{second} {value}]]"),
        };
        let space = if self.word.is_empty() { "" } else { " " };
        format!("sindri-agent{space}{}{argument}", self.word)
    }
}

/// All known words.
fn known_words() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().flat_map(|command| {
        let options = match command.argument {
            Argument::Option(option) => [option, ""],
            Argument::Options(first, second, _) => [first, second],
            Argument::None | Argument::File => [""; 2],
        };
        [command.word].into_iter().chain(command.aliases.iter().copied()).chain(options).filter(|word| !word.is_empty())
    })
}

fn unknown_word(unknown: Option<&str>) -> String {
    let Some(word) = unknown else { return String::new() };
    let meant = nearest(word, known_words()).map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    let word: String = word.chars().take(WORD_CHARACTERS_MAX).collect();
    format!("sindri-agent: {word:?} is not known{meant}\n")
}

/// How much of an unknown word is shown, in characters.
const WORD_CHARACTERS_MAX: usize = 40;

/// One line for each way to call the program.
fn usage() -> String {
    let synopses: Vec<String> = COMMANDS.iter().map(Subcommand::synopsis).collect();
    let width = synopses.iter().map(String::len).max().unwrap_or_default();
    let lines = COMMANDS.iter().zip(&synopses).map(|(command, synopsis)| {
        let also = match command.aliases {
            [] => String::new(),
            aliases => format!(" (also {})", aliases.join(", ")),
        };
        format!("{synopsis:width$}  {}{also}", command.about)
    });
    format!("usage: {}", lines.collect::<Vec<_>>().join("\n       "))
}

/// Parses the arguments without the program's name.
///
/// # Errors
/// They are invalid: print the usage and exit with [`EXIT_USAGE`].
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Misused> {
    let mut arguments = arguments.into_iter();
    // No command takes more than four arguments, so the rest is not read.
    let given: [Option<OsString>; 5] = std::array::from_fn(|_| arguments.next());
    let words =
        given.each_ref().map(|argument| argument.as_ref().map(|argument| argument.to_str().unwrap_or_default()));
    match words {
        [None, ..] => Ok(Invocation::Run),
        [Some("--version" | "-V" | "version"), None, ..] => Ok(Invocation::Version),
        [Some("--help" | "-h" | "help"), None, ..] => Ok(Invocation::Help),
        [Some("doctor"), None, ..] => Ok(Invocation::Doctor { json: false }),
        [Some("doctor"), Some("--json"), None, ..] => Ok(Invocation::Doctor { json: true }),
        [Some("status"), None, ..] => Ok(Invocation::Status { json: false }),
        [Some("status"), Some("--json"), None, ..] => Ok(Invocation::Status { json: true }),
        [Some("health"), None, ..] => Ok(Invocation::Health { ready: None }),
        [Some("health"), Some("--ready"), None, ..] => Ok(Invocation::Health { ready: Some(0) }),
        [Some("health"), Some("--ready"), Some("--max-offline"), Some(seconds), None] => match seconds.parse() {
            Ok(seconds) => Ok(Invocation::Health { ready: Some(seconds) }),
            Err(_) => Err(Misused { unknown: Some(seconds.to_owned()) }),
        },
        // No person asks this, so no usage shows it.
        [Some(ARGUMENT), Some(schema), None, ..] => match schema.parse() {
            Ok(schema) => Ok(Invocation::CanTakeOver { schema }),
            Err(_) => Err(Misused { unknown: Some(schema.to_owned()) }),
        },
        // A file whose name begins with a dash can be given as `./-name`.
        [Some("replay"), Some(word), None, ..] if !word.starts_with('-') => {
            let [_, file, ..] = given;
            let file = file.filter(|file| !file.is_empty()).ok_or(Misused { unknown: None })?;
            Ok(Invocation::Replay { file: file.into() })
        }
        [Some("replay"), Some(_), Some(_), ..] => Err(Misused { unknown: None }),
        words => {
            let unknown =
                words.into_iter().flatten().find(|word| !known_words().any(|known| known == *word)).map(str::to_owned);
            Err(Misused { unknown })
        }
    }
}

/// What `--version` prints, but for the end of the line: the version and, where it is known, the commit.
pub fn version() -> &'static str {
    concat!("sindri-agent ", env!("DRAUPNIR_VERSION"))
}

/// Every exit status of the agent but that of a second signal, with what it says.
pub const EXIT_STATUSES: [(u8, &str); 4] = [
    (0, "after a signal, once the agent has drained"),
    (1, "where it failed to start, or where status or health found no healthy agent"),
    (EXIT_USAGE, "for a wrong command line"),
    (EXIT_CONFIG, "for a wrong configuration"),
];

/// What the program does, for `--help` and the man page.
pub const SUMMARY: &str = "connects this machine to its console";

/// What `--help` prints.
pub fn help() -> String {
    format!(
        "{}: {SUMMARY}\n\n{}\n\nThe environment configures it:\n\n{}\n\
         Exit status: {}.",
        version(),
        usage(),
        config::help_table(),
        EXIT_STATUSES.map(|(status, about)| format!("{status} {about}")).join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Invocation, Misused> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_parsed() {
        assert_eq!(parsed(&[]), Ok(Invocation::Run));
        for word in ["--version", "-V", "version"] {
            assert_eq!(parsed(&[word]), Ok(Invocation::Version));
        }
        for word in ["--help", "-h", "help"] {
            assert_eq!(parsed(&[word]), Ok(Invocation::Help));
        }
        assert_eq!(parsed(&["replay", "a.jsonl"]), Ok(Invocation::Replay { file: "a.jsonl".into() }));
        assert_eq!(parsed(&["doctor"]), Ok(Invocation::Doctor { json: false }));
        assert_eq!(parsed(&["doctor", "--json"]), Ok(Invocation::Doctor { json: true }));
        assert_eq!(parsed(&["status", "--json"]), Ok(Invocation::Status { json: true }));
        for (words, ready) in [
            (&["health"][..], None),
            (&["health", "--ready"], Some(0)),
            (&["health", "--ready", "--max-offline", "90"], Some(90)),
        ] {
            assert_eq!(parsed(words), Ok(Invocation::Health { ready }));
        }
    }

    #[test]
    fn anything_else_is_a_mistake() {
        for words in [
            &["run"][..],
            &["-x"],
            &[""],
            &["--version", "--help"],
            &["replay"],
            &["replay", ""],
            &["replay", "a", "b"],
            &["doctor", "--xml"],
            &["doctor", "--json", "--json"],
            &["status", "--ready"],
            &["health", "--max-offline", "5"],
            &["health", "--ready", "--max-offline"],
            &["health", "--ready", "--max-offline", "soon"],
            &["health", "--ready", "--max-offline", "5", "6"],
        ] {
            let misused = parsed(words).expect_err("a mistake");
            assert!(misused.to_string().contains("usage:"), "{words:?}");
        }
    }

    #[test]
    fn unknown_word_names_the_nearest_known_one() {
        let text = |words: &[&str]| parsed(words).expect_err("a mistake").to_string();
        let first_line = |words| text(words).lines().next().unwrap_or_default().to_owned();
        assert_eq!(first_line(&["--verison"]), "sindri-agent: \"--verison\" is not known; did you mean --version?");
        assert_eq!(first_line(&["docter", "--json"]), "sindri-agent: \"docter\" is not known; did you mean doctor?");
        assert_eq!(first_line(&["doctor", "--jsn"]), "sindri-agent: \"--jsn\" is not known; did you mean --json?");
        assert_eq!(first_line(&["--frobnicate"]), "sindri-agent: \"--frobnicate\" is not known");
        assert!(first_line(&["--version", "--help"]).starts_with("usage:"));
        assert!(first_line(&["replay", "a", "b"]).starts_with("usage:"));
        assert_eq!(first_line(&["replay", "--hepl"]), "sindri-agent: \"--hepl\" is not known; did you mean --help?");
        assert!(first_line(&["replay", "--help"]).starts_with("usage:"));
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
