//! The errors on the way to the console, sorted by who must act.
//!
//! Every text names what was tried, how it failed and who can mend it. None holds the key or a proxy's credentials.
//! [`Error::failure`] is the machine's view of an error.

use super::explain;
use super::proxy::ProxyFault;
use super::race::{self, Failed};
use super::roots::RootsFault;
use super::tls::TlsFault;
use crate::protocol::InvalidInstanceId;
use draupnir_fsm::driver::Failure;
use std::io;
use std::net::SocketAddr;

/// Why the console was not reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator must correct the API key.
    #[error(
        "the API key cannot stand in an HTTP header: it is empty or holds something else than visible ASCII characters"
    )]
    Key,
    /// The operator, or the console that gave it, must correct the instance id.
    #[error("{0}; this one has not")]
    InstanceId(InvalidInstanceId),
    /// The operator must correct the console's address, or this machine's name service.
    #[error("the name {host}{} cannot be resolved: {reason}; check {} and this machine's DNS", hop.owner(), hop.source())]
    Name {
        /// The name.
        host: String,
        /// Whose name it is.
        hop: Hop,
        /// What the resolver said.
        reason: String,
    },
    /// This machine's name service does not answer.
    #[error("an earlier look-up of {earlier} has not come back, so {host} was not looked up; check this machine's DNS")]
    NameService {
        /// The name that was wanted.
        host: String,
        /// The name that is still being looked up.
        earlier: String,
    },
    /// No server listens there, or a firewall blocks the connection.
    #[error(
        "{}{peer} cannot be connected to ({}); check that it is up, and the firewall between{}",
        hop.title(), attempts(failed), hop.or_correct()
    )]
    Network {
        /// Name and port.
        peer: String,
        /// Who it is.
        hop: Hop,
        /// How each of its addresses failed.
        failed: Vec<Failed>,
    },
    /// This machine ran out of something.
    #[error("this machine could not {doing}: {source}")]
    Machine {
        /// What it could not do.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The operator must correct the files of trusted certificates.
    #[error("{0}")]
    Roots(RootsFault),
    /// The proxy, or its settings, must be corrected.
    #[error("the proxy {proxy} ({variable}) failed: {fault}")]
    Proxy {
        /// Name and port of the proxy.
        proxy: String,
        /// The variable that names it.
        variable: &'static str,
        /// What it did.
        fault: ProxyFault,
    },
    /// The server's certificate, its address or this machine's trust must be corrected.
    #[error("no TLS with {peer}: {fault}{}", fault.correction(hop.source()))]
    Tls {
        /// Name and port of the server.
        peer: String,
        /// Who it is: never a proxy, which only leads there.
        hop: Hop,
        /// What went wrong.
        fault: TlsFault,
    },
    /// The server is no console, or the connection broke.
    #[error("{peer} {fault}")]
    Peer {
        /// Name and port.
        peer: String,
        /// What it did.
        fault: PeerFault,
    },
    /// The operator must set a valid key: the console refused the upgrade because of it.
    #[error("the console refuses the API key (HTTP status {status}{}); set a valid one", colon(console_text))]
    KeyRefused {
        /// 401 or 403.
        status: u16,
        /// The console's own text.
        console_text: String,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The console, or what stands before it, refused the upgrade for another reason.
    #[error("the console refused the WebSocket with HTTP status {status}{}{}", redirect(location.as_deref()), colon(console_text))]
    Refused {
        /// The status, not 101.
        status: u16,
        /// Where a redirect points.
        location: Option<String>,
        /// The console's own text.
        console_text: String,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u64>,
    },
}

/// What a peer did that a console would not do.
#[derive(Debug, thiserror::Error)]
pub enum PeerFault {
    /// The connection broke.
    #[error("broke the connection off: {}", explain::io(.0))]
    Broke(io::Error),
    /// The stream ended before an answer.
    #[error("closed the connection without an answer")]
    Silent,
    /// It speaks TLS where clear text was expected.
    #[error("speaks TLS on this port: the console URL should begin with https")]
    SpeaksTls,
    /// It speaks something else.
    #[error("does not speak HTTP on this port")]
    NotHttp,
    /// Its answer's head is over the limit.
    #[error("sent an HTTP answer whose head is over the limit")]
    HeadTooBig,
    /// It sent a success with an invalid body.
    #[error("sent an answer {0}")]
    BadBody(&'static str),
    /// It sent a success of this media type instead of JSON.
    #[error(
        "answered with {0} instead of JSON: something else stands in the console's place, such as a captive portal; \
         log in to this network, or correct the console URL"
    )]
    NotJson(String),
    /// It agreed to an upgrade in the wrong way.
    #[error("answered the upgrade with 101 but without a valid {0} header: something between is no WebSocket proxy")]
    BadUpgrade(&'static str),
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// To the console itself.
    Console,
    /// To the proxy that this variable names.
    Proxy(&'static str),
    /// To a provider of models; this variable can name another address for it.
    Provider(&'static str),
}

impl Hop {
    /// The text before its name.
    pub fn title(self) -> &'static str {
        match self {
            Self::Console => "the console ",
            Self::Proxy(_) => "the proxy ",
            Self::Provider(_) => "the provider ",
        }
    }

    /// The text after its name.
    fn owner(self) -> &'static str {
        match self {
            Self::Console => " of the console",
            Self::Proxy(_) => " of the proxy",
            Self::Provider(_) => " of the provider",
        }
    }

    /// Where its name comes from.
    fn source(self) -> &'static str {
        match self {
            Self::Console => "the console URL",
            Self::Proxy(variable) | Self::Provider(variable) => variable,
        }
    }

    /// The variable of the proxy as another place to look for the fault; empty for the console, whose URL the operator
    /// set.
    pub fn or_correct(self) -> String {
        match self {
            Self::Console | Self::Provider(_) => String::new(),
            Self::Proxy(variable) => format!(", or correct {variable}"),
        }
    }
}

impl Error {
    /// How long the console asked to be left alone, in milliseconds.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::KeyRefused { retry_after_ms, .. } | Self::Refused { retry_after_ms, .. } => *retry_after_ms,
            Self::Key
            | Self::InstanceId(_)
            | Self::Name { .. }
            | Self::NameService { .. }
            | Self::Network { .. }
            | Self::Machine { .. }
            | Self::Roots(_)
            | Self::Proxy { .. }
            | Self::Tls { .. }
            | Self::Peer { .. } => None,
        }
    }

    /// The addresses of the console, if each of them refused the connection. A proxy that refuses it says nothing of
    /// the console.
    pub(super) fn refused_addresses(&self) -> Option<Vec<SocketAddr>> {
        match self {
            Self::Network { hop: Hop::Console, failed, .. } if race::are_refused(failed) => {
                Some(failed.iter().map(|(address, _)| *address).collect())
            }
            _ => None,
        }
    }

    /// The failure that the machine gets.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Key | Self::InstanceId(_) | Self::Machine { .. } => Failure::Local,
            Self::Name { .. } | Self::NameService { .. } => Failure::Resolve,
            Self::Network { .. } if self.refused_addresses().is_some() => Failure::Refused,
            Self::Network { .. } => Failure::Connect,
            Self::Proxy { .. } => Failure::Proxy,
            Self::Roots(_) | Self::Tls { .. } => Failure::Tls,
            Self::Peer { .. } => Failure::Protocol,
            Self::KeyRefused { .. } => Failure::Unauthorized,
            Self::Refused { .. } => Failure::Status,
        }
    }
}

fn attempts(failed: &[Failed]) -> String {
    let texts: Vec<String> =
        failed.iter().map(|(address, error)| format!("{address}: {}", explain::io(error))).collect();
    texts.join("; ")
}

fn colon(console_text: &str) -> String {
    if console_text.is_empty() { String::new() } else { format!(": {console_text}") }
}

fn redirect(location: Option<&str>) -> String {
    location.map(|location| format!(", pointing to {location}; correct the console URL")).unwrap_or_default()
}
