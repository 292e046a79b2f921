//! Files that do not answer: no heartbeat, Pong or keystroke waits for a write, and the start waits 5 s for an open.

use crate::support;
use crate::support::delayed::Delayed;
use crate::support::namespace;
use crate::support::{Agent, Setup, skip};
use draupnir_console::{Console, Personality, What};
use std::path::Path;
use std::process::{Command, Stdio};

/// Waits three times for a heartbeat, a Pong and the echo of a keystroke.
#[track_caller]
fn assert_prompt(console: &Console, session: &str) {
    for round in 0..3 {
        let view = console.from_now();
        let payload = format!("round {round}").into_bytes();
        console.link().send_ping(&payload);
        let shown = console.shown(session);
        console.browser().input(session, format!("echo ro''und{round}\n").as_bytes());
        view.wait("a Pong", |record| matches!(&record.what, What::Pong(pong) if *pong == payload));
        console.wait_text_after(session, shown, &format!("round{round}"));
        view.frame("heartbeat");
    }
}

#[track_caller]
fn open_terminal(console: &Console, session: &str) {
    console.browser().create(session, 80, 24).input(session, b"echo re''ady\n");
    console.wait_text(session, "ready");
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn hung_audit_delays_only_audited_requests() {
    const TEST: &str = "hung_audit_delays_only_audited_requests";
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_AGENT_SHELL", "/bin/sh");
    let audit = setup.home_path().join("audit.jsonl");
    let agent = setup.env("SINDRI_AGENT_AUDIT", &audit).spawn();
    open_terminal(&console, "s");
    let Some(delayed) = Delayed::attach(&agent, "write", Some(&audit)) else {
        return skip(TEST, "the agent cannot be traced here");
    };
    let written = length(&audit);
    console.browser().dispatch("c", "touch ~/ran");
    assert_prompt(&console, "s");
    assert!(console.frames("command:result").is_empty() && length(&audit) == written, "its line is not written");
    assert!(!agent.home().path().join("ran").exists());
    drop(delayed);
    console.result("c");
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    agent.drain();
}

#[test]
fn hung_journal_delays_only_the_first_command() {
    const TEST: &str = "hung_journal_delays_only_the_first_command";
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_AGENT_SHELL", "/bin/sh");
    let agent = setup.spawn();
    open_terminal(&console, "s");
    let Some(delayed) = Delayed::attach(&agent, "write", Some(&agent.home().state_dir().join("journal"))) else {
        return skip(TEST, "the agent cannot be traced here");
    };
    console.browser().dispatch("c", "touch ~/ran");
    assert_prompt(&console, "s");
    // Its record was waited for, and those of what follows are not.
    assert_eq!(console.result("c")["exit_code"], 0);
    assert!(agent.home().path().join("ran").exists());
    drop(delayed);
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    agent.drain();
}

#[test]
fn hung_recording_delays_nothing() {
    const TEST: &str = "hung_recording_delays_nothing";
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_AGENT_SHELL", "/bin/sh");
    let life = setup.home_path().join("life.jsonl");
    let agent = setup.env("SINDRI_AGENT_RECORD", &life).spawn();
    open_terminal(&console, "s");
    let Some(delayed) = Delayed::attach(&agent, "write", Some(&life)) else {
        return skip(TEST, "the agent cannot be traced here");
    };
    assert_prompt(&console, "s");
    let written = length(&life);
    assert_prompt(&console, "s");
    assert_eq!(length(&life), written, "a line hangs");
    drop(delayed);
    agent.drain();
}

#[test]
fn hung_log_delays_nothing() {
    const TEST: &str = "hung_log_delays_nothing";
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_AGENT_SHELL", "/bin/sh");
    let log = setup.home_path().join("log");
    let agent = into_file(setup, &log).spawn();
    open_terminal(&console, "s");
    let Some(delayed) = Delayed::attach(&agent, "write", Some(&log)) else {
        return skip(TEST, "the agent cannot be traced here");
    };
    // Each command logs a line.
    console.browser().run("true");
    assert_prompt(&console, "s");
    let written = length(&log);
    console.browser().run("true");
    assert_prompt(&console, "s");
    assert_eq!(length(&log), written, "a line hangs");
    drop(delayed);
    agent.drain();
}

/// The same agent with its standard error in a file.
fn into_file(setup: Setup, log: &Path) -> Setup {
    let script = format!("exec {} 2>>{}", setup.program_path().display(), log.display());
    setup.program("/bin/sh").arg("-c").arg(script)
}

#[test]
fn hung_state_file_delays_nothing() {
    const TEST: &str = "hung_state_file_delays_nothing";
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2"), ("SINDRI_AGENT_SHELL", "/bin/sh")]);
    open_terminal(&console, "s");
    let state = agent.home().state_dir();
    let file = state.join("identity.json");
    let saved = || std::fs::read_to_string(&file).unwrap_or_default();
    support::settles(&console, "the first id is on the disk", || !saved().is_empty());
    // The new file has no name yet that strace could filter by. The agent syncs no other file.
    let Some(delayed) = Delayed::attach(&agent, "fsync", None) else {
        return skip(TEST, "the agent cannot be traced here");
    };
    let first = saved();
    for id in console.instance_ids() {
        console.forget(&id);
    }
    console.link().reset();
    console.registration_answered(2, 201);
    let heartbeat = console.from_now().frame("heartbeat");
    assert_prompt(&console, "s");
    assert_eq!(saved(), first, "its sync hangs");
    let names = std::fs::read_dir(&state).expect("it is there").map(|entry| entry.expect("it is there").file_name());
    let of_identity = names.filter(|name| name.to_string_lossy().starts_with("identity")).count();
    assert_eq!(of_identity, 2, "the new file stands beside the old one");
    drop(delayed);
    let id = heartbeat.payload()["instance_id"].as_str().expect("an id").to_owned();
    support::settles(&console, "the second id is on the disk", || saved().contains(&id));
    agent.drain();
}

#[test]
fn at_rest_no_file_has_a_thread() {
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.5").env("SINDRI_LOG_LEVEL", "info");
    let audit = setup.home_path().join("audit.jsonl");
    let agent = setup.env("SINDRI_AGENT_AUDIT", audit).spawn();
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    // The threads of the loop and of the reactor.
    support::settles(&console, "two threads are left", || agent.process().threads() == 2);
    agent.drain();
}

#[test]
fn unread_terminal_as_standard_error_blocks_nothing() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    /// How many sessions: their log lines are more than a terminal takes (4 KiB) and fewer than the queue holds.
    const SESSIONS: usize = 80;
    let console = Console::start(Personality::production());
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("it is ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name").into_string().expect("text");
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2").without("SINDRI_LOG_LEVEL");
    let agent = into_file(setup.env("SINDRI_AGENT_SHELL", "/bin/sh"), Path::new(&name)).spawn();
    for n in 0..SESSIONS {
        let session = format!("s{n}");
        console.browser().create(&session, 80, 24).input(&session, b"exit\n");
        console.closed(&session);
    }
    open_terminal(&console, "last");
    assert_prompt(&console, "last");
    agent.drain();
}

/// A file system whose server answers no request, not even the kernel's first one.
const HUNG_MOUNT: &str =
    "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 none \"$HOME/hung\"";

#[test]
fn start_on_hung_mount_goes_on_without_the_files() {
    const TEST: &str = "start_on_hung_mount_goes_on_without_the_files";
    let console = Console::start(Personality::production());
    let setup = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.2");
    let hung = setup.home_path().join("hung");
    std::fs::create_dir(&hung).expect("the home is ours");
    let mut tried = Command::new("unshare");
    tried.args(["--mount", "sh", "-c", HUNG_MOUNT]).env("HOME", setup.home_path()).stderr(Stdio::null());
    if !tried.status().is_ok_and(|status| status.success()) {
        return skip(TEST, "no file system can be mounted here");
    }
    let setup = setup
        .env("SINDRI_AGENT_STATE_DIR", hung.join("state"))
        .env("SINDRI_AGENT_AUDIT", hung.join("audit.jsonl"))
        .env("SINDRI_AGENT_RECORD", hung.join("life.jsonl"));
    let agent = namespace::mounted(setup, &[HUNG_MOUNT]).spawn();
    let lines = [
        ("WARN", "state directory not writable; instance id will not survive a restart", "error"),
        ("WARN", "recording not started", "error"),
        ("ERROR", "audit log not writable; refusing terminals and commands", "problem"),
    ];
    for (level, message, cause) in lines {
        let line = agent.wait_log(|line| line["message"] == message);
        assert_eq!(line["level"], level, "{line}");
        let cause = line[cause].as_str().unwrap_or_default();
        assert!(cause.ends_with("the file system does not answer"), "{line}");
    }
    console.frame("heartbeat");
    console.browser().dispatch("c", "touch ~/ran");
    let result = console.result("c");
    assert_eq!((&result["reason"], &result["exit_code"]), (&"audit_unavailable".into(), &126.into()), "{result}");
    console.browser().create("s", 80, 24);
    assert_eq!(console.closed("s")["reason"], "audit_unavailable");
    console.from_now().nth_frame(3, "heartbeat");
    assert!(!agent.home().path().join("ran").exists());
    agent.drain();
}
