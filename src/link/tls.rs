//! TLS to the console: which roots are trusted, the handshake, and what a failed one means.
//!
//! It does not connect sockets and has no switch that turns verification off. One client configuration serves
//! registration and WebSocket, so the second handshake of a start resumes the first one's session.
//!
//! Invariants: roots are read once, off the reactor, when they are first needed: the machine's bundle, which holds what its
//! directories hold (reading both costs 2.7 ms more at every start). After a certificate was not trusted they are read
//! again, directories and all: an agent may outlive its machine's bundle, and a root may stand in a directory alone.

use super::error::Error;
use super::stream::Tcp;
use super::target::Trust;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error as RustlsError, InvalidMessage, RootCertStore};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How many sessions are remembered for resumption. There is one console.
const SESSIONS_MAX: usize = 4;

/// How many names of a certificate are told when ours is not among them.
const NAMES_TOLD_MAX: usize = 5;

/// The only protocol that is spoken inside.
const ALPN: &[u8] = b"http/1.1";

/// Where the trusted roots come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootsFrom {
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR`.
    Variables,
    /// This machine's own store.
    System,
    /// Mozilla's, bundled with the agent, because the machine has none.
    Bundled,
}

/// The roots that are trusted, and how many came from where.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    pub(super) from: RootsFrom,
    pub(super) private: usize,
}

/// What is wrong with the machine's certificates: the operator must correct a file or its variable.
#[derive(Debug, thiserror::Error)]
pub enum RootsFault {
    /// A file that the operator named cannot be used.
    #[error("{variable}: {} cannot be used: {reason}", path.display())]
    File {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operator named places for roots, and there is none in them.
    #[error("SSL_CERT_FILE and SSL_CERT_DIR name no readable certificate{}", because(reason))]
    None {
        /// The first thing that went wrong with them, if anything.
        reason: String,
    },
}

/// Why a TLS handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// Nobody whom this machine trusts has signed the certificate.
    #[error(
        "its certificate is signed by an issuer that this machine does not trust; \
         if it is a private CA, name its file in SINDRI_AGENT_CA_FILE"
    )]
    UnknownIssuer,
    /// The certificate is too old, or the clock runs ahead.
    #[error(
        "its certificate expired at {}, and this machine's clock says {}; \
         the console's certificate must be renewed, or the clock set right",
        instant(*.not_after), instant(*.now)
    )]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
        /// This machine's clock.
        now: SystemTime,
    },
    /// The certificate is too young, or the clock runs behind.
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
    /// The certificate belongs to somebody else.
    #[error(
        "its certificate is for {}, not for {expected}; correct the console URL, or the certificate",
        named(presented)
    )]
    WrongName {
        /// The name that was dialled.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// The certificate names a trusted issuer whose key did not sign it.
    #[error(
        "its certificate's signature does not fit the trusted authority of that name: that authority has a new key, \
         whose certificate this machine lacks, or somebody imitates it"
    )]
    BadSignature,
    /// The certificate is unusable in some other way.
    #[error("its certificate cannot be accepted: {0}")]
    Certificate(String),
    /// What stands in the URL cannot be the name of a TLS server.
    #[error("{0} is no name that a certificate could be for")]
    NoServerName(String),
    /// It answers in clear text.
    #[error("it answers in clear text, not TLS: the port is wrong, or the console URL should begin with http")]
    ClearText,
    /// The two ends have no way of speaking in common, or one broke the rules.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// The connection broke during the handshake.
    #[error("it broke off the handshake ({0}); perhaps it speaks no TLS on this port")]
    Broke(io::Error),
}

/// TLS as this machine does it.
#[derive(Debug)]
pub(super) struct Tls {
    trust: Trust,
    extent: Cell<Extent>,
    trusted: RefCell<Option<Rc<Trusted>>>,
}

/// How much of the machine's own store is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The bundle, if there is one.
    Bundle,
    /// Everything.
    Whole,
}

/// Whom this machine trusts, and the client's side of every handshake that follows from it.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: Roots,
    config: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, extent: Cell::new(Extent::Bundle), trusted: RefCell::new(None) }
    }

    /// Forgets whom this machine trusts, and reads more of it the next time.
    pub(super) fn doubt(&self) {
        self.extent.set(Extent::Whole);
        *self.trusted.borrow_mut() = None;
    }

    /// Whom this machine trusts, read on first use.
    pub(super) async fn trusted(&self) -> Result<Rc<Trusted>, Error> {
        if let Some(known) = self.trusted.borrow().as_ref() {
            return Ok(Rc::clone(known));
        }
        let (trust, extent) = (self.trust.clone(), self.extent.get());
        // Reading and parsing some 140 certificates takes a few milliseconds.
        let roots = blocking::unblock(move || load_roots(&trust, extent)).await.map_err(Error::Roots)?;
        tracing::debug!(roots = roots.store.len(), from = ?roots.from, private = roots.private, "trusted roots read");
        let config = client_config(Arc::clone(&roots.store));
        let trusted = Rc::new(Trusted { roots, config });
        *self.trusted.borrow_mut() = Some(Rc::clone(&trusted));
        Ok(trusted)
    }

    /// Shakes hands on a fresh connection to this host.
    pub(super) async fn handshake(
        &self,
        trusted: &Trusted,
        host: &str,
        peer: &str,
        tcp: Tcp,
    ) -> Result<TlsStream<Tcp>, Error> {
        let fail = |fault| Error::Tls { peer: peer.to_owned(), fault };
        let name = server_name(host).map_err(fail)?;
        let outcome = TlsConnector::from(Arc::clone(&trusted.config)).connect(name, tcp).await;
        outcome.map_err(|error| {
            let fault = TlsFault::from(error);
            if matches!(fault, TlsFault::UnknownIssuer | TlsFault::BadSignature | TlsFault::Certificate(_)) {
                self.doubt();
            }
            fail(fault)
        })
    }
}

impl Trusted {
    /// Whether the chain that this console has shown would be accepted at another time, too.
    pub(super) fn accepts_at(&self, stream: &TlsStream<Tcp>, host: &str, at: SystemTime) -> Result<(), TlsFault> {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let [certificate, intermediates @ ..] = chain else {
            return Err(TlsFault::Certificate("there is none".to_owned()));
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots.store), provider)
            .build()
            .map_err(|error| TlsFault::Certificate(error.to_string()))?;
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(since_epoch);
        match verifier.verify_server_cert(certificate, intermediates, &server_name(host)?, &[], at) {
            Ok(_) => Ok(()),
            Err(RustlsError::InvalidCertificate(fault)) => Err(TlsFault::from(&fault)),
            Err(other) => Err(TlsFault::Handshake(other.to_string())),
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsFault> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsFault::NoServerName(host.to_owned()))
}

/// Reads the roots that are to be trusted. Blocks.
fn load_roots(trust: &Trust, extent: Extent) -> Result<Roots, RootsFault> {
    let mut store = RootCertStore::empty();
    let mut from = if trust.cert_file.is_some() || !trust.cert_dirs.is_empty() {
        store.add_parsable_certificates(given_certificates(trust)?);
        RootsFrom::Variables
    } else {
        store.add_parsable_certificates(system_certificates(extent));
        RootsFrom::System
    };
    if store.is_empty() {
        // Roots that the operator has chosen are never widened; a machine without any gets Mozilla's.
        if from == RootsFrom::Variables {
            return Err(RootsFault::None { reason: String::new() });
        }
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        from = RootsFrom::Bundled;
    }
    let private = trust.ca_file.as_deref().map_or(Ok(0), |path| add_private(&mut store, path))?;
    Ok(Roots { store: Arc::new(store), from, private })
}

/// The machine's own. The library's function for this is not used: it would read variables, and both places always.
#[cfg(not(target_os = "macos"))]
fn system_certificates(extent: Extent) -> Vec<CertificateDer<'static>> {
    let bundle = openssl_probe::probe().cert_file.filter(|file| !file.as_os_str().is_empty());
    let mut certificates = rustls_native_certs::load_certs_from_paths(bundle.as_deref(), None).certs;
    if extent == Extent::Whole || certificates.is_empty() {
        for directory in openssl_probe::candidate_cert_dirs() {
            certificates.append(&mut rustls_native_certs::load_certs_from_paths(None, Some(directory)).certs);
        }
        certificates.sort_unstable_by(|one, other| one.as_ref().cmp(other));
        certificates.dedup();
    }
    certificates
}

#[cfg(target_os = "macos")]
fn system_certificates(_extent: Extent) -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

fn given_certificates(trust: &Trust) -> Result<Vec<CertificateDer<'static>>, RootsFault> {
    let file = trust.cert_file.iter().map(|file| (Some(file.as_path()), None));
    let dirs = trust.cert_dirs.iter().map(|dir| (None, Some(dir.as_path())));
    let loaded = file.chain(dirs).map(|(file, dir)| rustls_native_certs::load_certs_from_paths(file, dir));
    let (mut certificates, mut reason) = (Vec::new(), None);
    for mut result in loaded {
        certificates.append(&mut result.certs);
        reason = reason.or_else(|| result.errors.first().map(ToString::to_string));
    }
    if certificates.is_empty() {
        return Err(RootsFault::None { reason: reason.unwrap_or_default() });
    }
    Ok(certificates)
}

/// Adds the operator's own authorities; unlike a system's store, this file must be right in whole.
fn add_private(store: &mut RootCertStore, path: &Path) -> Result<usize, RootsFault> {
    let fail = |reason: String| RootsFault::File { variable: "SINDRI_AGENT_CA_FILE", path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fail(pem_reason(error)))?;
    let mut added = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| fail(pem_reason(error)))?;
        store.add(certificate).map_err(|error| fail(error.to_string()))?;
        added += 1;
    }
    if added == 0 { Err(fail("it holds no PEM certificate".to_owned())) } else { Ok(added) }
}

fn pem_reason(error: rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn client_config(roots: Arc<RootCertStore>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Arc::new(config)
}

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>()) {
            Some(RustlsError::InvalidCertificate(fault)) => Self::from(fault),
            Some(RustlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::ClearText,
            Some(other) => Self::Handshake(other.to_string()),
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
            // rustls' errors are not ours to enumerate; its own words are precise.
            other => Self::Certificate(other.to_string()),
        }
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

fn instant(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The first names of a certificate, out of rustls' `DnsName("…")`.
fn named(presented: &[String]) -> String {
    let plain = |text: &String| text.split('"').nth(1).unwrap_or(text).to_owned();
    let names: Vec<String> = presented.iter().take(NAMES_TOLD_MAX).map(plain).collect();
    match presented.len().saturating_sub(names.len()) {
        _ if names.is_empty() => "nobody".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_holds_what_the_directories_hold_where_a_machine_has_both() {
        let count = |extent| load_roots(&Trust::default(), extent).expect("nothing was named").store.len();
        let (bundle, whole) = (count(Extent::Bundle), count(Extent::Whole));
        assert!(bundle > 0 && bundle <= whole, "{bundle} of {whole}");
    }
}
