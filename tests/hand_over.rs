//! The program at the agent's own path takes over at SIGUSR2: shells, commands and what waits for the console go on.
//!
//! The gate runs ten hand-overs; `DRAUPNIR_HAND_OVERS=100` runs so many, with 50 sessions and 10 commands.

use crate::support;
use crate::support::{Agent, Setup, Signal, settles};
use draupnir_console::{Console, Greeting, Keep, Personality, What};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest wait for the next link, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// An agent whose program the test may replace.
fn start(console: &Console, environment: &[(&str, &str)]) -> (Agent, PathBuf) {
    let setup = Setup::new(console).env("SINDRI_AGENT_HEARTBEAT", "0.2").env("SINDRI_LOG_LEVEL", "info");
    let setup = environment.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    // Outside of its home, which is searched for the key.
    let directory = setup.home_path().with_extension("bin");
    std::fs::create_dir(&directory).expect("a directory");
    let program = directory.join("sindri-agent");
    install(setup.program_path(), &program);
    let agent = setup.program(&program).spawn();
    console.on(1).frame("heartbeat");
    (agent, program)
}

/// Puts a program in the place of another, as an installer does. Another process copies it: a file that this one has
/// written may still be open for writing in a child of another test, and then it does not start.
fn install(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    let copied = std::process::Command::new("cp").arg(from).arg(&new).status().expect("coreutils");
    assert!(copied.success());
    std::fs::rename(new, to).expect("renamed");
}

fn install_bytes(program: &[u8], to: &Path) {
    let written = to.with_extension("written");
    std::fs::write(&written, program).expect("written");
    std::fs::set_permissions(&written, std::fs::Permissions::from_mode(0o755)).expect("its own file");
    install(&written, to);
}

fn remove(program: &Path) {
    let _ = std::fs::remove_dir_all(program.parent().expect("a directory"));
}

/// The parent and the start of a process, which no other process has.
fn identity(pid: u32) -> (u32, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    (fields[1].parse().expect("a number"), fields[19].parse().expect("a number"))
}

/// Opens a terminal with a shell that prints its number, and then numbered lines without end.
fn open_printer(console: &Console, session: &str) -> u32 {
    console.browser().create_with(session, &json!({"cols": 80, "rows": 24, "shell": "/bin/sh"}));
    console.within(SOON).wait_stream(session, "a prompt", |stream| stream.end > 0);
    // A shell would start a process for each pause: those of 50 sessions leave the agent no processor.
    let script = "stty -echo -onlcr; echo pid=$$=; \
                  perl -e '$| = 1; while (1) { print qq(n), ++$i, qq(\\n); select undef, undef, undef, 0.01 }'\r";
    console.browser().input(session, script.as_bytes());
    let stream = console.within(SOON).wait_stream(session, "numbers", |stream| stream.text().contains("\nn1\n"));
    let text = stream.text().into_owned();
    text.rsplit("pid=").next().and_then(|rest| rest.split('=').next()).expect("a number").parse().expect("a number")
}

/// Checks that the lines of a printer are all there, each once, and returns how many.
fn printed(console: &Console, session: &str) -> usize {
    let stream = console.stream(session);
    assert!(stream.gaps.is_empty(), "{session}: {:?}", stream.gaps);
    let text = String::from_utf8_lossy(&stream.data).into_owned();
    let lines = text.rsplit_once("=\n").expect("the number of the shell").1;
    // The last one may be on its way.
    let lines: Vec<&str> = lines.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("n{}\n", number + 1), "{session}");
    }
    lines.len()
}

/// How long a session may be silent at a hand-over beside the reconnect itself (99 of a hundred).
const SILENCE_MAX: Duration = Duration::from_millis(200);

/// How long an output was silent around each of these hand-overs, without the time from the close of the link until the
/// console greeted on the next one.
fn silences(console: &Console, session: &str, reconnects: &[(Instant, Instant)]) -> Vec<Duration> {
    let pauses = console.stream(session).pauses;
    let at = |(closed, greeted): &(Instant, Instant)| {
        let pause = pauses.iter().find(|(last, next)| last <= greeted && closed <= next);
        let (last, next) = pause.unwrap_or_else(|| panic!("{session}: no pause at a hand-over"));
        (*next - *last).saturating_sub(*greeted - *closed)
    };
    reconnects.iter().map(at).collect()
}

/// When the agent closed a link, and when the console greeted on the next one.
fn reconnect(console: &Console, link: u32) -> (Instant, Instant) {
    let closed = console.on(link).wait("a close frame", |record| matches!(record.what, What::Closed(..)));
    let greeted = console.on(link + 1).wait("a greeting", |record| matches!(record.what, What::Attached));
    (closed.at, greeted.at)
}

#[test]
fn hand_overs_under_output_lose_nothing() {
    let count = std::env::var("DRAUPNIR_HAND_OVERS").map_or(10, |count| count.parse().expect("a number"));
    let (sessions, commands) = if count > 10 { (50, 10) } else { (4, 3) };
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    console.keep(Keep::Bytes);
    let (agent, program) = start(&console, &[]);
    let names: Vec<String> = (0..sessions).map(|number| format!("s{number}")).collect();
    let shells: Vec<u32> = names.iter().map(|session| open_printer(&console, session)).collect();
    let identities: Vec<_> = shells.iter().map(|pid| identity(*pid)).collect();
    assert!(identities.iter().all(|(parent, _)| *parent == agent.process().pid()));
    let go = agent.home().path().join("go");
    for number in 0..commands {
        let line = format!("echo first; while [ ! -e {} ]; do sleep 0.1; done; echo last; exit 7", go.display());
        let fields = json!({"command": line, "timeout_ms": 600_000, "stream": number % 2 == 1});
        console.browser().dispatch_with(&format!("c{number}"), &fields);
    }
    let descriptors = || agent.process().shows_descriptors().then(|| agent.process().descriptors().len());
    settles(&console, "the commands run", || agent.process().children().len() >= sessions + commands);
    let before = descriptors();
    for number in 1..=count {
        let shown = printed(&console, "s0");
        agent.signal(Signal::USR2);
        assert_eq!(console.within(SOON).on(number).close_frame(), (Some(1012), "agent update".into()));
        console.within(SOON).on(number + 1).frame("heartbeat");
        console.within(SOON).wait_stream("s0", "more output", |stream| {
            stream.data.ends_with(b"\n") && stream.text().contains(&format!("\nn{}\n", shown + 5))
        });
    }
    assert!(agent.process().runs());
    for ((session, pid), identity_before) in names.iter().zip(&shells).zip(&identities) {
        assert_eq!(identity(*pid), *identity_before, "{session} has another shell");
        assert!(printed(&console, session) > 0);
    }
    let reconnects: Vec<_> = (1..=count).map(|number| reconnect(&console, number)).collect();
    let mut silences: Vec<_> = names.iter().flat_map(|session| silences(&console, session, &reconnects)).collect();
    silences.sort_unstable();
    let at_percent = |percent: usize| silences[(silences.len() * percent).div_ceil(100) - 1];
    let longest_reconnect = reconnects.iter().map(|(closed, greeted)| *greeted - *closed).max();
    let (silences_p50, silences_p99) = (at_percent(50), at_percent(99));
    println!("silence beside the reconnect: {silences_p50:?} (50 %), {silences_p99:?} (99 %) of {}", silences.len());
    println!("reconnect: at most {longest_reconnect:?}");
    // A few would measure how busy the machine is.
    assert!(count == 10 || silences_p99 <= SILENCE_MAX, "{silences_p99:?}");
    settles(&console, "no descriptor is left over", || descriptors() <= before);
    std::fs::write(go, "").expect("written");
    for number in 0..commands {
        let result = console.within(SOON).result(&format!("c{number}"));
        assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(7), &json!("first\nlast\n")), "{result}");
    }
    // What was dispatched is remembered.
    console.browser().input("s0", b"\x03exit 3\r");
    assert_eq!(console.within(SOON).closed("s0")["exit_code"], 3);
    agent.drain();
    remove(&program);
}

#[test]
fn refused_program_costs_nothing() {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    let (agent, program) = start(&console, &[]);
    let good = support::agent_program();
    let pid = open_printer(&console, "s1");
    let before = identity(pid);
    let truncated = std::fs::read(&good).expect("a program");
    let scripts = [
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\nexit 0\n",
        "#!/bin/sh\nkill -SEGV $$\n",
        "#!/bin/sh\nsleep 600\n",
        "#!/no/such/interpreter\n",
    ];
    let refused = |line: &serde_json::Value| line["message"] == "hand-over refused; the agent goes on";
    for (number, script) in scripts.iter().enumerate() {
        install_bytes(script.as_bytes(), &program);
        agent.signal(Signal::USR2);
        agent.log().wait_nth(number + 1, SOON, refused);
    }
    // A program of another architecture, and one that was not copied to its end.
    let mut foreign = truncated.clone();
    foreign[18] ^= 0xff;
    for (number, bytes) in [&foreign[..], &truncated[..4_096]].into_iter().enumerate() {
        install_bytes(bytes, &program);
        agent.signal(Signal::USR2);
        agent.log().wait_nth(scripts.len() + number + 1, SOON, refused);
    }
    std::fs::remove_file(&program).expect("removed");
    agent.signal(Signal::USR2);
    agent.log().wait_nth(scripts.len() + 3, SOON, refused);
    assert_eq!(identity(pid), before);
    assert!(console.on(1).poison().is_none() && console.link().number() == 1, "the link was never closed");
    install(&good, &program);
    agent.signal(Signal::USR2);
    console.within(SOON).on(2).frame("heartbeat");
    assert_eq!(identity(pid), before);
    printed(&console, "s1");
    agent.drain();
    remove(&program);
}

#[test]
fn result_and_closed_survive_without_a_link_and_a_journal() {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    let (agent, program) = start(&console, &[("SINDRI_AGENT_JOURNAL", "off")]);
    console.browser().run("echo known");
    open_printer(&console, "s1");
    let mark = agent.home().path().join("mark");
    let line = format!("echo once >> {}; sleep 0.3; echo done", mark.display());
    console.browser().dispatch("late", &line);
    settles(&console, "it runs", || mark.exists());
    console.crash();
    agent.wait_log(|line| line["message"].as_str().is_some_and(|text| text.starts_with("connection lost")));
    agent.signal(Signal::USR2);
    agent.wait_log(|line| line["message"] == "took over");
    console.listen();
    let result = console.within(SOON).result("late");
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(0), &json!("done\n")), "{result}");
    // Its id is known to the program that took over.
    console.browser().dispatch("late", &line);
    console.within(SOON).nth(2, "the result again", |record| {
        record.kind() == "command:result" && record.payload()["command_id"] == "late"
    });
    assert_eq!(std::fs::read_to_string(mark).expect("it ran"), "once\n");
    printed(&console, "s1");
    agent.drain();
    remove(&program);
}

#[test]
fn key_is_in_no_argument_and_no_variable() {
    let console = Console::start(Personality::designed().greeting(Greeting::Attached));
    let (agent, program) = start(&console, &[]);
    // A program that shows what it was started with, and then takes over as the agent itself.
    let seen = program.with_file_name("seen");
    let script = format!(
        "#!/bin/sh\ntr '\\0' '\\n' </proc/self/environ >>{0}\necho \"$@\" >>{0}\nexec {1} \"$@\"\n",
        seen.display(),
        support::agent_program().display()
    );
    install_bytes(script.as_bytes(), &program);
    agent.signal(Signal::USR2);
    console.within(SOON).on(2).frame("heartbeat");
    let seen = std::fs::read_to_string(seen).expect("it was started");
    assert!(seen.contains("--can-take-over 1") && seen.contains("SINDRI_AGENT_STATE_DESCRIPTOR="), "{seen}");
    assert!(!seen.contains(&console.key()), "the key is among arguments or variables");
    assert_eq!(console.browser().run("echo $SINDRI_CONSOLE_API_KEY$SINDRI_AGENT_STATE_DESCRIPTOR")["stdout"], "\n");
    agent.drain();
    remove(&program);
}

/// Set in the environment of the program that takes over and cannot begin.
const PLAY: &str = "DRAUPNIR_TEST_PLANTED";

#[test]
#[ignore = "plays the new program for the test below"]
fn planted() {
    let play = std::env::var(PLAY).expect("only to be run by the other test");
    draupnir::sys::process::harden();
    assert!(draupnir::hand_over::take().is_some_and(|state| state.is_ok()), "it takes over");
    match play.as_str() {
        "panic" => std::thread::spawn(|| panic!("planted")).join().expect("it is replaced"),
        "error" => draupnir::hand_over::fallback::begin(),
        _ => loop {
            std::thread::park();
        },
    }
    unreachable!("the previous program has taken over");
}

#[test]
fn program_that_cannot_begin_gives_way_to_the_previous_one() {
    for play in ["panic", "error", "hang"] {
        let console = Console::start(Personality::designed().greeting(Greeting::Attached));
        let (agent, program) = start(&console, &[]);
        let pid = open_printer(&console, "s1");
        let before = identity(pid);
        install(&program, &program.with_extension("previous"));
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != --can-take-over ] || exec {} \"$@\"\n{PLAY}={play} exec {} --exact hand_over::planted --ignored\n",
            support::agent_program().display(),
            std::env::current_exe().expect("this test program").display(),
        );
        install_bytes(script.as_bytes(), &program);
        agent.signal(Signal::USR2);
        console.within(SOON).on(2).frame("heartbeat");
        assert_eq!(identity(pid), before, "{play}");
        agent.wait_log(|line| line["message"] == "the new program cannot begin; the previous one takes over");
        // It asks the program at the path again, not itself.
        install(&support::agent_program(), &program);
        agent.signal(Signal::USR2);
        console.within(SOON).on(3).frame("heartbeat");
        assert_eq!(identity(pid), before, "{play}");
        printed(&console, "s1");
        agent.drain();
        remove(&program);
    }
}
