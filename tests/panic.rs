//! A panic is logged, and the agent starts again in the same process, sends heartbeats, and keeps its shells.
//!
//! The agent here is this test program, which panics at the end of its standard input. The shipped agent has no such
//! code.

use crate::support;
use draupnir::config::Config;
use draupnir::{agent, hand_over, logging, restart};
use draupnir_console::{Console, Personality};
use serde_json::json;
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Set in the environment of the program that acts as the agent.
const PLAY: &str = "DRAUPNIR_TEST_PLANTED";

/// The name of the thread that panics.
const PANICS: &str = "panics";

#[test]
#[ignore = "plays the agent for the test below"]
fn planted() {
    assert!(std::env::var_os(PLAY).is_some(), "only to be run by the other test");
    let history = restart::take_history();
    draupnir::sys::process::harden();
    let state = hand_over::take().map(|state| state.expect("the program before this one wrote it"));
    assert_eq!(state.is_some(), history.is_restart(), "a panic hands its state over");
    let config = state.as_ref().map_or_else(Config::from_environment, |state| Config::with_key(&state.api_key));
    let config = config.expect("the test configures it");
    logging::start(&config).expect("the first in this process");
    restart::on_panic(history, config.api_key.clone(), config.service.as_ref());
    if !history.is_restart() {
        let panics = || {
            // Panics at the end of standard input.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            panic!("planted");
        };
        std::thread::Builder::new().name(PANICS.to_owned()).spawn(panics).expect("a thread");
    }
    agent::run(config, history, state).expect("it can begin");
}

/// When a process was started, which tells it from another of its number; `None` for one that is gone.
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let is_gone = fields.starts_with('Z');
    fields.split(' ').nth(19).filter(|_| !is_gone).map(str::to_owned)
}

/// The agent, which panics when its standard input is closed.
fn spawn(console: &Console, home: &support::Home) -> Child {
    Command::new(std::env::current_exe().expect("this test program"))
        .args(["--exact", "panic::planted", "--ignored", "--nocapture"])
        .env(PLAY, "1")
        .env("HOME", home.path())
        .env("NOTIFY_SOCKET", home.path().join("notify"))
        .env("SINDRI_CONSOLE_URL", console.url())
        .env("SINDRI_CONSOLE_API_KEY", console.key())
        .env("SINDRI_AGENT_HEARTBEAT", "0.2")
        .env("SINDRI_AGENT_STATE_DIR", home.state_dir())
        .env("SINDRI_AGENT_RECORD", home.path().join("life.jsonl"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

#[test]
fn agent_shells_and_commands_go_on_after_a_panic() {
    let console = Console::start(Personality::production());
    let home = support::Home::new();
    let notified = UnixDatagram::bind(home.path().join("notify")).expect("bound");
    let mut child = spawn(&console, &home);
    let pid = child.id();
    console.on(1).frame("heartbeat");
    let limits = console.browser().run("ulimit -n; ulimit -c")["stdout"].clone();
    let line = "echo first; echo $$ > ~/left; while [ ! -e ~/go ]; do sleep 0.1; done; echo last; exit 7";
    console.browser().dispatch_with("left", &json!({"command": line, "timeout_ms": 600_000}));
    let number = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap_or_default();
    let process = |name| number(name).trim().parse::<u32>().ok();
    console.browser().create_with("s1", &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.browser().input("s1", b"stty -echo; echo $$ > ~/shell; echo rea''dy\r");
    console.wait_text("s1", "ready\r\n");
    support::settles(&console, "the command runs", || process("left").is_some());
    let before = ["left", "shell"].map(|name| start_of(process(name).expect("it wrote its number")));
    let began = Instant::now();
    drop(child.stdin.take());
    console.on(2).frame("heartbeat");
    // It takes tens of milliseconds. The bound is for a very busy machine.
    assert!(began.elapsed() < support::DRAIN_MAX, "it sends heartbeats again after {:?}", began.elapsed());
    println!("it sent a heartbeat again after {:?}", began.elapsed());
    let after = ["left", "shell"].map(|name| start_of(process(name).expect("it wrote its number")));
    assert_eq!(after, before, "the shell and the command go on");
    assert!(before.iter().all(|start| start.is_some()));
    console.browser().input("s1", b"echo $((6 * 7))\r");
    console.wait_text("s1", "42\r\n");
    console.browser().resize("s1", 100, 30).input("s1", b"stty size; exit 3\r");
    console.wait_text("s1", "30 100\r\n");
    assert_eq!(console.closed("s1")["exit_code"], 3);
    assert!(console.stream("s1").gaps.is_empty(), "the console had everything");
    std::fs::write(home.path().join("go"), "").expect("written");
    let result = console.result("left");
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(7), &json!("last\n")), "{result}");
    assert!(result["stderr"].as_str().is_some_and(|text| text.contains("what it printed before is lost")), "{result}");
    assert_eq!(console.browser().run("ulimit -n; ulimit -c")["stdout"], limits, "the limits of children");
    let event = console.on(2).event("error");
    assert_eq!(event.payload()["message"], "the agent panicked and was restarted");
    let result = console.browser().run("echo $PPID");
    assert_eq!(result["stdout"].as_str().map(str::trim), Some(pid.to_string().as_str()), "it is another process");
    child.kill().expect("it runs");
    let output = child.wait_with_output().expect("it ended");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("planted"), "{log}");
    assert!(!log.contains(&console.key()), "the key is in the log");
    // The service manager hears of both programs as of one service.
    notified.set_nonblocking(true).expect("a socket");
    let mut bytes = [0; 4096];
    let next = || notified.recv(&mut bytes).ok().map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned());
    let heard: Vec<String> = std::iter::from_fn(next).collect();
    let lines: Vec<&str> = heard.iter().flat_map(|datagram| datagram.lines()).collect();
    let states: Vec<&str> = lines.iter().copied().filter(|line| ["READY=1", "RELOADING=1"].contains(line)).collect();
    assert_eq!(states, ["READY=1", "RELOADING=1", "READY=1"], "{heard:?}");
    assert!(lines.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{heard:?}");
    // The recording of the process that panicked is kept under this name.
    let life = home.path().join("life.jsonl.previous");
    let replayed = support::Setup::alone().arg("replay").arg(&life).output();
    let said = String::from_utf8_lossy(&replayed.stdout);
    assert!(replayed.status.success() && said.contains("connected"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn program_that_cannot_start_again_ends_by_sigalrm() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    let console = Console::start(Personality::production());
    let home = support::Home::new();
    let mut child = spawn(&console, &home);
    console.on(1).frame("heartbeat");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    // The exec hangs for longer than a restart may take (5 s), and then the agent would go on. The other threads are
    // not traced, as those of any agent.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let name = |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
    let task = tasks.map(|task| task.expect("it runs").path()).find(|task| name(task).trim() == PANICS);
    let thread = task.expect("a thread that panics").file_name().expect("a number").to_owned();
    let mut tracer = Command::new("strace")
        .args(["-o", "/dev/null", "-etrace=execve", "-einject=execve:delay_enter=10000000", "-p"])
        .arg(thread)
        .stderr(Stdio::piped())
        .spawn();
    let said = tracer.as_mut().ok().and_then(|tracer| tracer.stderr.take()).map(BufReader::new);
    let mut said = said.into_iter().flat_map(BufRead::lines).map_while(Result::ok);
    if !said.any(|line| line.contains("attached")) {
        child.kill().expect("it runs");
        child.wait().expect("it is killed");
        return support::skip("program_that_cannot_start_again_ends_by_sigalrm", "this user may not trace the agent");
    }
    drop(child.stdin.take());
    // It can be reaped once its thread that hangs is, which the tracer does after the delay.
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(draupnir_console::WAIT_MAX);
    if output.is_err() {
        kill_process(pid, Signal::KILL).expect("it runs");
    }
    let mut tracer = tracer.expect("it attached");
    tracer.kill().and_then(|()| tracer.wait()).expect("its own child");
    let output = output.expect("it ends by itself").expect("its own child");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(Signal::ALARM.as_raw()), "{log}");
    assert!(log.contains("panic: starting again"), "{log}");
}
