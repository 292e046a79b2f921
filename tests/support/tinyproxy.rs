//! A real HTTP proxy: Debian's tinyproxy, on a free port of loopback.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::NamedTempFile;

/// A running proxy; dropping it ends it.
pub(crate) struct Tinyproxy {
    child: Child,
    port: u16,
    log: Arc<Mutex<String>>,
    _configuration: NamedTempFile,
}

impl Tinyproxy {
    /// Whether tinyproxy is installed.
    pub(crate) fn is_there() -> bool {
        Command::new("tinyproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts a proxy with these lines in its configuration, and returns when it listens.
    pub(crate) fn start(lines: &str) -> Tinyproxy {
        // A port that was free a moment ago, because tinyproxy does not accept port 0.
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
        let configuration = NamedTempFile::new().expect("a temporary file");
        let text = format!("Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nMaxClients 20\nLogLevel Info\n{lines}\n");
        std::fs::write(configuration.path(), text).expect("written");
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(configuration.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("tinyproxy starts");
        let mut output = BufReader::new(child.stdout.take().expect("its log is a pipe"));
        let mut log = String::new();
        while !log.contains("Accepting connections") {
            let read = output.read_line(&mut log).expect("text");
            assert!(read > 0, "tinyproxy does not start:\n{log}");
        }
        let log = Arc::new(Mutex::new(log));
        let sink = Arc::clone(&log);
        std::thread::spawn(move || follow(output, &sink));
        Tinyproxy { child, port, log, _configuration: configuration }
    }

    /// Its URL with these credentials.
    pub(crate) fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}127.0.0.1:{}", self.port)
    }

    /// How many tunnels clients have requested so far.
    pub(crate) fn tunnels(&self) -> usize {
        self.log.lock().expect("no reader has panicked").matches("): CONNECT ").count()
    }
}

fn follow(mut output: impl BufRead, sink: &Mutex<String>) {
    let mut line = String::new();
    while matches!(output.read_line(&mut line), Ok(1..)) {
        sink.lock().expect("no reader has panicked").push_str(&line);
        line.clear();
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to kill or to wait for then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
