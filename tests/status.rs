//! The Unix socket of the running agent, and the programs that ask it: `sindri-agent status` and `sindri-agent health`.

use crate::support;
use crate::support::delayed::Delayed;
use crate::support::{Agent, Home, Setup, Signal, WAIT_MAX, skip};
use draupnir_console::{Answer, Console, Personality};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const FAST: (&str, &str) = ("SINDRI_AGENT_HEARTBEAT", "0.2");

fn socket(home: &Home) -> PathBuf {
    home.state_dir().join("status.sock")
}

/// Runs the program with these arguments in this home, and no more of the agent's environment than an operator has.
fn ask(home: &Home, arguments: &[&str]) -> Output {
    arguments.iter().fold(Setup::alone().home(home), |setup, argument| setup.arg(argument)).output()
}

#[track_caller]
fn is_healthy(home: &Home, arguments: &[&str]) -> bool {
    let output = ask(home, &[&["health"], arguments].concat());
    assert!(output.stdout.is_empty(), "it prints nothing but errors");
    match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("health ends with {other:?}"),
    }
}

/// The agent binds its socket beside its start: asks until it answers.
#[track_caller]
fn answers(home: &Home) {
    let deadline = Instant::now() + WAIT_MAX;
    while !is_healthy(home, &[]) {
        assert!(Instant::now() < deadline, "the socket is not served");
    }
}

#[track_caller]
fn document(home: &Home) -> Value {
    let output = ask(home, &["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Asks until the status is as wanted; before that there may be no answer.
#[track_caller]
fn shows(home: &Home, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let output = ask(home, &["status", "--json"]);
        let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if output.status.success() && is_so(&document) {
            return document;
        }
        assert!(Instant::now() < deadline, "never so: {what}: {output:?}");
    }
}

#[test]
fn status_shows_what_the_agent_does() {
    let console = Console::builder(Personality::production()).own_address().start();
    let agent = Agent::spawn(&console, &[FAST, ("SINDRI_AGENT_COMMANDS", "on")]);
    let home = agent.home();
    answers(home);
    console.browser().create("s", 80, 24).input("s", b"echo re''ady\n");
    console.wait_text("s", "ready");
    console.browser().dispatch("c", "sleep 1000");
    console.ping(1);
    let is_complete = |status: &Value| {
        status["terminals"] == 1
            && status["commands"] == 1
            && status["round_trip_ms"].is_u64()
            && status["last_heartbeat_seconds"].is_u64()
    };
    let status = shows(home, "a terminal and a command", is_complete);
    for (field, value) in [
        ("link", json!("online")),
        ("offline_seconds", json!(0)),
        ("state", json!("connected.ready")),
        ("console", json!(console.url())),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("pid", json!(agent.process().pid())),
        ("reconnects_last_hour", json!(0)),
        ("last_error", Value::Null),
        ("buffer_limit_bytes", json!(32 << 20)),
        ("journal", json!("on")),
        ("terminals_lock", json!("open")),
        ("commands_lock", json!("open")),
        ("audit", json!("off")),
        ("logs", json!("on")),
        ("llm_port", Value::Null),
    ] {
        assert_eq!(status[field], value, "{field}: {status}");
    }
    assert!(console.instance_ids().iter().any(|id| status["instance_id"] == *id), "{status}");
    assert!(status["state_since"].as_str().is_some_and(|since| since.ends_with('Z')), "{status}");
    assert!(status["last_heartbeat_seconds"].as_u64().is_some_and(|seconds| seconds < 45), "{status}");
    assert!(status["buffer_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{status}");

    console.connection(1).reset();
    console.on(2).frame("heartbeat");
    let status = shows(home, "a reconnect", |status| status["link"] == "online");
    assert_eq!(status["reconnects_last_hour"], 1, "{status}");
    assert_eq!(status["reconnect_causes"], json!([{"cause": "lost", "count": 1}]), "{status}");
    assert!(status["last_error"]["text"].as_str().is_some_and(|text| text.starts_with("connection lost")), "{status}");

    let screen = ask(home, &["status"]);
    let screen = String::from_utf8(screen.stdout).expect("text");
    assert!(screen.lines().count() <= 24 && screen.lines().all(|line| line.chars().count() <= 120), "{screen}");
    assert!(!screen.contains('\u{1b}'), "colours are for terminals: {screen}");
    for part in ["connected.ready", console.url(), "1 in the last hour (lost 1)", "1 terminals, 1 commands"] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    agent.drain();
}

#[test]
fn status_shows_locks_and_usage() {
    let console = Console::start(Personality::production());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let setup = Setup::new(&console).env("SINDRI_AGENT_TERMINAL", "off").env("SINDRI_AGENT_COMMANDS", "off");
    let setup = setup.env("SINDRI_AGENT_JOURNAL", "off").env("SINDRI_AGENT_AUDIT", "/dev/full");
    let agent = setup.env("OPENAI_BASE_URL", format!("http://localhost:{port}/v1/openai")).spawn();
    answers(agent.home());
    let status = document(agent.home());
    assert_eq!(status["llm_port"], port, "{status}");
    assert_eq!((&status["terminals_lock"], &status["commands_lock"]), (&json!("locked"), &json!("locked")), "{status}");
    assert_eq!(status["journal"], "off", "{status}");
    agent.drain();
}

#[test]
fn colours_appear_on_a_terminal() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[FAST]);
    console.frame("heartbeat");
    answers(agent.home());
    // The agent's own terminal is one.
    let program = support::agent_program();
    console.browser().create("s", 120, 40).input("s", format!("{} status\n", program.display()).as_bytes());
    console.wait_text("s", "\u{1b}[32mconnected.ready");
    agent.drain();
}

#[test]
fn health_fails_for_stopped_hung_and_dead_agents() {
    const TEST: &str = "health_fails_for_stopped_hung_and_dead_agents";
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[FAST]);
    let home = agent.home();
    answers(home);
    agent.signal(Signal::STOP);
    while !agent.process().is_stopped() {}
    for _ in 0..20 {
        // More than may wait: each ends in time even so.
        let begin = Instant::now();
        assert!(!is_healthy(home, &[]));
        assert!(begin.elapsed() < Duration::from_secs(30));
        if begin.elapsed() < Duration::from_secs(1) {
            break;
        }
    }
    agent.signal(Signal::CONT);
    answers(home);
    match Delayed::attach(&agent, "?epoll_wait,epoll_pwait,?epoll_pwait2", None) {
        Some(delayed) => {
            // The call that was under way may return once more.
            assert!((0..3).any(|_| !is_healthy(home, &[])), "the loop hangs");
            drop(delayed);
        }
        None => skip(TEST, "the agent cannot be traced here"),
    }
    answers(home);
    agent.kill();
    assert!(!is_healthy(home, &[]), "a socket that is left behind is not an agent");
}

#[test]
fn no_other_agent_answers_for_one_that_hangs() {
    let console = Console::start(Personality::production());
    let nowhere = tempfile::NamedTempFile::new().expect("a file is no directory");
    // It has the abstract name, unless the agent of another test has it.
    let other = Setup::new(&console).env("SINDRI_AGENT_STATE_DIR", nowhere.path().join("state")).spawn();
    console.frame("heartbeat");
    let agent = Agent::spawn(&console, &[]);
    answers(agent.home());
    agent.signal(Signal::STOP);
    while !agent.process().is_stopped() {}
    assert!(!is_healthy(agent.home(), &[]));
    agent.signal(Signal::CONT);
    answers(agent.home());
    other.drain();
    agent.drain();
}

#[test]
fn only_ready_asks_for_the_console() {
    let console = Console::builder(Personality::production()).own_address().start();
    console.stop_listening();
    let agent = Agent::spawn(&console, &[FAST]);
    let home = agent.home();
    answers(home);
    assert!(!is_healthy(home, &["--ready"]));
    assert!(is_healthy(home, &["--ready", "--max-offline", "3600"]));
    let refused = ask(home, &["health", "--ready"]);
    assert!(
        String::from_utf8_lossy(&refused.stderr).starts_with("sindri-agent health: no console for "),
        "{refused:?}"
    );
    console.listen();
    console.within(Duration::from_secs(60)).frame("heartbeat");
    assert!(is_healthy(home, &["--ready"]));
    agent.drain();
}

/// The outage of an hour is `driver::tests::hour_without_a_console_restarts_nothing`; here the process is the real one.
#[test]
fn outage_of_the_console_fails_no_liveness_probe() {
    let console = Console::builder(Personality::production()).own_address().start();
    let agent = Agent::spawn(&console, &[FAST]);
    let home = agent.home();
    console.frame("heartbeat");
    answers(home);
    console.stop_listening();
    console.connection(1).reset();
    let offline = |status: &Value| status["link"] == "offline";
    let status = shows(home, "the outage", offline);
    assert_eq!(status["pid"], agent.process().pid());
    // Through several failed dials.
    let failures = || agent.log().count(|line| line["message"] == "still failing");
    let (before, deadline) = (failures(), Instant::now() + Duration::from_secs(120));
    while failures() < before + 2 {
        assert!(is_healthy(home, &[]), "the loop turns");
        assert!(Instant::now() < deadline, "no dial has failed: {}", agent.log().text());
    }
    assert!(!is_healthy(home, &["--ready"]));
    assert!(agent.process().runs());
    agent.drain();
}

#[test]
fn socket_is_for_its_user_alone() {
    const TEST: &str = "socket_is_for_its_user_alone";
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    answers(agent.home());
    let metadata = std::fs::symlink_metadata(socket(agent.home())).expect("it is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    agent.drain();

    // The abstract socket has no mode: the agent looks at who connects.
    let agent = without_directory(&console);
    let name = format!("sindri-agent/{}{}", rustix::process::geteuid().as_raw(), agent.home().state_dir().display());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let deadline = Instant::now() + WAIT_MAX;
    let answer = loop {
        match UnixStream::connect_addr(&address) {
            Ok(stream) => break read_all(stream),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    let status = answer.lines().nth(1).expect("two lines");
    let status: Value = serde_json::from_str(status).expect("JSON");
    assert_eq!(status["pid"], agent.process().pid());
    if !rustix::process::geteuid().is_root() {
        return skip(TEST, "only root can be another user");
    }
    let script = "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); \
                  connect(S, pack('S a*', AF_UNIX, \"\\0$ARGV[0]\")) and print 'connected: ', <S>";
    let reads = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        let output = command.args(&words[1..]).args(["perl", "-e", script, &name]).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(reads(&["env"]).contains("\"link\""), "{}", reads(&["env"]));
    assert_eq!(reads(&["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]), "connected: ");
    agent.drain();
}

/// An agent whose state directory cannot be made: there is a file in its place.
fn without_directory(console: &Console) -> Agent {
    let home = Home::new();
    std::fs::write(home.state_dir(), "").expect("it is writable");
    Setup::new(console).home(&home).spawn()
}

#[test]
fn two_agents_without_a_directory_answer_for_themselves() {
    let console = Console::start(Personality::production());
    let agents = [without_directory(&console), without_directory(&console)];
    for agent in &agents {
        let status = shows(agent.home(), "its own agent", |_| true);
        assert_eq!(status["pid"], agent.process().pid());
    }
    let [first, second] = agents;
    first.kill();
    assert!(!is_healthy(first.home(), &[]), "another agent does not answer for it");
    second.drain();
}

fn read_all(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    text
}

#[test]
fn socket_reads_nothing_and_answers_status_alone() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[]);
    answers(agent.home());
    let mut stream = UnixStream::connect(socket(agent.home())).expect("it is served");
    // The agent may have closed already.
    let _ = stream.write_all(b"{\"type\":\"terminal:create\",\"payload\":{\"session_id\":\"s\"}}\n");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.is_empty() || text.starts_with("{\"link\":"), "{text}");
    assert_eq!(document(agent.home())["terminals"], 0);
    agent.drain();
}

#[test]
fn clients_that_do_not_read_cost_nothing() {
    let console = Console::start(Personality::production());
    let agent = Agent::spawn(&console, &[FAST]);
    console.frame("heartbeat");
    answers(agent.home());
    let open = || agent.process().shows_descriptors().then(|| agent.process().descriptors().len());
    let before = open();
    let clients: Vec<UnixStream> = (0..100)
        .map(|_| UnixStream::connect(socket(agent.home())).expect("each is accepted, one after the other"))
        .collect();
    assert!(is_healthy(agent.home(), &[]), "it answers others");
    support::settles(&console, "none of them is held open", || open() <= before);
    drop(clients);
    assert_eq!(console.browser().run("echo on")["stdout"], "on\n");
    agent.drain();
}

#[test]
fn socket_of_a_killed_agent_is_replaced() {
    let console = Console::start(Personality::production());
    let first = Agent::spawn(&console, &[]);
    let home = first.home().clone();
    answers(&home);
    first.kill();
    assert!(socket(&home).exists(), "it stays behind");
    let second = Setup::new(&console).home(&home).spawn();
    shows(&home, "the second agent", |document| document["pid"] == second.process().pid());
    second.drain();
}

#[test]
fn second_agent_does_not_take_the_socket() {
    let console = Console::start(Personality::production());
    let first = Agent::spawn(&console, &[]);
    answers(first.home());
    let second = Setup::new(&console).home(first.home()).spawn();
    second.wait_log(|line| line["level"] == "WARN" && line.to_string().contains("another agent uses the directory"));
    assert_eq!(document(first.home())["pid"], first.process().pid());
    second.drain();
    assert_eq!(document(first.home())["pid"], first.process().pid());
    first.drain();
}

#[test]
fn file_in_the_socket_s_place_is_kept() {
    let console = Console::start(Personality::production());
    let home = Home::new();
    std::fs::create_dir_all(home.state_dir()).expect("a directory");
    std::fs::write(socket(&home), "the operator's").expect("a file");
    let runtime = home.path().join("run");
    let agent = Setup::new(&console).home(&home).env("XDG_RUNTIME_DIR", &runtime).spawn();
    let asked = |setup: Setup| setup.env("XDG_RUNTIME_DIR", &runtime).arg("health").output().status.success();
    let deadline = Instant::now() + WAIT_MAX;
    while !asked(Setup::alone().home(&home)) {
        assert!(Instant::now() < deadline, "the runtime directory is the next place");
    }
    assert!(runtime.join("sindri-agent/status.sock").exists());
    assert_eq!(std::fs::read(socket(&home)).expect("it is there"), b"the operator's");
    agent.drain();
}

#[test]
fn path_over_107_bytes_is_served_and_asked() {
    let console = Console::start(Personality::production());
    let home = Home::new();
    let deep: PathBuf = home.path().join("d".repeat(60)).join("e".repeat(60));
    let agent = Setup::new(&console).home(&home).env("SINDRI_AGENT_STATE_DIR", &deep).spawn();
    let asked = || {
        let setup = Setup::alone().home(&home).env("SINDRI_AGENT_STATE_DIR", &deep);
        setup.arg("status").arg("--json").output()
    };
    let deadline = Instant::now() + WAIT_MAX;
    while !asked().status.success() {
        assert!(Instant::now() < deadline, "{:?}", asked());
    }
    assert!(deep.join("status.sock").as_os_str().len() > 107 && is_socket(&deep.join("status.sock")));
    let status: Value = serde_json::from_slice(&asked().stdout).expect("JSON");
    assert_eq!(status["pid"], agent.process().pid());
    agent.drain();
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[test]
fn status_never_shows_the_key() {
    let console = Console::start(Personality::designed());
    let echoes = format!("the key {} is not one of ours", console.key());
    console.answer_registration(Answer::status(400).json(&json!({"message": echoes})));
    let agent = Agent::spawn(&console, &[FAST]);
    agent.wait_log(|line| line.to_string().contains("is not one of ours"));
    answers(agent.home());
    // `output` looks for the key in what is printed.
    let setup = Setup::alone().home(agent.home()).key(&console.key()).arg("status").arg("--json");
    let status: Value = serde_json::from_slice(&setup.output().stdout).expect("JSON");
    assert!(status["last_error"]["text"].as_str().is_some_and(|text| text.contains("[redacted]")), "{status}");
    agent.drain();
}

#[test]
fn without_an_agent_the_places_are_named() {
    let home = Home::new();
    for command in ["status", "health"] {
        let output = ask(&home, &[command]);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(&socket(&home).display().to_string()), "{error}");
        assert!(error.starts_with(&format!("sindri-agent {command}: no agent answers")), "{error}");
    }
}
