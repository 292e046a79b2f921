//! What environments become.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

const KEY: &str = "sk-0123456789abcdef";

fn machine() -> Machine {
    Machine { root: "/nonexistent".into(), host_name: "web-1".to_owned() }
}

fn read(set: &[(&str, &str)]) -> Result<Config, Problems> {
    let required = [("SINDRI_CONSOLE_URL", "https://c.example/x/"), ("SINDRI_CONSOLE_API_KEY", KEY)];
    Config::read(
        |name| {
            let found = set.iter().chain(&required).find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        },
        &machine(),
    )
}

fn problems(set: &[(&str, &str)]) -> Vec<String> {
    let problems = read(set).expect_err("problems");
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn two_variables_are_enough() {
    let config = read(&[]).expect("a configuration");
    assert_eq!(config.console_url.to_string(), "https://c.example/x");
    assert_eq!(config.api_key.expose(), KEY);
    assert_eq!(config.instance_id.as_str(), "web-1");
    assert_eq!((config.provider, config.region), (None, None));
    assert_eq!((config.heartbeat_ms, config.metrics_ms), (30_000, 60_000));
    assert_eq!(config.shell, Path::new("/bin/sh"));
    assert_eq!((config.home, config.state_dir, config.audit), (None, None, None));
    assert_eq!((config.terminal, config.commands, config.journal), (TerminalPolicy::On, CommandPolicy::On, true));
    assert_eq!((config.log_level, config.log_max_bytes), (LogLevel::Info, None));
    assert!(config.tags.is_empty() && config.warnings.is_empty());
}

#[test]
fn everything_can_be_set() {
    let config = read(&[
        ("SINDRI_CONSOLE_URL", "https://c.example/x/ \r"),
        ("SINDRI_CONSOLE_API_KEY", " spaced \n"),
        ("SINDRI_INSTANCE_ID", "db-7\r"),
        ("SINDRI_PROVIDER", " Fly\r"),
        ("SINDRI_REGION", "fra"),
        ("SINDRI_AGENT_HEARTBEAT", "0.05"),
        ("SINDRI_AGENT_METRICS", "86400"),
        ("SINDRI_AGENT_TAGS", "team=shop, query=a=b,"),
        ("SINDRI_AGENT_SHELL", "/bin/zsh\r"),
        ("SINDRI_AGENT_CA_FILE", " /ca.pem\t"),
        ("SINDRI_AGENT_STATE_DIR", "/state"),
        ("SINDRI_AGENT_TERMINAL", "off"),
        ("SINDRI_AGENT_COMMANDS", "allow:/etc/programs\r"),
        ("SINDRI_AGENT_AUDIT", "/audit"),
        ("SINDRI_LOG_LEVEL", "DEBUG\r"),
        ("HTTPS_PROXY", "http://upper"),
        ("https_proxy", "http://lower"),
        ("SINDRI_AGENT_LOG_MAX", "4096"),
        ("NO_PROXY", "*"),
        ("HOME", "/root"),
    ])
    .expect("a configuration");
    assert_eq!(config.api_key.expose(), "spaced");
    assert_eq!(config.instance_id.as_str(), "db-7");
    assert_eq!((config.provider.as_deref(), config.region.as_deref()), (Some("fly"), Some("fra")));
    assert_eq!((config.heartbeat_ms, config.metrics_ms), (50, 86_400_000));
    let tags = [("query", "a=b"), ("team", "shop")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(config.tags.into_iter().collect::<Vec<_>>(), tags);
    assert_eq!(config.console_url.to_string(), "https://c.example/x");
    assert_eq!(
        (config.shell.as_path(), config.ca_file.as_deref()),
        (Path::new("/bin/zsh"), Some(Path::new("/ca.pem")))
    );
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/state")));
    assert_eq!(config.terminal, TerminalPolicy::Off);
    assert_eq!(config.commands, CommandPolicy::Allow("/etc/programs".into()));
    assert_eq!((config.log_level, config.log_max_bytes), (LogLevel::Debug, Some(4_096)));
    assert_eq!(config.proxies.https.as_deref(), Some("http://lower"));
    assert_eq!(config.proxies.none_for.as_deref(), Some("*"));
}

#[test]
fn shell_that_refuses_logins_counts_only_where_asked_for() {
    let root = tempfile::tempdir().expect("a directory");
    let machine = Machine { root: root.path().to_owned(), ..machine() };
    for file in ["bin/false", "usr/sbin/nologin", "bin/bash"] {
        std::fs::create_dir_all(root.path().join(file).parent().expect("a parent")).expect("writable");
        std::fs::write(root.path().join(file), "").expect("writable");
    }
    let read = |name: &str, shell: &str| {
        let set = [("SINDRI_CONSOLE_URL", "http://c"), ("SINDRI_CONSOLE_API_KEY", KEY), (name, shell)];
        let variable = |asked: &str| set.iter().find(|(name, _)| *name == asked).map(|(_, value)| value.into());
        Config::read(variable, &machine).expect("a configuration")
    };
    for shell in ["/bin/false", "/usr/sbin/nologin"] {
        let config = read("SHELL", shell);
        assert_eq!(config.shell, Path::new("/bin/bash"));
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(warning.starts_with(&format!("SHELL is {shell}, ")) && warning.contains("/bin/bash"), "{warning}");
        let config = read("SINDRI_AGENT_SHELL", shell);
        assert_eq!(config.shell, Path::new(shell));
        assert!(config.warnings.is_empty());
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = problems(&[
        ("SINDRI_CONSOLE_URL", "ftp://user:hunter2@c"),
        ("SINDRI_CONSOLE_API_KEY", "new\nline"),
        ("SINDRI_INSTANCE_ID", "two words"),
        ("SINDRI_PROVIDER", "a b"),
        ("SINDRI_AGENT_HEARTBEAT", "0.049"),
        ("SINDRI_AGENT_METRICS", "NaN"),
        ("SINDRI_AGENT_TAGS", "good=1,bad,good=2,=x"),
        ("SINDRI_AGENT_TERMINAL", "no"),
        ("SINDRI_AGENT_COMMANDS", "allow:"),
        ("SINDRI_LOG_LEVEL", "trace"),
        ("SINDRI_AGENT_LOG_MAX", "4095"),
    ]);
    let expected = [
        "SINDRI_CONSOLE_API_KEY is [redacted]; it must be a key of visible ASCII characters, without blanks and without the word Bearer",
        "SINDRI_CONSOLE_URL is \"ftp://…@c\"; it must be a URL that begins with http:// or https://",
        "SINDRI_INSTANCE_ID is \"two words\"; it must be 1–100 visible ASCII characters",
        "SINDRI_PROVIDER is \"a b\"; it must be 1–64 visible ASCII characters",
        "SINDRI_AGENT_HEARTBEAT is \"0.049\"; it must be seconds from 0.05 to 86400",
        "SINDRI_AGENT_METRICS is \"NaN\"; it must be seconds from 0.05 to 86400",
        "SINDRI_AGENT_TAGS is \"bad\"; it must be key=value pairs with commas between them, each key once",
        "SINDRI_AGENT_TAGS is \"good=2\"; it must be key=value pairs with commas between them, each key once",
        "SINDRI_AGENT_TAGS is \"=x\"; it must be key=value pairs with commas between them, each key once",
        "SINDRI_AGENT_TERMINAL is \"no\"; it must be on or off",
        "SINDRI_AGENT_COMMANDS is \"allow:\"; it must be on, off or allow:<file>",
        "SINDRI_LOG_LEVEL is \"trace\"; it must be debug, info, warn or error",
        "SINDRI_AGENT_LOG_MAX is \"4095\"; it must be a number of bytes, at least 4096",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let missing = problems(&[("SINDRI_CONSOLE_URL", ""), ("SINDRI_CONSOLE_API_KEY", " ")]);
    let expected = [
        "SINDRI_CONSOLE_API_KEY is not set; it must be a key of visible ASCII characters, without blanks and without the word Bearer",
        "SINDRI_CONSOLE_URL is not set; it must be a URL such as https://console.example.com",
    ];
    assert_eq!(missing, expected);
    let config = read(&[("SINDRI_AGENT_HEARTBEAT", ""), ("SINDRI_LOG_LEVEL", "")]).expect("a configuration");
    assert_eq!(config.heartbeat_ms, 30_000);
}

#[test]
fn host_name_not_usable_as_id_is_a_problem() {
    let machine = Machine { host_name: String::new(), ..machine() };
    let variable = |name: &str| match name {
        "SINDRI_CONSOLE_URL" => Some("http://c".into()),
        "SINDRI_CONSOLE_API_KEY" => Some(KEY.into()),
        _ => None,
    };
    let problems = Config::read(variable, &machine).expect_err("a problem").to_string();
    assert!(problems.starts_with("SINDRI_INSTANCE_ID is not set; it must be"), "{problems}");
}

#[test]
fn key_with_a_blank_inside_is_a_problem() {
    for key in ["Bearer sk-1", "sk 1", "sk\t1"] {
        let [problem] = &problems(&[("SINDRI_CONSOLE_API_KEY", key)])[..] else { panic!("{key}") };
        assert!(problem.ends_with("without blanks and without the word Bearer"), "{problem}");
    }
}

#[test]
fn host_name_of_many_machines_is_one_warning() {
    let warnings = |host_name: &str, set: &[(&str, &str)]| {
        let required = [("SINDRI_CONSOLE_URL", "http://c"), ("SINDRI_CONSOLE_API_KEY", KEY)];
        let find = |name: &str| set.iter().chain(&required).find(|(variable, _)| *variable == name);
        let machine = Machine { host_name: host_name.to_owned(), ..machine() };
        let config = Config::read(|name| find(name).map(|(_, value)| value.into()), &machine);
        config.expect("a configuration").warnings
    };
    for host_name in ["localhost", "LocalHost.localdomain", "(none)"] {
        let [warning] = &warnings(host_name, &[])[..] else { panic!("{host_name}") };
        let start =
            format!("SINDRI_INSTANCE_ID is not set, and the host name {host_name:?} is shared by many machines");
        assert!(warning.starts_with(&start), "{warning}");
        assert_eq!(warnings(host_name, &[("SINDRI_INSTANCE_ID", "db-7")]), [""; 0]);
    }
    let [warning] = &warnings("0123456789ab", &[])[..] else { panic!("no warning") };
    assert!(warning.contains("looks like a container id"), "{warning}");
    for set in [("SINDRI_AGENT_STATE_DIR", "/state"), ("SINDRI_INSTANCE_ID", "db-7")] {
        assert_eq!(warnings("0123456789ab", &[set]), [""; 0]);
    }
    for host_name in ["web-1", "0123456789abc", "0123456789AB", "localhost-1"] {
        assert_eq!(warnings(host_name, &[]), [""; 0], "{host_name}");
    }
}

#[test]
fn an_unknown_provider_is_passed_on_with_a_warning() {
    let config = read(&[("SINDRI_PROVIDER", "Hetzner")]).expect("a configuration");
    assert_eq!(config.provider.as_deref(), Some("hetzner"));
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_state_directory_follows_the_standard() {
    let state_dir = |set: &[(&str, &str)]| read(set).expect("a configuration").state_dir;
    let at = |path: &str| Some(PathBuf::from(path));
    assert_eq!(state_dir(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), at("/s/sindri-agent"));
    assert_eq!(state_dir(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]), at("/h/.local/state/sindri-agent"));
    assert_eq!(state_dir(&[]), None);
}

#[cfg(unix)]
#[test]
fn invalid_utf8_is_a_problem_where_text_is_needed() {
    use std::os::unix::ffi::OsStringExt;
    let broken = || OsString::from_vec(b"\xff".to_vec());
    let result = Config::read(|_| Some(broken()), &machine());
    let problems = result.expect_err("problems");
    let named: BTreeSet<&str> = problems.iter().map(|problem| problem.variable).collect();
    for name in ["SINDRI_CONSOLE_API_KEY", "SINDRI_CONSOLE_URL", "SINDRI_AGENT_TAGS", "SINDRI_LOG_LEVEL", "https_proxy"]
    {
        assert!(named.contains(name), "{name}");
    }
    let config = read(&[]).expect("a configuration");
    let with_path = |name: &str| match name {
        "SINDRI_AGENT_AUDIT" => Some(broken()),
        "SINDRI_CONSOLE_URL" => Some("http://c".into()),
        "SINDRI_CONSOLE_API_KEY" => Some(KEY.into()),
        _ => None,
    };
    assert_ne!(Config::read(with_path, &machine()).expect("a path").audit, config.audit);
}

#[test]
fn help_table_lists_every_variable_read() {
    let asked = RefCell::new(BTreeSet::new());
    let _ = Config::read(
        |name| {
            asked.borrow_mut().insert(name.to_uppercase());
            None
        },
        &machine(),
    );
    let of_others = ["HOME", "SHELL", "XDG_STATE_HOME", "FLY_REGION"];
    let mut described: BTreeSet<String> = of_others.map(str::to_owned).into();
    for variable in table() {
        described.extend(variable.name.split(", ").map(str::to_owned));
    }
    let marks = ["E2B_", "DEVPOD", "FLY_", "KUBERNETES_"];
    asked.borrow_mut().retain(|name| name == "FLY_REGION" || !marks.iter().any(|mark| name.starts_with(mark)));
    assert_eq!(asked.into_inner(), described);
}

#[test]
fn no_part_or_spelling_of_the_key_is_shown() {
    for (key, variable, value) in [
        ("SK-LIVE-0123456789", "SINDRI_LOG_LEVEL", "SK-LIVE-0123456789"),
        ("sk-live,01234567,89abcdef", "SINDRI_AGENT_TAGS", "sk-live,01234567,89abcdef"),
        ("cl\u{e9}-0123456789", "SINDRI_INSTANCE_ID", "cl\u{e9}-0123456789"),
        (r"back\nslash-0123", "SINDRI_INSTANCE_ID", "back\nslash-0123"),
    ] {
        let problems = problems(&[("SINDRI_CONSOLE_API_KEY", key), (variable, value)]).join("\n");
        assert!(problems.contains(&format!("{variable} is {REDACTED}")), "{key}: {problems}");
        for part in ["0123", "live"] {
            assert!(!problems.contains(part), "{key}: {problems}");
        }
    }
    let warned = read(&[("SINDRI_CONSOLE_API_KEY", "SK-LIVE-0123456789"), ("SINDRI_PROVIDER", "SK-LIVE-0123456789")]);
    assert_eq!(warned.expect("a configuration").warnings, [""; 0]);
}

#[test]
fn password_before_an_invalid_scheme_is_not_shown() {
    let shown = url::without_user_information;
    assert_eq!(shown("http://user:pass@proxy"), "http://…@proxy");
    assert_eq!(shown("user:pass@proxy"), "…@proxy");
    assert_eq!(shown("user:pass@proxy http://user:pass@proxy"), "…@proxy");
    assert_eq!(shown("http://a:b@c://d:e@f"), "http://…@f");
    assert_eq!(shown("pass123http://pass123@proxy"), "…@proxy");
}

proptest! {
    #[test]
    fn no_environment_makes_it_panic_or_show_the_key(
        values in proptest::collection::vec(("[A-Z_a-z]{0,3}", ".{0,12}"), 0..6),
        key in "[!-~]{8,20}", where_else in 0_usize..18, before in "[ -~]{0,5}",
    ) {
        let names: Vec<&str> = table().iter().flat_map(|variable| variable.name.split(", ")).collect();
        let misplaced = names[where_else % names.len()];
        let variable = |name: &str| {
            if name == "SINDRI_CONSOLE_API_KEY" {
                return Some(OsString::from(&key));
            }
            if name == misplaced {
                return Some(format!("{before}{key}").into());
            }
            let position = names.iter().position(|known| *known == name)?;
            values.get(position % 6).map(|(_, value)| value.into())
        };
        match Config::read(variable, &machine()) {
            Ok(config) => prop_assert!(!config.warnings.join("\n").contains(&key)),
            Err(problems) => prop_assert!(!problems.to_string().contains(&key)),
        }
    }
}

#[test]
fn logs_are_paths_or_off() {
    let logs = |text: &str| read(&[("SINDRI_AGENT_LOGS", text)]).expect("a configuration").logs;
    assert_eq!(read(&[]).expect("a configuration").logs, LogPolicy::On(Vec::new()));
    assert_eq!((logs("off"), logs("")), (LogPolicy::Off, LogPolicy::On(Vec::new())));
    assert_eq!(logs("journald"), LogPolicy::On(vec!["journald".to_owned()]));
    let paths = ["/var/log/syslog", "/srv/**/*.txt"].map(str::to_owned);
    assert_eq!(logs(" /var/log/syslog, /srv/**/*.txt,/var/log/syslog,"), LogPolicy::On(paths.into()));
    let many: Vec<String> = (0..20).map(|number| format!("/{number}")).collect();
    for wrong in ["var/log/syslog", "/a/../b", "/", &many.join(",")] {
        assert_eq!(problems(&[("SINDRI_AGENT_LOGS", wrong)]).len(), 1, "{wrong}");
    }
    let rate = |text: &str| read(&[("SINDRI_AGENT_LOG_RATE", text)]).map(|config| config.log_lines_per_s);
    assert_eq!(["off", "1", "100000"].map(|text| rate(text).expect("a configuration")), [0, 1, 100_000]);
    assert!(["0", "100001", "-1", "many"].iter().all(|text| rate(text).is_err()));
}
