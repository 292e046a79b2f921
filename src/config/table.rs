//! The variables in one place: what `--help` prints and the README holds.
//!
//! A test checks that it lists the variables that `reader` reads.

use super::API_KEY_VARIABLE;
use crate::nearest::nearest;

/// One environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name, or several that belong together.
    pub name: &'static str,
    /// Whether the agent does not start without it.
    pub is_required: bool,
    /// The default; empty if there is none.
    pub default: &'static str,
    /// What it sets.
    pub about: &'static str,
}

/// All variables, in the order of `--help` and the README.
pub fn table() -> &'static [Variable] {
    TABLE
}

/// Most unknown names that are reported.
const UNKNOWN_MAX: usize = 8;

/// One warning for each name that begins with `SINDRI_AGENT_` or nearly equals a variable of the agent, and is not one.
/// All other names with `SINDRI_` belong to Sindri.
pub(super) fn unknown(names: impl Iterator<Item = String>) -> Vec<String> {
    let names_known = TABLE.iter().flat_map(|row| row.name.split(", "));
    let known: Vec<&str> = names_known.filter(|name| name.starts_with("SINDRI_")).collect();
    let mut lines: Vec<String> = names
        .filter(|name| !known.contains(&name.as_str()))
        .filter_map(|name| {
            let meant = nearest(&name, known.iter().copied());
            let is_ours = meant.is_some() || name.starts_with("SINDRI_AGENT_");
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            is_ours.then(|| format!("{} is not a variable of the agent and is ignored{meant}", name.escape_debug()))
        })
        .collect();
    lines.sort_unstable();
    lines.truncate(UNKNOWN_MAX);
    lines
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
    required(API_KEY_VARIABLE, "the key of this instance: visible ASCII characters without blanks"),
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
        "directory for the id that each console gave and for the journal; if it is not writable, the agent warns once and goes on",
    ),
    optional(
        "SINDRI_AGENT_JOURNAL",
        "`on`",
        "`off`: keep neither results nor ids of commands in the state directory: a crash loses them, and commands that are \
         dispatched again run again; extensions that change while no agent runs are not reported",
    ),
    optional(
        "SINDRI_AGENT_CA_FILE",
        "",
        "file of further certificates to trust (PEM): of a private authority, or the console's own self-signed one",
    ),
    optional("SINDRI_AGENT_TERMINAL", "`on`", "`off`: the agent opens no terminal, whatever the console sends"),
    optional(
        "SINDRI_AGENT_COMMANDS",
        "`on`",
        "`off`: the agent runs no command; `allow:<file>`: only programs that the file lists by absolute path, one a \
         line, and no shell line",
    ),
    optional(
        "SINDRI_AGENT_AUDIT",
        "",
        "file for one JSON line per terminal and command; while it is not writable, the agent refuses both",
    ),
    optional(
        "SINDRI_AGENT_LOGS",
        "`~/.sindri/logs/**/*.log`",
        "further logs that the console may ask for: absolute paths and patterns (`*`, `?`, `**`) with commas between \
         them, at most 15, and `journald` for the system's journal; no component of a path may be a link; `off`: no \
         logs at all, whatever the console sends",
    ),
    optional(
        "SINDRI_AGENT_LOG_RATE",
        "`500`",
        "lines of logs a second that the agent sends on average, 1–100000; ten seconds of it at once; the others wait \
         in their files; `off`: no limit",
    ),
    optional(
        "SINDRI_AGENT_RECORD",
        "",
        "file for a recording of facts and orders, to replay later; it holds no secret and no output; the recording of the previous start is kept as `<file>.previous`",
    ),
    optional(
        "SINDRI_AGENT_TEXTFILE",
        "",
        "file for the metrics and the agent's own figures as OpenMetrics, replaced with each sample, for the textfile \
         collector of node_exporter: its name must end in `.prom`, and its directory must exist",
    ),
    optional(
        "SINDRI_AGENT_LOG_MAX",
        "",
        "size in bytes (at least 4096) at which the agent renames its log file, which is standard error, to `<file>.1`; \
         default: 8 MiB for `~/.sindri/logs/draupnir.log`, no limit for other files",
    ),
    optional(
        "SINDRI_LLM_ADAPTER",
        "`auto`",
        "whether to count the tokens of AI tools: `auto` listens where `ANTHROPIC_BASE_URL`, `OPENAI_BASE_URL` or their \
         like point at this machine; `proxy` always; `none` never; `ebpf` means `proxy`",
    ),
    optional(
        "SINDRI_LLM_PROXY_PORT",
        "`9090`",
        "the port of the proxy, on loopback alone; for `auto`, the URLs name it",
    ),
    optional(
        "SINDRI_LLM_REPORT_INTERVAL",
        "`30`",
        "longest time until usage is reported in seconds, fractions allowed, 0.05–86400",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_ANTHROPIC",
        "`https://api.anthropic.com`",
        "where Anthropic is; another address is that of a gateway",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_OPENAI",
        "`https://api.openai.com`",
        "where OpenAI is; another address is that of a gateway",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_GOOGLE",
        "`https://generativelanguage.googleapis.com`",
        "where Google is; another address is that of a gateway",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_GROQ",
        "`https://api.groq.com`",
        "where Groq is; another address is that of a gateway",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_MISTRAL",
        "`https://api.mistral.ai`",
        "where Mistral is; another address is that of a gateway",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_COHERE",
        "`https://api.cohere.com`",
        "where Cohere is; another address is that of a gateway",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_TOGETHER",
        "`https://api.together.xyz`",
        "where Together is; another address is that of a gateway",
    ),
    optional("SINDRI_LLM_UPSTREAM_XAI", "`https://api.x.ai`", "where xAI is; another address is that of a gateway"),
    optional(
        "SINDRI_LLM_UPSTREAM_AZURE",
        "",
        "where the models of your Azure OpenAI resource are; without it, requests for them get 502",
    ),
    optional(
        "SINDRI_LLM_UPSTREAM_OLLAMA",
        "`http://localhost:11434`",
        "where Ollama is; another address is that of a gateway",
    ),
    optional("SINDRI_LOG_LEVEL", "`info`", "`debug`, `info`, `warn`, `error`"),
    optional(
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "",
        "the proxy for the console; a name in lower case takes precedence",
    ),
    optional(
        "ANTHROPIC_BASE_URL, OPENAI_BASE_URL, GOOGLE_API_BASE_URL, GROQ_BASE_URL",
        "",
        "where AI tools look for their providers: read to see whether they are pointed at this machine",
    ),
    optional("MISTRAL_BASE_URL, CO_API_URL, TOGETHER_API_BASE, AZURE_OPENAI_ENDPOINT", "", "likewise"),
    optional(
        "XDG_RUNTIME_DIR, NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
        "",
        "set by systemd: where the status socket is if the state directory is not writable; where the service manager \
         hears that the agent is ready and alive",
    ),
    optional(
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "the machine's own",
        "certificates of public authorities; if the machine has none, the agent uses Mozilla's, which are built in",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_fit_a_terminal() {
        assert!(help_table().lines().all(|line| line.chars().count() <= 130));
        assert!(TABLE.iter().all(|variable| help_table().contains(variable.name)));
        assert_eq!(wrapped("a bc d", 4), ["a bc", "d"]);
    }

    #[test]
    fn unknown_name_is_reported_with_the_nearest_known_one() {
        let lines = |names: &[&str]| unknown(names.iter().map(|name| (*name).to_owned()));
        let ours: Vec<&str> = TABLE.iter().flat_map(|row| row.name.split(", ")).collect();
        assert_eq!(lines(&ours), [""; 0]);
        let of_sindri = [
            "SINDRI_LLM_ADAPTER",
            "SINDRI_LLM_PROXY_PORT",
            "SINDRI_LLM_REPORT_INTERVAL",
            "SINDRI_SCRIPT_B64",
            "SINDRI_VALIDATION_TIMEOUT",
            "PATH",
        ];
        assert_eq!(lines(&of_sindri), [""; 0]);
        assert_eq!(
            lines(&["SINDRI_CONSOLE_URI", "SINDRI_AGENT_HEARBEAT", "SINDRI_AGENT_COLOR", "sindri_log_level"]),
            [
                "SINDRI_AGENT_COLOR is not a variable of the agent and is ignored",
                "SINDRI_AGENT_HEARBEAT is not a variable of the agent and is ignored; did you mean SINDRI_AGENT_HEARTBEAT?",
                "SINDRI_CONSOLE_URI is not a variable of the agent and is ignored; did you mean SINDRI_CONSOLE_URL?",
                "sindri_log_level is not a variable of the agent and is ignored; did you mean SINDRI_LOG_LEVEL?",
            ]
        );
        let many: Vec<String> = (0..100).map(|number| format!("SINDRI_AGENT_{number}")).collect();
        assert_eq!(unknown(many.into_iter()).len(), UNKNOWN_MAX);
    }

    #[test]
    fn no_cell_breaks_the_table() {
        let columns: Vec<usize> = markdown_table().lines().map(|line| line.matches('|').count()).collect();
        assert!(columns.iter().all(|count| *count == 5), "{columns:?}");
    }
}
