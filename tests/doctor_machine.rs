//! What `sindri-agent doctor` finds on machines other than this one: their files and networks are made for the test.
#![cfg(target_os = "linux")]

#[path = "support/diagnoses.rs"]
mod diagnoses;
#[path = "support/group.rs"]
mod group;
#[path = "support/namespace.rs"]
mod namespace;
#[path = "support/stranger.rs"]
mod stranger;
mod support;

use draupnir_console::{Builder, Console, Personality, Upgrade};
use group::Group;
use namespace::{is_possible, mounted, run_apart};
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

/// The findings that are neither in order nor left out, and the exit status.
fn doctor(setup: Setup, commands: &[String]) -> (Option<i32>, Vec<[String; 3]>) {
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let setup = setup.arg("doctor").arg("--json");
    let output = if commands.is_empty() { setup.output() } else { mounted(setup, &commands).output() };
    let errors = String::from_utf8_lossy(&output.stderr);
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let checks = sheet["checks"].as_array().expect("checks").iter();
    let noted = checks.filter(|check| matches!(check["verdict"].as_str(), Some("warn" | "fail")));
    let told = |check: &Value| ["verdict", "check", "text"].map(|field| text(&check[field]));
    (output.status.code(), noted.map(told).collect())
}

#[track_caller]
fn finds(setup: Setup, commands: &[String], expected: &[(&str, &str)]) {
    let (status, findings) = doctor(setup, commands);
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for ([verdict, check, text], (its_check, words)) in findings.iter().zip(expected) {
        assert_eq!(format!("{verdict} {check}"), *its_check, "{text}");
        diagnoses::judge(verdict, check, words, text);
    }
    assert_eq!(status, Some(i32::from(findings.iter().any(|[verdict, ..]| verdict == "fail"))));
}

/// Whether the test waits for deadlines; says so if not.
fn has_time(test: &str) -> bool {
    let quick = std::env::var_os("DRAUPNIR_QUICK").is_some();
    if quick {
        skip(test, "quick: it waits for the deadline of a step");
    }
    !quick
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
        finds(Setup::new(&console), &commands, &[("fail pty", "no terminal can be opened")]);
    }
}

#[test]
fn a_full_disk() {
    if has_namespaces("a_full_disk") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        let commands = [format!("mount -t tmpfs -o size=1m none {}", home.path().display())];
        finds(Setup::new(&console).home(&home), &commands, &[("warn disk", "make room")]);
    }
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    if has_namespaces("a_state_directory_that_cannot_be_written") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        std::fs::create_dir(home.state_dir()).expect("a directory");
        let commands = [format!("mount -t tmpfs -o ro none {}", home.state_dir().display())];
        finds(Setup::new(&console).home(&home), &commands, &[("warn state", "Read-only file system")]);
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
        let expected = [
            ("warn clear text", "the API key travels to console.test in clear text"),
            ("fail dns", "the name console.test of the console cannot be resolved"),
        ];
        finds(Setup::new(&console).home(&home), &commands, &expected);
        // A proxy has a name, too, and another variable. The console's is then nobody's business here.
        let console = Console::builder(Personality::production()).host("console").start();
        let setup = Setup::new(&console).home(&home).env("HTTP_PROXY", "http://proxy.test:3128");
        finds(setup, &commands, &[("fail dns", "the name proxy.test of the proxy cannot be resolved")]);
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
        finds(setup, &commands, &[("warn tcp", "but not everywhere: ")]);
    }
}

#[test]
fn a_console_that_says_nothing() {
    if !has_time("a_console_that_says_nothing") {
        return;
    }
    let console = Console::start(Personality::production());
    console.answer_upgrade(Upgrade::hang());
    finds(Setup::new(&console), &[], &[("fail websocket", "does not answer it")]);
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let setup = |url: &str| Setup::new(&console).env("SINDRI_CONSOLE_URL", url);
    finds(setup(&url), &[], &[("fail registration", "does not answer it")]);
    let url = url.replace("http://", "https://");
    finds(setup(&url), &[], &[("fail tls", "accepts connections and shakes no hands")]);
}

#[test]
fn a_proxy_that_says_nothing() {
    if has_time("a_proxy_that_says_nothing") {
        let console = Console::builder(Personality::production()).host("0.0.0.0").start();
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let proxy = format!("http://{}", silent.local_addr().expect("an address"));
        let words = "accepts connections and gives no tunnel; look into its log, or correct HTTP_PROXY";
        finds(Setup::new(&console).env("HTTP_PROXY", proxy), &[], &[("fail proxy", words)]);
    }
}

#[test]
fn a_shell_that_does_not_end() {
    if has_time("a_shell_that_does_not_end") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        let shell = home.path().join("shell");
        std::fs::write(&shell, "#!/bin/sh\nwhile :; do sleep 1; done\n").expect("written");
        std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
        let setup = Setup::new(&console).home(&home).env("SINDRI_AGENT_SHELL", &shell);
        finds(setup, &[], &[("fail shell", "was told to exit, and did not within 5 s")]);
    }
}

#[test]
fn a_disk_without_inodes() {
    if has_namespaces("a_disk_without_inodes") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        // The root of a file system is an inode itself.
        let commands = [format!("mount -t tmpfs -o size=100m,nr_inodes=1 none {}", home.path().display())];
        finds(Setup::new(&console).home(&home), &commands, &[("warn disk", "but no inode: remove files")]);
    }
}

/// What the agent finds in a container with this limit.
#[track_caller]
fn finds_in_a_group(test: &str, controller: &str, file: [&str; 2], limit: &str, words: &str) {
    if !has_namespaces(test) {
        return;
    }
    let group = match Group::new(controller, file, limit) {
        Ok(group) => group,
        Err(reason) => return skip(test, &reason),
    };
    let place = group.place();
    let commands = [
        format!("echo $$ >{}/cgroup.procs", place.display()),
        // A container sees its own group where others see the topmost one.
        format!("mount --bind {} {}", place.display(), place.parent().expect("it is below one").display()),
    ];
    finds(Setup::new(&Console::start(Personality::production())), &commands, &[("warn limits", words)]);
}

#[test]
fn too_little_memory() {
    let files = ["memory.max", "memory.limit_in_bytes"];
    finds_in_a_group("too_little_memory", "memory", files, "50331648", "too little for the agent and a shell");
}

#[test]
fn too_few_processes() {
    let files = ["pids.max", "pids.max"];
    let words = "only 32 processes, by a control group: too few for sessions and commands";
    finds_in_a_group("too_few_processes", "pids", files, "32", words);
}

#[test]
fn too_few_processes_of_a_user() {
    if !rustix::process::geteuid().is_root() {
        return skip("too_few_processes_of_a_user", "only root can become another user");
    }
    let (console, home) = (Console::start(Personality::production()), Home::new());
    std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("it is ours");
    let (setup, _program) = stranger::as_stranger(&console, &["prlimit", "--nproc=40"]);
    let words = "only 40 processes, by ulimit -u: too few for sessions and commands";
    finds(setup.home(&home), &[], &[("warn limits", words)]);
}

#[test]
fn a_network_that_swallows_everything() {
    const TEST: &str = "a_network_that_swallows_everything";
    // The neighbour is known, and is nobody: no router ever says that it cannot be reached.
    let network = [
        "ip link add black type veth peer name void",
        "ip addr add 10.99.0.1/24 dev black",
        "ip link set black up",
        "ip link set void up",
        "ip neigh add 10.99.0.9 lladdr 02:00:00:00:00:01 dev black nud permanent",
    ];
    if has_time(TEST) && !run_apart("with_a_network_that_swallows_everything", &network) {
        skip(TEST, "no network namespace can be had here");
    }
}

#[test]
#[ignore = "on a network of its own"]
fn with_a_network_that_swallows_everything() {
    let (home, console) = (Home::new(), Console::builder(Personality::production()).host("console").start());
    let commands = [instead_of("/etc/hosts", &home, "10.99.0.9 console\n")];
    let words = "a firewall swallows what it is sent, or nobody is there";
    finds(Setup::new(&console).home(&home), &commands, &[("fail tcp", words)]);
    // A name server that is never heard of.
    let commands = [
        instead_of("/etc/hosts", &home, ""),
        instead_of("/etc/resolv.conf", &home, "nameserver 10.99.0.9\noptions timeout:30 attempts:1\n"),
    ];
    let expected = [("fail dns", "nobody told where the console console:")];
    finds(Setup::new(&console).home(&home), &commands, &expected);
}
