//! A minimal console: it registers the agent, sends a first message, answers pings, and counts bytes.
//!
//! One thread, blocking sockets and no JSON, so that a benchmark measures the agent and not the console. It serves one
//! agent on one connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use data_encoding::BASE64;

/// More than the longest frame of the agent.
const BUFFER_BYTES: usize = 256 << 10;

/// The deadline of every wait of the benchmark.
const PATIENCE: Duration = Duration::from_secs(60);

/// The agent to measure: `built`, unless `DRAUPNIR_AGENT` names another one.
pub(crate) fn program(built: &str) -> PathBuf {
    std::env::var_os("DRAUPNIR_AGENT").map_or_else(|| built.into(), PathBuf::from)
}

/// The console's end of the link.
pub(crate) struct Console {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    read: usize,
}

/// The listening socket.
pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) fn new() -> Listener {
        Listener(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port"))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    /// Registers the agent and waits for its link.
    pub(crate) fn accept(&self) -> Console {
        loop {
            let (mut stream, _) = self.0.accept().expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let head = request(&mut stream);
            if let Some(key) = header(&head, "sec-websocket-key") {
                let accept = derive_accept_key(key.as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).expect("written");
                let mut console = Console { stream, buffer: vec![0; BUFFER_BYTES], filled: 0, read: 0 };
                console.send(r#"{"protocol_version":"1.0","type":"log:subscribe","payload":{"paths":["*"]}}"#);
                return console;
            }
            let body = r#"{"id":"bench"}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).expect("written");
        }
    }
}

/// Reads one request with its body, and returns its head.
fn request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).expect("a request");
        assert!(length > 0, "the agent hung up");
        bytes.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let wanted: usize = header(head, "content-length").map_or(0, |length| length.parse().expect("a number"));
            if body.len() >= wanted {
                return head.to_owned();
            }
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

impl Console {
    /// Opens a session.
    pub(crate) fn create(&mut self, session: &str, shell: &str) {
        self.send(&format!(
            r#"{{"protocol_version":"1.0","type":"terminal:create","payload":{{"session_id":"{session}","cols":80,"rows":24,"shell":"{shell}"}}}}"#
        ));
    }

    /// Types.
    pub(crate) fn input(&mut self, session: &str, bytes: &[u8]) {
        let data = BASE64.encode(bytes);
        self.send(&format!(
            r#"{{"protocol_version":"1.0","type":"terminal:input","payload":{{"session_id":"{session}","data":"{data}"}}}}"#
        ));
    }

    /// Ends a session.
    pub(crate) fn close(&mut self, session: &str) {
        self.send(&format!(
            r#"{{"protocol_version":"1.0","type":"terminal:close","payload":{{"session_id":"{session}"}}}}"#
        ));
    }

    /// Runs a command: a line for the shell, or a program where there are arguments.
    pub(crate) fn dispatch(&mut self, command: &str, line: &str, args: &[&str]) {
        let args: Vec<String> = args.iter().map(|argument| format!("\"{argument}\"")).collect();
        let args = args.join(",");
        self.send(&format!(
            r#"{{"protocol_version":"1.0","type":"command:dispatch","payload":{{"command_id":"{command}","command":"{line}","args":[{args}]}}}}"#
        ));
    }

    fn send(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![kind];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..=125) => frame.push(length.to_be_bytes()[1]),
            Ok(length) => {
                frame.push(126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).expect("the agent reads");
    }

    /// The next message of a terminal or a command within this time. It answers pings meanwhile.
    pub(crate) fn hear(&mut self, within: Duration) -> Option<Heard<'_>> {
        let deadline = Instant::now() + within;
        let (kind, payload) = loop {
            let (kind, payload) = self.next_frame(deadline)?;
            match kind {
                0x81 if is_wanted(&self.buffer[payload.clone()]) => break (kind, payload),
                0x89 => {
                    let answer = self.buffer[payload].to_vec();
                    self.frame(0x8a, &answer);
                }
                0x88 => panic!("the agent closed the link"),
                _ => {}
            }
        };
        debug_assert_eq!(kind, 0x81);
        Some(Heard(&self.buffer[payload]))
    }

    /// Reads messages until one is the wanted one.
    pub(crate) fn until(&mut self, what: &str, mut wanted: impl FnMut(&Heard<'_>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.hear(left) {
                Some(heard) if wanted(&heard) => return,
                Some(_) => {}
                None => panic!("waited in vain for {what}"),
            }
        }
    }

    /// The opcode of the next frame, and the range of its unmasked payload.
    fn next_frame(&mut self, deadline: Instant) -> Option<(u8, Range<usize>)> {
        loop {
            if let Some((kind, payload, mask, end)) = head(&self.buffer[self.read..self.filled]) {
                let payload = self.read + payload.start..self.read + payload.end;
                unmask(&mut self.buffer[payload.clone()], mask);
                self.read += end;
                return Some((kind, payload));
            }
            self.buffer.copy_within(self.read..self.filled, 0);
            (self.filled, self.read) = (self.filled - self.read, 0);
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.stream.set_read_timeout(Some(left)).expect("a socket");
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => panic!("the agent is gone"),
                Ok(length) => self.filled += length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn is_wanted(message: &[u8]) -> bool {
    is_log(message) || [&b"\"terminal:"[..], b"\"command:"].iter().any(|kind| find(message, kind).is_some())
}

fn is_log(message: &[u8]) -> bool {
    find(&message[..80.min(message.len())], b"\"log:batch\"").is_some()
}

/// A message of a terminal or a command, or lines of logs.
pub(crate) struct Heard<'a>(&'a [u8]);

impl Heard<'_> {
    /// Whether it belongs to this session.
    pub(crate) fn is_of(&self, session: &str) -> bool {
        find(self.0, format!("\"session_id\":\"{session}\"").as_bytes()).is_some()
    }

    /// Whether it is the result of this command with exit code 0.
    pub(crate) fn is_success_of(&self, command: &str) -> bool {
        find(self.0, format!("\"command_id\":\"{command}\"").as_bytes()).is_some()
            && find(self.0, b"\"exit_code\":0,").is_some()
    }

    /// Whether it reports an end.
    pub(crate) fn is_end(&self) -> bool {
        find(&self.0[..80.min(self.0.len())], b"terminal:closed").is_some()
    }

    /// How many lines of logs it carries.
    pub(crate) fn log_lines(&self) -> u64 {
        const BEGIN: &[u8] = b"{\"line\":";
        if !is_log(self.0) {
            return 0;
        }
        let (mut rest, mut lines) = (self.0, 0);
        while let Some(at) = find(rest, BEGIN) {
            rest = &rest[at + BEGIN.len()..];
            lines += 1;
        }
        lines
    }

    /// How many bytes of output it carries.
    pub(crate) fn output_bytes(&self) -> u64 {
        let Some(start) = find(&self.0[..300.min(self.0.len())], b"\"data\":\"") else { return 0 };
        let data = &self.0[start + 8..];
        // A few tens of bytes follow the data.
        let back = data.iter().rev().position(|byte| matches!(byte, b'"')).unwrap_or_default();
        let tail = data.len().saturating_sub(100.max(back + 1));
        let length = tail + find(&data[tail..], b"\"").expect("the data ends");
        let padding = data[..length].iter().rev().take_while(|byte| **byte == b'=').count();
        (length / 4 * 3 - padding) as u64
    }
}

/// The opcode of a complete frame, the range of its payload, its mask, and its end.
fn head(bytes: &[u8]) -> Option<(u8, Range<usize>, [u8; 4], usize)> {
    let (kind, short) = (*bytes.first()?, usize::from(*bytes.get(1)? & 0x7f));
    let (length, mask_at) = match short {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        short => (short, 2),
    };
    let start = mask_at + 4;
    let mask = bytes.get(mask_at..start)?.try_into().ok()?;
    bytes.get(start..start + length)?;
    Some((kind, start..start + length, mask, start + length))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut words = payload.chunks_exact_mut(4);
    for word in words.by_ref() {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, what)
}
