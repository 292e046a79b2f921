//! Checks requests for the page: they need the token, and must come from the page itself.
//!
//! Every path begins with the token. Host must name the listener, so that a DNS name that another site rebinds to
//! loopback is refused. Origin must be the page's own wherever a browser sends it, and a WebSocket must send it.

use sha2::{Digest, Sha256};

use crate::http::Request;
use crate::script::Response;

/// The token and the names of the listener.
#[derive(Debug)]
pub(super) struct Access {
    token: String,
    hosts: [String; 2],
}

impl Access {
    pub(super) fn new(port: u16, token: String) -> Access {
        Access { token, hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")] }
    }

    /// The address of the page.
    pub(super) fn url(&self) -> String {
        format!("http://{}/{}/", self.hosts[0], self.token)
    }

    /// The path after the token, without the query; or the refusal.
    pub(super) fn check<'a>(&self, request: &'a Request) -> Result<&'a str, Response> {
        let host = request.header("Host").unwrap_or_default();
        if !self.hosts.iter().any(|own| own == host) {
            return Err(refused("Host is not this page's address"));
        }
        let own = |origin: &str| origin.strip_prefix("http://") == Some(host);
        if !request.header("Origin").map_or(!request.is_upgrade(), own) {
            return Err(refused("Origin is not this page"));
        }
        let path = request.path.split('?').next().unwrap_or_default().strip_prefix('/').unwrap_or_default();
        let (token, rest) = path.split_once('/').unwrap_or((path, ""));
        // Equal hashes take equal time, whatever the token: a program on this machine cannot guess it byte by byte.
        if Sha256::digest(token) != Sha256::digest(&self.token) {
            return Err(refused("the token is missing or wrong: use the address that the demo shows"));
        }
        Ok(rest)
    }

    /// The answer with the headers that keep the page to itself.
    pub(super) fn guarded(&self, mut response: Response) -> Response {
        let [host, other] = &self.hosts;
        // xterm.js and uPlot set styles from their scripts; `unsafe-inline` holds for styles alone.
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; \
             connect-src 'self' ws://{host} ws://{other}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        for (name, value) in [
            ("Content-Security-Policy", policy.as_str()),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ] {
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        response
    }
}

/// 403 with this reason; the connection ends after it.
fn refused(why: &str) -> Response {
    let mut response = Response::new(403);
    response.headers.push(("Content-Type".to_owned(), "text/plain".to_owned()));
    response.headers.push(("Connection".to_owned(), "close".to_owned()));
    response.body = format!("{why}\n").into_bytes();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(path: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = Request { method: "GET".to_owned(), path: path.to_owned(), headers, body: Vec::new() };
        let access = Access::new(77, "secret".to_owned());
        access.check(&request).map(str::to_owned).map_err(|refusal| refusal.status)
    }

    #[test]
    fn token_host_and_origin_are_each_needed() {
        const HOST: (&str, &str) = ("Host", "127.0.0.1:77");
        assert_eq!(status("/secret/page.js?x", &[HOST]).as_deref(), Ok("page.js"));
        assert_eq!(status("/secret/", &[("host", "localhost:77")]).as_deref(), Ok(""));
        assert_eq!(status("/secret/", &[HOST, ("Origin", "http://127.0.0.1:77")]).as_deref(), Ok(""));
        for path in ["/", "/secre/", "/secrets/", "/page.js", "secret", "//secret/", "/?token=secret"] {
            assert_eq!(status(path, &[HOST]), Err(403), "{path}");
        }
        for host in ["127.0.0.1", "127.0.0.1:78", "evil.example:77", "127.0.0.1:77.evil.example"] {
            assert_eq!(status("/secret/", &[("Host", host)]), Err(403), "{host}");
        }
        for origin in ["null", "https://127.0.0.1:77", "http://evil.example", "http://localhost:77"] {
            assert_eq!(status("/secret/", &[HOST, ("Origin", origin)]), Err(403), "{origin}");
        }
        let upgrade = ("Upgrade", "websocket");
        assert_eq!(status("/secret/socket", &[HOST, upgrade]), Err(403), "a WebSocket without Origin");
        let origin = ("Origin", "http://127.0.0.1:77");
        assert_eq!(status("/secret/socket", &[HOST, upgrade, origin]).as_deref(), Ok("socket"));
    }
}
