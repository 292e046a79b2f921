//! What is to be reached: the console's address and the key that opens it.
//!
//! It does not read the environment and does not parse URLs: `config` does. A [`Key`] never shows itself.

use http::HeaderValue;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

/// What stands where the key would have stood.
const REDACTED: &str = "[key]";

/// Whether the console is spoken to in clear text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http` and `ws`.
    Plain,
    /// `https` and `wss`.
    Tls,
}

impl Scheme {
    /// The port that a URL need not name.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Tls => 443,
        }
    }
}

/// The API key. It is never shown, whatever formats it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Rc<str>);

impl Key {
    /// Takes a key as configured, without surrounding white space.
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// The `Authorization` header, if the key can stand in one.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The text without the key: what a console says may quote what it was sent.
    pub(super) fn redact(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        text.replace(&*self.0, REDACTED)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The console and the way to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Clear text or TLS.
    pub scheme: Scheme,
    /// A name or an address; an IPv6 address stands without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before every path: empty, or `/…` without a trailing slash.
    pub prefix: String,
    /// The API key.
    pub key: Key,
    /// Certificates to trust beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
}

impl Target {
    /// What the `Host` header says: the port only where the scheme does not imply it.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            bracketed(&self.host)
        } else {
            host_and_port(&self.host, self.port)
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_itself_to_nobody() {
        let key = Key::new("sk-secret");
        assert_eq!(format!("{key:?}"), "[key]");
        let header = key.authorization().expect("legal");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert_eq!(header.as_bytes(), b"Bearer sk-secret");
        assert_eq!(key.redact("your key sk-secret has expired"), "your key [key] has expired");
    }

    #[test]
    fn a_key_that_cannot_stand_in_a_header_is_refused() {
        for key in ["", "a\nb", "a\0b", "a\rX-Forged: 1"] {
            assert!(Key::new(key).authorization().is_none(), "{key:?}");
        }
    }

    #[test]
    fn the_authority_names_the_port_where_it_is_not_implied() {
        let target = |scheme, host: &str, port| Target {
            scheme,
            host: host.to_owned(),
            port,
            prefix: String::new(),
            key: Key::new("k"),
            ca_file: None,
        };
        assert_eq!(target(Scheme::Plain, "console.test", 80).authority(), "console.test");
        assert_eq!(target(Scheme::Tls, "console.test", 80).authority(), "console.test:80");
        assert_eq!(target(Scheme::Tls, "::1", 443).authority(), "[::1]");
        assert_eq!(target(Scheme::Plain, "::1", 8080).authority(), "[::1]:8080");
    }
}
