//! One registration: a POST with the payload it is given, and what the console answered.
//!
//! It does not choose the path, retry or follow redirects: the machine does the first two, and nobody the third, because
//! a redirect that is followed hands the key to whoever wrote it. Wire: part A "HTTP", part B "Registration".

use super::dial::Dialer;
use super::error::Error;
use super::http::{self, Answer};
use super::stream::Progress;
use super::words;
use draupnir_fsm::order::RegisterPath;

/// What a console answered to a registration; the fields are those of the report.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) status: u16,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) words: String,
    pub(super) location: Option<String>,
}

/// Registers once.
pub(super) async fn register(dialer: &Dialer, path: RegisterPath, body: &str) -> Result<Registered, Error> {
    let mut stream = dialer.open(Progress::default()).await?;
    let request = request(dialer, path, body);
    let Answer { head, rest } =
        http::exchange(&mut stream, &request).await.map_err(|fault| dialer.peer_error(fault))?;
    let body = http::read_body(&mut stream, &head, rest).await;
    Ok(Registered {
        status: head.status,
        retry_after_ms: head.retry_after_ms(),
        id: words::id_of_body(&body),
        words: words::of_body(&body, &dialer.target.key),
        location: words::of_redirect(&head, &dialer.target.key),
    })
}

fn request(dialer: &Dialer, path: RegisterPath, body: &str) -> Vec<u8> {
    let path = match path {
        RegisterPath::Designed => "/api/v1/instances/register",
        RegisterPath::Observed => "/api/v1/instances",
    };
    let mut request = dialer.request_line_and_headers("POST", path);
    let headers = format!(
        "Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    request.extend_from_slice(headers.as_bytes());
    request.extend_from_slice(body.as_bytes());
    request
}
