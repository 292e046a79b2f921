//! Chooses the HTTP proxy for the console, if any, and opens the tunnel through it.
//!
//! It reads no environment: `config` does, and prefers the variables in lower case. It always asks for a tunnel
//! (CONNECT), for a clear-text registration too: the WebSocket needs one in any case, and so the proxy never sees a key
//! that travels under TLS. A proxy must therefore allow CONNECT to the console's port; many allow 443 alone.
//!
//! The rules, those of curl and Go where they agree, and Go's where they do not:
//! - `HTTPS_PROXY` for an https console, `HTTP_PROXY` for an http one, then `ALL_PROXY`.
//! - `NO_PROXY` lists, separated by commas or spaces, what is reached directly: `*` for everything, a host with all its
//!   subdomains, `.suffix` or `*.suffix` for subdomains alone, an address, a CIDR block; any of them with `:port`.
//! - `localhost` and loopback addresses are always reached directly.
//!
//! Invariant: the credentials appear in no `Debug`, error or log, and neither does the variable's value.

use super::console_text;
use super::error::PeerFault;
use super::http::{self, Answer};
use super::target::host_and_port;
use crate::base64;
use crate::config::{Proxies, Secret};
use futures_lite::io::{AsyncRead, AsyncWrite};
use std::fmt;
use std::net::IpAddr;

/// The port of a proxy whose URL names none.
const DEFAULT_PORT: u16 = 80;

/// A proxy: its address and credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address; an IPv6 address stands without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The variable that names it, which the operator must correct if it is wrong.
    pub variable: &'static str,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.authorization.is_some() { ", with credentials" } else { "" };
        write!(f, "{} ({}{credentials})", host_and_port(&self.host, self.port), self.variable)
    }
}

/// A proxy variable that cannot be used. The error does not show its value, which may hold credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The operator must correct the URL.
    #[error("{0} is no URL of a proxy: http://[user:password@]host[:port] is allowed")]
    Url(&'static str),
    /// The operator must name an HTTP proxy.
    #[error("{0} names a proxy that is not an HTTP proxy: only http:// is allowed")]
    Scheme(&'static str),
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// It demands credentials, and has been given none.
    #[error("it demands credentials: put user and password into {0}, as http://user:password@host:port")]
    CredentialsMissing(&'static str),
    /// It does not accept the credentials.
    #[error("it refuses the credentials in {0}")]
    CredentialsRefused(&'static str),
    /// It refuses the tunnel, or fails to make it.
    #[error("it opened no tunnel to {wanted}, but answered HTTP status {status}{}", hint(*status, text))]
    Refused {
        /// Name and port of the console.
        wanted: String,
        /// Its status.
        status: u16,
        /// Its text.
        text: String,
    },
    /// It does not behave like a proxy.
    #[error("it {0}")]
    Peer(PeerFault),
    /// It sent data before the TLS handshake began.
    #[error("it sent data of its own into the tunnel")]
    Chatter,
}

/// The proxy for a host according to the variables; `None` for a direct connection.
///
/// # Errors
/// The variable that applies holds no URL of an HTTP proxy.
pub fn choose(variables: &Proxies, tls: bool, host: &str, port: u16) -> Result<Option<Proxy>, ProxyError> {
    let ours = if tls { ("HTTPS_PROXY", &variables.https) } else { ("HTTP_PROXY", &variables.http) };
    let found =
        [ours, ("ALL_PROXY", &variables.all)].into_iter().find_map(|(name, value)| Some((name, value.as_ref()?)));
    let Some((name, value)) = found else { return Ok(None) };
    let exceptions = variables.none_for.as_deref().unwrap_or_default();
    if is_loopback(host) || exceptions.split([',', ' ']).any(|entry| exempts(entry.trim(), host, port)) {
        return Ok(None);
    }
    parse(name, value.trim()).map(Some)
}

/// Asks for a tunnel to the console on a fresh connection to the proxy.
pub(super) async fn tunnel<S>(stream: &mut S, proxy: &Proxy, host: &str, port: u16) -> Result<(), ProxyFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let wanted = host_and_port(host, port);
    let credentials = proxy.authorization.as_ref();
    let authorization = credentials.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let user_agent = super::USER_AGENT;
    let request =
        format!("CONNECT {wanted} HTTP/1.1\r\nHost: {wanted}\r\nUser-Agent: {user_agent}\r\n{authorization}\r\n");
    let Answer { head, rest } = http::exchange(stream, request.as_bytes()).await.map_err(ProxyFault::Peer)?;
    match head.status {
        200..=299 if rest.is_empty() => Ok(()),
        200..=299 => Err(ProxyFault::Chatter),
        // tinyproxy answers 401 to wrong credentials, others 407.
        401 | 407 if credentials.is_some() => Err(ProxyFault::CredentialsRefused(proxy.variable)),
        407 => Err(ProxyFault::CredentialsMissing(proxy.variable)),
        status => {
            // A proxy explains an error in a page of HTML, which is left out: the status says enough.
            let text = head.header("x-squid-error").map(|text| console_text::sanitize(text, &Secret::new("")));
            Err(ProxyFault::Refused { wanted, status, text: text.unwrap_or_default() })
        }
    }
}

fn parse(variable: &'static str, value: &str) -> Result<Proxy, ProxyError> {
    let bad = ProxyError::Url(variable);
    let rest = match value.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err(ProxyError::Scheme(variable)),
        None => value,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let (host, port) = split_port(address).ok_or(bad)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(legal) {
        return Err(bad);
    }
    let authorization = match credentials {
        Some(text) if !text.is_empty() => Some(basic(text).ok_or(bad)?),
        Some(_) | None => None,
    };
    Ok(Proxy { host: host.to_owned(), port: port.unwrap_or(DEFAULT_PORT), variable, authorization })
}

/// RFC 7617: user and password, decoded from the URL, in base64.
fn basic(credentials: &str) -> Option<String> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut pair = percent_decoded(user)?;
    if pair.contains(&b':') {
        return None; // It would end the user's name elsewhere.
    }
    pair.push(b':');
    pair.extend(percent_decoded(password)?);
    let mut authorization = "Basic ".to_owned();
    base64::encode(&pair, &mut authorization);
    Some(authorization)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
fn split_port(address: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(text) => Some((host, Some(port(text)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match address.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Some((address, None)),
        Some((host, text)) => Some((host, Some(port(text)?))),
        None => Some((address, None)),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an entry of `no_proxy` matches this host and port.
fn exempts(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some((network, bits)), Ok(address)) = (entry.split_once('/'), host.parse::<IpAddr>()) {
        let (bits, its_port) = bits.split_once(':').map_or((bits, None), |(bits, port)| (bits, Some(port)));
        return its_port.is_none_or(|its_port| its_port.parse() == Ok(port)) && in_network(network, bits, address);
    }
    let Some((pattern, its_port)) = split_port(entry) else { return false };
    if pattern.is_empty() || its_port.is_some_and(|its_port| its_port != port) {
        return false;
    }
    if let Ok(address) = pattern.parse::<IpAddr>() {
        return host.parse::<IpAddr>() == Ok(address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    let (suffix, itself) = match pattern.strip_prefix('*').unwrap_or(&pattern).strip_prefix('.') {
        Some(suffix) => (suffix, false),
        None => (pattern.as_str(), true),
    };
    match host.strip_suffix(suffix) {
        Some("") => itself,
        Some(before) => before.ends_with('.'),
        None => false,
    }
}

fn in_network(network: &str, bits: &str, address: IpAddr) -> bool {
    let network = network.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(network);
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let shared = |width: u32, differing: u128| bits <= width && (bits == 0 || differing >> (width - bits) == 0);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => shared(32, u128::from(network.to_bits() ^ address.to_bits())),
        (IpAddr::V6(network), IpAddr::V6(address)) => shared(128, network.to_bits() ^ address.to_bits()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn hint(status: u16, text: &str) -> String {
    let text = if text.is_empty() { String::new() } else { format!(" ({text})") };
    let hint = match status {
        403 | 405 => "; it must allow CONNECT to that port",
        500..=599 => "; it could not reach the server",
        _ => "",
    };
    format!("{text}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(variables: &Proxies, tls: bool) -> Option<String> {
        let proxy = choose(variables, tls, "console.test", 443).expect("legal variables")?;
        Some(host_and_port(&proxy.host, proxy.port))
    }

    fn https(url: &str) -> Proxies {
        Proxies { https: Some(url.to_owned()), ..Proxies::default() }
    }

    #[test]
    fn the_variable_of_the_scheme_comes_before_the_one_for_all() {
        let mut variables = https("http://a:1");
        assert_eq!(name(&variables, true).as_deref(), Some("a:1"));
        assert_eq!(name(&variables, false), None);
        variables.all = Some(" e:5 ".to_owned());
        assert_eq!(name(&variables, true).as_deref(), Some("a:1"));
        assert_eq!(name(&variables, false).as_deref(), Some("e:5"));
        variables.http = Some("HTTP://[::1]/".to_owned());
        assert_eq!(name(&variables, false).as_deref(), Some("[::1]:80"));
        assert_eq!(name(&Proxies::default(), true), None);
    }

    #[test]
    fn exceptions_go_by_host_suffix_address_block_and_port() {
        let direct = |exceptions: &str, host: &str, port| {
            let variables = Proxies { none_for: Some(exceptions.to_owned()), ..https("http://proxy:3128") };
            choose(&variables, true, host, port).expect("legal").is_none()
        };
        for exceptions in
            ["*", "x,console.test", "x console.test", "CONSOLE.test.", "test", "console.test:443", ".test"]
        {
            assert!(direct(exceptions, "console.test", 443), "{exceptions}");
        }
        for exceptions in
            ["", ",", "onsole.test", ".console.test", "*.console.test", "console.test:80", "10.0.0.0/8", "a/8"]
        {
            assert!(!direct(exceptions, "console.test", 443), "{exceptions}");
        }
        assert!(direct("console.test", "a.console.test", 1) && direct("*.console.test", "a.console.test", 1));
        assert!(direct("10.0.0.0/8", "10.9.8.7", 1) && !direct("10.0.0.0/8", "11.9.8.7", 1));
        assert!(direct("10.1.2.3", "10.1.2.3", 1) && direct("10.1.2.3:5", "10.1.2.3", 5));
        assert!(!direct("10.1.2.3:5", "10.1.2.3", 6) && !direct("10.1.2.0/33", "10.1.2.0", 1));
        assert!(direct("2001:db8::/32", "2001:db8::1", 1) && direct("[2001:db8::1]:5", "2001:db8:0::1", 5));
        assert!(direct("10.0.0.0/8:443", "10.9.8.7", 443) && !direct("10.0.0.0/8:443", "10.9.8.7", 80));
        assert!(!direct("10.0.0.0/8:443", "11.9.8.7", 443) && !direct("10.0.0.0/8:", "10.9.8.7", 443));
        assert!(direct("2001:db8::/32:5", "2001:db8::1", 5) && direct("[2001:db8::]/32:5", "2001:db8::1", 5));
        assert!(!direct("[2001:db8::]/32:5", "2001:db8::1", 6) && !direct("10.0.0.0/8:x", "10.9.8.7", 443));
        assert!(direct("0.0.0.0/0", "192.0.2.1", 1) && !direct("0.0.0.0/0", "2001:db8::1", 1));
        for host in ["localhost", "127.8.9.1", "::1"] {
            assert!(direct("", host, 1), "{host} is never behind a proxy");
        }
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let set = https("http://us%65r:p%40ss%3A@proxy.test:3128");
        let proxy = choose(&set, true, "console.test", 443).expect("legal").expect("a proxy");
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwQHNzOg=="));
        assert_eq!(format!("{proxy:?}"), "proxy.test:3128 (HTTPS_PROXY, with credentials)");
    }

    #[test]
    fn invalid_proxy_is_refused_without_its_value() {
        let error = |value: &str| {
            let error = choose(&https(value), true, "console.test", 443).expect_err("refused");
            assert!(!error.to_string().contains("secret"), "{error}");
            error
        };
        for value in ["http://", "http://secret:99999", "http://a b", "http://[::1", "http://u:%zz@secret", "secret:0"]
        {
            assert_eq!(error(value), ProxyError::Url("HTTPS_PROXY"), "{value}");
        }
        for value in ["https://u:secret@p:1", "socks5://p:1"] {
            assert_eq!(error(value), ProxyError::Scheme("HTTPS_PROXY"), "{value}");
        }
    }
}
