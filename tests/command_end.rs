//! How a command ends: by its time-out, by a cancel, by the end of the agent; and which processes remain.

use crate::support;
use crate::support::{Agent, DRAIN_MAX, Setup, Signal};
use draupnir_console::{Console, Personality};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn start() -> (Console, Agent) {
    let console = Console::start(Personality::designed());
    let agent = Setup::new(&console).env("SINDRI_AGENT_HEARTBEAT", "0.1").spawn();
    (console, agent)
}

#[track_caller]
fn run(console: &Console, id: &str, line: &str, timeout_ms: u64) -> Value {
    console.browser().dispatch_with(id, &json!({"command": line, "timeout_ms": timeout_ms}));
    console.result(id)
}

/// How long a command ran, by its result.
fn duration_ms(result: &Value) -> u64 {
    result["duration_ms"].as_u64().expect("a number")
}

/// Whether the process is gone whose number the command wrote into this file.
fn is_gone(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).expect("the command wrote its number");
    let pid = rustix::process::Pid::from_raw(text.trim().parse().expect("a number")).expect("not 0");
    // An orphan that PID 1 has not reaped yet counts as gone, too.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    rustix::process::test_kill_process(pid).is_err() || stat.contains(") Z ")
}

/// Waits until the process is gone, and checks at each heartbeat.
#[track_caller]
fn goes(console: &Console, file: &Path) {
    support::settles(console, &format!("the process of {} is gone", file.display()), || is_gone(file));
}

#[test]
fn timeout_ends_the_group_and_keeps_its_output() {
    let (console, agent) = start();
    let result = run(&console, "t", "echo $$ > ~/pid; echo early; sleep 60 & sleep 60; echo late", 300);
    assert_eq!(result["exit_code"], 124);
    assert_eq!((&result["timed_out"], &result["cancelled"]), (&json!(true), &Value::Null));
    assert_eq!(result["stdout"], "early\n");
    assert_eq!(result["stderr"], "timed out after 300 ms\n");
    // Long before its minute is over. Tests with virtual time show that it is not too early.
    assert!(duration_ms(&result) < 30_000, "{result}");
    goes(&console, &agent.home().path().join("pid"));
    agent.drain();
}

#[test]
fn command_ignoring_sigterm_is_killed_after_2_s() {
    let (console, agent) = start();
    let line = "trap '' TERM; echo $$ > ~/pid; echo still; while :; do sleep 0.1; done";
    let result = run(&console, "t", line, 200);
    assert_eq!((&result["exit_code"], &result["timed_out"]), (&json!(124), &json!(true)));
    assert_eq!(result["stdout"], "still\n");
    // SIGKILL follows two seconds after the time-out of 200 ms. The duration starts a little later than the time-out.
    assert!((2_000..30_000).contains(&duration_ms(&result)), "{result}");
    goes(&console, &agent.home().path().join("pid"));
    agent.drain();
}

#[test]
fn command_has_time_to_clean_up_at_sigterm() {
    let (console, agent) = start();
    let line = "trap 'sleep 0.5; echo clean; exit 0' TERM; echo up; sleep 60 & wait";
    let result = run(&console, "t", line, 300);
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(124), &json!("up\nclean\n")));
    agent.drain();
}

#[test]
fn timeout_defaults_to_30_s_and_is_clamped() {
    let (console, agent) = start();
    // The machine's unit tests show the clamp to one hour. Here the command must only not end at once.
    for timeout_ms in [json!(0), json!(-1), json!(null), json!(9e18), json!(3_600_001)] {
        let id = format!("t {timeout_ms}");
        console.browser().dispatch_with(&id, &json!({"command": "sleep 0.2; echo done", "timeout_ms": timeout_ms}));
        assert_eq!(console.result(&id)["stdout"], "done\n");
    }
    let result = run(&console, "shortest", "sleep 60", 1);
    assert_eq!(result["exit_code"], 124);
    agent.drain();
}

#[test]
fn background_child_with_the_pipes_delays_the_result() {
    let (console, agent) = start();
    // A double fork, in its own session, with both pipes open.
    let line =
        "mkfifo ~/go; (setsid sh -c 'echo $$ > ~/pid; read go < ~/go; echo alive > ~/lives' &) & wait; echo early";
    let before = std::time::Instant::now();
    let result = console.browser().run(line);
    let took = before.elapsed();
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(0), &json!("early\n")));
    assert!(took >= Duration::from_millis(500), "it holds the pipes: {took:?}");
    // The result did not wait for the daemon, and the agent did not kill it: it continues when the file appears.
    let home = agent.home().path().to_owned();
    std::fs::write(home.join("go"), "go\n").expect("it reads");
    support::settles(&console, "the child lives", || home.join("lives").exists());
    goes(&console, &home.join("pid"));
    agent.drain();
}

#[test]
fn background_child_of_a_timed_out_command_is_killed() {
    let (console, agent) = start();
    let line = "(trap '' TERM; echo $BASHPID > ~/pid; while :; do sleep 0.1; done) & sleep 60";
    let fields = json!({"command": "/bin/bash", "args": ["-c", line], "timeout_ms": 500});
    console.browser().dispatch_with("t", &fields);
    assert_eq!(console.result("t")["exit_code"], 124);
    goes(&console, &agent.home().path().join("pid"));
    agent.drain();
}

#[test]
fn a_cancel_ends_it_like_a_timeout() {
    let (console, agent) = start();
    console.browser().dispatch_with("c", &json!({"command": "echo up; sleep 60", "stream": true}));
    console.wait_text("c/stdout", "up");
    console.browser().cancel("c");
    let result = console.result("c");
    assert_eq!((&result["exit_code"], &result["cancelled"]), (&json!(130), &json!(true)));
    assert_eq!((&result["stdout"], &result["timed_out"]), (&json!("up\n"), &Value::Null));
    // Cancelling an ended or unknown command has no effect.
    console.browser().cancel("c").cancel("unknown");
    for id in [json!(null), json!(5), json!("")] {
        let payload = json!({"command_id": id});
        console.browser().send(&json!({"protocol_version": "1.0", "type": "command:cancel", "payload": payload}));
    }
    console.browser().run("true");
    assert_eq!(console.count(|record| record.kind() == "command:result"), 2);
    agent.drain();
}

#[test]
fn drain_delivers_results_before_the_close_frame() {
    let (console, agent) = start();
    let browser = console.browser();
    let lines = [
        ("quick", "echo up; sleep 0.5; echo done; exit 7"),
        ("yields", "echo up; sleep 60"),
        ("stubborn", "trap '' TERM; echo up; while :; do sleep 0.1; done"),
    ];
    for (id, line) in lines {
        browser.dispatch_with(id, &json!({"command": line, "stream": true}));
        console.wait_text(&format!("{id}/stdout"), "up");
    }
    for number in 0..13 {
        browser.dispatch(&format!("filler {number}"), "sleep 60");
    }
    browser.dispatch("waits", "touch ~/ran");
    // The agent answers a malformed dispatch after it has handled everything before it.
    browser.dispatch_with("malformed", &json!({"command": 1}));
    console.result("malformed");
    agent.signal(Signal::TERM);
    let result_of = |id: &str| {
        let result = console.result(id);
        (result["exit_code"].clone(), result["cancelled"].clone(), result["stdout"].clone())
    };
    assert_eq!(
        result_of("quick"),
        (json!(7), Value::Null, json!("up\ndone\n")),
        "the drain does not stop a command that ends by itself"
    );
    assert_eq!(result_of("yields"), (json!(143), json!(true), json!("up\n")));
    assert_eq!(result_of("stubborn"), (json!(137), json!(true), json!("up\n")));
    assert_eq!(console.result("waits")["reason"], "draining");
    assert!(agent.wait_exit(DRAIN_MAX).success());
    let (code, _) = console.close_frame();
    assert_eq!(code, Some(1000));
    assert!(!agent.home().path().join("ran").exists());
    assert_eq!(console.count(|record| record.kind() == "command:result"), 18);
}

/// Shell lines whose processes leave the process group of the command. For another way, add a line.
const LEAVE_THE_GROUP: &[(&str, &str)] = &[
    ("timeout", "timeout 600 sleep 9999; true"),
    ("job control", "set -m; sleep 9999 & wait"),
    ("interactive shell", "bash -ic 'sleep 9999; true'"),
    ("setpgrp", "perl -e 'setpgrp; exec qw(sleep 9999)'; true"),
    ("ignores SIGTERM", "trap '' TERM; timeout 600 sleep 9999; sleep 9999"),
];

/// Counts the processes of this session.
fn of_session(leader: u32) -> usize {
    let entries = std::fs::read_dir("/proc").expect("Linux tells");
    let of_it = |stat: &String| {
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.next() != Some("Z") && fields.nth(2) == Some(leader.to_string().as_str())
    };
    let stats = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(of_it).count()
}

#[test]
fn whole_session_ends_however_a_process_left_the_group() {
    #[derive(Debug)]
    enum End {
        Timeout,
        Cancel,
        Drain,
    }
    for end in [End::Timeout, End::Cancel, End::Drain] {
        let (console, agent) = start();
        let timeout_ms = if matches!(end, End::Timeout) { 1_000 } else { 600_000 };
        for (way, line) in LEAVE_THE_GROUP {
            let line = format!("echo $$ up; {line}");
            console.browser().dispatch_with(way, &json!({"command": line, "timeout_ms": timeout_ms, "stream": true}));
        }
        let mut leaders = Vec::new();
        for (way, _) in LEAVE_THE_GROUP {
            let shown = console.wait_text(&format!("{way}/stdout"), "up\n");
            let leader = shown.text().split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
            support::settles(&console, "its child is there", || of_session(leader) > 1);
            leaders.push(leader);
        }
        match end {
            End::Timeout => {}
            End::Cancel => LEAVE_THE_GROUP.iter().for_each(|(way, _)| _ = console.browser().cancel(way)),
            End::Drain => agent.signal(Signal::TERM),
        }
        for (way, _) in LEAVE_THE_GROUP {
            console.result(way);
        }
        if matches!(end, End::Drain) {
            assert!(agent.wait_exit(DRAIN_MAX).success());
            assert_eq!(leaders.iter().map(|leader| of_session(*leader)).sum::<usize>(), 0, "{end:?}");
            continue;
        }
        support::settles(&console, "nothing is left", || leaders.iter().all(|leader| of_session(*leader) == 0));
        agent.drain();
    }
}

#[test]
fn background_program_prints_on_after_its_command_ended() {
    let (console, agent) = start();
    // More than a pipe holds: it blocks unless the agent reads on.
    let line = "mkfifo ~/go; nohup sh -c 'read go < ~/go; echo hi; echo hi >&2; head -c 200000 /dev/zero; \
                echo alive > ~/lives' & echo early";
    assert_eq!(console.browser().run(line)["stdout"], "early\n");
    let home = agent.home().path().to_owned();
    std::fs::write(home.join("go"), "go\n").expect("it reads");
    support::settles(&console, "it lives", || home.join("lives").exists());
    agent.drain();
}

#[test]
fn drained_command_keeps_the_exit_code_of_its_trap() {
    let (console, agent) = start();
    let line = "trap 'echo clean; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    console.browser().dispatch_with("c", &json!({"command": line, "stream": true}));
    console.wait_text("c/stdout", "up");
    agent.drain();
    let result = console.result("c");
    assert_eq!((&result["exit_code"], &result["cancelled"]), (&json!(0), &json!(true)), "{result}");
    assert_eq!(result["stdout"], "up\nclean\n");
}
