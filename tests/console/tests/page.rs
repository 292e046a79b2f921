//! Tests the page of the demo without a browser: the demo as a process, its HTTP and its WebSocket.

mod packages;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::client::IntoClientRequest as _;
use async_tungstenite::tungstenite::http::HeaderValue;
use async_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket};
use data_encoding::BASE64;
use serde_json::{Value, json};

/// The longest wait for anything to be read.
const READ_MAX: Duration = Duration::from_secs(45);

/// The longest wait for one frame among others.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A demo that serves its page; killed when it is dropped.
struct Demo {
    child: Child,
    /// `127.0.0.1:PORT`.
    host: String,
    /// `/TOKEN/`.
    path: String,
    said: Receiver<String>,
    _packages: tempfile::TempDir,
}

fn command(packages: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_demo")).with_file_name("sindri-agent");
    assert!(agent.exists(), "no {}: cargo build --workspace", agent.display());
    command.args(["--plain", "--web", "--agent"]).arg(agent).arg("--packages").arg(packages).stdout(Stdio::piped());
    command
}

/// The lines of a demo as they come.
fn lines(child: &mut Child) -> Receiver<String> {
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

impl Demo {
    fn start() -> Demo {
        let packages = packages::stand_ins();
        let mut child = command(packages.path()).spawn().expect("the demo starts");
        let said = lines(&mut child);
        let first = said.recv_timeout(READ_MAX).expect("a line");
        let (_, url) = first.split_once("http://").unwrap_or_else(|| panic!("no address: {first}"));
        let (host, token) = url.split_once('/').expect("a path");
        let (host, path) = (host.to_owned(), format!("/{token}"));
        Demo { child, host, path, said, _packages: packages }
    }

    /// The answer to a request with these lines after the first.
    fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).expect("it listens");
        stream.set_read_timeout(Some(READ_MAX)).expect("a timeout");
        write!(stream, "{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answered");
        String::from_utf8(answer).expect("text")
    }

    fn file(&self, name: &str) -> String {
        let answer = self.ask("GET", &format!("{}{name}", self.path), &format!("Host: {}\r\n", self.host));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
        assert!(answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{name}");
        answer
    }

    fn socket(&self) -> Result<Socket, Box<Error>> {
        let mut request = format!("ws://{}{}socket", self.host, self.path).into_client_request().expect("a request");
        let origin = HeaderValue::from_str(&format!("http://{}", self.host)).expect("a value");
        request.headers_mut().insert("Origin", origin);
        let stream = TcpStream::connect(&self.host).expect("it listens");
        stream.set_read_timeout(Some(READ_MAX)).expect("a timeout");
        match async_tungstenite::tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Socket { socket, seen: Vec::new(), places: HashMap::new() }),
            Err(HandshakeError::Failure(error)) => Err(Box::new(error)),
            Err(error) => panic!("interrupted: {error}"),
        }
    }

    /// A page that has everything that happened so far.
    fn page(&self) -> Socket {
        let mut socket = self.socket().expect("upgraded");
        socket.wait("live", |_| true);
        socket
    }

    /// Waits until the agent is connected, and gives a page.
    fn connected_page(&self) -> Socket {
        let mut socket = self.socket().expect("upgraded");
        socket.state("connected.ready");
        socket
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// The WebSocket of a page, and the frames that came. Frames of two types come in any order, so each type is read on
/// its own.
struct Socket {
    socket: WebSocket<TcpStream>,
    seen: Vec<Value>,
    /// The frames of each type before this place were waited for.
    places: HashMap<&'static str, usize>,
}

impl Socket {
    fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).expect("sent");
    }

    fn press(&mut self, what: &str) {
        self.send(&json!({"type": "fault", "what": what}));
    }

    /// Waits for the next frame of this type that matches.
    fn wait(&mut self, kind: &'static str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let from = self.places.get(kind).copied().unwrap_or_default();
            let is_it = |frame: &Value| frame["type"] == kind && matches(frame);
            if let Some(at) = self.seen.iter().skip(from).position(is_it) {
                self.places.insert(kind, from + at + 1);
                return self.seen[from + at].clone();
            }
            let story = || self.seen.iter().filter(|frame| frame["type"] == kind).collect::<Vec<_>>();
            assert!(Instant::now() < deadline, "no such {kind}: {:#?}", story());
            match self.socket.read() {
                Ok(message) => self.seen.push(serde_json::from_str(message.to_text().expect("text")).expect("JSON")),
                Err(error) => panic!("no such {kind}: {error}: {:#?}", story()),
            }
        }
    }

    /// Waits until the chart is in this state, or in one within it.
    fn state(&mut self, state: &str) {
        self.wait("state", |frame| frame["state"].as_str().is_some_and(|now| now.starts_with(state)));
    }

    fn event(&mut self, what: &str, matches: impl Fn(&Value) -> bool) {
        self.wait("event", |frame| frame["what"] == what && matches(&frame["fields"]));
    }

    fn buttons(&mut self, name: &str, pressed: bool) {
        self.wait("buttons", |frame| frame[name] == pressed);
    }

    /// Waits until output of this terminal or command holds the text.
    fn output(&mut self, id: &str, text: &str) {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(text) {
            let frame = self.wait("output", |frame| frame["id"] == id);
            shown.extend(BASE64.decode(frame["data"].as_str().expect("text").as_bytes()).expect("base64"));
        }
    }

    /// Opens a terminal and returns its id.
    fn open(&mut self) -> String {
        self.send(&json!({"type": "open", "cols": 80, "rows": 24}));
        let list = self.wait("terminals", |frame| !frame["ids"][0].is_null());
        list["ids"].as_array().and_then(|ids| ids.last()?.as_str()).expect("an id").to_owned()
    }

    fn input(&mut self, id: &str, text: &str) {
        self.send(&json!({"type": "input", "id": id, "text": text}));
    }

    fn run(&mut self, line: &str) -> String {
        self.send(&json!({"type": "run", "line": line}));
        let begun = self.wait("command", |frame| frame["line"] == line);
        begun["id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn request_without_token_host_or_origin_is_refused() {
    let demo = Demo::start();
    let (host, path) = (format!("Host: {}\r\n", demo.host), demo.path.clone());
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let own_origin = format!("Origin: http://{}\r\n", demo.host);
    let port = demo.host.split(':').next_back().expect("a port");
    for (path, headers) in [
        ("/", host.clone()),
        ("/00000000000000000000000000000000/", host.clone()),
        ("/page.js", host.clone()),
        (&path, "Host: evil.example\r\n".to_owned()),
        (&path, format!("Host: evil.example:{port}\r\n")),
        (&path, format!("{host}Origin: http://evil.example\r\n")),
        ("/socket", format!("{host}{own_origin}{upgrade}")),
        (&format!("{path}socket"), format!("{host}{upgrade}")),
        (&format!("{path}socket"), format!("{host}Origin: null\r\n{upgrade}")),
        (&format!("{path}socket"), format!("Host: evil.example\r\n{own_origin}{upgrade}")),
    ] {
        let answer = demo.ask("GET", path, &headers);
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{path} {headers}: {answer}");
        assert!(answer.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{answer}");
        assert!(!answer.contains(demo.path.trim_matches('/')), "the token is in the answer: {answer}");
    }
    assert!(demo.ask("POST", &path, &host).starts_with("HTTP/1.1 405 "));
    assert!(demo.ask("GET", &format!("{path}../Cargo.toml"), &host).starts_with("HTTP/1.1 404 "));
}

#[test]
fn page_has_all_its_files_and_a_policy_without_hosts() {
    let demo = Demo::start();
    let page = demo.file("");
    let (_, policy) = page.split_once("\r\nContent-Security-Policy: ").expect("a policy");
    let (policy, _) = policy.split_once("\r\n").expect("the end of a header");
    for source in policy.split(';').flat_map(|directive| directive.split_whitespace().skip(1)) {
        let own = ["ws://127.0.0.1:", "ws://localhost:"].iter().any(|own| source.starts_with(own));
        assert!(own || ["'none'", "'self'", "'unsafe-inline'"].contains(&source), "{source}");
    }
    assert!(policy.contains("script-src 'self';"), "{policy}");
    let mut names: Vec<String> = ["href=\"", "src=\""]
        .iter()
        .flat_map(|mark| page.split(mark).skip(1))
        .filter_map(|rest| rest.split('"').next().filter(|name| !name.starts_with('#')).map(str::to_owned))
        .collect();
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        at += 1;
        let content = demo.file(&name);
        if name.starts_with("assets/") {
            assert!(content.contains("\r\n\r\nnode_modules/"), "{content}");
            continue;
        }
        for imported in content.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
            if !names.iter().any(|known| known == imported) {
                names.push(imported.to_owned());
            }
        }
        assert!(!content.contains("https://"), "{name} names another host");
    }
    assert!(names.len() >= 14, "{names:?}");
}

#[test]
fn terminal_works_and_is_restored_after_a_reload() {
    let demo = Demo::start();
    let mut page = demo.connected_page();
    let terminal = page.open();
    page.input(&terminal, "echo ty''ped\r");
    page.output(&terminal, "typed");
    drop(page);
    let mut page = demo.page();
    page.send(&json!({"type": "attach", "id": terminal, "cols": 90, "rows": 30}));
    page.output(&terminal, "typed");
    page.send(&json!({"type": "resize", "id": terminal, "cols": 101, "rows": 33}));
    page.input(&terminal, "stty size\r");
    page.output(&terminal, "33 101");
    page.send(&json!({"type": "close", "id": terminal}));
    page.wait("terminals", |frame| frame["ids"] == json!([]));
}

#[test]
fn output_of_a_command_streams_and_cancel_ends_it() {
    let demo = Demo::start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let gate = folder.path().join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().expect("it starts").success());
    let mut page = demo.connected_page();
    let id = page.run(&format!("echo fi''rst; read -r _ <{}; echo sec''ond; exit 3", gate.display()));
    page.output(&id, "first");
    std::fs::write(&gate, "go on\n").expect("the command waits for it");
    page.output(&id, "second");
    let is_result = |id: String| move |frame: &Value| frame["id"] == id.as_str();
    let result = page.wait("result", is_result(id.clone()));
    assert_eq!((&result["payload"]["exit_code"], &result["payload"]["stdout"]), (&json!(3), &json!("")));
    let second = page.run("echo beg''un; exec sleep 1000");
    page.output(&second, "begun");
    page.send(&json!({"type": "cancel", "id": second}));
    let result = page.wait("result", is_result(second));
    assert_ne!(result["payload"]["exit_code"], 0);
    // A page that comes later gets all of it.
    let mut later = demo.socket().expect("upgraded");
    later.output(&id, "second");
    later.wait("result", is_result(id));
}

#[test]
fn cut_link_passes_through_connecting_and_keeps_the_terminal() {
    let demo = Demo::start();
    let mut page = demo.connected_page();
    let terminal = page.open();
    page.input(&terminal, "echo bef''ore\r");
    page.output(&terminal, "before");
    page.press("cut");
    page.state("connecting.waiting");
    page.state("connecting.dialling");
    page.state("connected.ready");
    page.input(&terminal, "echo af''ter\r");
    page.output(&terminal, "after");
}

#[test]
fn buttons_that_slow_stall_restart_and_replace_do_so() {
    let demo = Demo::start();
    let mut page = demo.connected_page();
    page.press("slow");
    page.buttons("slow", true);
    page.press("slow");
    page.buttons("slow", false);
    page.press("stall");
    page.buttons("stall", true);
    page.press("stall");
    page.buttons("stall", false);
    page.press("restart");
    page.state("connecting");
    page.state("connected.ready");
    page.press("replace");
    page.event("closed", |fields| fields["code"] == 1001);
    page.state("connected.ready");
    page.press("stall");
    page.buttons("stall", true);
    page.press("cut");
    page.buttons("stall", false);
    page.state("connected.ready");
}

#[test]
fn forgotten_instance_registers_and_refused_key_is_closed() {
    let demo = Demo::start();
    let mut page = demo.connected_page();
    page.event("registration", |fields| fields["status"] == 201);
    page.press("forget");
    page.state("registering");
    page.event("registration", |fields| fields["status"] == 201);
    page.state("connected.ready");
    page.press("refuse_key");
    page.buttons("refuse_key", true);
    page.event("closed", |fields| fields["code"] == 1008);
    page.press("refuse_key");
    page.buttons("refuse_key", false);
}

#[test]
fn agent_leaves_a_stalled_link_and_the_button_is_up() {
    let demo = Demo::start();
    let mut page = demo.connected_page();
    page.press("stall");
    page.buttons("stall", true);
    let terminal = page.open(); // it is asked for on a stalled connection, and again on the next one
    page.state("connecting.waiting");
    page.state("connected.ready");
    page.buttons("stall", false);
    page.event("event", |fields| fields["message"] == "the console did not answer in time");
    page.input(&terminal, "echo af''ter\r");
    page.output(&terminal, "after");
}

#[test]
fn metrics_heartbeats_and_events_reach_the_page() {
    let demo = Demo::start();
    let mut page = demo.socket().expect("upgraded");
    page.wait("metrics", |frame| frame["payload"]["cpu"].is_object());
    page.wait("heartbeat", |frame| frame["payload"]["uptime_seconds"].is_u64());
    let mut page = demo.socket().expect("upgraded");
    page.wait("tags", |frame| frame["tags"]["purpose"] == "demo");
    page.wait("registration", |frame| frame["payload"]["hostname"].is_string());
    page.event("event", |fields| fields["event_type"] == "connect");
    page.wait("metrics", |_| true);
}

#[test]
fn pages_and_their_messages_are_bounded() {
    let demo = Demo::start();
    let mut pages: Vec<Socket> = (0..8).map(|_| demo.page()).collect();
    let refusal = demo.socket().err().expect("a ninth page");
    assert!(matches!(&*refusal, Error::Http(response) if response.status() == 503), "{refusal}");
    let page = pages.last_mut().expect("a page");
    let _ = page.socket.send(Message::text("x".repeat(300 << 10))); // it may be cut off midway
    while page.socket.read().is_ok() {}
    // Malformed messages change nothing.
    let page = pages.first_mut().expect("a page");
    for text in ["", "{", "null", "[]", r#"{"type":"fault"}"#, r#"{"type":"input","id":"none","text":"x"}"#] {
        page.socket.send(Message::text(text)).expect("sent");
    }
    page.send(&json!({"type": "attach", "id": "none", "cols": -1, "rows": 1e300}));
    page.open();
}

#[test]
fn demo_without_npm_says_what_to_do_and_works() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut command = command(folder.path());
    let mut child = command.env("PATH", folder.path()).spawn().expect("the demo starts");
    let said = lines(&mut child);
    let first = said.recv_timeout(READ_MAX).expect("a line");
    assert!(first.contains("npm is not installed; install Node.js with npm"), "{first}");
    let rest: Vec<String> = said.into_iter().collect(); // it drains by itself, as without --web
    assert!(rest.iter().any(|line| line.contains("connected")), "{rest:?}");
    assert!(child.wait().expect("it ends").success(), "{rest:?}");
}

#[test]
fn sigterm_drains_a_demo_with_a_page() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut demo = Demo::start();
    let mut page = demo.connected_page();
    page.wait("heartbeat", |_| true);
    kill_process(Pid::from_child(&demo.child), Signal::TERM).expect("it runs");
    page.state("draining");
    assert!(demo.child.wait().expect("it ends").success());
    let last = demo.said.iter().last().expect("lines");
    assert!(last.starts_with("agent ended with exit status: 0;"), "{last}");
}
