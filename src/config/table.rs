//! The variables in one place: what `--help` prints and the README holds.
//!
//! It describes and does not read; a test compares the two halves.

/// One environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name, or several that belong together.
    pub name: &'static str,
    /// Whether the agent does not start without it.
    pub is_required: bool,
    /// What stands in for it; empty where nothing does.
    pub default: &'static str,
    /// What it says.
    pub about: &'static str,
}

/// All of them, in the order in which an operator meets them.
pub fn table() -> &'static [Variable] {
    TABLE
}

/// The table as it stands in the README.
pub fn markdown_table() -> String {
    let mut text = String::from("| variable | required | default | |\n|---|---|---|---|\n");
    for Variable { name, is_required, default, about } in TABLE {
        let required = if *is_required { "yes" } else { "no" };
        let default = if default.is_empty() { "–" } else { default };
        text.push_str(&format!("| `{name}` | {required} | {default} | {about} |\n"));
    }
    text
}

/// The table as it stands in `--help`: names, then what they say, in plain text.
pub fn help_table() -> String {
    let mut text = String::new();
    for Variable { name, is_required, default, about } in TABLE {
        let remark = match (is_required, default.is_empty()) {
            (true, _) => " (required)".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!(" (default: {})", default.replace('`', "")),
        };
        text.push_str(&format!("  {name}{remark}\n"));
        for line in wrapped(&about.replace('`', ""), HELP_COLUMNS) {
            text.push_str(&format!("      {line}\n"));
        }
    }
    text
}

/// Width of the descriptions in `--help`, in characters: fits a terminal of 80 with its indent.
const HELP_COLUMNS: usize = 72;

/// Breaks a text into lines between words.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

const fn required(name: &'static str, about: &'static str) -> Variable {
    Variable { name, is_required: true, default: "", about }
}

const fn optional(name: &'static str, default: &'static str, about: &'static str) -> Variable {
    Variable { name, is_required: false, default, about }
}

const TABLE: &[Variable] = &[
    required(
        "SINDRI_CONSOLE_URL",
        "http or https; a path prefix is kept, trailing slashes are dropped; user name, password, query and fragment \
         are refused",
    ),
    required(
        "SINDRI_CONSOLE_API_KEY",
        "the key of this instance: visible ASCII characters; surrounding white space is dropped",
    ),
    optional("SINDRI_INSTANCE_ID", "host name", "1–100 visible ASCII characters"),
    optional(
        "SINDRI_PROVIDER",
        "detected, else none",
        "`fly`, `docker`, `k8s`, `e2b`, `devpod`, `ssh` or another that the console knows; others are passed on in lower case with a warning",
    ),
    optional("SINDRI_REGION", "detected, else none", "1–64 visible ASCII characters"),
    optional(
        "SINDRI_AGENT_HEARTBEAT",
        "`30`",
        "longest time between heartbeats in seconds, fractions allowed, 0.05–86400",
    ),
    optional("SINDRI_AGENT_METRICS", "`60`", "longest time between metrics in seconds, fractions allowed, 0.05–86400"),
    optional(
        "SINDRI_AGENT_TAGS",
        "",
        "`key=value` pairs with commas between them; a value may hold `=`; a pair without one is an error",
    ),
    optional("SINDRI_AGENT_SHELL", "`$SHELL`, `/bin/bash`, `/bin/sh`", "the shell of terminals that ask for none"),
    optional(
        "SINDRI_AGENT_STATE_DIR",
        "`$XDG_STATE_HOME/sindri-agent`, else `~/.local/state/sindri-agent`",
        "where to remember which id which console gave and which extension events were sent; if it cannot be written, the agent warns once and goes on",
    ),
    optional("SINDRI_AGENT_CA_FILE", "", "certificates (PEM) of a private authority to trust beside the others"),
    optional("SINDRI_AGENT_TERMINAL", "`on`", "`off`: no terminal is ever opened, whatever the console says"),
    optional(
        "SINDRI_AGENT_COMMANDS",
        "`on`",
        "`off`: no command is ever run; `allow:<file>`: only programs that the file lists by absolute path, one a \
         line, and never a shell line",
    ),
    optional(
        "SINDRI_AGENT_AUDIT",
        "",
        "a file for one JSON line per terminal and command; while it cannot be written, none is opened or run",
    ),
    optional(
        "SINDRI_AGENT_RECORD",
        "",
        "a file for facts and orders, to be replayed; without secrets or output; that of the life before is kept as `<file>.previous`",
    ),
    optional("SINDRI_LOG_LEVEL", "`info`", "`debug`, `info`, `warn`, `error`"),
    optional(
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "",
        "which proxy to use for which console; in lower case, too, which then counts",
    ),
    optional(
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "the machine's own",
        "where the certificates of public authorities are; Mozilla's are built in where the machine has none",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_fits_a_terminal() {
        assert!(help_table().lines().all(|line| line.chars().count() <= 130));
        assert!(TABLE.iter().all(|variable| help_table().contains(variable.name)));
        assert_eq!(wrapped("a bc d", 4), ["a bc", "d"]);
    }

    #[test]
    fn no_cell_breaks_the_table() {
        let columns: Vec<usize> = markdown_table().lines().map(|line| line.matches('|').count()).collect();
        assert!(columns.iter().all(|count| *count == 5), "{columns:?}");
    }
}
