//! TLS to the console: which roots are trusted, the handshake, and what a failed one means.
//!
//! No switch turns verification off. One client configuration serves registration and WebSocket, so the second
//! handshake of a start resumes the first one's session.
//!
//! Invariants: roots are read once, off the reactor, when they are first needed: the machine's bundle, which holds what
//! its directories hold (reading both costs 2.7 ms more at every start). After a certificate was not trusted they are
//! read again, directories and all: an agent may outlive its machine's bundle, and a root may stand in a directory
//! alone.

use super::chain::issuer;
use super::error::Error;
use super::explain;
use super::roots::{self, Extent, Roots, RootsFault};
use super::stream::Tcp;
use super::target::Trust;
use super::verifier::Verifier;
use crate::file_timeout;
use async_channel::Receiver;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as RustlsError, InvalidMessage, SignatureScheme};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How many sessions are remembered for resumption. There is one console.
const SESSIONS_MAX: usize = 4;

/// How many names of a certificate an error lists when the expected name is not among them.
const NAMES_LISTED_MAX: usize = 5;

/// The only protocol that is spoken inside.
const ALPN: &[u8] = b"http/1.1";

/// Why a TLS handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// No authority that this machine trusts has signed the certificate.
    #[error(
        "its certificate is signed by an issuer that this machine does not trust; \
         if it is a private CA, name its file in SINDRI_AGENT_CA_FILE"
    )]
    UnknownIssuer,
    /// The certificate has expired, or the clock runs ahead.
    #[error(
        "its certificate expired at {}, and this machine's clock says {}; \
         the certificate must be renewed, or the clock set right",
        instant(*.not_after), instant(*.now)
    )]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
        /// This machine's clock.
        now: SystemTime,
    },
    /// The certificate is not valid yet, or the clock runs behind.
    #[error(
        "its certificate is not valid before {}, and this machine's clock says {}; set the clock right",
        instant(*.not_before), instant(*.now)
    )]
    NotYetValid {
        /// The beginning of its validity.
        not_before: SystemTime,
        /// This machine's clock.
        now: SystemTime,
    },
    /// The certificate is for another name.
    #[error("its certificate is for {}, not for {expected}", named(presented))]
    WrongName {
        /// The name that was dialled.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The certificate names a trusted issuer whose key did not sign it.
    #[error(
        "its certificate's signature does not fit the trusted authority of that name: that authority has a new key, \
         whose certificate this machine lacks, or an attacker imitates it"
    )]
    BadSignature,
    /// The certificate is unusable in some other way.
    #[error("its certificate cannot be accepted: {0}")]
    Certificate(String),
    /// What stands in the URL cannot be the name of a TLS server.
    #[error("{0} is no name that a certificate could be for")]
    NoServerName(String),
    /// It answers in clear text.
    #[error("it answers in clear text, not TLS")]
    ClearText,
    /// The server has no host of this name.
    #[error("it has no host of this name")]
    UnknownHost,
    /// The two ends have no version or cipher suite in common, or one violated the protocol.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// The connection broke during the handshake.
    #[error("it broke off the handshake ({}); perhaps it speaks no TLS on this port", explain::io(.0))]
    Broke(io::Error),
}

impl TlsFault {
    /// What to correct where the address may be wrong, as the end of a sentence; `source` says what holds the address.
    pub(super) fn correction(&self, source: &str) -> String {
        match self {
            Self::WrongName { .. } => format!("; correct {source}, or the certificate"),
            Self::ClearText => format!(": the port is wrong, or {source} should begin with http"),
            Self::UnknownHost => format!("; correct {source}"),
            Self::UnknownIssuer
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::BadSignature
            | Self::Certificate(_)
            | Self::NoServerName(_)
            | Self::Handshake(_)
            | Self::Broke(_) => String::new(),
        }
    }
}

/// The TLS client and its roots.
#[derive(Debug)]
pub(super) struct Tls {
    trust: Trust,
    extent: Cell<Extent>,
    trusted: RefCell<Option<Rc<Trusted>>>,
    /// The read in progress. A hanging file system blocks one thread at most.
    reading: RefCell<Option<Receiver<Result<Roots, RootsFault>>>>,
}

/// The trusted roots, and the client configuration with them.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: Roots,
    verifier: Arc<Verifier>,
    certificate: Arc<NoCertificate>,
    config: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, extent: Cell::new(Extent::Bundle), trusted: RefCell::default(), reading: RefCell::default() }
    }

    /// Forgets the trusted roots; the next read includes the directories.
    pub(super) fn reload_roots(&self) {
        self.extent.set(Extent::Whole);
        *self.trusted.borrow_mut() = None;
    }

    /// The trusted roots, read on first use.
    pub(super) async fn trusted(&self) -> Result<Rc<Trusted>, Error> {
        let roots = loop {
            if let Some(known) = self.trusted.borrow().as_ref() {
                return Ok(Rc::clone(known));
            }
            let reading = self.reading.borrow_mut().get_or_insert_with(|| self.read()).clone();
            // The channel is closed when another task received the outcome; look again.
            let received = file_timeout::limit(async { Ok(reading.recv().await.ok()) }).await;
            let outcome = received.map_err(|error| Error::Roots(RootsFault::Timeout(error)))?;
            *self.reading.borrow_mut() = None;
            if let Some(outcome) = outcome {
                break outcome.map_err(Error::Roots)?;
            }
        };
        let private = roots.private.len();
        tracing::debug!(roots = roots.store.len(), from = ?roots.from, private, "trusted roots read");
        let trusted = Rc::new(Trusted::new(roots));
        *self.trusted.borrow_mut() = Some(Rc::clone(&trusted));
        Ok(trusted)
    }

    /// Starts to read the roots: a few milliseconds for 140 certificates, without end on a hanging file system.
    fn read(&self) -> Receiver<Result<Roots, RootsFault>> {
        let (trust, extent) = (self.trust.clone(), self.extent.get());
        let (sender, outcome) = async_channel::bounded(1);
        let read = move || {
            // Fails only when the link, and with it the receiver, is gone.
            let _ = sender.try_send(roots::load_roots(&trust, extent));
        };
        blocking::unblock(read).detach();
        outcome
    }

    /// Performs the handshake on a fresh connection to this host.
    pub(super) async fn handshake(&self, trusted: &Trusted, host: &str, tcp: Tcp) -> Result<TlsStream<Tcp>, TlsFault> {
        let name = server_name(host)?;
        trusted.certificate.is_requested.store(false, Ordering::Relaxed);
        let outcome = TlsConnector::from(Arc::clone(&trusted.config)).connect(name, tcp).await;
        outcome.map_err(|error| {
            let is_requested = trusted.certificate.is_requested.load(Ordering::Relaxed);
            let fault = if is_requested { without_certificate(error) } else { TlsFault::from(error) };
            if matches!(fault, TlsFault::UnknownIssuer | TlsFault::BadSignature | TlsFault::Certificate(_)) {
                self.reload_roots();
            }
            fault
        })
    }
}

impl Trusted {
    fn new(roots: Roots) -> Self {
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots.store), provider()).build();
        let webpki = webpki.expect("invariant: there is a root, and no revocation list to be wrong");
        let verifier = Arc::new(Verifier::new(webpki, roots.private.clone()));
        let certificate = Arc::new(NoCertificate::default());
        let config = client_config(Arc::clone(&verifier), Arc::clone(&certificate));
        Self { roots, verifier, certificate, config }
    }

    /// Checks whether the console's chain would be accepted at another time, too.
    pub(super) fn accepts_at(&self, stream: &TlsStream<Tcp>, host: &str, at: SystemTime) -> Result<(), TlsFault> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let [certificate, intermediates @ ..] = chain else {
            return Err(TlsFault::Certificate("there is none".to_owned()));
        };
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(since_epoch);
        match self.verifier.verify_server_cert(certificate, intermediates, &server_name(host)?, &[], at) {
            Ok(_) => Ok(()),
            Err(RustlsError::InvalidCertificate(fault)) => Err(TlsFault::from(&fault)),
            Err(other) => Err(TlsFault::Handshake(explain::tls(&other))),
        }
    }
}

/// The names of an accepted chain and its issuers, from the console's own certificate upwards.
pub(super) fn chain(trusted: &Trusted, stream: &TlsStream<Tcp>) -> (String, Vec<String>) {
    // No host has this name (RFC 6761), so the refusal lists the names of the certificate.
    let names = match trusted.accepts_at(stream, "unnamed.invalid", SystemTime::now()) {
        Err(TlsFault::WrongName { presented, .. }) => named(&presented),
        Ok(()) | Err(_) => named(&[]),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    (names, chain.iter().filter_map(|certificate| issuer(certificate)).collect())
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsFault> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsFault::NoServerName(host.to_owned()))
}

fn client_config(verifier: Arc<Verifier>, certificate: Arc<NoCertificate>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for TLS 1.2 and 1.3")
        .dangerous() // rustls' word for any verifier that is not its own
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Arc::new(config)
}

/// ring without its signing keys: the linker then leaves out the code for private keys.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { key_provider: &NoKeys, ..ring::default_provider() })
}

/// The agent has no client certificate: its API key identifies it. Notes whether the server requested one in the
/// handshake under way.
#[derive(Debug, Default)]
struct NoCertificate {
    is_requested: AtomicBool,
}

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.is_requested.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The fault of a server that requested a certificate. In TLS 1.2 the alert that follows is the choice of its library:
/// OpenSSL sends `handshake_failure`, GnuTLS `decode_error`. Versions and ciphers were agreed on before the request.
fn without_certificate(error: io::Error) -> TlsFault {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
        Some(RustlsError::AlertReceived(_)) => {
            TlsFault::Handshake(explain::tls(&RustlsError::AlertReceived(AlertDescription::CertificateRequired)))
        }
        _ => TlsFault::from(error),
    }
}

/// A key provider without keys.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, RustlsError> {
        Err(RustlsError::General("the agent has no private key".to_owned()))
    }
}

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            Some(RustlsError::InvalidCertificate(fault)) => Self::from(fault),
            Some(RustlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::ClearText,
            Some(RustlsError::AlertReceived(AlertDescription::UnrecognisedName)) => Self::UnknownHost,
            Some(other) => Self::Handshake(explain::tls(other)),
            None => Self::Broke(error),
        }
    }
}

impl From<&CertificateError> for TlsFault {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { not_after: system_time(*not_after), now: system_time(*time) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { not_before: system_time(*not_before), now: system_time(*time) }
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::WrongName { expected: expected.to_str().into_owned(), presented: presented.clone() }
            }
            // rustls' errors are not ours to enumerate.
            other => Self::Certificate(explain::certificate(other)),
        }
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn instant(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The first names of a certificate, out of rustls' `DnsName("…")` and `IpAddress(…)`.
fn named(presented: &[String]) -> String {
    let plain = |text: &String| text.split(['"', '(', ')']).rfind(|part| !part.is_empty()).unwrap_or(text).to_owned();
    let names: Vec<String> = presented.iter().take(NAMES_LISTED_MAX).map(plain).collect();
    match presented.len().saturating_sub(names.len()) {
        _ if names.is_empty() => "no host (it has no subjectAltName)".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
