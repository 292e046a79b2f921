//! The output of a program reaches the console: all of it, once, in order, no character split.

use crate::support;
use crate::support::Agent;
use draupnir_console::{Console, Keep, Personality};
use serde_json::json;
use std::process::{Command, Stdio};

fn desk() -> (Console, Agent) {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[("SHELL", "/bin/sh")]);
    (console, agent)
}

/// Opens a shell that neither echoes nor prompts, and waits until it has settled.
fn open_quiet(console: &Console, session: &str) {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.browser().input(session, b"stty -echo; PS1=; PS2=; echo set''tled\n");
    console.wait_text(session, "settled\r\n");
}

#[test]
fn sixty_four_mebibytes_arrive_as_they_are() {
    let (console, agent) = desk();
    let file = agent.home().path().join("data");
    let make = "openssl rand -base64 50331648 2>/dev/null || head -c 50331648 /dev/urandom | base64";
    let made = Command::new("sh").arg("-c").arg(make).stdout(std::fs::File::create(&file).expect("writable")).status();
    assert!(made.expect("runs").success());
    open_quiet(&console, "s");
    let before = console.stream("s").data;
    console.keep(Keep::Counts);
    // Without `-opost` the terminal adds a carriage return to each line.
    let line = format!("stty -opost; cat {}; exit\n", file.display());
    console.browser().input("s", line.as_bytes());
    let closed = console.within(std::time::Duration::from_secs(120)).closed("s");
    assert_eq!((&closed["reason"], &closed["exit_code"]), (&json!("exited"), &json!(0)));
    let stream = console.stream("s");
    let size = std::fs::metadata(&file).expect("there").len();
    assert!(size >= 64 << 20, "{size}");
    assert_eq!(stream.bytes, before.len() as u64 + size);
    assert_eq!((stream.gaps.len(), stream.repeated_bytes, stream.ragged_frames), (0, 0, 0));
    // The console's hash covers all output, including the first output of the shell.
    let sum = |bytes: &[u8]| {
        use std::io::Write;
        let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
        child.stdin.take().expect("a pipe").write_all(bytes).expect("it reads");
        let output = child.wait_with_output().expect("ends");
        String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
    };
    let mut shown = before;
    shown.extend(std::fs::read(&file).expect("there"));
    assert_eq!(stream.sha256(), sum(&shown));
    agent.drain();
}

#[test]
fn no_character_is_split_wherever_it_is_cut() {
    let (console, agent) = desk();
    let text = "aé€🦀z".repeat(4);
    let octal: Vec<String> = text.bytes().map(|byte| format!("\\\\{byte:03o}")).collect();
    open_quiet(&console, "s");
    let mut wanted = console.stream("s").text().into_owned();
    for cut in 0..=octal.len() {
        let (front, back) = octal.split_at(cut);
        // Two writes, which the agent may read one by one.
        let line = format!("printf \"{}\"; printf \"{}\"\n", front.concat(), back.concat());
        console.browser().input("s", line.as_bytes());
        wanted.push_str(&text);
    }
    let stream = console.wait_stream("s", "all of the text", |stream| stream.data.len() >= wanted.len());
    assert_eq!(stream.text(), wanted);
    assert_eq!((stream.ragged_frames, stream.undecodable_frames, stream.gaps.len()), (0, 0, 0));
    agent.drain();
}

#[test]
fn output_before_the_exit_is_never_lost() {
    /// The number of sessions, a few at a time.
    const ROUNDS: usize = 500;
    const AT_ONCE: usize = 20;
    let (console, agent) = desk();
    let names: Vec<String> = (0..ROUNDS).map(|round| format!("s{round}")).collect();
    for batch in names.chunks(AT_ONCE) {
        for name in batch {
            console.browser().create_with(name, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
            let line = format!("stty -echo; i=0; while [ $i -lt 100 ]; do echo {name} $i; i=$((i+1)); done; exit 3\n");
            console.browser().input(name, line.as_bytes());
        }
        for name in batch {
            let closed = console.closed(name);
            assert_eq!((&closed["reason"], &closed["exit_code"]), (&json!("exited"), &json!(3)));
            let stream = console.stream(name);
            let text = stream.text().into_owned();
            let lines = (0..100).filter(|line| text.contains(&format!("{name} {line}\r\n"))).count();
            assert_eq!(lines, 100, "{name}: {text}");
            assert!(text.ends_with(&format!("{name} 99\r\n")), "{name}: {text}");
        }
    }
    agent.drain();
}

#[test]
fn garbage_flows_and_bad_text_does_not_stop_it() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    let before = console.stream("s").bytes;
    console.browser().input("s", b"stty -opost; head -c 1000000 /dev/urandom; exit\n");
    console.closed("s");
    let stream = console.stream("s");
    assert_eq!(stream.bytes - before, 1_000_000);
    assert_eq!((stream.gaps.len(), stream.undecodable_frames), (0, 0));
    agent.drain();
}

#[test]
fn background_process_delays_the_end_by_500_ms_at_most() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    console.browser().input("s", b"(trap '' HUP; exec sleep 100) & echo left=$!=; exit 4\n");
    let closed = console.closed("s");
    assert_eq!((&closed["reason"], &closed["exit_code"]), (&json!("exited"), &json!(4)));
    let text = console.stream("s").text().into_owned();
    let left: i32 = text
        .split("left=")
        .nth(1)
        .and_then(|rest| rest.split('=').next())
        .expect("a number")
        .parse()
        .expect("a number");
    // The process ignored SIGHUP, so the agent left it running.
    let pid = rustix::process::Pid::from_raw(left).expect("a process");
    assert_eq!(rustix::process::kill_process(pid, support::Signal::KILL), Ok(()), "{text}");
    agent.drain();
}

#[test]
fn output_left_in_the_terminal_is_read_after_the_shell_ended() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    // More than the window, but less than the window and the buffer of the terminal: the shell does not block.
    let line = "stty -opost; mkfifo ~/go; echo rea''dy; read go < ~/go; exec seq 1 6000\n";
    console.browser().input("s", line.as_bytes());
    console.wait_text("s", "ready\n");
    let before = console.stream("s").bytes;
    let link = console.link();
    link.stall();
    std::fs::write(agent.home().path().join("go"), "\n").expect("it waits");
    agent.log().wait(support::WAIT_MAX, |line| line["message"] == "terminal closed");
    link.resume();
    console.closed("s");
    let stream = console.stream("s");
    let numbers: String = (1..=6000).map(|number| format!("{number}\n")).collect();
    assert_eq!(stream.bytes - before, numbers.len() as u64);
    assert!(stream.text().ends_with(&numbers[numbers.len() - 1_000..]) && stream.gaps.is_empty());
    agent.drain();
}
