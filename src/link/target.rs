//! The address of the console, the API key, the trusted certificates and the proxy.
//!
//! `config` reads the environment and parses the URL.

use super::proxy::{self, Proxy, ProxyError};
use crate::config::{Config, ConsoleUrl, Secret};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// The console and the way to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The console.
    pub url: ConsoleUrl,
    /// The API key.
    pub key: Secret,
    /// Whose certificates are trusted.
    pub trust: Trust,
    /// The proxy that leads there, as [`choose`](super::proxy::choose) found it.
    pub proxy: Option<Proxy>,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Authorities to trust beside the roots, in PEM: `SINDRI_AGENT_CA_FILE`.
    pub ca_file: Option<PathBuf>,
    /// Roots to trust instead of the system's, in PEM: `SSL_CERT_FILE`.
    pub cert_file: Option<PathBuf>,
    /// Directories of such files: `SSL_CERT_DIR`, which separates them by colons.
    pub cert_dirs: Vec<PathBuf>,
}

impl Target {
    /// The target of a configuration.
    ///
    /// # Errors
    /// Where the variable of the proxy that counts holds no proxy's URL.
    pub fn of(config: &Config) -> Result<Self, ProxyError> {
        let url = &config.console_url;
        let dirs = config.roots.dir.iter().flat_map(std::env::split_paths).collect();
        Ok(Self {
            url: url.clone(),
            key: config.api_key.clone(),
            trust: Trust { ca_file: config.ca_file.clone(), cert_file: config.roots.file.clone(), cert_dirs: dirs },
            proxy: proxy::choose(&config.proxies, url.is_tls(), url.host(), url.port())?,
        })
    }

    /// Whether the key can stand in a header: visible ASCII, as `config` lets pass.
    pub(super) fn has_sendable_key(&self) -> bool {
        let key = self.key.expose();
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// Whether others can read the key on its way: it travels in clear text to a host that, by its name or address, is
    /// neither this machine nor on a private network.
    pub fn exposes_key(&self) -> bool {
        !self.url.is_tls() && !is_private(self.url.host())
    }
}

/// Suffixes that no public name has (RFC 6761, 6762, 8375, and ICANN's reservation of `internal`).
const PRIVATE_SUFFIXES: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => is_private_v4(address),
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => is_private_v4(mapped),
            None => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
        },
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            // A name without a dot is one that only the local network can resolve.
            !name.contains('.') || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_private() || address.is_link_local() || address.is_unspecified()
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_invalid_in_a_header_is_not_sent() {
        let url = ConsoleUrl::parse("https://console.test").expect("a URL");
        let with = |key: &str| Target { url: url.clone(), key: Secret::new(key), trust: Trust::default(), proxy: None };
        assert!(with("sk-secret").has_sendable_key());
        assert!(!format!("{:?}", with("sk-secret")).contains("sk-secret"));
        for key in ["", "a b", "a\nb", "a\0b", "a\rX-Forged: 1"] {
            assert!(!with(key).has_sendable_key(), "{key:?}");
        }
    }

    #[test]
    fn a_key_is_exposed_in_clear_text_outside_private_networks() {
        for host in ["localhost", "console", "a.localhost", "mimir.internal", "127.0.0.1", "10.1.2.3", "192.168.0.1"] {
            assert!(is_private(host), "{host}");
        }
        for host in ["::1", "fd00::1", "fe80::1", "::ffff:10.0.0.1", "172.31.0.1", "MIMIR.Local."] {
            assert!(is_private(host), "{host}");
        }
        for host in ["console.test", "localhost.evil.test", "8.8.8.8", "2001:db8::1", "172.32.0.1", "::ffff:8.8.8.8"] {
            assert!(!is_private(host), "{host}");
        }
    }
}
