//! Takes the steps to the console one at a time, for `doctor`.
//!
//! It uses the code of [`Link`](super::Link). It registers nothing, and its caller gives an id that no instance has: a
//! second connection under one id would end the first (CONSOLE.md, "The WebSocket"). It keeps one deadline, for the
//! first message; the caller gives up any other step by dropping the future.

use super::dial::Dialer;
use super::error::{Error, Hop};
use super::explain;
use super::http::{self, Answer};
use super::roots::RootsFrom;
use super::stream::{Progress, Stream, Tcp};
use super::target::{Target, host_and_port};
use super::tls::TlsFault;
use super::{console_text, register, resolve, tls, upgrade};
use crate::protocol::InstanceId;
use async_io::Timer;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use draupnir_fsm::driver::RegisterPath;
use futures_lite::future;
use futures_lite::stream::StreamExt;
use smol::LocalExecutor;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// A time by which every certificate has expired: the year 9000.
const FAR_FUTURE: Duration = Duration::from_secs(221_845_392_000);

/// The way to one console.
pub struct Probe {
    dialer: Dialer,
}

/// A connection to the next hop.
#[derive(Debug)]
pub struct Connected(Tcp);

/// A connection to the console, with TLS where the URL demands it.
#[derive(Debug)]
pub struct Ready(Stream);

/// The trusted roots.
#[derive(Clone, Copy, Debug)]
pub struct Trusting {
    /// How many roots.
    pub roots: usize,
    /// Where they come from.
    pub from: RootsFrom,
    /// How many of them the operator has added.
    pub private: usize,
}

/// A handshake that succeeded.
#[derive(Debug)]
pub struct Handshake {
    /// `TLSv1_3`, say.
    pub version: String,
    /// The names in the console's certificate.
    pub names: String,
    /// The issuers from the console's certificate upwards, as far as the console sent them and their names are
    /// readable.
    pub issuers: Vec<String>,
    /// The end of validity of the console's certificate, if rustls reports it.
    pub valid_until: Option<SystemTime>,
    /// The fault that the chain will have in the near future, if any.
    pub soon: Option<TlsFault>,
}

/// What the console answered to a harmless request.
#[derive(Debug)]
pub struct Asked {
    /// The path that was asked for, prefix included.
    pub path: String,
    /// The HTTP status.
    pub status: u16,
    /// Where a redirect points.
    pub location: Option<String>,
    /// The console's clock, from its `Date` header.
    pub date: Option<SystemTime>,
    /// The media type of a body that is something else than JSON.
    pub media_type: Option<String>,
    /// The console's own text.
    pub console_text: String,
}

/// What the console did after the upgrade.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// It sent a message.
    Message,
    /// It sent nothing until the deadline.
    Silence,
    /// It sent a close frame.
    Close {
        /// The code; 1005 where there was none.
        code: u16,
        /// The reason, printable.
        reason: String,
    },
    /// It broke the connection.
    Lost {
        /// What was noticed.
        error: String,
    },
}

impl Probe {
    /// Prepares the way.
    ///
    /// # Errors
    /// [`Error::Key`] where the key cannot stand in a header.
    pub fn new(target: Target, executor: Rc<LocalExecutor<'static>>) -> Result<Self, Error> {
        let dialer = Dialer::new(target, executor, resolve::system())?;
        // Reads the roots as a second attempt of the agent does, so that it reports no fault that a retry mends.
        dialer.tls.reload_roots();
        Ok(Self { dialer })
    }

    /// Name and port of the proxy, if there is one, or else of the console.
    pub fn next_hop(&self) -> String {
        let (host, port) = self.dialer.next_hop();
        host_and_port(host, port)
    }

    /// Which of the two that is.
    pub fn hop(&self) -> Hop {
        self.dialer.hop()
    }

    /// Looks the next hop up.
    ///
    /// # Errors
    /// It has no address, or no name server answers.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        self.dialer.resolve().await
    }

    /// Connects to the next hop at one of these addresses.
    ///
    /// # Errors
    /// None of them accepts.
    pub async fn connect(&self, addresses: &[SocketAddr]) -> Result<Connected, Error> {
        self.dialer.connect(addresses, Progress::default()).await.map(Connected)
    }

    /// Asks the proxy for a tunnel to the console; without a proxy it does nothing.
    ///
    /// # Errors
    /// The proxy opens no tunnel.
    pub async fn tunnel(&self, connected: &mut Connected) -> Result<(), Error> {
        self.dialer.tunnel(&mut connected.0).await
    }

    /// Reads the roots of this machine.
    ///
    /// # Errors
    /// A file that the operator has named cannot be used.
    pub async fn roots(&self) -> Result<Trusting, Error> {
        let trusted = self.dialer.tls.trusted().await?;
        let roots = &trusted.roots;
        Ok(Trusting { roots: roots.store.len(), from: roots.from, private: roots.private.len() })
    }

    /// Performs the handshake if the URL demands TLS, and checks the certificates for a time `ahead` of now.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn secure(&self, connected: Connected, ahead: Duration) -> Result<(Ready, Option<Handshake>), Error> {
        let url = &self.dialer.target.url;
        if !url.is_tls() {
            return Ok((Ready(Stream::Plain(connected.0)), None));
        }
        let trusted = self.dialer.tls.trusted().await?;
        let stream = self.dialer.secure(&trusted, connected.0).await?;
        let version = stream.get_ref().1.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
        let far = trusted.accepts_at(&stream, url.host(), SystemTime::UNIX_EPOCH + FAR_FUTURE);
        let valid_until = match far {
            Err(TlsFault::Expired { not_after, .. }) => Some(not_after),
            Ok(()) | Err(_) => None,
        };
        let soon = trusted.accepts_at(&stream, url.host(), SystemTime::now() + ahead).err();
        let (names, issuers) = tls::chain(&trusted, &stream);
        let handshake = Handshake { version, names, issuers, valid_until, soon };
        Ok((Ready(Stream::Tls(Box::new(stream))), Some(handshake)))
    }

    /// Sends a GET to the registration paths; returns the first answer that is no 404, or the last one.
    ///
    /// # Errors
    /// The server does not speak HTTP. Each path takes its own connection, which `open` makes.
    pub async fn ask(&self, mut open: impl AsyncFnMut() -> Result<Ready, Error>) -> Result<Asked, Error> {
        let asked = self.ask_for(register::path(RegisterPath::Designed), open().await?).await?;
        if asked.status != 404 {
            return Ok(asked);
        }
        self.ask_for(register::path(RegisterPath::Observed), open().await?).await
    }

    async fn ask_for(&self, path: &str, mut ready: Ready) -> Result<Asked, Error> {
        let request = self.dialer.request("GET", path, ["Accept: application/json\r\n", "Connection: close\r\n\r\n"]);
        let exchanged = http::exchange(&mut ready.0, request.expose().as_bytes()).await;
        let Answer { head, rest } = exchanged.map_err(|fault| self.dialer.peer_error(fault))?;
        let body = http::read_body(&mut ready.0, &head, rest).await.bytes;
        let key = &self.dialer.target.key;
        Ok(Asked {
            path: self.dialer.target.url.path(path),
            status: head.status,
            location: console_text::of_redirect(&head, key),
            date: head.date(),
            media_type: head.foreign_type().filter(|_| !body.is_empty()).map(|text| console_text::sanitize(text, key)),
            console_text: console_text::of_answer(&head, &body, key),
        })
    }

    /// Upgrades to a WebSocket under this id, waits for a first message at most `patience`, and closes again.
    ///
    /// # Errors
    /// The upgrade is refused.
    pub async fn greet(&self, ready: Ready, id: &InstanceId, patience: Duration) -> Result<Greeting, Error> {
        let mut socket = upgrade::upgrade(&self.dialer, ready.0, id).await?;
        let silence = async {
            Timer::after(patience).await;
            Greeting::Silence
        };
        let greeting = future::or(self.first_message(&mut socket), silence).await;
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "check".into() };
        // A console that has closed already needs no close frame.
        let _ = socket.close(Some(goodbye)).await;
        Ok(greeting)
    }

    async fn first_message(&self, socket: &mut WebSocketStream<Stream>) -> Greeting {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(_) | Message::Binary(_))) => return Greeting::Message,
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) =
                        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    return Greeting::Close { code, reason: console_text::sanitize(&reason, &self.dialer.target.key) };
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Greeting::Lost { error: explain::websocket(&error) },
                None => return Greeting::Lost { error: "the stream ended".to_owned() },
            }
        }
    }
}
