//! The audit log: one line for each start and end of a terminal or command. While it is not writable, the agent starts
//! none.

use crate::support;
use crate::support::Agent;
use draupnir_console::{Console, Personality};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the audit is there");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn starts_and_ends_are_audited_without_content() {
    let console = Console::start(Personality::production());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("audit.jsonl");
    let audit = path.display().to_string();
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_AUDIT", &audit), ("SINDRI_AGENT_SHELL", "/bin/sh")]);
    let browser = console.browser();
    browser.dispatch_with(
        "c1",
        &json!({"command": "/bin/sh", "args": ["-c", "echo se''cret-output; exit 3"], "env": ["PASSWORD=se-cret"]}),
    );
    assert_eq!(console.result("c1")["exit_code"], 3);
    browser.dispatch("c1", "/bin/false");
    browser.create("s1", 80, 24).input("s1", b"echo se''cret-typing; exit 4\n");
    assert_eq!(console.closed("s1")["exit_code"], 4);
    browser.create_with("s2", &json!({"cols": 80, "rows": 24, "shell": "/bin/bash"})).input("s2", b"exit 5\n");
    assert_eq!(console.closed("s2")["exit_code"], 5);
    // Ends do not wait for their lines; the exit writes the last ones.
    agent.drain();
    let mut entries = lines(&path);
    // The console asks for logs when it accepts the connection.
    assert_eq!(entries.remove(0)["what"], "logs_subscribed");
    let what: Vec<&str> = entries.iter().filter_map(|entry| entry["what"].as_str()).collect();
    assert_eq!(
        what,
        [
            "command_started",
            "command_ended",
            "terminal_opened",
            "terminal_closed",
            "terminal_opened",
            "terminal_closed"
        ],
        "a repeat runs nothing"
    );
    assert_eq!(entries[0]["program"], "/bin/sh");
    assert_eq!(entries[0]["args"][1], "echo se''cret-output; exit 3");
    assert_eq!(entries[1]["exit_code"], 3);
    assert_eq!(entries[1]["stdout_bytes"], "secret-output\n".len());
    assert_eq!(entries[2]["shell"], "/bin/sh", "none was asked for: it is the configured one");
    assert_eq!(entries[4]["shell"], "/bin/bash");
    assert_eq!(entries[3]["session_id"], "s1");
    assert_eq!(entries[3]["exit_code"], 4);
    assert_eq!(entries[3]["input_bytes"], "echo se''cret-typing; exit 4\n".len());
    assert!(entries[3]["output_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let text = std::fs::read_to_string(&path).expect("it is there");
    for secret in ["secret-output", "secret-typing", "se-cret", "PASSWORD"] {
        assert!(!text.contains(secret), "{secret} is in the audit");
    }
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn full_disk_refuses_work_and_stops_no_heartbeat() {
    if !std::path::Path::new("/dev/full").exists() {
        return support::skip("full_disk_refuses_work_and_stops_no_heartbeat", "there is no /dev/full");
    }
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_AUDIT", "/dev/full"), ("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    console.browser().dispatch("c", "touch ~/ran");
    let result = console.result("c");
    assert_eq!(result["reason"], "audit_unavailable", "{result}");
    assert_eq!(result["exit_code"], 126);
    assert!(result["stderr"].as_str().is_some_and(|text| text.contains("/dev/full")), "{result}");
    console.browser().create("s", 80, 24);
    let closed = console.closed("s");
    assert_eq!(closed["reason"], "audit_unavailable", "{closed}");
    let event = console.event("error");
    assert_eq!(event.payload()["metadata"]["source"], "audit");
    let heartbeats = console.frames("heartbeat").len();
    console.nth_frame(heartbeats + 3, "heartbeat");
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}

/// Another user may have created the file: the agent follows no symlink, waits for no FIFO and corrects the mode.
#[test]
fn planted_files_in_place_of_ours_harm_nothing() {
    let console = Console::start(Personality::production());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [target, link, fifo] = ["target", "link", "fifo"].map(|name| directory.path().join(name));
    std::fs::write(&target, "precious\n").expect("written");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    for (n, planted) in (1..).zip([&link, &fifo]) {
        let planted = planted.display().to_string();
        let agent = Agent::spawn(&console, &[("SINDRI_AGENT_AUDIT", &planted), ("SINDRI_AGENT_RECORD", &planted)]);
        console.on(n).frame("heartbeat");
        console.browser().dispatch(&format!("c{n}"), "true");
        let result = console.result(&format!("c{n}"));
        assert_eq!(result["reason"], "audit_unavailable", "{result}");
        agent.wait_log(|line| line["level"] == "WARN" && line["message"] == "recording not started");
        agent.drain();
    }
    assert_eq!(std::fs::read_to_string(&target).expect("it is there"), "precious\n");
}

#[test]
fn files_that_others_may_read_become_the_owners_alone() {
    let console = Console::start(Personality::production());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [audit, record] = ["audit", "record"].map(|name| directory.path().join(name));
    for file in [&audit, &record] {
        std::fs::write(file, "before\n").expect("written");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).expect("it is ours");
    }
    let variables = [("SINDRI_AGENT_AUDIT", audit.to_str()), ("SINDRI_AGENT_RECORD", record.to_str())];
    let agent = Agent::spawn(&console, &variables.map(|(name, path)| (name, path.expect("text"))));
    assert_eq!(console.browser().run("true")["exit_code"], 0);
    for file in [&audit, &record] {
        assert_eq!(std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    assert!(std::fs::read_to_string(&audit).expect("text").starts_with("before\n{"), "it is appended to");
    assert!(std::fs::read_to_string(&record).expect("text").starts_with('{'), "it is begun again");
    let previous = directory.path().join("record.previous");
    assert_eq!(std::fs::read_to_string(&previous).expect("it was kept"), "before\n");
    assert_eq!(std::fs::metadata(&previous).expect("it is there").permissions().mode() & 0o777, 0o600);
    agent.drain();
}

#[test]
fn a_file_of_another_user_is_not_written_to() {
    if !rustix::process::geteuid().is_root() {
        return support::skip("a_file_of_another_user_is_not_written_to", "only root can give a file away");
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::os::unix::fs::chown(file.path(), Some(54_321), None).expect("root may");
    let error = draupnir::own_file::open(file.path()).expect_err("it is another's");
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}
