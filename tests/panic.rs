//! A panic is logged, and the agent starts again in the same process and sends heartbeats.
//!
//! The agent here is this test program, which panics at the end of its standard input. The shipped agent has no such
//! code.

mod support;

use draupnir::config::Config;
use draupnir::{agent, logging, restart};
use draupnir_console::{Console, Personality};
use std::io::Read as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Set in the environment of the program that acts as the agent.
const PLAY: &str = "DRAUPNIR_TEST_PLANTED";

#[test]
#[ignore = "plays the agent for the test below"]
fn planted() {
    assert!(std::env::var_os(PLAY).is_some(), "only to be run by the other test");
    let history = restart::take_history();
    draupnir::sys::process::harden();
    let config = Config::from_environment().expect("the test configures it");
    logging::start(&config).expect("the first in this process");
    restart::on_panic(history, config.api_key.clone(), config.service.as_ref());
    if !history.is_restart() {
        std::thread::spawn(|| {
            // Panics at the end of standard input.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            panic!("planted");
        });
    }
    agent::run(config, history, None).expect("it can begin");
}

#[test]
fn the_agent_beats_again_after_a_panic() {
    let console = Console::start(Personality::production());
    let home = support::Home::new();
    let notified = UnixDatagram::bind(home.path().join("notify")).expect("bound");
    let mut child = Command::new(std::env::current_exe().expect("this test program"))
        .args(["--exact", "planted", "--ignored", "--nocapture"])
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
        .expect("it starts");
    let pid = child.id();
    console.on(1).frame("heartbeat");
    let limits = console.browser().run("ulimit -n; ulimit -c")["stdout"].clone();
    console.browser().dispatch("left", "echo $$ > ~/left; exec sleep 600");
    let process = || std::fs::read_to_string(home.path().join("left")).unwrap_or_default().trim().parse::<u32>().ok();
    support::settles(&console, "the command runs", || process().is_some());
    let began = Instant::now();
    drop(child.stdin.take());
    console.on(2).frame("heartbeat");
    // It takes tens of milliseconds. The bound is for a very busy machine.
    assert!(began.elapsed() < support::DRAIN_MAX, "it sends heartbeats again after {:?}", began.elapsed());
    println!("it sent a heartbeat again after {:?}", began.elapsed());
    // The restarted program does not know the command and would not stop it.
    let process = process().expect("it wrote its number");
    support::settles(&console, "the command is gone", || !Path::new("/proc").join(process.to_string()).exists());
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
