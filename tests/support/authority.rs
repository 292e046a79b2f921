//! Certificates for the consoles of tests: an authority, the certificates that it signs, and the console's side of TLS.
//!
//! It needs neither the agent nor the console. Its files are temporary and removed with the authority.

// Every test that includes this is a separate crate and uses a part of it.
#![allow(dead_code)]

use futures_rustls::TlsAcceptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// The versions of TLS that a console may be limited to.
pub(crate) type Versions<'a> = &'a [&'static SupportedProtocolVersion];

/// A private certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    /// An authority with the usual name.
    pub(crate) fn new() -> Self {
        Self::named("the operator's own")
    }

    /// An authority with this name.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let file = pem_file(&issuer.pem());
        Self { issuer, file }
    }

    /// The authority's certificate, in PEM.
    pub(crate) fn file(&self) -> &Path {
        self.file.path()
    }

    /// A console's side of TLS, with a certificate for these names that is valid from the first year to the second.
    pub(crate) fn server(&self, names: &[&str], years: (i32, i32), versions: Versions<'_>) -> TlsAcceptor {
        let mut params = params(names);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        self.sign(&params, versions)
    }

    /// The same with a certificate that expires in one day.
    pub(crate) fn ending_tomorrow(&self, names: &[&str]) -> TlsAcceptor {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
        let mut params = params(names);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(24 * 60 * 60);
        self.sign(&params, rustls::DEFAULT_VERSIONS)
    }

    fn sign(&self, params: &CertificateParams, versions: Versions<'_>) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        acceptor(certificate.der().clone(), &key, versions)
    }

    /// The same with a valid certificate.
    pub(crate) fn valid(&self, names: &[&str]) -> TlsAcceptor {
        self.server(names, (2000, 4000), rustls::DEFAULT_VERSIONS)
    }
}

/// A console's side of TLS with a self-signed certificate.
pub(crate) fn self_signed(names: &[&str]) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let certificate = params(names).self_signed(&key).expect("signed");
    acceptor(certificate.der().clone(), &key, rustls::DEFAULT_VERSIONS)
}

/// The same, marked as an authority's (`openssl req -x509` creates such certificates), with its certificate in a file.
/// It is valid from the first year to the second.
pub(crate) fn self_signed_authority(names: &[&str], years: (i32, i32)) -> (TlsAcceptor, NamedTempFile) {
    let key = KeyPair::generate().expect("a key");
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let certificate = params.self_signed(&key).expect("signed");
    let file = pem_file(&certificate.pem());
    (acceptor(certificate.der().clone(), &key, rustls::DEFAULT_VERSIONS), file)
}

/// A temporary file with this text.
pub(crate) fn pem_file(text: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".pem").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).expect("names")
}

fn acceptor(certificate: CertificateDer<'static>, key: &KeyPair, versions: Versions<'_>) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
