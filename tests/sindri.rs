//! What the agent reports about Sindri: names, distribution, extensions and their changes (CONSOLE.md, "Where Mimir's
//! fields come from").

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use crate::support::{Agent, Home, INSTANCE_ID, Setup};
use draupnir_console::{Console, Personality, Record, What};
use serde_json::{Value, json};

const FAST: (&str, &str) = ("SINDRI_AGENT_HEARTBEAT", "0.2");

/// A line of the status ledger as Sindri writes it, with the time `number` minutes after the hour.
fn entry(number: u32, name: &str, state: &str, event: &Value) -> String {
    let line = json!({
        "event_id": format!("e{number}"),
        "timestamp": format!("2026-05-01T12:{number:02}:00.000000001Z"),
        "extension_name": name,
        "cli_version": "3.1.0",
        "state_before": null,
        "state_after": state,
        "event": event,
    });
    format!("{line}\n")
}

fn installed(number: u32, name: &str) -> String {
    let event = json!({"type": "install_completed", "extension_name": name, "version": "1.0.0", "duration_secs": 7});
    entry(number, name, "installed", &event)
}

fn append(home: &Home, text: &str) {
    let folder = home.path().join(".sindri");
    fs::create_dir_all(&folder).expect("a directory");
    let ledger = fs::OpenOptions::new().create(true).append(true).open(folder.join("status_ledger.jsonl"));
    ledger.and_then(|mut ledger| ledger.write_all(text.as_bytes())).expect("written");
}

fn is_of_sindri(record: &Record) -> bool {
    record.kind() == "event" && record.payload()["metadata"]["source"] == "sindri"
}

fn setup(console: &Console, home: &Home) -> Setup {
    Setup::new(console).home(home).env(FAST.0, FAST.1).env("SINDRI_PROVIDER", "fly")
}

/// Every event about an extension.
fn reported(console: &Console) -> Vec<Arc<Record>> {
    console.frames("event").into_iter().filter(|record| is_of_sindri(record)).collect()
}

#[test]
fn registration_names_the_extensions() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    append(&home, &(installed(1, "python") + &installed(2, "node")));
    let agent = setup(&console, &home).spawn();
    let body = console.registration_answered(1, 201).request().json();
    assert_eq!(body["extensions"], json!(["node", "python"]));
    let distro = body.get("distro").map(|distro| distro.as_str().expect("a text"));
    assert!(distro.is_none_or(|distro| ["ubuntu", "fedora", "opensuse"].contains(&distro)), "{body}");
    assert_eq!(console.frame("registration").payload()["extensions"], body["extensions"]);
    agent.drain();
}

#[test]
fn heartbeat_names_software_on_connect_and_after_a_change() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    append(&home, &installed(1, "python"));
    let agent = setup(&console, &home).spawn();
    let first = console.frame("heartbeat");
    assert!(first.payload()["distro"].is_string());
    assert_eq!(first.payload()["extensions"], json!(["python"]));
    let second = console.after(&first).frame("heartbeat");
    assert!(second.payload().get("distro").is_none() && second.payload().get("extensions").is_none());
    append(&home, &(installed(2, "no\0de") + &installed(3, "go")));
    let names = |record: &Record| record.kind() == "heartbeat" && record.payload().get("extensions").is_some();
    let changed = console.after(&second).wait("a heartbeat with the new names", names);
    assert!(changed.payload()["distro"].is_string(), "without it the console stores no extensions");
    assert_eq!(changed.payload()["extensions"], json!(["go", "node", "python"]));
    console.connection(1).close(1012, "restart");
    let again = console.on(2).frame("heartbeat");
    assert_eq!(again.payload()["extensions"], changed.payload()["extensions"]);
    agent.drain();
    assert_eq!(console.count(names), 3);
}

#[test]
fn instance_without_sindri_has_a_distribution_alone() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    let heartbeat = console.frame("heartbeat");
    assert!(
        heartbeat.payload()["distro"].is_string() && heartbeat.payload().get("extensions").is_none(),
        "{}",
        heartbeat.raw()
    );
    agent.drain();
}

#[test]
fn ledger_entries_become_events_once() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    append(&home, &installed(1, "before"));
    let agent = setup(&console, &home).spawn();
    let heartbeat = console.frame("heartbeat");
    let upgrade =
        json!({"type": "upgrade_completed", "from_version": "1.0.0", "to_version": "1.1.0", "duration_secs": 3});
    let failure =
        json!({"type": "install_failed", "version": "2.0.0", "error_message": "no network", "retry_count": 1});
    let removal = json!({"type": "remove_completed", "version": "1.1.0"});
    append(
        &home,
        &(entry(2, "python", "installing", &json!({"type": "install_started", "version": "1.0.0"}))
            + &installed(3, "python")
            + &entry(4, "python", "installed", &upgrade)
            + &entry(5, "node", "failed", &failure)
            + &entry(6, "python", "removed", &removal)),
    );
    let is_last = |record: &Record| is_of_sindri(record) && record.payload()["metadata"]["ledger_event_id"] == "e6";
    console.after(&heartbeat).wait("the removal", is_last);
    let kinds: Vec<Value> = reported(&console).iter().map(|event| event.payload()["eventType"].clone()).collect();
    assert_eq!(kinds, ["EXTENSION_INSTALL", "EXTENSION_INSTALL", "ERROR", "EXTENSION_REMOVE"]);
    let metadata: Vec<Value> = reported(&console).iter().map(|event| event.payload()["metadata"].clone()).collect();
    assert_eq!(
        metadata[..3],
        [
            json!({"source": "sindri", "name": "python", "ledger_event_id": "e3", "version": "1.0.0",
                "duration_seconds": 7, "cli_version": "3.1.0"}),
            json!({"source": "sindri", "name": "python", "ledger_event_id": "e4", "version": "1.1.0",
                "from_version": "1.0.0", "duration_seconds": 3, "cli_version": "3.1.0"}),
            json!({"source": "sindri", "name": "node", "ledger_event_id": "e5", "version": "2.0.0",
                "error": "no network", "cli_version": "3.1.0"}),
        ]
    );
    assert_eq!(reported(&console)[0].payload()["timestamp"], "2026-05-01T12:03:00.000Z", "when it happened");
    agent.drain();

    // The agent reports the lines that were written while it did not run, and reports no line twice.
    append(&home, &installed(7, "go"));
    let agent = setup(&console, &home).spawn();
    let is_new = |record: &Record| is_of_sindri(record) && record.payload()["metadata"]["ledger_event_id"] == "e7";
    let new = console.wait("the event of the time between", is_new);
    console.after(&new).frame("heartbeat");
    agent.drain();
    assert_eq!(reported(&console).len(), 5);
}

#[test]
fn killed_agent_reports_a_change_as_one_event() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    append(&home, &installed(1, "before"));
    let agent = setup(&console, &home).spawn();
    let heartbeat = console.frame("heartbeat");
    append(&home, &installed(2, "python"));
    let event = console.after(&heartbeat).wait("the event", is_of_sindri);
    agent.kill();
    let agent = setup(&console, &home).spawn();
    // What was not acknowledged goes out before the heartbeats, with the id that it had.
    let heartbeat = console.after(&event).frame("heartbeat");
    console.after(&heartbeat).frame("heartbeat");
    agent.drain();
    let ids: BTreeSet<String> = reported(&console).iter().map(|event| event.payload()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn old_entries_of_a_new_ledger_are_not_reported() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    let agent = setup(&console, &home).spawn();
    let heartbeat = console.frame("heartbeat");
    append(&home, &installed(1, "python"));
    let names = |record: &Record| record.kind() == "heartbeat" && record.payload().get("extensions").is_some();
    let changed = console.after(&heartbeat).wait("a heartbeat with the names", names);
    console.after(&changed).frame("heartbeat");
    agent.drain();
    assert_eq!(reported(&console).len(), 0);
}

#[test]
fn hanging_ledger_delays_no_heartbeat() {
    const NAME: &str = "hanging_ledger_delays_no_heartbeat";
    let Some(strace) = ["/usr/bin/strace", "/bin/strace"].iter().find(|path| std::path::Path::new(path).exists())
    else {
        return support::skip(NAME, "there is no strace");
    };
    if !rustix::process::geteuid().is_root() {
        return support::skip(NAME, "only root can trace an agent that forbids tracing");
    }
    let (console, home) = (Console::start(Personality::production()), Home::new());
    append(&home, &installed(1, "python"));
    let agent = setup(&console, &home)
        .program(strace)
        .args_before(["-D", "-fqq", "-o/dev/null", "-P"].map(Into::into))
        .arg(home.path().join(".sindri/status_ledger.jsonl"))
        .arg("-einject=openat:delay_enter=3s")
        .arg(support::agent_program())
        .spawn();
    let registration = console.registration_answered(1, 201);
    assert!(registration.request().json().get("extensions").is_none());
    let names = |record: &Record| record.kind() == "heartbeat" && record.payload().get("extensions").is_some();
    let named = console.wait("a heartbeat with the names", names);
    let is_earlier = |record: &Record| record.kind() == "heartbeat" && record.seq < named.seq;
    assert!(console.count(is_earlier) >= 3, "heartbeats waited for the ledger");
    agent.drain();
}

#[test]
#[cfg(target_os = "linux")]
fn heartbeat_without_news_starts_no_thread() {
    let (console, home) = (Console::start(Personality::production()), Home::new());
    append(&home, &installed(1, "python"));
    // Without debug lines, for which the log has a thread.
    let agent = setup(&console, &home).env("SINDRI_LOG_LEVEL", "info").spawn();
    // The threads of the start end half a second after their work.
    console.frame("heartbeat");
    support::settles(&console, "two threads at rest", || agent.process().threads() <= 2);
    let mut view = console.from_now();
    for _ in 0..5 {
        let heartbeat = view.frame("heartbeat");
        assert!(agent.process().threads() <= 2);
        view = view.after(&heartbeat);
    }
    agent.drain();
}

#[test]
fn k8s_registers_as_kubernetes_at_once() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", "k8s")]);
    assert_eq!(console.registration_answered(1, 201).request().json()["provider"], "kubernetes");
    console.frame("heartbeat");
    agent.drain();
    assert_eq!(console.count(|record| matches!(record.what, What::Registration(_, 422))), 0);
}

#[test]
fn ssh_is_a_provider_without_a_warning() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", "ssh")]);
    console.registration_answered(1, 201);
    console.frame("heartbeat");
    agent.drain();
    assert_eq!(agent.log().count(|line| line["level"] == "WARN" && line.to_string().contains("SINDRI_PROVIDER")), 0);
}

#[test]
fn the_name_in_the_console_is_the_configured_id() {
    for (provider, is_configured) in [("fly", true), ("docker", false)] {
        let console = Console::start(Personality::production());
        let agent = Agent::spawn(&console, &[("SINDRI_PROVIDER", provider)]);
        let body = console.registration_answered(1, 201).request().json();
        assert_eq!(body["hostname"] == INSTANCE_ID, is_configured, "{body}");
        assert_eq!(body.get("machine_hostname").is_some(), is_configured, "{body}");
        agent.drain();
    }
    let console = Console::start(Personality::production());
    let agent = Setup::new(&console).without("SINDRI_INSTANCE_ID").env("SINDRI_PROVIDER", "fly").spawn();
    let body = console.registration_answered(1, 201).request().json();
    assert_eq!((&body["hostname"], body.get("machine_hostname")), (&body["instance_id"], None));
    agent.drain();
}
