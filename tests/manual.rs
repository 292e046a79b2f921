//! The man page and the completions of shells in `extension/packages` are those of the tables behind `--help`.
//!
//! `DRAUPNIR_WRITE_MANUAL=1 cargo test --test e2e manual::` writes them; commit what it writes.

use draupnir::cli::{Argument, EXIT_STATUSES, SUMMARY, Subcommand, commands};
use draupnir::config::table;
use std::path::Path;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/extension/packages");

/// Stands at the head of each file, behind the mark of a comment.
const ORIGIN: &str = "Written by tests/manual.rs from the tables behind --help; change those.";

#[test]
fn man_page_and_completions_equal_the_tables() {
    let files = [
        ("sindri-agent.1", man_page()),
        ("sindri-agent.bash", bash_completion()),
        ("sindri-agent.zsh", zsh_completion()),
        ("sindri-agent.fish", fish_completion()),
    ];
    for (name, expected) in files {
        assert!(expected.is_ascii(), "{name} has letters that not every reader of man pages shows");
        let path = Path::new(FOLDER).join(name);
        if std::env::var_os("DRAUPNIR_WRITE_MANUAL").is_some() {
            std::fs::write(&path, &expected).expect("the folder is writable");
        }
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            present == expected,
            "extension/packages/{name} is out of date; the head of this file says how to write it"
        );
    }
}

#[test]
fn roff_escapes_what_a_formatter_would_read() {
    assert_eq!(roff("`a-b`, `$X` or ~/.c"), r"\fBa\-b\fP, \fB$X\fP or \(ti/.c");
    assert_eq!(roff(".x\\y"), r"\&.x\ey");
    assert_eq!(roff("1\u{2013}100"), r"1\(en100");
}

/// Most columns of a line in the man page's source, in bytes: those of every text here.
const SOURCE_COLUMNS: usize = 110;

/// A text of the tables as lines of roff: code in bold, every letter as itself.
fn roff(text: &str) -> String {
    let mut line = String::new();
    let mut is_code = false;
    for letter in text.chars() {
        match letter {
            '`' => {
                is_code = !is_code;
                line.push_str(if is_code { r"\fB" } else { r"\fP" });
            }
            '\\' => line.push_str(r"\e"),
            '-' => line.push_str(r"\-"),
            '~' => line.push_str(r"\(ti"),
            '\u{2013}' => line.push_str(r"\(en"),
            other => line.push(other),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match lines.last_mut() {
            Some(last) if last.len() + 1 + word.len() <= SOURCE_COLUMNS => {
                last.push(' ');
                last.push_str(word);
            }
            // A dot or a quote at the head of a line would be a request.
            Some(_) | None if word.starts_with(['.', '\'']) => lines.push(format!(r"\&{word}")),
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn man_page() -> String {
    let mut page = format!(
        ".\\\" {ORIGIN}\n.TH SINDRI\\-AGENT 1 \"\" Draupnir \"User Commands\"\n.SH NAME\nsindri\\-agent \\- {}\n.SH SYNOPSIS\n",
        roff(SUMMARY)
    );
    let synopses: Vec<String> = commands().iter().map(|command| roff(&command.synopsis())).collect();
    page.push_str(&synopses.join("\n.br\n"));
    page.push_str(
        "\n.SH DESCRIPTION\n\
         The agent keeps one WebSocket open to the console and gives it heartbeats, metrics, terminals, commands and\n\
         events of this machine. Environment variables alone configure it. Two of them are required:\n\
         .B SINDRI_CONSOLE_URL\nand\n.BR SINDRI_CONSOLE_API_KEY .\n\
         .SH COMMANDS\n",
    );
    for Subcommand { word, aliases, about, .. } in commands() {
        let name = if word.is_empty() { r"\fR(no argument)\fP".to_owned() } else { roff(word) };
        let also = match aliases {
            [] => String::new(),
            _ => format!(" (also {})", roff(&aliases.join(", "))),
        };
        page.push_str(&format!(".TP\n.B {name}\n{}{also}\n", roff(about)));
    }
    page.push_str(".SH ENVIRONMENT\n");
    for variable in table() {
        let remark = match (variable.is_required, variable.default) {
            (true, _) => " (required)".to_owned(),
            (false, "") => String::new(),
            (false, default) => format!(" (default: {})", roff(default)),
        };
        page.push_str(&format!(".TP\n\\fB{}\\fP{remark}\n{}\n", variable.name, roff(variable.about)));
    }
    page.push_str(".SH EXIT STATUS\n");
    for (status, about) in EXIT_STATUSES {
        page.push_str(&format!(".TP\n.B {status}\n{}\n", roff(about)));
    }
    page.push_str(
        ".TP\n.B 128 + N\nafter a second SIGTERM, SIGINT or SIGQUIT, at once; N is the signal\n\
         .SH FILES\n\
         .TP\n.I /etc/sindri\\-agent.env\nthe environment of the services, mode 0600: it holds the key\n\
         .TP\n.I /var/lib/sindri\\-agent\nthe state of the services: the id that each console gave\n\
         .SH SEE ALSO\n\
         .BR systemd.exec (5),\nhttps://github.com/pacphi/draupnir\n",
    );
    page
}

/// The first words that a shell offers: no aliases.
fn first_words() -> Vec<&'static str> {
    commands().iter().map(|command| command.word).filter(|word| !word.is_empty()).collect()
}

fn bash_completion() -> String {
    let mut script = format!(
        "# shellcheck shell=bash\n# {ORIGIN}\n_sindri_agent() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}}\n    \
         COMPREPLY=()\n    case $COMP_CWORD:${{COMP_WORDS[1]}} in\n    \
         1:*) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\") ;;\n",
        first_words().join(" ")
    );
    for command in commands() {
        let offer = match command.argument {
            Argument::None => continue,
            Argument::File => "-f".to_owned(),
            Argument::Option(option) | Argument::Options(option, ..) => format!("-W '{option}'"),
        };
        let options = if command.argument == Argument::File { "compopt -o filenames; " } else { "" };
        script.push_str(&format!(
            "    2:{}) {options}mapfile -t COMPREPLY < <(compgen {offer} -- \"$word\") ;;\n",
            command.word
        ));
    }
    script + "    esac\n}\ncomplete -F _sindri_agent sindri-agent draupnir\n"
}

fn zsh_completion() -> String {
    let mut script = format!("#compdef sindri-agent draupnir\n# {ORIGIN}\nlocal -a calls=(\n");
    for command in commands().iter().filter(|command| !command.word.is_empty()) {
        script.push_str(&format!("  '{}:{}'\n", command.word, command.about));
    }
    script.push_str(")\nif (( CURRENT == 2 )); then\n  _describe command calls\n  return\nfi\n");
    script.push_str("(( CURRENT == 3 )) || return 1\ncase $words[2] in\n");
    for command in commands() {
        match command.argument {
            Argument::None => {}
            Argument::File => script.push_str(&format!("  {}) _files ;;\n", command.word)),
            Argument::Option(option) | Argument::Options(option, ..) => {
                script.push_str(&format!("  {}) compadd -- {option} ;;\n", command.word));
            }
        }
    }
    script + "esac\n"
}

fn fish_completion() -> String {
    let mut script = format!(
        "# {ORIGIN}\n# Whether so many words stand before the cursor, and the second is this one.\n\
         function __sindri_agent_at\n    set -l words (commandline -opc)\n    \
         test (count $words) = $argv[1] -a \"$words[2]\" = \"$argv[2]\"\nend\n\
         complete -c sindri-agent -f\ncomplete -c draupnir -w sindri-agent\n"
    );
    let first = "complete -c sindri-agent -n '__sindri_agent_at 1'";
    for command in commands().iter().filter(|command| !command.word.is_empty()) {
        let (word, about) = (command.word, command.about);
        script.push_str(&format!("{first} -a '{word}' -d '{about}'\n"));
        let second = format!("complete -c sindri-agent -n '__sindri_agent_at 2 {word}'");
        match command.argument {
            Argument::None => {}
            Argument::File => script.push_str(&format!("{second} -F\n")),
            Argument::Option(option) | Argument::Options(option, ..) => {
                script.push_str(&format!("{second} -a '{option}'\n"));
            }
        }
    }
    script
}
