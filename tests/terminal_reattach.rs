//! A session survives a lost connection: a reconnect loses no output, and a user who re-attaches sees the screen.

use crate::support;
use crate::support::Agent;
use data_encoding::BASE64;
use draupnir_console::{Console, Personality, Pongs, Record};
use serde_json::json;

fn desk() -> (Console, Agent) {
    let console = Console::builder(Personality::production()).own_address().start();
    let agent = Agent::spawn(&console, &[]);
    (console, agent)
}

fn open_quiet(console: &Console, session: &str) {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.browser().input(session, b"stty -echo; PS1=; PS2=; echo set''tled\n");
    console.wait_text(session, "settled\r\n");
}

fn line(console: &Console, session: &str, line: &str) {
    console.browser().input(session, format!("{line}\n").as_bytes());
}

#[test]
fn output_goes_on_over_a_reconnect_without_a_gap() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    line(&console, "s", "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; echo o''ver");
    for number in 1..=2 {
        console.wait_text("s", &format!("line {}\r\n", number * 20));
        console.connection(number).reset();
        console.ended(number);
    }
    let stream = console.wait_text("s", "over\r\n");
    assert!(stream.gaps.is_empty(), "{:?}", stream.gaps);
    let text = String::from_utf8_lossy(&stream.data).into_owned();
    let wanted: String = (0..400).map(|i| format!("line {i}\r\n")).collect();
    assert!(text.ends_with(&format!("{wanted}over\r\n")), "{text}");
    agent.drain();
}

#[test]
fn end_without_a_link_is_sent_after_its_last_byte() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    let go = agent.home().path().join("go");
    line(&console, "s", &format!("until [ -e {} ]; do sleep 0.01; done; echo last words; exit 9", go.display()));
    let number = console.link().number();
    console.crash();
    std::fs::write(&go, "").expect("writable");
    agent.wait_log(|line| line["message"] == "terminal closed");
    console.listen();
    let closed = console.on(number + 1).closed("s");
    assert_eq!((&closed["exit_code"], &closed["reason"]), (&json!(9), &json!("exited")));
    let stream = console.stream("s");
    assert!(stream.gaps.is_empty() && stream.text().ends_with("last words\r\n"), "{}", stream.text());
}

#[test]
fn reattach_shows_the_screen_and_the_last_lines() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    line(&console, "s", "seq 1 60000; echo rea''dy");
    console.wait_text("s", "ready\r\n");
    let before = console.stream("s");
    let shown = console.shown("s");
    console.browser().create("s", 80, 24);
    line(&console, "s", "echo aft''er");
    let stream = console.wait_text_after("s", shown, "after\r\n");
    let snapshot = String::from_utf8_lossy(stream.screen.get(shown..).expect("more was shown")).into_owned();
    assert!(snapshot.starts_with("\u{1b}c"), "a reset comes first");
    assert!(snapshot.contains("59999\r\n60000\r\nready\r\n"), "the newest is there");
    let bytes = stream.unnumbered_bytes - before.unnumbered_bytes;
    assert!(bytes < 8_000, "a thousand lines are {bytes} bytes");
    assert!(stream.gaps.is_empty() && stream.repeated_bytes == before.repeated_bytes);
    let numbers: Vec<u32> = snapshot.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert!(numbers.len() > 1_000 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no line is cut or lost");
    agent.drain();
}

#[test]
fn snapshot_asks_nothing_and_causes_nothing() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    let data = |record: &Record| BASE64.decode(record.payload()["data"].as_str().unwrap_or_default().as_bytes());
    let is_output = |record: &Record| record.kind() == "terminal:output";
    line(&console, "s", r"printf '\033[c\033[31mred\007\033]52;c;aGk=\007\302\2336n\n'; echo rea''dy");
    let printed = console
        .wait("the output", |record| is_output(record) && data(record).is_ok_and(|data| data.ends_with(b"ready\r\n")));
    assert!(console.stream("s").data.windows(3).any(|part| part == b"\x1b[c"), "it is asked while it is live");
    // Frames keep their order: the agent has the pong, and repeats none of it as live output.
    console.after(&printed).ping(1);
    console.browser().run("true");
    console.link().reset();
    console.ended(1);
    console.on(2).frame("heartbeat");
    let shown = console.shown("s");
    console.browser().create("s", 80, 24);
    line(&console, "s", "echo aft''er");
    console.wait_text_after("s", shown, "after\r\n");
    let replayed = console.on(2).all(|record| is_output(record) && record.payload()["replay"] == true);
    assert!(replayed.iter().all(|record| record.payload()["offset"].is_null()), "{replayed:?}");
    let replayed: Vec<u8> = replayed.iter().flat_map(|record| data(record).expect("base64")).collect();
    let text = String::from_utf8(replayed).expect("whole characters");
    assert!(text.contains("settled\r\n\x1b[31mred\r\nready\r\n"), "{text:?}");
    agent.drain();
}

#[test]
fn snapshot_in_half_a_sequence_is_completed_by_its_rest() {
    let (console, agent) = desk();
    // The output before and after a re-attach, and the complete output that a terminal has seen at the end.
    for (session, half, rest, seen) in [
        ("draws", r"\033[3", "1m", "\x1b[31m"),
        ("asks", r"\033[", "c", "\x1b[c"),
        ("acts", r"\033]52;c;aG", r"k=\007", "\x1b]9999;k=\x07"),
    ] {
        open_quiet(&console, session);
        line(&console, session, &format!("printf 'screen{half}'; read x; printf '{rest}over\\n'"));
        console.wait_text(session, "screen\x1b");
        let shown = console.shown(session);
        console.browser().create(session, 80, 24);
        line(&console, session, "");
        let stream = console.wait_text_after(session, shown, "over\r\n");
        let screen = String::from_utf8_lossy(stream.screen.get(shown..).expect("more was shown")).into_owned();
        assert!(screen.contains("screen") && screen.ends_with(&format!("{seen}over\r\n")), "{screen:?}");
        assert!(stream.text().ends_with("over\r\n") && stream.gaps.is_empty(), "live output is as it was printed");
    }
    agent.drain();
}

#[test]
fn full_screen_program_is_shown_without_its_help() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    let program = "draw() { printf '\\033[H\\033[2J'; echo \"screen of $(stty size)\"; }; trap draw WINCH; \
                   printf '\\033[?1049h\\033[?25l\\033[?2004h'; draw; until [ -e over ]; do sleep 0.01; done; \
                   printf '\\033[?1049l\\033[?25h\\033[?2004l'";
    line(&console, "s", &format!("sh -c '{}'", program.replace('\'', "'\\''")));
    console.wait_text("s", "screen of 24 80\r\n");
    let shown = console.shown("s");
    console.browser().create("s", 80, 24);
    let stream = console.wait_text_after("s", shown, "\u{1b}[?2004h");
    let snapshot = String::from_utf8_lossy(stream.screen.get(shown..).unwrap_or_default()).into_owned();
    assert!(snapshot.starts_with("\u{1b}c"), "{snapshot:?}");
    assert!(snapshot.contains("\u{1b}[?1049h") && snapshot.contains("screen of 24 80\r\n"), "{snapshot:?}");
    assert!(snapshot.ends_with("\u{1b}[?25l\u{1b}[?2004h"), "its modes are set at the end: {snapshot:?}");
    // It draws again for another size, and only then.
    console.browser().create("s", 80, 23);
    let seen = console.wait_text_after("s", shown, "screen of 23 80\r\n");
    assert_eq!(String::from_utf8_lossy(&seen.data).matches("screen of 24 80\r\n").count(), 1);
    console.browser().create("s", 80, 24);
    std::fs::write(agent.home().path().join("over"), "").expect("writable");
    line(&console, "s", "stty size; echo at the pro''mpt");
    console.wait_text_after("s", shown, "24 80\r\nat the prompt\r\n");
    agent.drain();
}

#[test]
fn a_pager_is_used_left_alone_and_used_again() {
    let (console, agent) = desk();
    if !std::path::Path::new("/usr/bin/less").exists() {
        return support::skip("terminal_reattach", "no less");
    }
    open_quiet(&console, "s");
    line(&console, "s", "seq 1000 1999 > numbers; TERM=xterm-256color less numbers; echo at the pro''mpt");
    console.wait_text("s", "1022");
    console.browser().input("s", b" ");
    console.wait_text("s", "1045");
    console.link().reset();
    console.ended(1);
    console.on(2).frame("heartbeat");
    let shown = console.shown("s");
    console.browser().create("s", 80, 30);
    // The terminal gets five more rows, and the program draws the whole screen again.
    let drawn_again = |screen: &[u8]| {
        let text = String::from_utf8_lossy(screen.get(shown..).unwrap_or_default()).into_owned();
        text.contains("\u{1b}[?1049h") && text.contains("1051")
    };
    console.wait_stream("s", "the whole screen again", |stream| drawn_again(&stream.screen));
    // `less` loses a key that comes with a change of the size, and there may be two changes.
    console.browser().input("s", b"qqq");
    let stream = console.wait_text_after("s", shown, "at the prompt\r\n");
    assert!(stream.text().contains("\u{1b}[?1049l"), "the screen of before is back");
    agent.drain();
}

#[test]
fn the_size_of_whoever_comes_back_counts() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    console.browser().create("s", 120, 50);
    line(&console, "s", "stty size");
    console.wait_text("s", "50 120\r\n");
    agent.drain();
}

#[test]
fn create_before_acknowledged_close_is_refused_again() {
    let (console, _agent) = desk();
    console.link().pongs(Pongs::Withheld);
    open_quiet(&console, "s");
    line(&console, "s", "exit 6");
    let is_end = |record: &Record| record.kind() == "terminal:closed";
    let first = console.wait("the end", is_end);
    console.browser().create("s", 80, 24);
    let again = console.after(&first).wait("the refusal", is_end);
    // The console may have read the first answer. It would drop a repeat, and the user would wait for ever.
    assert_eq!(again.payload()["reason"], "busy");
    assert_ne!(again.payload()["id"], first.payload()["id"]);
}

#[test]
fn id_is_free_after_acknowledged_end() {
    let (console, agent) = desk();
    open_quiet(&console, "s");
    line(&console, "s", "exit 6");
    let first = console.wait("the end", |record| record.kind() == "terminal:closed");
    assert_eq!(first.payload()["exit_code"], 6);
    let later = console.after(&first);
    later.ping(1);
    // Frames keep their order: the agent has the pong before this.
    console.browser().run("true");
    console.browser().create_with("s", &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    line(&console, "s", "exit 5");
    assert_eq!(later.closed("s")["exit_code"], 5);
    agent.drain();
}
