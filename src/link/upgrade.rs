//! Turns the byte stream into a WebSocket: one upgrade, and what the console answered instead.
//!
//! The exchange is ours and only the frames are tungstenite's: the same bounded reader of HTTP as everywhere, the
//! console's whole words where it refuses, and the key in no library's trace log. It does not redirect, retry or speak
//! of what was refused. Wire: CONSOLE.md, "The WebSocket"; RFC 6455, section 4.

use super::console_text;
use super::dial::Dialer;
use super::error::{Error, PeerFault};
use super::http::{self, Answer, Head};
use super::stream::{Progress, Stream};
use crate::config::Secret;
use crate::protocol::{INBOUND_BYTES_MAX, InstanceId};
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// tungstenite's own buffers, in bytes. It allocates them at once and whole, and 128 KiB by default.
const BUFFER_BYTES: usize = 4 * 1024;

/// Without a trailing slash, which makes the production console destroy the socket (CONSOLE.md, "The WebSocket").
const PATH: &str = "/ws/agent";

/// Dials once, as this instance.
pub(super) async fn dial(
    dialer: &Dialer,
    instance_id: &str,
    progress: Progress,
) -> Result<WebSocketStream<Stream>, Error> {
    let instance_id = InstanceId::new(instance_id).map_err(Error::InstanceId)?;
    upgrade(dialer, dialer.open(progress).await?, &instance_id).await
}

/// Asks for a WebSocket on a fresh stream.
pub(super) async fn upgrade(
    dialer: &Dialer,
    stream: Stream,
    instance_id: &InstanceId,
) -> Result<WebSocketStream<Stream>, Error> {
    upgrade_at(dialer, stream, instance_id, PATH).await
}

/// The same at another path: the conformance suite counts its cases in it.
pub(super) async fn upgrade_at(
    dialer: &Dialer,
    mut stream: Stream,
    instance_id: &InstanceId,
    path: &str,
) -> Result<WebSocketStream<Stream>, Error> {
    let nonce = generate_key();
    let request = request(dialer, instance_id, path, &nonce);
    let Answer { head, rest } =
        http::exchange(&mut stream, request.expose().as_bytes()).await.map_err(|fault| dialer.peer_error(fault))?;
    if head.status != 101 {
        let body = http::read_body(&mut stream, &head, rest).await.bytes;
        return Err(refusal(dialer, &head, &body));
    }
    verify(&head, &nonce).map_err(|fault| dialer.peer_error(fault))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(INBOUND_BYTES_MAX))
        .max_frame_size(Some(INBOUND_BYTES_MAX));
    Ok(WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(config)).await)
}

fn request(dialer: &Dialer, instance_id: &InstanceId, path: &str, nonce: &str) -> Secret {
    let headers = format!(
        "X-Instance-ID: {instance_id}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n\r\n"
    );
    dialer.request("GET", path, [&headers, ""])
}

/// RFC 6455, section 4.1: what a client must check before it believes a 101.
fn verify(head: &Head, nonce: &str) -> Result<(), PeerFault> {
    if !head.lists("upgrade", "websocket") {
        return Err(PeerFault::BadUpgrade("Upgrade"));
    }
    if !head.lists("connection", "upgrade") {
        return Err(PeerFault::BadUpgrade("Connection"));
    }
    if head.header("sec-websocket-accept") != Some(&derive_accept_key(nonce.as_bytes())) {
        return Err(PeerFault::BadUpgrade("Sec-WebSocket-Accept"));
    }
    // Nothing was offered, so nothing may be agreed to.
    if head.header("sec-websocket-extensions").is_some_and(|listed| !listed.trim().is_empty()) {
        return Err(PeerFault::BadUpgrade("Sec-WebSocket-Extensions"));
    }
    if head.header("sec-websocket-protocol").is_some() {
        return Err(PeerFault::BadUpgrade("Sec-WebSocket-Protocol"));
    }
    Ok(())
}

fn refusal(dialer: &Dialer, head: &Head, body: &[u8]) -> Error {
    let key = &dialer.target.key;
    let (status, console_text, retry_after_ms) =
        (head.status, console_text::of_answer(head, body, key), head.retry_after_ms());
    if matches!(status, 401 | 403) {
        return Error::KeyRefused { status, console_text, retry_after_ms };
    }
    Error::Refused { status, location: console_text::of_redirect(head, key), console_text, retry_after_ms }
}
