//! How sessions end: by the console, by a drain, and with processes that survive them.

use crate::support;
use crate::support::{Agent, settles};
use draupnir_console::{Console, Personality};
use serde_json::{Value, json};
use std::path::Path;

fn desk() -> (Console, Agent) {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SINDRI_AGENT_HEARTBEAT", "0.2")]);
    (console, agent)
}

fn open_quiet(console: &Console, session: &str, shell: &str) {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": shell}));
    console.browser().input(session, b"stty -echo; PS1=; PS2=; echo set''tled\n");
    console.wait_text(session, "settled\r\n");
}

fn line(console: &Console, session: &str, line: &str) {
    console.browser().input(session, format!("{line}\n").as_bytes());
}

/// The number that a line printed as `name=number=`.
fn number(console: &Console, session: &str, name: &str) -> u32 {
    let stream = console.wait_stream(session, name, |stream| {
        stream.text().split(&format!("{name}=")).nth(1).is_some_and(|rest| rest.contains('='))
    });
    let text = stream.text().into_owned();
    let rest = text.split(&format!("{name}=")).nth(1).expect("it was seen");
    rest.split('=').next().expect("the front").parse().expect("a number")
}

fn runs(process: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).unwrap_or_default();
    !matches!(stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()), None | Some("Z" | "X"))
}

fn reason(closed: &Value) -> (&Value, i64) {
    (&closed["reason"], closed["exit_code"].as_i64().expect("an exit code"))
}

/// Whether this process exists and sleeps.
fn sleeps(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

#[test]
fn close_sends_sighup_to_shell_and_its_jobs() {
    let (console, agent) = desk();
    open_quiet(&console, "s", "/bin/bash");
    line(&console, "s", "echo shell=$$=; sh -c 'echo job=$$=; exec sleep 100'");
    let (shell, job) = (number(&console, "s", "shell"), number(&console, "s", "job"));
    assert!(runs(shell) && runs(job));
    console.browser().close("s");
    assert_eq!(reason(&console.closed("s")), (&json!("closed"), 129));
    assert!(!runs(shell));
    settles(&console, "the job is gone", || !runs(job));
    assert_eq!(agent.process().children(), []);
    agent.drain();
}

#[test]
fn terminal_closed_and_opened_again_shows_later_output() {
    let (console, agent) = desk();
    open_quiet(&console, "s", "/bin/sh");
    let (closed, go) = (agent.home().path().join("closed"), agent.home().path().join("go"));
    let program = format!(
        "exec sh -c 't=$(tty); exec <&- >&- 2>&-; echo >{}; until [ -e {} ]; do sleep 0.01; done; \
         exec <$t >$t 2>&1; echo back; read x; echo got $x; exit 7'",
        closed.display(),
        go.display(),
    );
    line(&console, "s", &program);
    settles(&console, "the program has closed the terminal", || closed.exists());
    // The agent has handled everything before when it runs this.
    console.browser().run("true");
    std::fs::write(&go, "").expect("writable");
    console.wait_text("s", "back\r\n");
    line(&console, "s", "input");
    assert_eq!(reason(&console.closed("s")), (&json!("exited"), 7));
    assert!(console.stream("s").text().ends_with("got input\r\n"));
    agent.drain();
}

#[test]
fn process_ignoring_sighup_of_a_close_is_killed() {
    let (console, agent) = desk();
    open_quiet(&console, "s", "/bin/sh");
    line(&console, "s", "trap '' HUP; echo shell=$$=; (exec sleep 100 <&- >&- 2>&-) & echo job=$!=; wait");
    let (shell, job) = (number(&console, "s", "shell"), number(&console, "s", "job"));
    console.browser().close("s");
    assert_eq!(reason(&console.closed("s")), (&json!("closed"), 137));
    assert!(!runs(shell));
    settles(&console, "the job is gone", || !runs(job));
    assert_eq!(agent.process().children(), []);
    agent.drain();
}

#[test]
fn nohup_process_outlives_its_shell() {
    let (console, agent) = desk();
    open_quiet(&console, "s", "/bin/bash");
    line(&console, "s", "nohup sleep 100 >/dev/null 2>&1 & echo job=$!=; exit 2");
    let job = number(&console, "s", "job");
    assert_eq!(reason(&console.closed("s")), (&json!("exited"), 2));
    agent.drain();
    assert!(runs(job), "as under sshd");
    let pid = rustix::process::Pid::from_raw(i32::try_from(job).expect("a number")).expect("a process");
    rustix::process::kill_process(pid, support::Signal::KILL).expect("it runs");
}

#[test]
fn a_drain_ends_every_session() {
    let (console, agent) = desk();
    open_quiet(&console, "soft", "/bin/bash");
    open_quiet(&console, "hard", "/bin/sh");
    line(&console, "soft", "echo shell=$$=");
    line(&console, "hard", "trap '' HUP TERM; echo shell=$$=; while :; do sleep 0.1; done");
    let (soft, hard) = (number(&console, "soft", "shell"), number(&console, "hard", "shell"));
    // A shell that still runs its last line may delay the signal until it reads the next one.
    settles(&console, "the shell waits for its next line", || sleeps(soft));
    agent.drain();
    assert_eq!(reason(&console.closed("soft")), (&json!("drained"), 129));
    assert_eq!(reason(&console.closed("hard")), (&json!("drained"), 137));
    assert!(!runs(soft) && !runs(hard));
}

#[test]
fn two_hundred_sessions_live_at_once_and_leave_nothing() {
    const SESSIONS: usize = 200;
    let (console, agent) = desk();
    console.browser().run("true");
    let before = kinds(&agent);
    let names: Vec<String> = (0..SESSIONS).map(|n| format!("s{n}")).collect();
    for name in &names {
        console.browser().create_with(name, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
        line(&console, name, &format!("echo in''side {name}"));
    }
    for name in &names {
        console.wait_text(name, &format!("inside {name}\r\n"));
    }
    assert_eq!(agent.process().children().len(), SESSIONS);
    for (index, name) in names.iter().enumerate() {
        if index % 2 == 0 {
            console.browser().close(name);
        } else {
            line(&console, name, "exit");
        }
    }
    for name in &names {
        console.closed(name);
    }
    // Acknowledged, freed and reaped.
    settles(&console, "nothing is left", || agent.process().children().is_empty() && kinds(&agent) == before);
    agent.drain();
}

/// The kinds of its descriptors, without the files for metrics; empty if the kernel hides them.
fn kinds(agent: &Agent) -> Vec<String> {
    if !agent.process().shows_descriptors() {
        return Vec::new();
    }
    let descriptors = agent.process().descriptors();
    let targets = descriptors.iter().map(|(_, target)| target.as_str());
    let mut kinds: Vec<String> = targets
        .filter(|target| !target.starts_with("/proc/") && !target.starts_with("/sys/"))
        .map(|target| target.split(":[").next().unwrap_or_default().to_owned())
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn one_session_too_many_is_refused_with_a_reason() {
    const SESSIONS_MAX: usize = 256;
    let (console, agent) = desk();
    let names: Vec<String> = (0..=SESSIONS_MAX).map(|n| format!("s{n}")).collect();
    for name in &names {
        console.browser().create_with(name, &json!({"cols": 80, "rows": 24, "shell": "/bin/cat"}));
    }
    let last = names.last().expect("there is one");
    assert_eq!(console.closed(last)["reason"], "busy");
    assert_eq!(console.frames("terminal:closed").len(), 1);
    assert_eq!(agent.process().children().len(), SESSIONS_MAX);
    agent.drain();
}
