//! What `sindri-agent doctor` finds on machines other than this one: their files and networks are made for the test.
#![cfg(target_os = "linux")]

#[path = "support/namespace.rs"]
mod namespace;
mod support;

use draupnir_console::{Builder, Console, Personality, Upgrade};
use namespace::{is_possible, mounted};
use serde_json::Value;
use std::path::Path;
use support::{Home, Setup, skip};

const NAME: &str = "console.test";

fn named() -> Builder {
    Console::builder(Personality::production()).host(NAME)
}

/// Whether the test can run; says so if not.
fn has_namespaces(test: &str) -> bool {
    let possible = is_possible();
    if !possible {
        skip(test, "no mount namespace can be had here");
    }
    possible
}

/// The findings that are neither in order nor left out, as `verdict check: text`, and the exit status.
fn doctor(setup: Setup, commands: &[String]) -> (Option<i32>, Vec<String>) {
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let setup = setup.arg("doctor").arg("--json");
    let output = if commands.is_empty() { setup.output() } else { mounted(setup, &commands).output() };
    let errors = String::from_utf8_lossy(&output.stderr);
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let checks = sheet["checks"].as_array().expect("checks").iter();
    let noted = checks.filter(|check| matches!(check["verdict"].as_str(), Some("warn" | "fail")));
    let told =
        |check: &Value| format!("{} {}: {}", text(&check["verdict"]), text(&check["check"]), text(&check["text"]));
    (output.status.code(), noted.map(told).collect())
}

#[track_caller]
fn finds(setup: Setup, commands: &[String], beginning: &str, words: &str) {
    let (status, findings) = doctor(setup, commands);
    let [finding] = &findings[..] else { panic!("not one finding: {findings:#?}") };
    assert!(finding.starts_with(beginning) && finding.contains(words), "{finding}\nlacks: {beginning} … {words}");
    assert_eq!(status, Some(i32::from(finding.starts_with("fail"))));
}

fn instead_of(path: &str, home: &Home, text: &str) -> String {
    let file = home.path().join(Path::new(path).file_name().expect("a name"));
    std::fs::write(&file, text).expect("written");
    format!("mount --bind {} {path}", file.display())
}

#[test]
fn what_it_starts_finds_no_key_in_it() {
    let (home, console) = (Home::new(), Console::start(Personality::production()));
    let shell = home.path().join("shell");
    std::fs::write(&shell, "#!/bin/sh\nexec >\"$HOME/seen\"\ncat /proc/$PPID/environ /proc/$PPID/limits\nenv\n")
        .expect("written");
    std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let setup = Setup::new(&console).home(&home).env("SINDRI_AGENT_SHELL", &shell);
    // Where this user is not root the shell may not even look, which is as well.
    let is_root = rustix::process::geteuid().is_root();
    let (status, _) = doctor(setup, &[]);
    assert_eq!(status, Some(0));
    let seen = std::fs::read(home.path().join("seen")).expect("the shell was started");
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("SINDRI_INSTANCE_ID=") && !seen.contains(&console.key()), "{seen}");
    if is_root {
        let core = seen.lines().find(|line| line.starts_with("Max core file size")).expect("a line for cores");
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
}

#[test]
fn a_machine_without_terminals() {
    if has_namespaces("a_machine_without_terminals") {
        let console = Console::start(Personality::production());
        let commands = ["mount --bind /dev/null /dev/ptmx".to_owned(), "mount -t tmpfs none /dev/pts".to_owned()];
        finds(Setup::new(&console), &commands, "fail pty", "no terminal can be opened");
    }
}

#[test]
fn a_full_disk() {
    if has_namespaces("a_full_disk") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        let commands = [format!("mount -t tmpfs -o size=1m none {}", home.path().display())];
        finds(Setup::new(&console).home(&home), &commands, "warn disk", "make room");
    }
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    if has_namespaces("a_state_directory_that_cannot_be_written") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        std::fs::create_dir(home.state_dir()).expect("a directory");
        let commands = [format!("mount -t tmpfs -o ro none {}", home.state_dir().display())];
        finds(Setup::new(&console).home(&home), &commands, "warn state", "Read-only file system");
    }
}

#[test]
fn a_name_that_nobody_knows() {
    if has_namespaces("a_name_that_nobody_knows") {
        let (home, console) = (Home::new(), named().start());
        // No name server listens there.
        let commands = [
            instead_of("/etc/hosts", &home, ""),
            instead_of("/etc/resolv.conf", &home, "nameserver 127.0.0.99\noptions timeout:1 attempts:1\n"),
        ];
        let (status, findings) = doctor(Setup::new(&console).home(&home), &commands);
        let [clear_text, dns] = &findings[..] else { panic!("not two findings: {findings:#?}") };
        assert!(
            clear_text.starts_with("warn clear text: the API key travels to console.test in clear text"),
            "{clear_text}"
        );
        assert!(dns.starts_with("fail dns: the name console.test cannot be resolved"), "{dns}");
        assert_eq!(status, Some(1));
    }
}

#[test]
fn some_addresses_of_a_name_are_dead() {
    if has_namespaces("some_addresses_of_a_name_are_dead") {
        let home = Home::new();
        // A name without a dot is nobody's outside this network.
        let console = Console::builder(Personality::production()).host("console").start();
        let commands = [instead_of("/etc/hosts", &home, "127.0.0.9 console\n127.0.0.1 console\n")];
        let setup = Setup::new(&console).home(&home);
        finds(setup, &commands, "warn tcp: connected to 127.0.0.1:", "but not everywhere: ");
    }
}

#[test]
fn a_console_that_says_nothing() {
    if std::env::var_os("DRAUPNIR_QUICK").is_some() {
        return skip("a_console_that_says_nothing", "quick: it waits for the deadlines of two exchanges");
    }
    let console = Console::start(Personality::production());
    console.answer_upgrade(Upgrade::hang());
    finds(Setup::new(&console), &[], "fail websocket", "does not answer it");
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    finds(Setup::new(&console).env("SINDRI_CONSOLE_URL", url), &[], "fail registration", "does not answer it");
}
