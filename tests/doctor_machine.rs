//! `sindri-agent doctor` on machines with faults: each test makes the files or the network of such a machine.

use crate::support::diagnoses;
use crate::support::group::Group;
use crate::support::namespace::{is_possible, mounted, run_apart};
use crate::support::stranger;
use crate::support::{Home, Setup, skip};
use draupnir_console::{Builder, Console, Personality, Upgrade};
use serde_json::Value;
use std::path::Path;

const NAME: &str = "console.test";

fn named() -> Builder {
    Console::builder(Personality::production()).host(NAME)
}

/// Whether the test can run; if not, it is recorded as skipped.
fn has_namespaces(test: &str) -> bool {
    let possible = is_possible();
    if !possible {
        skip(test, "no mount namespace can be had here");
    }
    possible
}

/// The exit status, and all warnings and failures.
fn doctor(setup: Setup, commands: &[String]) -> (Option<i32>, Vec<[String; 3]>) {
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let setup = setup.arg("doctor").arg("--json");
    let output = if commands.is_empty() { setup.output() } else { mounted(setup, &commands).output() };
    let errors = String::from_utf8_lossy(&output.stderr);
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let checks = sheet["checks"].as_array().expect("checks").iter();
    let noted = checks.filter(|check| matches!(check["verdict"].as_str(), Some("warn" | "fail")));
    let finding = |check: &Value| ["verdict", "check", "text"].map(|field| text(&check[field]));
    (output.status.code(), noted.map(finding).collect())
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

/// Whether the test may wait for deadlines; if not, it is recorded as skipped.
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
fn started_shell_finds_no_key_in_doctor() {
    let (home, console) = (Home::new(), Console::start(Personality::production()));
    let shell = home.path().join("shell");
    std::fs::write(&shell, "#!/bin/sh\nexec >\"$HOME/seen\"\ncat /proc/$PPID/environ /proc/$PPID/limits\nenv\n")
        .expect("written");
    std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let setup = Setup::new(&console).home(&home).env("SINDRI_AGENT_SHELL", &shell);
    // A shell without root's rights may not read the files, which is a correct finding, too.
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
fn read_only_state_directory_warns() {
    if has_namespaces("read_only_state_directory_warns") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        std::fs::create_dir(home.state_dir()).expect("a directory");
        let commands = [format!("mount -t tmpfs -o ro none {}", home.state_dir().display())];
        finds(Setup::new(&console).home(&home), &commands, &[("warn state", "Read-only file system")]);
    }
}

#[test]
fn unknown_name_fails_dns() {
    if has_namespaces("unknown_name_fails_dns") {
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
        // With a proxy the agent resolves the proxy's name and leaves the console's to it.
        let console = Console::builder(Personality::production()).host("console").start();
        let setup = Setup::new(&console).home(&home).env("HTTP_PROXY", "http://proxy.test:3128");
        finds(setup, &commands, &[("fail dns", "the name proxy.test of the proxy cannot be resolved")]);
    }
}

#[test]
fn some_addresses_of_a_name_are_dead() {
    if has_namespaces("some_addresses_of_a_name_are_dead") {
        let home = Home::new();
        // A name without a dot: no public host has it, so clear text is no warning.
        let console = Console::builder(Personality::production()).host("console").start();
        let commands = [instead_of("/etc/hosts", &home, "127.0.0.9 console\n127.0.0.1 console\n")];
        let setup = Setup::new(&console).home(&home);
        finds(setup, &commands, &[("warn tcp", "but not everywhere: ")]);
    }
}

#[test]
fn silent_console_fails_within_the_deadlines() {
    if !has_time("silent_console_fails_within_the_deadlines") {
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
    finds(setup(&url), &[], &[("fail tls", "does not complete the TLS handshake")]);
}

#[test]
fn silent_proxy_fails_within_the_deadline() {
    if has_time("silent_proxy_fails_within_the_deadline") {
        let console = Console::builder(Personality::production()).host("0.0.0.0").start();
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let proxy = format!("http://{}", silent.local_addr().expect("an address"));
        let words = "accepts connections but opens no tunnel; look into its log, or correct HTTP_PROXY";
        finds(Setup::new(&console).env("HTTP_PROXY", proxy), &[], &[("fail proxy", words)]);
    }
}

#[test]
fn shell_not_exiting_fails_within_5_s() {
    if has_time("shell_not_exiting_fails_within_5_s") {
        let (home, console) = (Home::new(), Console::start(Personality::production()));
        let shell = home.path().join("shell");
        std::fs::write(&shell, "#!/bin/sh\nwhile :; do sleep 1; done\n").expect("written");
        std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
        let setup = Setup::new(&console).home(&home).env("SINDRI_AGENT_SHELL", &shell);
        finds(setup, &[], &[("fail shell", "ran `exit 0` and did not exit within 5 s")]);
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

/// Runs `doctor` in a control group with this limit and checks its finding.
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
        // A container sees its own group at the place of the topmost one.
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
fn network_dropping_all_packets_fails_in_time() {
    const TEST: &str = "network_dropping_all_packets_fails_in_time";
    // The neighbour's address is fixed but no host has it, so no router reports it as unreachable.
    let network = [
        "ip link add black type veth peer name void",
        "ip addr add 10.99.0.1/24 dev black",
        "ip link set black up",
        "ip link set void up",
        "ip neigh add 10.99.0.9 lladdr 02:00:00:00:00:01 dev black nud permanent",
    ];
    if has_time(TEST) && !run_apart("doctor_machine::with_a_network_dropping_all_packets", &network) {
        skip(TEST, "no network namespace can be had here");
    }
}

#[test]
#[ignore = "on a network of its own"]
fn with_a_network_dropping_all_packets() {
    let (home, console) = (Home::new(), Console::builder(Personality::production()).host("console").start());
    let commands = [instead_of("/etc/hosts", &home, "10.99.0.9 console\n")];
    let words = "a firewall drops the packets, or the host is down";
    finds(Setup::new(&console).home(&home), &commands, &[("fail tcp", words)]);
    // A name server that does not answer.
    let commands = [
        instead_of("/etc/hosts", &home, ""),
        instead_of("/etc/resolv.conf", &home, "nameserver 10.99.0.9\noptions timeout:30 attempts:1\n"),
    ];
    let expected = [("fail dns", "no name server answered for the console console:")];
    finds(Setup::new(&console).home(&home), &commands, &expected);
}
