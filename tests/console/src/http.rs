//! Just enough of HTTP/1.1 for a registration and an upgrade.
//!
//! No chunked bodies, no pipelining, no trailers: it answers them with 411 or closes the connection. Sizes are bytes.

use std::io;

use async_tungstenite::tungstenite::handshake::derive_accept_key;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use serde_json::Value;

use crate::script::Response;
use crate::server::Wire;

/// Longest request head that is read.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Most headers in a request.
const HEADERS_MAX: usize = 100;

/// One HTTP request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The target: path and query.
    pub path: String,
    /// Names as they were spelled, values as text (bytes over 127 replaced).
    pub headers: Vec<(String, String)>,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of that name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whether it asks to become a WebSocket.
    pub(crate) fn is_upgrade(&self) -> bool {
        self.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    }

    /// Whether the connection ends after the answer.
    pub(crate) fn is_last(&self) -> bool {
        self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What follows a 101.
    pub(crate) fn accept_key(&self) -> String {
        derive_accept_key(self.header("Sec-WebSocket-Key").unwrap_or_default().as_bytes())
    }
}

/// Reads one request; `None` at the end of the stream. What follows it stays in `buffer`.
pub(crate) async fn read_request(wire: &mut dyn Wire, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let (mut request, head_len) = loop {
        if let Some(parsed) = parse_head(buffer)? {
            break parsed;
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("request head too long"));
        }
        if read_more(wire, buffer).await? == 0 {
            return Ok(None);
        }
    };
    buffer.drain(..head_len);
    let body_len = request.header("Content-Length").and_then(|value| value.parse().ok()).unwrap_or(0_usize);
    if body_len > BODY_BYTES_MAX || request.header("Transfer-Encoding").is_some() {
        return Err(io::Error::other("no such body is read here"));
    }
    while buffer.len() < body_len {
        if read_more(wire, buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    request.body = buffer.drain(..body_len).collect();
    Ok(Some(request))
}

async fn read_more(wire: &mut dyn Wire, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0_u8; 4096];
    let read = wire.read(&mut chunk).await?;
    buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
    Ok(read)
}

fn parse_head(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let len = match head.parse(buffer).map_err(|error| io::Error::other(format!("bad request: {error}")))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        headers: head
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()))
            .collect(),
        body: Vec::new(),
    };
    Ok(Some((request, len)))
}

/// The bytes of a response.
pub(crate) fn encode(response: &Response) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, phrase(response.status));
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_switching = response.status == 101;
    if !is_switching && !response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&response.body);
    bytes
}

/// Writes all of it and flushes.
pub(crate) async fn write(wire: &mut dyn Wire, bytes: &[u8]) -> io::Result<()> {
    wire.write_all(bytes).await?;
    wire.flush().await
}

fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Whatever",
    }
}
