//! Reaches the console: DNS, TCP, proxy, TLS, registration over HTTP, and the WebSocket.
//!
//! The machine orders when to register, dial, close or give up, and `protocol` interprets the messages. The link keeps
//! one deadline, for the certificate files, and retries nothing. Methods of [`Link`] return at once; a report follows
//! with the number of the attempt or link.
//!
//! Invariants: one registration, one dial or link, one probe of the port, and one DNS look-up at most are in flight;
//! what is given up has its descriptors closed, by the next turn of the executor at the latest; every buffer is
//! bounded; the key is in no error, report or log.
//!
//! | file | what it does |
//! |---|---|
//! | `target` | the address of the console, and the key |
//! | `dial`, `resolve`, `race`, `stream` | the byte stream: names, addresses, sockets |
//! | `proxy`, `tls`, `roots`, `verifier` | the tunnel through a proxy, TLS, and the trusted roots |
//! | `http`, `register`, `console_text` | one HTTP exchange, the registration, the part of an answer that may be logged
//! |
//! | `explain` | the errors of libraries as sentences |
//! | [`probe`] | the same steps one by one, for `doctor` |
//! | `upstream` | the same way to a provider of models |
//! | `upgrade`, `socket`, `inflow` | the WebSocket: its upgrade, its frames, and the limits of what it reads |
//!
//! Wire: CONSOLE.md, "Registration" and "The WebSocket".

use crate::report::Reporter;
use async_tungstenite::tungstenite::Utf8Bytes;
use dial::Dialer;
use draupnir_fsm::driver::Loss;
use draupnir_fsm::driver::RegisterPath;
use draupnir_fsm::driver::{LinkId, PortProbe, PortState, RegistrationAttempt};
use resolve::LookUp;
use smol::{LocalExecutor, Task};
use socket::WsConnection;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use stream::Progress;

mod chain;
mod console_text;
mod dial;
mod error;
mod explain;
mod http;
mod inflow;
pub mod probe;
pub mod proxy;
mod race;
mod register;
mod resolve;
mod roots;
mod socket;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod upgrade;
mod upstream;
mod verifier;

pub use error::{Error, Hop, PeerFault};
pub use inflow::Received;
pub use register::{Registered, exchange as exchange_registration};
pub use roots::{RootsFault, RootsFrom, check_ca_file};
pub use socket::close_received;
pub(crate) use stream::{Stream, Watch};
pub use target::{Target, Trust};
pub use tls::TlsFault;
pub(crate) use upstream::UpstreamDialer;

/// The `User-Agent` header, for the logs of consoles and proxies.
const USER_AGENT: &str = concat!("sindri-agent/", env!("CARGO_PKG_VERSION"));

/// The connection to the console.
pub struct Link {
    dialer: Rc<Dialer>,
    executor: Rc<LocalExecutor<'static>>,
    reporter: Reporter,
    registration: Option<Task<()>>,
    current: Option<Current>,
    /// The addresses that refused the last dial.
    refused: Rc<RefCell<Vec<SocketAddr>>>,
    port_probe: Option<Task<()>>,
}

/// The link that is dialled or open.
struct Current {
    link: LinkId,
    connection: Rc<WsConnection>,
    progress: Progress,
    /// Dials, then runs the socket to its end; dropping it gives both up.
    _task: Task<()>,
}

/// A frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsFrame {
    /// A message.
    Text(Utf8Bytes),
    /// A Ping with its payload, at most 125 bytes (RFC 6455, section 5.5).
    Ping(Vec<u8>),
}

impl Link {
    /// Prepares the way; nothing is sent or resolved yet.
    ///
    /// # Errors
    /// [`Error::Key`] where the key cannot stand in a header.
    pub fn new(target: Target, executor: Rc<LocalExecutor<'static>>, reporter: Reporter) -> Result<Self, Error> {
        Self::with_look_up(target, executor, reporter, resolve::system())
    }

    fn with_look_up(
        target: Target,
        executor: Rc<LocalExecutor<'static>>,
        reporter: Reporter,
        look_up: LookUp,
    ) -> Result<Self, Error> {
        let dialer = Rc::new(Dialer::new(target, Rc::clone(&executor), look_up)?);
        let refused = Rc::default();
        Ok(Self { dialer, executor, reporter, registration: None, current: None, refused, port_probe: None })
    }

    /// " by way of" the proxy, for a log line or error; empty without a proxy.
    pub fn by_way_of(&self) -> String {
        match self.dialer.hop() {
            Hop::Console | Hop::Provider(_) => String::new(),
            Hop::Proxy(variable) => {
                let (host, port) = self.dialer.next_hop();
                format!(", by way of the proxy {} ({variable})", target::host_and_port(host, port))
            }
        }
    }

    /// Registers once. Reports [`LinkReport::RegistrationAnswered`] or [`LinkReport::RegistrationFailed`], unless
    /// abandoned.
    pub fn register(&mut self, attempt: RegistrationAttempt, path: RegisterPath, body: String) {
        let (dialer, reporter) = (Rc::clone(&self.dialer), self.reporter.clone());
        self.registration = Some(self.executor.spawn(async move {
            let report = match register::register(&dialer, path, &body).await {
                Ok(answer) => LinkReport::RegistrationAnswered {
                    attempt,
                    status: answer.status,
                    retry_after_ms: answer.retry_after_ms,
                    id: answer.id,
                    console_text: answer.console_text,
                    location: answer.location,
                },
                Err(error) => LinkReport::RegistrationFailed { attempt, error },
            };
            reporter.report(report).await;
        }));
    }

    /// Gives up the registration that is in flight. It reports nothing any more.
    pub fn abandon_registration(&mut self) {
        self.registration = None;
    }

    /// Dials once, as this instance. Reports [`LinkReport::Opened`] and all that follows, or
    /// [`LinkReport::DialFailed`].
    pub fn dial(&mut self, link: LinkId, instance_id: &str) {
        self.abandon_dial();
        let connection = Rc::new(WsConnection::default());
        let progress = Progress::default();
        let (dialer, reporter, instance_id) = (Rc::clone(&self.dialer), self.reporter.clone(), instance_id.to_owned());
        let (its_connection, its_progress) = (Rc::clone(&connection), progress.clone());
        let refused = Rc::clone(&self.refused);
        let task = self.executor.spawn(async move {
            match upgrade::dial(&dialer, &instance_id, its_progress).await {
                Ok(socket) => its_connection.run(link, socket, &dialer.target.key, &reporter).await,
                Err(error) => {
                    refused.replace(error.refused_addresses().unwrap_or_default());
                    let retry_after_ms = error.retry_after_ms();
                    reporter.report(LinkReport::DialFailed { link, error, retry_after_ms }).await;
                }
            }
        });
        self.current = Some(Current { link, connection, progress, _task: task });
    }

    /// Gives up the dial that is in flight. It reports nothing any more, even if it has just succeeded.
    pub fn abandon_dial(&mut self) {
        if let Some(given_up) = self.current.take() {
            given_up.connection.reset();
        }
    }

    /// Connects to the addresses that refused the last dial. Reports [`LinkReport::PortProbed`], unless abandoned.
    pub fn probe_port(&mut self, probe: PortProbe) {
        let (addresses, reporter) = (self.refused.borrow().clone(), self.reporter.clone());
        self.port_probe = Some(self.executor.spawn(async move {
            let found = dial::probe_port(&addresses).await;
            reporter.report(LinkReport::PortProbed { probe, found }).await;
        }));
    }

    /// Gives up the probe that is in flight. It reports nothing any more.
    pub fn abandon_port_probe(&mut self) {
        self.port_probe = None;
    }

    /// Sends a close frame after all frames handed over, and waits for the console's; ends in [`LinkReport::Closed`].
    /// Does nothing if this link is not the current one.
    pub fn close(&mut self, link: LinkId, code: u16, reason: &str) {
        if let Some(current) = self.open(link) {
            current.connection.close(code, reason);
        }
    }

    /// Closes the descriptor at once, with a reset; ends in [`LinkReport::Closed`].
    pub fn drop_now(&mut self, link: LinkId) {
        if let Some(current) = self.open(link) {
            current.connection.reset();
        }
    }

    /// Hands over frames to be written in this order and flushed; [`LinkReport::Written`] follows, and only then may
    /// the next frames be handed over. Frames for a link that is gone are dropped.
    pub fn write(&mut self, link: LinkId, frames: Vec<WsFrame>) {
        if let Some(current) = self.open(link) {
            current.connection.write(frames);
        }
    }

    /// How many bytes of the current link, dialling included, the kernel has taken: grows as long as the socket moves.
    pub fn bytes_written(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.progress.bytes())
    }

    fn open(&self, link: LinkId) -> Option<&Current> {
        self.current.as_ref().filter(|current| current.link == link && current.connection.is_open())
    }
}

/// What the link reports to the loop.
#[derive(Debug)]
pub enum LinkReport {
    /// The console answered a registration.
    RegistrationAnswered {
        /// The attempt that this answers.
        attempt: RegistrationAttempt,
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u64>,
        /// The `id` of the answer's body.
        id: Option<String>,
        /// The console's own text: printable, bounded.
        console_text: String,
        /// Where a redirect points.
        location: Option<String>,
    },
    /// A registration ended without an answer.
    RegistrationFailed {
        /// The attempt that failed.
        attempt: RegistrationAttempt,
        /// Why.
        error: Error,
    },
    /// The WebSocket is up.
    Opened {
        /// The link that is up.
        link: LinkId,
    },
    /// A dial ended without a WebSocket.
    DialFailed {
        /// The link that never came up.
        link: LinkId,
        /// Why.
        error: Error,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// A probe of the console's port ended.
    PortProbed {
        /// The probe that ended.
        probe: PortProbe,
        /// What it found.
        found: PortState,
    },
    /// A text message.
    Text {
        /// The link it came on.
        link: LinkId,
        /// The message.
        text: Received,
    },
    /// A binary message, which the protocol does not have.
    Binary {
        /// The link it came on.
        link: LinkId,
        /// Its length.
        bytes: usize,
    },
    /// A Pong.
    Pong {
        /// The link it came on.
        link: LinkId,
        /// The payload it echoes.
        payload: Vec<u8>,
    },
    /// What was handed over by [`Link::write`] has left for the kernel.
    Written {
        /// The link it went to.
        link: LinkId,
    },
    /// The console sent a close frame.
    CloseReceived {
        /// The link it closes.
        link: LinkId,
        /// The close code; 1005 where the frame had none.
        code: u16,
        /// The reason, printable.
        reason: String,
    },
    /// The link broke without a close frame.
    Lost {
        /// The link that broke.
        link: LinkId,
        /// How it was noticed.
        loss: Loss,
        /// What was noticed, for the log.
        error: String,
    },
    /// The socket is gone, its descriptor too. Always the last report of a link that was opened.
    Closed {
        /// The link whose socket is gone.
        link: LinkId,
    },
}
