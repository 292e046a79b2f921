//! A provider of models behind TLS, and a client that speaks HTTP as it is on the wire, to it or to the agent.
//!
//! What the provider does is a function of the test, on a thread for each connection. Neither interprets more of HTTP
//! than where a message ends.

use super::authority::Authority;
use super::{Agent, Setup, mentions};
use draupnir_console::{Console, Personality};
use futures_lite::future::block_on;
use futures_lite::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// One end of a connection.
pub(crate) struct Peer {
    wire: Box<dyn Wire>,
    /// What was read and not taken yet.
    waiting: Vec<u8>,
}

/// A message: its head as it came, and its body without the marks of its framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Said {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }

    /// The value of a header, where it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// What does not depend on the connection: the first line and the headers.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let own = ["connection:", "keep-alive:", "transfer-encoding:"];
        let mut lines: Vec<&str> = self.head.lines().filter(|line| !line.is_empty()).collect();
        lines.retain(|line| !own.iter().any(|own| line.to_ascii_lowercase().starts_with(own)));
        lines.sort_unstable();
        lines
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Peer {
    fn new(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), waiting: Vec::new() }
    }

    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        block_on(async {
            self.wire.write_all(bytes.as_ref()).await?;
            self.wire.flush().await
        })
    }

    /// Ends its own direction; the other end can go on.
    pub(crate) fn end(&mut self) {
        // It fails where the other end was faster.
        let _ = block_on(self.wire.close());
    }

    /// Everything until the other end has gone.
    pub(crate) fn rest(&mut self) -> String {
        while self.more().unwrap_or(false) {}
        String::from_utf8(std::mem::take(&mut self.waiting)).expect("text")
    }

    /// More bytes; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        let count = block_on(self.wire.read(&mut buffer))?;
        self.waiting.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    /// Whether the other end has gone, after whatever it still says.
    pub(crate) fn sees_the_end(&mut self) -> bool {
        loop {
            match self.more() {
                Ok(true) => self.waiting.clear(),
                Ok(false) | Err(_) => return true,
            }
        }
    }

    /// Everything up to this text and with it.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> String {
        loop {
            let end = self.waiting.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(end) = end {
                let taken: Vec<u8> = self.waiting.drain(..end + text.len()).collect();
                return String::from_utf8(taken).expect("text");
            }
            let is_more = self.more().expect("the connection lives");
            assert!(is_more, "{text:?} never came, but {:?}", String::from_utf8_lossy(&self.waiting));
        }
    }

    /// The next head; nothing where the other end says no more.
    fn head(&mut self) -> Option<String> {
        while !self.waiting.windows(4).any(|part| part == b"\r\n\r\n") {
            if !self.more().unwrap_or(false) {
                return None;
            }
        }
        Some(self.until("\r\n\r\n"))
    }

    /// Hands the body that follows a head to `take`, in pieces.
    fn body(&mut self, head: &str, mut take: impl FnMut(&[u8])) {
        if header(head, "transfer-encoding").is_some() {
            loop {
                let line = self.until("\r\n");
                let size = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
                self.exactly(size + 2, |piece| take(piece), 2);
                if size == 0 {
                    return;
                }
            }
        }
        let size = header(head, "content-length").map_or(0, |size| size.parse().expect("a length"));
        self.exactly(size, take, 0);
    }

    /// So many bytes, of which the last ones are no content.
    fn exactly(&mut self, size: usize, mut take: impl FnMut(&[u8]), marks: usize) {
        let mut left = size;
        while left > 0 {
            if self.waiting.is_empty() {
                assert!(self.more().expect("the connection lives"), "{left} bytes are missing");
            }
            let count = left.min(self.waiting.len());
            let content = count.min(left.saturating_sub(marks));
            take(&self.waiting[..content]);
            self.waiting.drain(..count);
            left -= count;
        }
    }

    /// A whole message.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Said {
        let head = self.head().expect("a head");
        let mut body = Vec::new();
        let has_body = !["1", "204", "304"].iter().any(|status| head.starts_with(&format!("HTTP/1.1 {status}")));
        if has_body {
            self.body(&head, |piece| body.extend_from_slice(piece));
        }
        Said { head, body }
    }

    /// The length of a whole message's body, which is not kept.
    pub(crate) fn hear_length(&mut self) -> usize {
        let head = self.head().expect("a head");
        let mut length = 0;
        self.body(&head, |piece| length += piece.len());
        length
    }
}

/// A provider.
pub(crate) struct Provider {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    /// Says so whenever it has closed a connection.
    closed: Mutex<mpsc::Receiver<()>>,
}

/// One request at the provider: its head; whatever else is done with the other end.
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a str,
    pub(crate) peer: &'a mut Peer,
}

impl Asked<'_> {
    /// The body.
    pub(crate) fn body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.peer.body(self.head, |piece| body.extend_from_slice(piece));
        body
    }

    /// The body in chunks, up to the empty line behind the trailers.
    pub(crate) fn chunked_body_with_trailers(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.peer.until("\r\n").trim(), 16).expect("a size");
            if size == 0 {
                while self.peer.until("\r\n") != "\r\n" {}
                return body;
            }
            self.peer.exactly(size + 2, |piece| body.extend_from_slice(piece), 2);
        }
    }

    /// The length of the body, which is not kept.
    pub(crate) fn body_length(&mut self) -> usize {
        let mut length = 0;
        self.peer.body(self.head, |piece| length += piece.len());
        length
    }
}

impl Provider {
    /// One that does this with each request; it hangs up where that fails.
    pub(crate) fn start(serve: impl Fn(&mut Asked<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let acceptor = authority.valid(&["127.0.0.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, seen, serve) = (Arc::clone(&connections), Arc::clone(&heads), Arc::new(serve));
        let (closes, closed) = mpsc::channel();
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let (acceptor, serve, seen) = (acceptor.clone(), Arc::clone(&serve), Arc::clone(&seen));
                let closes = closes.clone();
                let tcp = tcp.expect("a connection");
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    converse(&acceptor, tcp, &*serve, &seen);
                    // A test that does not wait for it has dropped the other end.
                    let _ = closes.send(());
                });
            }
        });
        Self { authority, address, connections, heads, closed: Mutex::new(closed) }
    }

    /// One that answers everything with this.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |asked| {
            asked.body();
            asked.peer.say(&answer)
        })
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until it has closed one more connection.
    pub(crate) fn wait_closed(&self) {
        let closed = self.closed.lock().expect("no panic");
        closed.recv_timeout(super::WAIT_MAX).expect("it closes a connection");
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }

    /// A client that goes there directly.
    pub(crate) fn client(&self) -> Peer {
        let mut roots = rustls::RootCertStore::empty();
        let certificate =
            rustls::pki_types::CertificateDer::from_pem_file(self.authority.file()).expect("a certificate");
        roots.add(certificate).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        Peer::new(block_on(async {
            let tcp = async_net::TcpStream::connect(self.address).await.expect("it listens");
            tcp.set_nodelay(true).expect("a socket");
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS")
        }))
    }
}

fn converse(
    acceptor: &TlsAcceptor,
    tcp: std::net::TcpStream,
    serve: &dyn Fn(&mut Asked<'_>) -> io::Result<()>,
    seen: &Mutex<Vec<String>>,
) {
    tcp.set_nodelay(true).expect("a socket");
    let socket = tcp.try_clone().expect("a descriptor");
    let tcp = async_net::TcpStream::try_from(tcp).expect("a socket");
    let Ok(stream) = block_on(acceptor.accept(tcp)) else { return };
    let mut peer = Peer::new(stream);
    while let Some(head) = peer.head() {
        seen.lock().expect("no panic").push(head.clone());
        if serve(&mut Asked { head: &head, peer: &mut peer }).is_err() {
            break;
        }
    }
    drop(peer);
    close(&socket);
}

/// Ends a connection, and returns once the other end's kernel has the end: a busy machine may deliver it later.
fn close(socket: &std::net::TcpStream) {
    // It fails where the other end was faster.
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let (Ok(ours), Ok(theirs)) = (socket.local_addr(), socket.peer_addr()) else { return };
    let ports = [ours, theirs].map(|address| format!(":{:04X}", address.port()));
    let is_under_way = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // FIN_WAIT1: the end is not acknowledged.
        matches!(fields[..], [_, from, to, "04", ..] if from.ends_with(&ports[0]) && to.ends_with(&ports[1]))
    };
    while std::fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.lines().any(is_under_way)) {
        std::thread::yield_now();
    }
}

/// An agent to which AI tools are pointed, and its console.
pub(crate) struct Rig {
    pub(crate) console: Console,
    pub(crate) agent: Agent,
    pub(crate) port: u16,
}

/// The providers' names in variables; all of them lead to the one of the test.
const NAMES: [&str; 10] =
    ["ANTHROPIC", "OPENAI", "GOOGLE", "GROQ", "MISTRAL", "COHERE", "TOGETHER", "XAI", "AZURE", "OLLAMA"];

impl Rig {
    pub(crate) fn new(provider: &Provider) -> Self {
        let upstream = format!("https://{}", provider.address);
        Self::with(|setup| {
            let setup = setup.env("SINDRI_AGENT_CA_FILE", provider.authority.file());
            NAMES.iter().fold(setup, |setup, name| setup.env(&format!("SINDRI_LLM_UPSTREAM_{name}"), &upstream))
        })
    }

    pub(crate) fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (console, port) = (Console::start(Personality::production()), free_port());
        let setup = Setup::new(&console)
            .env("OPENAI_BASE_URL", format!("http://localhost:{port}/v1/openai"))
            .env("SINDRI_LLM_REPORT_INTERVAL", "0.05");
        let agent = change(setup).spawn();
        agent.wait_log(|line| mentions(line, "counting the usage") && mentions(line, &format!("127.0.0.1:{port}")));
        Self { console, agent, port }
    }

    /// A client of the proxy.
    pub(crate) fn client(&self) -> Peer {
        self.client_at(SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    pub(crate) fn client_at(&self, address: SocketAddr) -> Peer {
        let tcp = block_on(async_net::TcpStream::connect(address)).expect("it listens");
        tcp.set_nodelay(true).expect("a socket");
        Peer::new(tcp)
    }

    /// The first records, as soon as so many have come.
    #[track_caller]
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let all = || {
            let frames = self.console.frames("llm_usage:batch");
            let lists = frames.iter().map(|frame| frame.payload()["records"].as_array().expect("a list").clone());
            lists.flatten().collect::<Vec<Value>>()
        };
        let mut number = 1;
        loop {
            let records = all();
            if records.len() >= count {
                return records;
            }
            self.console.nth_frame(number, "llm_usage:batch");
            number += 1;
        }
    }
}

/// A port on which no program listens at this moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback").port()
}

/// A request with a JSON body.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost:9090\r\nContent-Type: application/json\r\nAuthorization: Bearer {TOOL_KEY}\r\n\
         X-Api-Key: {TOOL_KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The key of the tool, for its provider's eyes alone.
pub(crate) const TOOL_KEY: &str = "sk-of-the-tool-0123456789";

/// An answer with a length.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// One piece of a chunked body.
pub(crate) fn chunk(piece: &str) -> String {
    format!("{:x}\r\n{piece}\r\n", piece.len())
}
