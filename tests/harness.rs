//! Tests the harness itself with programs that are no agent: logs, signals, exit statuses, and the check for the key.

use std::time::Duration;

use crate::support::{Agent, Home, Kind, Setup, Signal, Trace, WAIT_MAX};
use draupnir_console::{Console, Personality};

/// A shell script in the agent's place.
fn script(line: &str) -> Agent {
    Setup::alone().program("/bin/sh").arg("-c").arg(line).spawn()
}

#[test]
fn lines_are_read_and_waited_for() {
    let agent = script(r#"echo '{"level":"INFO","n":1}' >&2; echo plain >&2; echo '{"n":2}' >&2; read forever"#);
    assert_eq!(agent.wait_log(|line| line["n"] == 2)["n"], 2);
    assert_eq!(agent.log().lines()[1].raw, "plain\n");
    assert_eq!(agent.log().count(|line| line["n"].is_u64()), 2);
    assert_eq!(agent.wait_exit(WAIT_MAX).code(), Some(1), "read meets the end of /dev/null");
}

#[test]
fn a_drain_is_a_signal_and_a_status() {
    let agent = script("trap 'kill $!; exit 0' TERM; sleep 600 & echo '{\"up\":true}' >&2; wait");
    agent.wait_log(|line| line["up"] == true);
    assert!(agent.process().runs());
    agent.drain();
    agent.signal(Signal::TERM); // too late, and no harm
}

#[test]
fn a_dropped_agent_is_dead() {
    let agent = script("exec sleep 600");
    let proc_entry = format!("/proc/{}", agent.process().pid());
    drop(agent);
    assert!(!std::path::Path::new(&proc_entry).exists());
}

/// A key with every character that some encoding escapes.
const KEY: &str = r#"drp-"planted"\key/%2B+=_0123456789"#;

/// Runs a script in the agent's place that finds the key in `$SINDRI_CONSOLE_API_KEY`.
fn leak(line: &str) {
    let agent = Setup::alone().key(KEY).planted().program("/bin/sh").arg("-c").arg(line).spawn();
    agent.wait_exit(WAIT_MAX);
}

#[test]
#[should_panic(expected = "the key stands in the log")]
fn a_key_in_the_log_fails_the_test() {
    leak(r#"printf 'open %s' "$SINDRI_CONSOLE_API_KEY" >&2"#);
}

#[test]
#[should_panic(expected = "the key stands in the output")]
fn a_key_in_the_output_fails_the_test() {
    leak(r#"printf 'open %s' "$SINDRI_CONSOLE_API_KEY""#);
}

#[test]
#[should_panic(expected = "the key stands in /")]
fn a_key_in_a_file_fails_the_test() {
    leak(r#"mkdir d; printf '%s' "$SINDRI_CONSOLE_API_KEY" >d/f"#);
}

#[test]
fn a_key_is_found_in_every_form_and_where_it_is_cut_short() {
    let found = |text: &str| {
        let mut trace = Trace::of(KEY);
        trace.look(Kind::Printed, "here", text.as_bytes());
        std::panic::catch_unwind(|| trace.judge_planted()).is_err()
    };
    let hexadecimal = KEY.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
    let percent = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let unicode = KEY.bytes().map(|byte| format!("\\u{byte:04X}")).collect::<String>();
    let reserved = KEY.replace('%', "%25").replace('"', "%22").replace('\\', "%5c").replace('/', "%2f");
    let reserved = reserved.replace('+', "%2B").replace('=', "%3D");
    let json = serde_json::json!({ "authorization": format!("Bearer {KEY}") }).to_string();
    for leak in [KEY, &hexadecimal, &percent, &unicode, &reserved, &json, &KEY[..KEY.len() / 2]] {
        assert!(found(&format!("before {leak} after")), "{leak}");
    }
    for before in ["", "a", "ab", "Bearer ", "user:"] {
        let text = format!("{before}{KEY}, and more").into_bytes();
        assert!(found(&data_encoding::BASE64.encode(&text)), "{before}");
        assert!(found(&data_encoding::BASE64URL_NOPAD.encode(&text)), "{before}");
    }
    assert!(!found("drp-planted key 0123456789") && !found(""));
}

#[test]
fn the_environment_is_clean_and_the_home_its_own() {
    let home = Home::new();
    let console = Console::start(Personality::designed());
    let setup = Setup::new(&console).home(&home).without("SINDRI_INSTANCE_ID").program("/usr/bin/env");
    let output = String::from_utf8(setup.key("").planted().output().stdout).expect("text");
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let wanted = ["HOME", "PATH", "SINDRI_AGENT_STATE_DIR", "SINDRI_CONSOLE_API_KEY", "SINDRI_CONSOLE_URL"];
    assert_eq!(names, [&wanted[..], &["SINDRI_LOG_LEVEL"]].concat());
    assert!(output.contains(&format!("HOME={}\n", home.path().display())));
}

#[cfg(target_os = "linux")]
#[test]
fn proc_is_read() {
    let agent = script("sleep 600 & echo '{\"up\":true}' >&2; wait");
    agent.wait_log(|line| line["up"] == true);
    let process = agent.process();
    assert_eq!((process.threads(), process.zombies(), process.children().len()), (1, 0, 1));
    assert!(process.resident_bytes() > 100 << 10 && process.private_dirty_bytes() > 0);
    assert!(process.descriptors().iter().any(|(number, target)| *number == 0 && target == "/dev/null"));
    assert!(process.voluntary_switches() < 1000 && process.cpu_time() < Duration::from_secs(5));
    let sleeper = process.children()[0].0;
    agent.kill();
    let pid = rustix::process::Pid::from_raw(i32::try_from(sleeper).expect("a pid")).expect("not zero");
    rustix::process::kill_process(pid, Signal::KILL).expect("the sleeper still ran");
}
