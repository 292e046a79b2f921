//! Loads the trusted roots: the operator's choice, the machine's own store, or Mozilla's list if it has none.
//!
//! It blocks, so it is called off the reactor. It adds nothing to roots that the operator has chosen: a named file that
//! cannot be used is a fault, not a reason to look elsewhere.

use super::explain;
use super::target::Trust;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_native_certs::ErrorKind;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// What `SINDRI_AGENT_CA_FILE` holds; it is in the store, too.
    pub(super) private: Vec<CertificateDer<'static>>,
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
    /// A file system does not answer.
    #[error(
        "trusted certificates cannot be read: {0}; check the paths in SINDRI_AGENT_CA_FILE, SSL_CERT_FILE and SSL_CERT_DIR"
    )]
    Timeout(io::Error),
    /// The operator named places for roots, and there is none in them.
    #[error("SSL_CERT_FILE and SSL_CERT_DIR name no readable certificate{}", because(reason))]
    None {
        /// The first thing that went wrong with them, if anything.
        reason: String,
    },
}

/// How much of the machine's own store is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The bundle, if there is one.
    Bundle,
    /// Everything.
    Whole,
}

/// Reads the roots that are to be trusted. Blocks.
pub(super) fn load_roots(trust: &Trust, extent: Extent) -> Result<Roots, RootsFault> {
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
    let private = trust.ca_file.as_deref().map_or(Ok(Vec::new()), private_certificates)?;
    for certificate in &private {
        // `private_certificates` has checked that it can be added.
        let _ = store.add(certificate.clone());
    }
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
        reason = reason.or_else(|| result.errors.first().map(native_reason));
    }
    if certificates.is_empty() {
        return Err(RootsFault::None { reason: reason.unwrap_or_default() });
    }
    Ok(certificates)
}

/// Whether a file can serve as `SINDRI_AGENT_CA_FILE`. Blocks.
///
/// # Errors
/// The operator must correct the file or its variable.
pub fn check_ca_file(path: &Path) -> Result<(), RootsFault> {
    private_certificates(path).map(drop)
}

/// The operator's own authorities; unlike a system's store, this file must be right in whole. Blocks.
fn private_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsFault> {
    let fail = |reason| RootsFault::File { variable: "SINDRI_AGENT_CA_FILE", path: path.to_owned(), reason };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| fail(explain::pem(&error)))?;
    for certificate in &certificates {
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|_| fail("it holds a certificate that cannot be read".to_owned()))?;
    }
    if certificates.is_empty() { Err(fail(explain::NO_CERTIFICATE.to_owned())) } else { Ok(certificates) }
}

fn native_reason(error: &rustls_native_certs::Error) -> String {
    match &error.kind {
        ErrorKind::Io { inner, path } => format!("{}: {}", path.display(), explain::io(inner)),
        ErrorKind::Pem(error) => explain::pem(error),
        _ => "the system's own certificates cannot be read".to_owned(),
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundle_and_directories_hold_the_same_roots() {
        let count = |extent| load_roots(&Trust::default(), extent).expect("nothing was named").store.len();
        let (bundle, whole) = (count(Extent::Bundle), count(Extent::Whole));
        assert!(bundle > 0 && bundle <= whole, "{bundle} of {whole}");
    }
}
