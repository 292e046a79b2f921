//! Where the console is: one URL, taken apart once.
//!
//! It resolves and connects nothing. Allowed: http or https, a host, a port, a path prefix; refused: user information
//! (the key has a variable of its own, and URLs are logged), query and fragment (there is nothing to send them with).
//! The prefix is kept without trailing slashes: with one, the production console destroys the socket (CONSOLE.md, "The
//! WebSocket").

use http::Uri;
use std::fmt;

/// A console's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleUrl {
    is_tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

/// Why a text is no address of a console. The operator must correct it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It cannot be read as a URL with scheme and host.
    #[error("a URL such as https://console.example.com")]
    NotAUrl,
    /// Another scheme.
    #[error("a URL that begins with http:// or https://")]
    Scheme,
    /// A user name or password in it.
    #[error("a URL without user name and password")]
    UserInformation,
    /// A query or a fragment.
    #[error("a URL without query and fragment")]
    Query,
    /// A zone id behind an IPv6 address.
    #[error(
        "a URL without a zone id: an address such as fe80::1%25eth0 is of one interface alone; give the console another"
    )]
    Zone,
    /// A port that is none.
    #[error("a URL with a port from 1 to 65535")]
    Port,
}

impl ConsoleUrl {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What must be corrected; it repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        if text.contains(['?', '#']) {
            return Err(InvalidUrl::Query);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::NotAUrl)?;
        let authority = uri.authority().ok_or(InvalidUrl::NotAUrl)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(InvalidUrl::Scheme),
            None => return Err(InvalidUrl::NotAUrl),
        };
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::UserInformation);
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.strip_prefix(':').and_then(legal_port).ok_or(InvalidUrl::Port)?,
            None => return Err(InvalidUrl::NotAUrl),
        };
        if host.contains('%') {
            return Err(InvalidUrl::Zone);
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(InvalidUrl::NotAUrl);
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { is_tls, host: host.to_ascii_lowercase(), port, prefix })
    }

    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Name or address, an IPv6 address without brackets: for resolving, and for checking certificates.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port for a `Host` header: an IPv6 address in brackets, no port where it is the usual one.
    pub fn authority(&self) -> String {
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let usual = if self.is_tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// What stands before every path: empty, or `/…` without a trailing slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path of a request: the prefix, then `path`, which begins with a slash.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

/// As it is written, normalised: what is remembered and logged.
impl fmt::Display for ConsoleUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// What people write before a host, rightly or not: shown where it is refused, so that they see why.
const SCHEMES: [&str; 7] = ["http", "https", "ws", "wss", "ftp", "socks5", "socks5h"];

/// The text without what stands before an `@`: a password must not be repeated when its URL is refused.
pub(super) fn without_user_information(text: &str) -> String {
    let Some(at) = text.rfind('@') else {
        return text.to_owned();
    };
    // What is no scheme may itself be a part of the password.
    let is_scheme = |start: &str| SCHEMES.iter().any(|scheme| start.eq_ignore_ascii_case(scheme));
    let scheme = text.find("://").filter(|end| text.get(..*end).is_some_and(is_scheme));
    let start = scheme.map_or(0, |end| end + 3).min(at);
    format!("{}…{}", text.get(..start).unwrap_or_default(), text.get(at..).unwrap_or_default())
}

fn legal_port(digits: &str) -> Option<u16> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> ConsoleUrl {
        ConsoleUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_prefix_is_kept_and_trailing_slashes_are_dropped() {
        for (text, path, shown) in [
            ("https://c.example", "/ws/agent", "https://c.example"),
            ("https://c.example/", "/ws/agent", "https://c.example"),
            ("https://c.example/a/b//", "/a/b/ws/agent", "https://c.example/a/b"),
            ("HTTP://C.Example:80/x", "/x/ws/agent", "http://c.example/x"),
        ] {
            let url = parsed(text);
            assert_eq!((url.path("/ws/agent"), url.to_string()), (path.to_owned(), shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn ports_have_defaults_and_bounds() {
        assert_eq!(parsed("http://c").port(), 80);
        assert_eq!(parsed("https://c").port(), 443);
        assert_eq!(parsed("https://c:80").authority(), "c:80");
        for port in ["0", "65536", "", "+1", "x"] {
            assert!(ConsoleUrl::parse(&format!("http://c:{port}/")).is_err(), "{port}");
        }
    }

    #[test]
    fn an_ipv6_address_has_brackets_outside_only() {
        let url = parsed("http://[::1]:8080/x");
        assert_eq!((url.host(), url.port(), url.authority().as_str()), ("::1", 8080, "[::1]:8080"));
        assert_eq!(parsed("https://[2001:DB8::1]").to_string(), "https://[2001:db8::1]");
    }

    #[test]
    fn url_with_user_query_or_fragment_is_refused() {
        for (text, error) in [
            ("ftp://c", InvalidUrl::Scheme),
            ("wss://c", InvalidUrl::Scheme),
            ("c.example", InvalidUrl::NotAUrl),
            ("//c.example", InvalidUrl::NotAUrl),
            ("", InvalidUrl::NotAUrl),
            ("http://", InvalidUrl::NotAUrl),
            ("http://a b", InvalidUrl::NotAUrl),
            ("https://user:pw@c", InvalidUrl::UserInformation),
            ("https://@c", InvalidUrl::UserInformation),
            ("http://[fe80::1%25lo]", InvalidUrl::Zone),
            ("http://[fe80::1%lo]:8080/x", InvalidUrl::Zone),
            ("https://c/?a=1", InvalidUrl::Query),
            ("https://c/#a", InvalidUrl::Query),
        ] {
            assert_eq!(ConsoleUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_refused_password_is_not_repeated() {
        assert_eq!(without_user_information("https://user:p@ss@c/x"), "https://…@c/x");
        assert_eq!(without_user_information("user:pass@c"), "…@c");
        assert_eq!(without_user_information("@://"), "…@://");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _ = (ConsoleUrl::parse(&text), without_user_information(&text));
        }

        #[test]
        fn displayed_url_parses_to_the_same_address(
            tls: bool, host in "[a-z0-9.-]{1,20}|\\[::[0-9a-f]{1,4}\\]", port in proptest::option::of(1_u16..),
            path in "(/[a-z0-9]{1,5}){0,3}/{0,2}",
        ) {
            let scheme = if tls { "https" } else { "http" };
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let url = parsed(&format!("{scheme}://{host}{port}{path}"));
            prop_assert_eq!(parsed(&url.to_string()), url);
        }
    }
}
