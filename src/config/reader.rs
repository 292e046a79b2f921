//! Reads one variable after the other and collects what is wrong.
//!
//! Each method knows one variable: its type, its bounds, what stands in for it. None of them fails; what could not be
//! read leaves a problem behind, and [`Reader::finish`] fails for all of them.

use super::detect::{Machine, is_name, refuses_login};
use super::problem::{Problem, Problems};
use super::secret::{Secret, wipe};
use super::url::{ConsoleUrl, without_user_information};
use super::{
    API_KEY_VARIABLE, CommandPolicy, INTERVAL_SECONDS_MAX, INTERVAL_SECONDS_MIN, LOG_BYTES_MIN, LOG_RATE_MAX, LogLevel,
    LogPolicy, Proxies, Service, TerminalPolicy,
};
use crate::logs::ROOTS_MAX;
use crate::logs::journald::JOURNALD;
use crate::logs::root::Root;
use crate::protocol::InstanceId;
use draupnir_fsm::driver::{LOG_LINES_PER_SECOND, PROVIDERS_KNOWN};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const INSTANCE_ID_ALLOWED: &str = "1–100 visible ASCII characters";
const KEY: &str = API_KEY_VARIABLE;
const KEY_ALLOWED: &str = "a key of visible ASCII characters, without blanks and without the word Bearer";
/// Default host names of distributions and of the kernel.
const HOST_NAMES_OF_MANY: [&str; 4] = ["localhost", "localhost.localdomain", "(none)", "unknown"];

/// Length of a default host name of Docker and Podman: the first digits of the container id.
const CONTAINER_NAME_CHARACTERS: usize = 12;

const NAME_ALLOWED: &str = "1–64 visible ASCII characters";
const TAGS_ALLOWED: &str = "key=value pairs with commas between them, each key once";

/// Collects values and problems.
pub(super) struct Reader<'a, F> {
    variable: &'a F,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'a, F: Fn(&str) -> Option<OsString>> Reader<'a, F> {
    pub(super) fn new(variable: &'a F) -> Self {
        Self { variable, problems: Vec::new(), warnings: Vec::new() }
    }

    /// The warnings, or all that is wrong.
    pub(super) fn finish(mut self, key: Option<&Secret>) -> Result<Vec<String>, Problems> {
        let (problems, mut warnings) = (std::mem::take(&mut self.problems), std::mem::take(&mut self.warnings));
        // A key that is not legal is no less secret.
        let key_as_set = key.is_none().then(|| self.key_as_set()).flatten();
        let key = key.or(key_as_set.as_ref());
        let holds_key = |text: &str| key.is_some_and(|key| key.is_in(text));
        let was_set = |name: &str| self.raw(name).unwrap_or_default().to_string_lossy().into_owned();
        if let Some(problems) = Problems::of(problems, was_set, holds_key) {
            return Err(problems);
        }
        // A warning quotes a value, too.
        warnings.retain(|warning| !holds_key(warning));
        Ok(warnings)
    }

    /// What is set as the key, legal or not, as far as it is text.
    fn key_as_set(&self) -> Option<Secret> {
        let mut bytes = self.raw(KEY)?.into_encoded_bytes();
        let mut text = String::from_utf8_lossy(&bytes).into_owned().into_bytes();
        let key = std::str::from_utf8(&text).ok().map(|text| Secret::new(text.trim()));
        wipe(&mut bytes);
        wipe(&mut text);
        key
    }

    /// The shell of terminals that ask for none.
    pub(super) fn shell(&mut self, machine: &Machine) -> PathBuf {
        if let Some(shell) = self.path("SINDRI_AGENT_SHELL") {
            return shell;
        }
        let of_user = self.foreign_path("SHELL");
        let shell = machine.shell(of_user.clone());
        if let Some(of_user) = of_user.filter(|of_user| refuses_login(of_user)) {
            let (of_user, shell) = (of_user.display(), shell.display());
            self.warnings.push(format!(
                "SHELL is {of_user}, which refuses logins; terminals start {shell} (SINDRI_AGENT_SHELL names another shell)"
            ));
        }
        shell
    }

    /// The key. All copies made on the way are overwritten.
    pub(super) fn api_key(&mut self) -> Option<Secret> {
        let Some(raw) = self.raw(KEY) else {
            self.problems.push(Problem::missing(KEY, KEY_ALLOWED));
            return None;
        };
        let mut bytes = raw.into_encoded_bytes();
        let key = std::str::from_utf8(&bytes).ok().map(str::trim).and_then(|text| {
            let is_legal = text.bytes().all(|byte| byte.is_ascii_graphic());
            is_legal.then(|| Secret::new(text))
        });
        wipe(&mut bytes);
        match key {
            Some(key) if key.expose().is_empty() => {
                self.problems.push(Problem::missing(KEY, KEY_ALLOWED));
            }
            Some(key) => return Some(key),
            None => self.problems.push(Problem::new(KEY, super::secret::REDACTED, KEY_ALLOWED)),
        }
        None
    }

    pub(super) fn console_url(&mut self) -> Option<ConsoleUrl> {
        const NAME: &str = "SINDRI_CONSOLE_URL";
        let Some(raw) = self.trimmed(NAME) else {
            let example = "a URL such as https://console.example.com";
            self.problems.push(Problem::missing(NAME, example));
            return None;
        };
        let text = raw.to_string_lossy();
        let parsed = ConsoleUrl::parse(&text);
        parsed
            .map_err(|error| {
                self.problem(NAME, &without_user_information(&text), &error.to_string());
            })
            .ok()
    }

    pub(super) fn instance_id(&mut self, host_name: &str) -> Option<InstanceId> {
        const NAME: &str = "SINDRI_INSTANCE_ID";
        if let Some(raw) = self.trimmed(NAME) {
            let text = raw.to_string_lossy();
            return InstanceId::new(&text).map_err(|_| self.problem(NAME, &text, INSTANCE_ID_ALLOWED)).ok();
        }
        if let Some(why) = self.host_name_fault(host_name) {
            self.warnings.push(format!("{NAME} is not set, and the host name {host_name:?} {why}: set it"));
        }
        let allowed = || format!("{INSTANCE_ID_ALLOWED}, and so is not the host name, which would stand in for it");
        InstanceId::new(host_name).map_err(|_| self.problems.push(Problem::missing(NAME, allowed()))).ok()
    }

    /// Why a host name does not identify this instance, if it does not.
    fn host_name_fault(&self, host_name: &str) -> Option<&'static str> {
        if HOST_NAMES_OF_MANY.contains(&host_name.to_ascii_lowercase().as_str()) {
            return Some("is shared by many machines");
        }
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_random = host_name.len() == CONTAINER_NAME_CHARACTERS && host_name.bytes().all(is_hex);
        let is_kept = self.trimmed("SINDRI_AGENT_STATE_DIR").is_some();
        (is_random && !is_kept).then_some("looks like a container id, which changes with every new container")
    }

    pub(super) fn provider(&mut self) -> Option<String> {
        let provider = self.name("SINDRI_PROVIDER")?.to_ascii_lowercase();
        if provider != "k8s" && !PROVIDERS_KNOWN.contains(&provider.as_str()) {
            self.warnings.push(format!("SINDRI_PROVIDER is {provider:?}, which the console may not know"));
        }
        Some(provider)
    }

    pub(super) fn region(&mut self) -> Option<String> {
        self.name("SINDRI_REGION")
    }

    /// An interval in seconds, fractions allowed, as whole milliseconds.
    pub(super) fn interval_ms(&mut self, name: &'static str, default_seconds: f64) -> u64 {
        let seconds = self.raw(name).map(|raw| {
            let text = raw.to_string_lossy();
            let seconds = text
                .trim()
                .parse()
                .ok()
                .filter(|seconds| (INTERVAL_SECONDS_MIN..=INTERVAL_SECONDS_MAX).contains(seconds));
            seconds.unwrap_or_else(|| {
                let allowed = format!("seconds from {INTERVAL_SECONDS_MIN} to {INTERVAL_SECONDS_MAX}");
                self.problem(name, &text, &allowed);
                default_seconds
            })
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds far below 2⁵³")]
        let interval_ms = (seconds.unwrap_or(default_seconds) * 1000.0).round() as u64;
        interval_ms
    }

    pub(super) fn tags(&mut self) -> BTreeMap<String, String> {
        const NAME: &str = "SINDRI_AGENT_TAGS";
        let mut tags = BTreeMap::new();
        let Some(text) = self.text(NAME, TAGS_ALLOWED) else {
            return tags;
        };
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let legal = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty());
            let is_new =
                legal.is_some_and(|(key, value)| tags.insert(key.trim().to_owned(), value.trim().to_owned()).is_none());
            if !is_new {
                self.problem(NAME, pair, TAGS_ALLOWED);
            }
        }
        tags
    }

    /// A path from a variable of the agent, without surrounding blanks.
    pub(super) fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.trimmed(name).map(PathBuf::from)
    }

    /// A path from a variable of the system, unchanged.
    pub(super) fn foreign_path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// Where to remember ids. Relative paths are not followed where a standard says that they must be absolute.
    pub(super) fn state_dir(&mut self, home: Option<&Path>) -> Option<PathBuf> {
        if let Some(configured) = self.path("SINDRI_AGENT_STATE_DIR") {
            return Some(configured);
        }
        let of_user = self.foreign_path("XDG_STATE_HOME").filter(|path| path.is_absolute());
        let of_user = of_user.or_else(|| home.map(|home| home.join(".local/state")));
        of_user.map(|path| path.join("sindri-agent"))
    }

    /// A directory of the agent's own within the runtime directory of its user.
    pub(super) fn runtime_dir(&mut self) -> Option<PathBuf> {
        let of_user = self.foreign_path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute());
        of_user.map(|path| path.join("sindri-agent"))
    }

    /// The service manager, and whether it watches this process.
    pub(super) fn service(&mut self) -> Option<Service> {
        let number = |text: Option<OsString>| text?.to_str()?.parse::<u64>().ok();
        let (watched, interval_us) = (number(self.raw("WATCHDOG_PID")), number(self.raw("WATCHDOG_USEC")));
        let is_watched = watched.is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog_ms = interval_us.filter(|us| is_watched && *us > 0).map(|us| us / 1_000);
        Some(Service { socket: self.raw("NOTIFY_SOCKET")?, watchdog_ms })
    }

    pub(super) fn proxies(&mut self) -> Proxies {
        Proxies {
            https: self.proxy("https_proxy", "HTTPS_PROXY"),
            http: self.proxy("http_proxy", "HTTP_PROXY"),
            all: self.proxy("all_proxy", "ALL_PROXY"),
            none_for: self.proxy("no_proxy", "NO_PROXY"),
        }
    }

    pub(super) fn terminal(&mut self) -> TerminalPolicy {
        const NAME: &str = "SINDRI_AGENT_TERMINAL";
        match self.text(NAME, "on or off").as_deref() {
            None | Some("on") => TerminalPolicy::On,
            Some("off") => TerminalPolicy::Off,
            Some(other) => {
                self.problem(NAME, other, "on or off");
                TerminalPolicy::Off
            }
        }
    }

    pub(super) fn journal(&mut self) -> bool {
        const NAME: &str = "SINDRI_AGENT_JOURNAL";
        match self.text(NAME, "on or off").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                self.problem(NAME, other, "on or off");
                false
            }
        }
    }

    pub(super) fn logs(&mut self) -> LogPolicy {
        const NAME: &str = "SINDRI_AGENT_LOGS";
        const ALLOWED: &str = "off, or absolute paths, patterns and journald with commas between them, at most 15";
        let Some(text) = self.text(NAME, ALLOWED) else { return LogPolicy::On(Vec::new()) };
        if text == "off" {
            return LogPolicy::Off;
        }
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mut paths: Vec<String> = Vec::new();
        for entry in entries {
            let is_legal = entry == JOURNALD || Root::configured(entry).is_some();
            if !is_legal || paths.len() + 1 >= ROOTS_MAX {
                self.problem(NAME, entry, ALLOWED);
                return LogPolicy::Off;
            }
            if !paths.iter().any(|known| known == entry) {
                paths.push(entry.to_owned());
            }
        }
        LogPolicy::On(paths)
    }

    pub(super) fn log_lines_per_s(&mut self) -> u32 {
        const NAME: &str = "SINDRI_AGENT_LOG_RATE";
        const ALLOWED: &str = "off, or 1–100000 lines a second";
        match self.text(NAME, ALLOWED).as_deref() {
            None => LOG_LINES_PER_SECOND,
            Some("off") => 0,
            Some(text) => match text.parse() {
                Ok(lines) if (1..=LOG_RATE_MAX).contains(&lines) => lines,
                Ok(_) | Err(_) => {
                    self.problem(NAME, text, ALLOWED);
                    LOG_LINES_PER_SECOND
                }
            },
        }
    }

    pub(super) fn commands(&mut self) -> CommandPolicy {
        const NAME: &str = "SINDRI_AGENT_COMMANDS";
        const ALLOWED: &str = "on, off or allow:<file>";
        let Some(raw) = self.trimmed(NAME) else {
            return CommandPolicy::On;
        };
        match raw.to_string_lossy().as_ref() {
            "on" => CommandPolicy::On,
            "off" => CommandPolicy::Off,
            text => match self.text(NAME, ALLOWED).as_deref().and_then(|text| text.strip_prefix("allow:")) {
                Some(file) if !file.is_empty() => CommandPolicy::Allow(file.into()),
                Some(_) | None => {
                    self.problem(NAME, text, ALLOWED);
                    CommandPolicy::Off
                }
            },
        }
    }

    pub(super) fn log_level(&mut self) -> LogLevel {
        const NAME: &str = "SINDRI_LOG_LEVEL";
        const ALLOWED: &str = "debug, info, warn or error";
        match self.text(NAME, ALLOWED).map(|text| text.to_ascii_lowercase()).as_deref() {
            Some("debug") => LogLevel::Debug,
            None | Some("info") => LogLevel::Info,
            Some("warn") => LogLevel::Warn,
            Some("error") => LogLevel::Error,
            Some(other) => {
                self.problem(NAME, other, ALLOWED);
                LogLevel::Info
            }
        }
    }

    /// The length at which the log file is renamed.
    pub(super) fn log_max_bytes(&mut self) -> Option<u64> {
        const NAME: &str = "SINDRI_AGENT_LOG_MAX";
        let raw = self.raw(NAME)?;
        let text = raw.to_string_lossy();
        let bytes = text.trim().parse().ok().filter(|bytes| *bytes >= LOG_BYTES_MIN);
        if bytes.is_none() {
            self.problem(NAME, &text, &format!("a number of bytes, at least {LOG_BYTES_MIN}"));
        }
        bytes
    }

    /// What a variable holds; nothing where that is empty.
    pub(super) fn raw(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// The value without surrounding blanks, such as the CR of a file with CR LF line ends.
    fn trimmed(&self, name: &str) -> Option<OsString> {
        let raw = self.raw(name)?;
        match raw.to_str().map(str::trim) {
            Some(text) => (!text.is_empty()).then(|| text.into()),
            None => Some(raw),
        }
    }

    /// A text; one that is not UTF-8 is a problem.
    pub(super) fn text(&mut self, name: &'static str, allowed: &str) -> Option<String> {
        let raw = self.trimmed(name)?;
        raw.into_string().map_err(|raw| self.problem(name, &raw.to_string_lossy(), allowed)).ok()
    }

    fn name(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name, NAME_ALLOWED)?;
        if !is_name(&text) {
            self.problem(name, &text, NAME_ALLOWED);
            return None;
        }
        Some(text)
    }

    /// A proxy variable; the lower case counts, as it does elsewhere. What is shown of it has no password.
    fn proxy(&mut self, lower: &'static str, upper: &'static str) -> Option<String> {
        let name = if self.raw(lower).is_some() { lower } else { upper };
        let raw = self.raw(name)?;
        let shown = |raw: OsString| without_user_information(&raw.to_string_lossy());
        raw.into_string().map_err(|raw| self.problem(name, &shown(raw), "text in UTF-8")).ok()
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub(super) fn problem(&mut self, name: &'static str, value: &str, allowed: &str) {
        self.problems.push(Problem::new(name, value, allowed));
    }
}
