//! Any environment: what the agent may print of it, and which configuration it gives.
//!
//! The input is an environment as the kernel keeps one: `NAME=value`, a NUL after each. In a value, `{KEY}` stands for
//! the configured key and `{key}` for the same in lower case, so that the fuzzer easily puts the key where it must not
//! be. The variable `(host)` is the host name. The target checks that reading an environment
//!
//! - never panics, and opens nothing;
//! - never shows the key, legal or not, in an error or warning, whichever variable holds it, in upper or lower case;
//! - never shows user or password of a URL that it refuses, or of a proxy's URL;
//! - gives a configuration that is legal in every field, or names at least one variable that is not.
//!
//! Keys of less than eight characters, and keys that occur in the fixed text of messages, cannot be distinguished from
//! that text. For these only the other checks hold.

use draupnir::config::{Config, ConsoleUrl, Machine, Problems, table};
use draupnir::link::Target;
use draupnir::protocol::InstanceId;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::LazyLock;

const KEY: &str = "SINDRI_CONSOLE_API_KEY";

/// The shortest text that is searched for in errors, in bytes.
const SECRET_BYTES_MIN: usize = 8;

/// The longest text of one problem, in bytes: a value of 200 characters, each of which may be written as `\u{10ffff}`,
/// and the text around it.
const PROBLEM_BYTES_MAX: usize = 200 * 10 + 512;

/// All fixed text of errors and warnings: a key that occurs in it cannot be hidden.
static FIXED_WORDS: LazyLock<String> = LazyLock::new(|| {
    let wrong = |name: &str| Some(OsString::from(if name == KEY { "\u{1}" } else { "\u{2}" }));
    let problems = Config::read(wrong, &machine("\u{2}")).expect_err("nothing of it is legal");
    let nothing = Config::read(|_| None, &machine("")).expect_err("nothing is set");
    let provider = "which the console may not know";
    let names: String = table().iter().map(|variable| variable.name).collect();
    format!("{problems}\n{nothing}\n{provider}\n{problems:?}\n{nothing:?}\n{names}").to_ascii_lowercase()
});

/// Checks one input.
pub fn run(input: &[u8]) {
    let environment = Environment::of(input);
    let host_name = environment.get("(host)").map_or("web-1".into(), OsStr::to_string_lossy);
    let secrets = environment.secrets();
    let tells_none = |text: &str, about: &str| {
        let text = text.to_ascii_lowercase();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret:?} in {about}: {text}");
        }
    };
    match Config::read(|name| environment.get(name).map(OsStr::to_owned), &machine(&host_name)) {
        Ok(config) => {
            is_legal(&config);
            tells_none(&config.warnings.join("\n"), "a warning");
            match Target::of(&config) {
                Ok(target) => assert_eq!(target.url, config.console_url),
                Err(error) => tells_none(&error.to_string(), "a proxy's error"),
            }
        }
        Err(problems) => {
            are_complete(&problems);
            tells_none(&problems.to_string(), "an error");
            tells_none(&format!("{problems:?}"), "an error's details");
        }
    }
}

fn machine(host_name: &str) -> Machine {
    Machine { root: "/nonexistent".into(), host_name: host_name.to_owned() }
}

/// Variables and their values. Of two with one name the first counts.
struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    fn of(input: &[u8]) -> Self {
        let entries = input.split(|byte| *byte == 0).filter_map(|entry| {
            let end = entry.iter().position(|byte| *byte == b'=')?;
            let (name, value) = entry.split_at(end);
            Some((OsStr::from_bytes(name).to_owned(), value.get(1..)?))
        });
        let entries: Vec<(OsString, &[u8])> = entries.collect();
        let key = entries.iter().find(|(name, _)| name == KEY).map_or(&[][..], |(_, value)| *value);
        let lower = key.to_ascii_lowercase();
        let filled = entries.iter().map(|(name, value)| {
            let value =
                if name == KEY { value.to_vec() } else { filled(&filled(value, b"{KEY}", key), b"{key}", &lower) };
            (name.clone(), OsString::from_vec(value))
        });
        Self(filled.collect())
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
    }

    /// The texts that no error may show, in lower case: the key, and the part before an `@` in the URLs.
    fn secrets(&self) -> Vec<String> {
        let key = self.get(KEY).map(|key| key.to_string_lossy().trim().to_owned());
        let urls =
            ["SINDRI_CONSOLE_URL", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
        let of_urls = urls.iter().filter_map(|name| {
            let url = self.get(name)?.to_string_lossy().into_owned();
            let (_, rest) = url.split_once("://")?;
            let (user_information, host) = rest.rsplit_once('@')?;
            let is_shown_as_host = host.to_ascii_lowercase().contains(&user_information.to_ascii_lowercase());
            (!is_shown_as_host).then(|| user_information.to_owned())
        });
        let is_worth_it = |secret: &String| {
            // A text that another variable holds openly may be shown from there.
            let is_in_the_open = || self.0.iter().filter(|(_, value)| holds(value, secret)).count() > 1;
            secret.len() >= SECRET_BYTES_MIN && !FIXED_WORDS.contains(&secret.to_ascii_lowercase()) && !is_in_the_open()
        };
        let key = key.filter(|key| key.len() >= SECRET_BYTES_MIN && !FIXED_WORDS.contains(&key.to_ascii_lowercase()));
        key.into_iter().chain(of_urls.filter(is_worth_it)).map(|secret| secret.to_ascii_lowercase()).collect()
    }
}

fn holds(value: &OsStr, text: &str) -> bool {
    value.to_string_lossy().to_ascii_lowercase().contains(&text.to_ascii_lowercase())
}

/// The text with `with` in place of each `placeholder`.
fn filled(text: &[u8], placeholder: &[u8], with: &[u8]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(placeholder) {
            filled.extend_from_slice(with);
            rest = behind;
        } else {
            filled.push(*first);
            rest = behind;
        }
    }
    filled
}

fn are_complete(problems: &Problems) {
    let known =
        |name: &str| table().iter().any(|variable| variable.name.split(", ").any(|one| one.eq_ignore_ascii_case(name)));
    assert!(problems.iter().next().is_some(), "refused, and nothing is wrong");
    for problem in problems.iter() {
        assert!(known(problem.variable), "{} is in no table", problem.variable);
        let text = problem.to_string();
        assert!(text.starts_with(problem.variable), "not of {}: {text}", problem.variable);
        assert!(text.len() <= PROBLEM_BYTES_MAX && !text.contains(char::is_control), "not one short line: {text:?}");
    }
}

fn is_legal(config: &Config) {
    let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_name = |text: &str| (1..=64).contains(&text.len()) && is_visible(text);
    let key = config.api_key.expose();
    assert!(!key.is_empty() && key.trim() == key && key.split(' ').all(is_visible), "not a legal key");
    assert_eq!(format!("{:?}{}", config.api_key, config.api_key), "[redacted][redacted]");
    assert_eq!(InstanceId::new(config.instance_id.as_str()).as_ref(), Ok(&config.instance_id));
    assert!(config.provider.as_deref().is_none_or(is_name), "{:?}", config.provider);
    assert!(config.region.as_deref().is_none_or(is_name), "{:?}", config.region);
    assert!((50..=86_400_000).contains(&config.heartbeat_ms), "{} ms", config.heartbeat_ms);
    assert!((50..=86_400_000).contains(&config.metrics_ms), "{} ms", config.metrics_ms);
    let is_pair = |(key, value): (&String, &String)| !key.is_empty() && key.trim() == key && value.trim() == value;
    assert!(config.tags.iter().all(is_pair), "{:?}", config.tags);
    let url = &config.console_url;
    assert_eq!(ConsoleUrl::parse(&url.to_string()).as_ref(), Ok(url), "{url} is not what it is written as");
    assert!(!url.host().is_empty() && url.port() > 0 && !url.prefix().ends_with('/'), "{url}");
    assert!(!url.to_string().contains(['?', '#']) && !url.authority().contains('@'), "{url}");
}
