//! One registration: sends the payload in a POST and reads the console's answer.
//!
//! The machine chooses the path and retries. No redirect is followed: that would send the key to the host that the
//! redirect names. Wire: CONSOLE.md, "Registration".
//!
//! Invariant: an answer is a success only if its body is complete, names `id` at most once and is not declared as
//! anything but JSON. A refusal stays a refusal with any body.

use super::console_text;
use super::dial::Dialer;
use super::error::{Error, PeerFault};
use super::http::{self, Answer, Body, Head};
use super::stream::Progress;
use crate::config::Secret;
use draupnir_fsm::driver::{RegisterPath, RegistrationOutcome};
use futures_lite::io::{AsyncRead, AsyncWrite};

/// What a console answered to a registration; the fields are those of
/// [`LinkReport::RegistrationAnswered`](super::LinkReport::RegistrationAnswered).
#[derive(Debug, PartialEq, Eq)]
pub struct Registered {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The `id` of the answer's body, if it can be used as one.
    pub id: Option<String>,
    /// The console's own text: one line, printable, at most 512 bytes, without the key.
    pub console_text: String,
    /// Where a redirect points, sanitized in the same way.
    pub location: Option<String>,
}

/// The path of a registration, without the prefix of the console URL.
pub(super) fn path(kind: RegisterPath) -> &'static str {
    match kind {
        RegisterPath::Designed => "/api/v1/instances/register",
        RegisterPath::Observed => "/api/v1/instances",
    }
}

/// Registers once.
pub(super) async fn register(dialer: &Dialer, path: RegisterPath, body: &str) -> Result<Registered, Error> {
    let mut stream = dialer.open(Progress::default()).await?;
    let request = request(dialer, path, body);
    exchange(&mut stream, request.expose().as_bytes(), &dialer.target.key)
        .await
        .map_err(|fault| dialer.peer_error(fault))
}

/// Sends a registration over an open stream and reads the answer. The result never holds the key.
///
/// # Errors
/// No answer came, it is not HTTP, or it is a success with an invalid body.
pub async fn exchange<S>(stream: &mut S, request: &[u8], key: &Secret) -> Result<Registered, PeerFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Answer { head, rest } = http::exchange(stream, request).await?;
    let body = http::read_body(stream, &head, rest).await;
    read_answer(&head, &body, key)
}

fn read_answer(head: &Head, body: &Body, key: &Secret) -> Result<Registered, PeerFault> {
    let compression = head.compression().filter(|_| !body.bytes.is_empty());
    let id = if compression.is_some() { Ok(None) } else { console_text::id_of_body(&body.bytes) };
    if RegistrationOutcome::of(head.status) == RegistrationOutcome::Registered {
        if let Some(fault) = body.fault {
            return Err(PeerFault::BadBody(fault));
        }
        if let Some(media_type) = head.foreign_type().filter(|_| !body.bytes.is_empty()) {
            return Err(PeerFault::NotJson(console_text::sanitize(media_type, key)));
        }
        if id.is_err() {
            return Err(PeerFault::BadBody("that names \"id\" twice"));
        }
        if let Some(coding) = compression {
            let coding = console_text::sanitize(coding, key);
            tracing::warn!(coding, "registration answer is compressed although identity was asked for; id not read");
        }
    }
    Ok(Registered {
        status: head.status,
        retry_after_ms: head.retry_after_ms(),
        id: id.unwrap_or_default(),
        console_text: console_text::of_answer(head, &body.bytes, key),
        location: console_text::of_redirect(head, key),
    })
}

fn request(dialer: &Dialer, kind: RegisterPath, body: &str) -> Secret {
    let headers = format!(
        "Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    dialer.request("POST", path(kind), [&headers, body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use futures_lite::io::{AsyncRead, AsyncWrite, Cursor};
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    /// A console that gives this answer to any request.
    struct Answering(Cursor<Vec<u8>>);

    impl AsyncRead for Answering {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Answering {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn answered(status: u16, rest: &str) -> Result<Registered, String> {
        let text = format!("HTTP/1.1 {status} X\r\n{rest}").into_bytes();
        let (mut console, key) = (Answering(Cursor::new(text)), Secret::new("sk-1"));
        future::block_on(exchange(&mut console, b"POST / HTTP/1.1\r\n\r\n", &key)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn success_with_invalid_body_is_a_failed_exchange() {
        let cases = [
            ("Content-Length: 14\r\n\r\n{\"id\"", "sent an answer that ends before the length it announced"),
            ("Content-Length: -1\r\n\r\n{}", "sent an answer whose Content-Length is not a number"),
            ("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{}", "sent an answer with a malformed chunk"),
            (
                "Transfer-Encoding: chunked\r\n\r\n8\r\n{\"id\"",
                "sent an answer that ends before the length it announced",
            ),
            ("\r\n{\"id\":\"a\",\"id\":\"b\"}", "sent an answer that names \"id\" twice"),
            ("\r\n{\"id\":\"a\",\"\\u0069d\":\"a\"}", "sent an answer that names \"id\" twice"),
            (
                "Content-Type: text/html\r\n\r\n<html>Log in</html>",
                "answered with text/html instead of JSON: something else stands in the console's place, such as a \
                 captive portal",
            ),
        ];
        for status in [200, 201, 409] {
            for (rest, text) in cases {
                let error = answered(status, rest).expect_err(rest);
                assert!(error.starts_with(text), "{status} {rest}: {error}");
            }
        }
        // The same body does not change a refusal.
        for (rest, _) in cases {
            assert_eq!(answered(401, rest).map(|answer| answer.status), Ok(401), "{rest}");
        }
    }

    #[test]
    fn success_needs_no_body_and_no_id() {
        let usual = "Content-Type: application/json\r\n\r\n{\"id\":\"inst-1\",\"name\":{\"id\":7}}";
        assert_eq!(answered(201, usual).map(|answer| answer.id), Ok(Some("inst-1".to_owned())));
        for rest in [
            "\r\n",
            "Content-Type: text/html\r\nContent-Length: 0\r\n\r\n",
            "\r\nno JSON",
            "\r\n[]",
            "Content-Type: application/json\r\n\r\n{\"name\":\"x\"}",
            "Content-Encoding: gzip\r\n\r\n{\"id\":\"inst-1\"}",
        ] {
            assert_eq!(answered(201, rest).map(|answer| answer.id), Ok(None), "{rest}");
        }
        let refused = answered(503, "Content-Encoding: gzip\r\n\r\n\u{1f}x").expect("an answer");
        assert_eq!(refused.console_text, "a body compressed with gzip, which the agent did not ask for");
    }
}
