//! The small part of HTTP/1.1 that the agent needs: one request and one answer on one connection.
//!
//! It does not keep connections alive, follow redirects, decompress or know what the answers mean. Written by hand on
//! `httparse`, because a client library costs 110 KB of binary for one POST, one upgrade and one CONNECT.
//!
//! Invariants: an answer's head takes at most [`HEAD_BYTES_MAX`], its body [`BODY_BYTES_MAX`]; what is over the body's
//! limit is left unread. [`Body::fault`] says when a body does not have the announced length (RFC 9112, section 6.3).

use super::error::PeerFault;
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::time::SystemTime;

/// The longest head of an answer, in bytes: what proxies and cookies add fits, a flood does not.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most headers in one head.
const HEADERS_MAX: usize = 96;

/// The longest body that is read, in bytes. A registration's answer has a few hundred.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// How many interim answers (1xx) are skipped before the peer is called no HTTP server.
const INTERIM_MAX: usize = 8;

/// One read from the socket, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// The status and the headers of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
}

/// An answer, and the bytes that were read after its head.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    /// Bytes after the head that were read with it.
    pub(super) rest: Vec<u8>,
}

/// The body of an answer, as far as it arrived and the limit allows.
#[derive(Debug)]
pub(super) struct Body {
    /// At most [`BODY_BYTES_MAX`].
    pub(super) bytes: Vec<u8>,
    /// What is wrong with its length, if anything.
    pub(super) fault: Option<&'static str>,
}

/// How the end of a body is found.
enum Framing {
    Exactly(usize),
    Chunked,
    UntilEnd,
    /// The head is contradictory or unknown, for this reason.
    Unknown(&'static str),
}

const TOO_LONG: &str = "of more than 64 KiB";
const CUT_SHORT: &str = "that ends before the length it announced";
const BAD_CHUNK: &str = "with a malformed chunk";

impl Head {
    /// The first header of this name, in any case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a header that lists tokens has this one.
    pub(super) fn lists(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|listed| listed.eq_ignore_ascii_case(token))
    }

    /// The tokens of a header that lists them, of all headers of this name.
    fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.flat_map(|(_, value)| value.split(',')).map(str::trim)
    }

    /// The media type of the body, if it is declared and not JSON.
    pub(super) fn foreign_type(&self) -> Option<&str> {
        let media_type = self.header("content-type")?.split(';').next().unwrap_or_default().trim();
        let subtype = media_type.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let is_json = subtype == "json" || subtype.ends_with("+json");
        (!is_json && !media_type.is_empty()).then_some(media_type)
    }

    /// The content coding of a compressed body.
    pub(super) fn compression(&self) -> Option<&str> {
        self.tokens("content-encoding").find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
    }

    fn framing(&self) -> Framing {
        if matches!(self.status, 204 | 304) {
            return Framing::Exactly(0);
        }
        let mut codings = self.tokens("transfer-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity"));
        match (codings.next(), codings.next()) {
            (None, _) => {}
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => return Framing::Chunked,
            (Some(_), _) => return Framing::Unknown("in a transfer coding that the agent does not know"),
        }
        let mut lengths = self.tokens("content-length");
        let Some(length) = lengths.next() else { return Framing::UntilEnd };
        if lengths.any(|other| other != length) {
            return Framing::Unknown("with two lengths");
        }
        let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Framing::Unknown("whose Content-Length is not a number");
        }
        Framing::Exactly(length.parse().unwrap_or(usize::MAX))
    }

    /// `Retry-After` in milliseconds: a number of seconds, or a date compared with the server's own clock.
    pub(super) fn retry_after_ms(&self) -> Option<u64> {
        let text = self.header("retry-after")?.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(text.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000));
        }
        let until = httpdate::parse_http_date(text).ok()?;
        let now = self.date().unwrap_or_else(SystemTime::now);
        let wait = until.duration_since(now).unwrap_or_default();
        Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    /// The server's clock.
    pub(super) fn date(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.header("date")?.trim()).ok()
    }
}

/// Sends a request and reads the head of the final answer.
pub(super) async fn exchange<S>(stream: &mut S, request: &[u8]) -> Result<Answer, PeerFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // A server may refuse before it has read everything; its answer says more than the broken write.
    let sent = match stream.write_all(request).await {
        Ok(()) => stream.flush().await,
        broken => broken,
    };
    match (read_answer(stream).await, sent) {
        (Err(PeerFault::Silent), Err(error)) => Err(PeerFault::Broke(error)),
        (outcome, _) => outcome,
    }
}

async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Answer, PeerFault> {
    let mut buffer = Vec::new();
    for _ in 0..INTERIM_MAX {
        let head = read_head(stream, &mut buffer).await?;
        // 101 is interim by number, but final: what follows is no longer HTTP.
        if head.status >= 200 || head.status == 101 {
            return Ok(Answer { head, rest: buffer });
        }
    }
    Err(PeerFault::NotHttp)
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<Head, PeerFault> {
    loop {
        if let Some((length, head)) = parse_head(buffer)? {
            buffer.drain(..length);
            return Ok(head);
        }
        if buffer.len() >= HEAD_BYTES_MAX {
            return Err(PeerFault::HeadTooBig);
        }
        match read_some(stream, buffer).await {
            Ok(0) if buffer.is_empty() => return Err(PeerFault::Silent),
            Ok(0) => return Err(PeerFault::NotHttp),
            Ok(_) => {}
            Err(error) => return Err(PeerFault::Broke(error)),
        }
    }
}

fn parse_head(buffer: &[u8]) -> Result<Option<(usize, Head)>, PeerFault> {
    if let [0x15 | 0x16, 0x03, ..] = buffer {
        return Err(PeerFault::SpeaksTls); // The first bytes of an alert or handshake record.
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(PeerFault::HeadTooBig),
        Err(_) => return Err(PeerFault::NotHttp),
    };
    let status = response.code.ok_or(PeerFault::NotHttp)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = response.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
    Ok(Some((length, Head { status, headers })))
}

/// Reads the body behind a head. Without an announced length a reset ends the body like an end of stream: servers reset
/// connections whose request they did not read to the end.
pub(super) async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, head: &Head, rest: Vec<u8>) -> Body {
    let (mut bytes, fault) = match head.framing() {
        Framing::Chunked => read_chunks(stream, rest).await,
        Framing::Exactly(length) => {
            let (mut body, wanted) = (rest, length.min(BODY_BYTES_MAX));
            let is_whole = fill(stream, &mut body, wanted).await;
            body.truncate(wanted);
            (body, if length > BODY_BYTES_MAX { Some(TOO_LONG) } else { (!is_whole).then_some(CUT_SHORT) })
        }
        framing @ (Framing::UntilEnd | Framing::Unknown(_)) => {
            let mut body = rest;
            let is_over = fill(stream, &mut body, BODY_BYTES_MAX + 1).await;
            let fault = if let Framing::Unknown(fault) = framing { Some(fault) } else { is_over.then_some(TOO_LONG) };
            (body, fault)
        }
    };
    bytes.truncate(BODY_BYTES_MAX);
    Body { bytes, fault }
}

async fn read_chunks<S: AsyncRead + Unpin>(stream: &mut S, mut raw: Vec<u8>) -> (Vec<u8>, Option<&'static str>) {
    let mut body = Vec::new();
    loop {
        let (start, length) = match httparse::parse_chunk_size(&raw) {
            Ok(httparse::Status::Complete((_, 0))) => return (body, None),
            Ok(httparse::Status::Complete((start, length))) => (start, length),
            Ok(httparse::Status::Partial) => {
                let wanted = raw.len() + 1;
                if wanted > HEAD_BYTES_MAX {
                    return (body, Some(BAD_CHUNK));
                }
                if !fill(stream, &mut raw, wanted).await {
                    return (body, Some(CUT_SHORT));
                }
                continue;
            }
            Err(_) => return (body, Some(BAD_CHUNK)),
        };
        let room = BODY_BYTES_MAX - body.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = start + length.min(room);
        // Two bytes (CR LF) follow each chunk.
        let is_whole = fill(stream, &mut raw, end + 2).await;
        body.extend(raw.iter().take(end).skip(start));
        if length > room {
            return (body, Some(TOO_LONG));
        }
        if !is_whole {
            return (body, Some(CUT_SHORT));
        }
        if raw.get(end..end + 2) != Some(b"\r\n") {
            return (body, Some(BAD_CHUNK));
        }
        raw.drain(..end + 2);
    }
}

/// Reads until the buffer has this length; false if the stream ends or breaks before.
async fn fill<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>, length: usize) -> bool {
    while buffer.len() < length {
        if !matches!(read_some(stream, buffer).await, Ok(1..)) {
            return false;
        }
    }
    true
}

async fn read_some<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut piece = [0; READ_BYTES];
    let count = stream.read(&mut piece).await?;
    buffer.extend(piece.iter().take(count));
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use futures_lite::io::Cursor;

    fn answer(text: &str) -> Result<(u16, Body), PeerFault> {
        future::block_on(async {
            let mut stream = Cursor::new(text.as_bytes().to_vec());
            let Answer { head, rest } = read_answer(&mut stream).await?;
            Ok((head.status, read_body(&mut stream, &head, rest).await))
        })
    }

    fn head(text: &str) -> Head {
        parse_head(text.as_bytes()).expect("a head").expect("a whole one").1
    }

    #[test]
    fn body_ends_by_length_by_chunk_or_with_the_stream() {
        let cases = [
            ("Content-Length: 2\r\n\r\nhello", "he"),
            ("Content-Length: 2, 2\r\ncontent-length: 2\r\n\r\nhello", "he"),
            ("Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", "hello"),
            ("Transfer-Encoding: identity\r\n\r\nhello", "hello"),
            ("X: y\r\n\r\nhello", "hello"),
            ("Content-Length: 0\r\n\r\n", ""),
        ];
        for (text, expected) in cases {
            let (status, body) = answer(&format!("HTTP/1.1 201 Created\r\n{text}")).expect("an answer");
            assert_eq!((status, &body.bytes[..], body.fault), (201, expected.as_bytes(), None), "{text}");
        }
        let interim =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\n\r\nhello";
        assert_eq!(answer(interim).expect("an answer").1.bytes, b"hello");
    }

    #[test]
    fn body_of_a_wrong_length_says_so() {
        let unknown = "in a transfer coding that the agent does not know";
        let cases = [
            ("Content-Length: 14\r\n\r\nhello", "hello", CUT_SHORT),
            ("Content-Length: -1\r\n\r\nhello", "hello", "whose Content-Length is not a number"),
            ("Content-Length: \r\n\r\nhello", "hello", "whose Content-Length is not a number"),
            ("Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello", "hello", "with two lengths"),
            ("Transfer-Encoding: chunked\r\n\r\n9\r\nhello", "hello", CUT_SHORT),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "hello", CUT_SHORT),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n0\r\n\r\n", "hello", BAD_CHUNK),
            ("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nhello", "", BAD_CHUNK),
            ("Transfer-Encoding: chunked\r\n\r\nnonsense", "", BAD_CHUNK),
            ("Transfer-Encoding: gzip, chunked\r\n\r\nhello", "hello", unknown),
        ];
        for (text, expected, fault) in cases {
            let (_, body) = answer(&format!("HTTP/1.1 201 Created\r\n{text}")).expect("an answer");
            assert_eq!((&body.bytes[..], body.fault), (expected.as_bytes(), Some(fault)), "{text}");
        }
    }

    #[test]
    fn endless_body_and_head_are_cut() {
        let endless = "x".repeat(BODY_BYTES_MAX * 2);
        for framing in ["", "Content-Length: 999999999999\r\n", "Content-Length: 99999999999999999999999999\r\n"] {
            let (_, body) = answer(&format!("HTTP/1.1 500 No\r\n{framing}\r\n{endless}")).expect("an answer");
            assert_eq!((body.bytes.len(), body.fault), (BODY_BYTES_MAX, Some(TOO_LONG)));
        }
        let chunk = format!("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n{endless}");
        let (_, body) = answer(&chunk).expect("an answer");
        assert_eq!((body.bytes.len(), body.fault), (BODY_BYTES_MAX, Some(TOO_LONG)));
        let head = format!("HTTP/1.1 200 OK\r\nX: {endless}");
        assert!(matches!(answer(&head), Err(PeerFault::HeadTooBig)));
        assert!(matches!(answer(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(20)), Err(PeerFault::NotHttp)));
    }

    #[test]
    fn content_type_separates_json_from_all_else() {
        let foreign = |value: &str| head(&format!("HTTP/1.1 200 OK\r\n{value}\r\n")).foreign_type().map(str::to_owned);
        for json in ["", "Content-Type: \r\n", "content-type: Application/JSON; charset=utf-8\r\n"] {
            assert_eq!(foreign(json), None, "{json}");
        }
        assert_eq!(foreign("Content-Type: application/problem+json\r\n"), None);
        assert_eq!(foreign("Content-Type: text/html; charset=utf-8\r\n").as_deref(), Some("text/html"));
        assert_eq!(foreign("Content-Type: application/jsonp\r\n").as_deref(), Some("application/jsonp"));
        let compression =
            |value: &str| head(&format!("HTTP/1.1 200 OK\r\n{value}\r\n")).compression().map(str::to_owned);
        assert_eq!(compression("Content-Encoding: identity\r\n"), None);
        assert_eq!(compression("Content-Encoding: gzip\r\n").as_deref(), Some("gzip"));
    }

    #[test]
    fn answer_that_is_not_http_is_named() {
        assert!(matches!(answer(""), Err(PeerFault::Silent)));
        assert!(matches!(answer("SSH-2.0-OpenSSH_9.9\r\n"), Err(PeerFault::NotHttp)));
        assert!(matches!(answer("HTTP/1.1 20"), Err(PeerFault::NotHttp)));
        assert!(matches!(answer("\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{16}"), Err(PeerFault::SpeaksTls)));
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let wait = |headers: &str| head(&format!("HTTP/1.1 429 Slow\r\n{headers}\r\n")).retry_after_ms();
        assert_eq!(wait("retry-after: 17\r\n"), Some(17_000));
        assert_eq!(wait("Retry-After: 99999999999999999999999\r\n"), Some(u64::MAX));
        let dates = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
        assert_eq!(wait(dates), Some(30_000));
        let past = "Date: Sun, 06 Nov 1994 08:50:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
        assert_eq!(wait(past), Some(0));
        assert_eq!(wait("Retry-After: soon\r\n"), None);
        assert_eq!(wait("Retry-After: -1\r\n"), None);
        assert_eq!(wait(""), None);
    }

    #[test]
    fn listed_tokens_are_found_in_any_case_and_any_header() {
        let head = head("HTTP/1.1 101 X\r\nConnection: keep-alive, upgrade\r\nconnection: x\r\n\r\n");
        assert!(head.lists("Connection", "Upgrade") && head.lists("connection", "X"));
        assert!(!head.lists("connection", "up"));
    }
}
