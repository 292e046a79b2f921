//! The configuration: everything that the environment says to the agent, read once and checked.
//!
//! It is the only reader of environment variables. It opens no file but to see whether one is there, and connects to
//! nothing. All problems are collected and reported at once, each with its variable, the value (never one that holds
//! the key) and what is allowed. An empty variable counts as unset. The reader drops blanks around the values of the
//! agent's own variables, such as the CR of a file with CR LF line ends.
//!
//! Invariants: what is in [`Config`] is legal; the key is in [`Secret`] alone. Times are in milliseconds.

mod detect;
mod llm;
mod problem;
mod reader;
mod secret;
mod table;
mod url;

pub use detect::{Machine, host_name, provider_table};
pub(crate) use llm::is_loopback;
pub use llm::{LLM_BASE_URLS, LLM_PORT_DEFAULT, LLM_REPORT_SECONDS_DEFAULT, Llm};
pub use problem::{Problem, Problems};
pub(crate) use secret::wipe;
pub use secret::{REDACTED, Secret};
pub use table::{Variable, help_table, markdown_table, table};
pub use url::{ConsoleUrl, InvalidUrl};

use crate::protocol::InstanceId;
use reader::Reader;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The variable that holds the API key.
pub const API_KEY_VARIABLE: &str = "SINDRI_CONSOLE_API_KEY";

/// Seconds between heartbeats by default; the console's time-out is 30.
pub const HEARTBEAT_SECONDS_DEFAULT: f64 = 30.0;

/// Seconds between metrics by default.
pub const METRICS_SECONDS_DEFAULT: f64 = 60.0;

/// Shortest interval that may be set, in seconds: tests need several heartbeats a second, and 20 are enough.
pub const INTERVAL_SECONDS_MIN: f64 = 0.05;

/// Longest interval that may be set, in seconds: a day.
pub const INTERVAL_SECONDS_MAX: f64 = 86_400.0;

/// Most lines of logs a second that may be set: more than a console stores.
pub const LOG_RATE_MAX: u32 = 100_000;

/// Shortest log file that may be set, in bytes: room for the lines of one start.
pub const LOG_BYTES_MIN: u64 = 4_096;

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The console's URL.
    pub console_url: ConsoleUrl,
    /// The API key.
    pub api_key: Secret,
    /// The id of this instance until the console gives another.
    pub instance_id: InstanceId,
    /// The provider, configured or detected.
    pub provider: Option<String>,
    /// The region, configured or detected.
    pub region: Option<String>,
    /// Longest time between heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Longest time between metrics, in milliseconds.
    pub metrics_ms: u64,
    /// What the operator says about this instance.
    pub tags: BTreeMap<String, String>,
    /// The shell of terminals that ask for none.
    pub shell: PathBuf,
    /// The home directory of the agent's user, if it has one: where shells and commands start.
    pub home: Option<PathBuf>,
    /// The directory for the ids from consoles; `None` without a home directory.
    pub state_dir: Option<PathBuf>,
    /// A private authority to trust beside the others.
    pub ca_file: Option<PathBuf>,
    /// Where the machine's own authorities are, if not in the usual place.
    pub roots: Roots,
    /// Which proxies to use.
    pub proxies: Proxies,
    /// Whether terminals may be opened.
    pub terminal: TerminalPolicy,
    /// Which commands may be run.
    pub commands: CommandPolicy,
    /// Which logs the console may ask for.
    pub logs: LogPolicy,
    /// How many lines of logs are sent a second, on average; 0: no limit.
    pub log_lines_per_s: u32,
    /// Whether results and ids of commands are kept across the death of the process.
    pub journal: bool,
    /// Where to count the usage of AI tools; nowhere where none is pointed at the agent.
    pub llm: Option<Llm>,
    /// The audit file.
    pub audit: Option<PathBuf>,
    /// The file of the recording of facts and orders.
    pub record: Option<PathBuf>,
    /// The file for a collector of metrics.
    pub textfile: Option<PathBuf>,
    /// Directories for the status socket, the preferred one first.
    pub status_directories: Vec<PathBuf>,
    /// The service manager, if one started the agent.
    pub service: Option<Service>,
    /// The lowest level that is logged.
    pub log_level: LogLevel,
    /// The length at which the file that standard error is gets renamed, in bytes.
    pub log_max_bytes: Option<u64>,
    /// Warnings about legal settings, logged at the start.
    pub warnings: Vec<String>,
}

/// The service manager that started the agent (sd_notify(3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its socket: a path, or a name behind `@`.
    pub socket: OsString,
    /// How long it waits for a sign of life, in milliseconds, if it does.
    pub watchdog_ms: Option<u64>,
}

/// What the machine's owner lets the console do with terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalPolicy {
    /// Open them.
    On,
    /// Refuse them all.
    Off,
}

/// What the machine's owner lets the console run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandPolicy {
    /// Everything.
    On,
    /// Nothing.
    Off,
    /// The programs that this file lists.
    Allow(PathBuf),
}

/// Which logs the console may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPolicy {
    /// None.
    Off,
    /// Those of Sindri, and these paths and patterns.
    On(Vec<String>),
}

/// How much to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Changes of the state of the world.
    Info,
    /// Degraded: an operator should look at it.
    Warn,
    /// Broken: an operator must act.
    Error,
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR`, as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// A file of certificates.
    pub file: Option<PathBuf>,
    /// A directory of certificates, or several with colons between them.
    pub dir: Option<PathBuf>,
}

/// The proxy variables as they are: the link reads them. Of a variable in both cases the lower one counts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTPS_PROXY`
    pub https: Option<String>,
    /// `HTTP_PROXY`
    pub http: Option<String>,
    /// `ALL_PROXY`
    pub all: Option<String>,
    /// `NO_PROXY`
    pub none_for: Option<String>,
}

/// Says which are set: their URLs may hold credentials.
impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Proxies")
            .field("https", &self.https.is_some())
            .field("http", &self.http.is_some())
            .field("all", &self.all.is_some())
            .field("none_for", &self.none_for)
            .finish()
    }
}

impl Config {
    /// Reads the process's environment and the machine that it runs on.
    ///
    /// # Errors
    /// All problems; the agent exits with status 78.
    pub fn from_environment() -> Result<Self, Problems> {
        Self::of_process(None)
    }

    /// The same with the key that the program before this one left: it is in no environment.
    ///
    /// # Errors
    /// All problems; the agent exits with status 78.
    pub fn with_key(key: &[u8]) -> Result<Self, Problems> {
        Self::of_process(Some(OsStr::from_bytes(key)))
    }

    fn of_process(key: Option<&OsStr>) -> Result<Self, Problems> {
        let variable = |name: &str| match key {
            Some(key) if name == API_KEY_VARIABLE => Some(key.to_owned()),
            Some(_) | None => std::env::var_os(name),
        };
        Self::read(variable, &Machine::this())
    }

    /// Reads any environment on any machine.
    ///
    /// # Errors
    /// All problems.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>, machine: &Machine) -> Result<Self, Problems> {
        let mut reader = Reader::new(&variable);
        let api_key = reader.api_key();
        let console_url = reader.console_url();
        let instance_id = reader.instance_id(&machine.host_name);
        let provider = reader.provider().or_else(|| machine.provider(&variable));
        let region = reader.region().or_else(|| machine.region(&variable));
        let home = reader.foreign_path("HOME");
        let heartbeat_ms = reader.interval_ms("SINDRI_AGENT_HEARTBEAT", HEARTBEAT_SECONDS_DEFAULT);
        let metrics_ms = reader.interval_ms("SINDRI_AGENT_METRICS", METRICS_SECONDS_DEFAULT);
        let tags = reader.tags();
        let shell = reader.shell(machine);
        let state_dir = reader.state_dir(home.as_deref());
        let ca_file = reader.path("SINDRI_AGENT_CA_FILE");
        let roots = Roots { file: reader.foreign_path("SSL_CERT_FILE"), dir: reader.foreign_path("SSL_CERT_DIR") };
        let proxies = reader.proxies();
        let terminal = reader.terminal();
        let commands = reader.commands();
        let logs = reader.logs();
        let log_lines_per_s = reader.log_lines_per_s();
        let journal = reader.journal();
        let llm = reader.llm();
        let audit = reader.path("SINDRI_AGENT_AUDIT");
        let record = reader.path("SINDRI_AGENT_RECORD");
        let textfile = reader.path("SINDRI_AGENT_TEXTFILE");
        let status_directories = state_dir.iter().cloned().chain(reader.runtime_dir()).collect();
        let service = reader.service();
        let log_level = reader.log_level();
        let log_max_bytes = reader.log_max_bytes();
        let warnings = reader.finish(api_key.as_ref())?;
        let (Some(api_key), Some(console_url), Some(instance_id)) = (api_key, console_url, instance_id) else {
            unreachable!("invariant: what is required and missing is a problem")
        };
        Ok(Self {
            console_url,
            api_key,
            instance_id,
            provider,
            region,
            heartbeat_ms,
            metrics_ms,
            tags,
            shell,
            home,
            state_dir,
            ca_file,
            roots,
            proxies,
            terminal,
            commands,
            logs,
            log_lines_per_s,
            journal,
            llm,
            audit,
            record,
            textfile,
            status_directories,
            service,
            log_level,
            log_max_bytes,
            warnings,
        })
    }
}

/// Where the services of the packages keep their state: a shell that asks them does not have their environment.
const STATE_DIR_OF_SERVICES: &str = "/var/lib/sindri-agent";

/// Where the status socket of a running agent may be, for a program that has no more of its environment than these
/// variables.
pub fn status_directories() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    let mut reader = Reader::new(&variable);
    let home = reader.foreign_path("HOME");
    let of_services = reader.path("SINDRI_AGENT_STATE_DIR").is_none().then(|| STATE_DIR_OF_SERVICES.into());
    let state_dir = reader.state_dir(home.as_deref());
    state_dir.into_iter().chain(reader.runtime_dir()).chain(of_services).collect()
}

/// One warning for each variable of the environment that looks like a variable of the agent and is not one.
///
/// Call it after the key was erased from the environment: the standard library copies the values, too.
pub fn unknown_variables() -> Vec<String> {
    table::unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

#[cfg(test)]
mod tests;
