//! One registration: a POST with the payload it is given, and what the console answered.
//!
//! It does not choose the path, retry or follow redirects: the machine does the first two, and nobody the third, because
//! a redirect that is followed hands the key to whoever wrote it. Wire: part A "HTTP", part B "Registration".

use super::dial::Dialer;
use super::error::{Error, PeerFault};
use super::http::{self, Answer};
use super::stream::Progress;
use super::words;
use crate::config::Secret;
use draupnir_fsm::driver::RegisterPath;
use futures_lite::io::{AsyncRead, AsyncWrite};

/// What a console answered to a registration; the fields are those of
/// [`Report::RegistrationAnswered`](super::Report::RegistrationAnswered).
#[derive(Debug, PartialEq, Eq)]
pub struct Registered {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The `id` of the answer's body, if it can be used as one.
    pub id: Option<String>,
    /// The console's own words: one line, printable, at most 512 bytes, without the key.
    pub words: String,
    /// Where a redirect points; as its words.
    pub location: Option<String>,
}

/// Registers once.
pub(super) async fn register(dialer: &Dialer, path: RegisterPath, body: &str) -> Result<Registered, Error> {
    let mut stream = dialer.open(Progress::default()).await?;
    let request = request(dialer, path, body);
    exchange(&mut stream, request.expose().as_bytes(), &dialer.target.key)
        .await
        .map_err(|fault| dialer.peer_error(fault))
}

/// Sends a registration over a stream that is open, and reads the answer; the key is kept out of what is told of it.
///
/// # Errors
/// What came is no answer that HTTP knows, or none came.
pub async fn exchange<S>(stream: &mut S, request: &[u8], key: &Secret) -> Result<Registered, PeerFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Answer { head, rest } = http::exchange(stream, request).await?;
    let body = http::read_body(stream, &head, rest).await;
    Ok(Registered {
        status: head.status,
        retry_after_ms: head.retry_after_ms(),
        id: words::id_of_body(&body),
        words: words::of_body(&body, key),
        location: words::of_redirect(&head, key),
    })
}

fn request(dialer: &Dialer, path: RegisterPath, body: &str) -> Secret {
    let path = match path {
        RegisterPath::Designed => "/api/v1/instances/register",
        RegisterPath::Observed => "/api/v1/instances",
    };
    let headers = format!(
        "Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    dialer.request("POST", path, [&headers, body])
}
