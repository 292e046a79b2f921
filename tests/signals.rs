//! What each signal does to the agent, whatever dispositions it inherited. For a new signal, add a line to the table.

use std::time::Instant;

use crate::support::{Agent, DRAIN_MAX, Setup, Signal, WAIT_MAX, settles};
use draupnir_console::{Console, Personality};
use std::path::Path;

/// The effect on the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing.
    GoesOn,
    /// It drains and exits with status 0, however often the signal comes.
    Drains,
    /// It drains, and exits with this status at the second one.
    Stops(i32),
    /// It is stopped until SIGCONT.
    Suspended,
}

const SIGNALS: &[(&str, Signal, Outcome)] = &[
    ("SIGHUP", Signal::HUP, Outcome::Drains),
    ("SIGINT", Signal::INT, Outcome::Stops(130)),
    ("SIGQUIT", Signal::QUIT, Outcome::Stops(131)),
    ("SIGTERM", Signal::TERM, Outcome::Stops(143)),
    ("SIGUSR1", Signal::USR1, Outcome::Drains),
    ("SIGXCPU", Signal::XCPU, Outcome::Drains),
    ("SIGUSR2", Signal::USR2, Outcome::GoesOn),
    ("SIGALRM", Signal::ALARM, Outcome::GoesOn),
    ("SIGIO", Signal::IO, Outcome::GoesOn),
    ("SIGPIPE", Signal::PIPE, Outcome::GoesOn),
    ("SIGPROF", Signal::PROF, Outcome::GoesOn),
    ("SIGPWR", Signal::POWER, Outcome::GoesOn),
    ("SIGSTKFLT", Signal::STKFLT, Outcome::GoesOn),
    ("SIGTTIN", Signal::TTIN, Outcome::GoesOn),
    ("SIGTTOU", Signal::TTOU, Outcome::GoesOn),
    ("SIGURG", Signal::URG, Outcome::GoesOn),
    ("SIGVTALRM", Signal::VTALARM, Outcome::GoesOn),
    ("SIGWINCH", Signal::WINCH, Outcome::GoesOn),
    ("SIGXFSZ", Signal::XFSZ, Outcome::GoesOn),
    ("SIGTSTP", Signal::TSTP, Outcome::Suspended),
];

fn setup(console: &Console) -> Setup {
    Setup::new(console).env("SINDRI_AGENT_HEARTBEAT", "0.2")
}

/// The agent behind `env` with these arguments.
fn inheriting(console: &Console, arguments: &[&str]) -> Setup {
    let setup = setup(console);
    let agent = setup.program_path().to_owned();
    let setup = setup.program("env");
    arguments.iter().fold(setup, |setup, argument| setup.arg(argument)).arg(agent)
}

#[track_caller]
fn connected(console: &Console, setup: Setup) -> Agent {
    let agent = setup.spawn();
    console.event("connect");
    agent
}

fn is_draining(line: &serde_json::Value) -> bool {
    line["message"].as_str().is_some_and(|text| text.ends_with("; draining"))
}

#[test]
fn every_signal_does_what_the_table_says() {
    for (name, signal, outcome) in SIGNALS {
        let console = Console::start(Personality::production());
        // The parent of the tests may ignore some of them, as nohup does.
        let agent = connected(&console, inheriting(&console, &["--default-signal"]));
        if let Outcome::Drains | Outcome::Stops(_) = outcome {
            console.connection(1).stall(); // without this the agent would exit before the second signal
        }
        agent.signal(*signal);
        match outcome {
            Outcome::GoesOn => {
                console.from_now().nth_frame(2, "heartbeat");
                agent.drain();
            }
            Outcome::Drains => {
                agent.wait_log(is_draining);
                agent.signal(*signal);
                assert_eq!(agent.wait_exit(DRAIN_MAX).code(), Some(0), "{name}");
            }
            Outcome::Stops(status) => {
                agent.wait_log(is_draining);
                agent.signal(*signal);
                assert_eq!(agent.wait_exit(WAIT_MAX).code(), Some(*status), "{name}");
            }
            Outcome::Suspended => {
                let deadline = Instant::now() + WAIT_MAX;
                while !agent.process().is_stopped() {
                    assert!(Instant::now() < deadline, "{name} did not stop it");
                    std::thread::yield_now();
                }
                agent.signal(Signal::CONT);
                console.from_now().nth_frame(2, "heartbeat");
                agent.drain();
            }
        }
    }
}

#[test]
fn inherited_mask_and_dispositions_change_nothing() {
    let console = Console::start(Personality::production());
    let inherited = ["--block-signal", "--ignore-signal=INT,QUIT,TERM,USR1,CHLD,TSTP"];
    let agent = connected(&console, inheriting(&console, &inherited));
    // Children get the defaults.
    let result = console.browser().run("grep -E '^Sig(Blk|Ign):' /proc/self/status");
    let none = "0000000000000000";
    assert_eq!(result["stdout"], format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"), "{result}");
    console.browser().create("s", 80, 24).input("s", b"grep -E '^Sig(Blk|Ign)' /proc/self/st''atus\n");
    console.wait_text("s", &format!("SigBlk:\t{none}\r\nSigIgn:\t{none}\r\n"));
    agent.drain();
}

#[test]
fn hang_up_ignored_at_the_start_stays_ignored() {
    let console = Console::start(Personality::production());
    let agent = connected(&console, inheriting(&console, &["--ignore-signal=HUP"]));
    agent.signal(Signal::HUP);
    console.from_now().nth_frame(2, "heartbeat");
    let result = console.browser().run("grep ^SigIgn /proc/self/status");
    assert_eq!(result["stdout"], "SigIgn:\t0000000000000000\n", "its children get the default all the same");
    agent.drain();
}

#[test]
fn repeated_hang_up_is_not_the_second_signal() {
    let console = Console::start(Personality::production());
    let agent = connected(&console, setup(&console));
    console.connection(1).stall();
    agent.signal(Signal::TERM);
    agent.wait_log(is_draining);
    for _ in 0..3 {
        agent.signal(Signal::HUP);
    }
    assert_eq!(agent.wait_exit(DRAIN_MAX).code(), Some(0));
}

#[test]
fn file_size_limit_is_a_full_disk() {
    let console = Console::start(Personality::production());
    let setup = setup(&console);
    let (audit, life) = (setup.home_path().join("audit.jsonl"), setup.home_path().join("life.jsonl"));
    let agent = setup.program_path().to_owned();
    // `ulimit -f` counts units of 512 bytes.
    let setup = setup.program("sh").arg("-c").arg("ulimit -f 8; exec \"$0\"").arg(agent);
    let agent = setup.env("SINDRI_AGENT_AUDIT", &audit).env("SINDRI_AGENT_RECORD", &life).spawn();
    let refused = |n| console.browser().run(&format!(": {n}"))["reason"] == "audit_unavailable";
    assert!((0..100).any(refused), "a hundred commands fit into 4 KiB");
    console.from_now().nth_frame(2, "heartbeat");
    settles(&console, "both files are full", || [&audit, &life].into_iter().all(|file| size(file) > 3_000));
    agent.drain();
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}
