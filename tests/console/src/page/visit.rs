//! One WebSocket of a page.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_net::TcpStream;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use futures_lite::{FutureExt as _, StreamExt as _};

use crate::http::{self, Request};
use crate::script::Response;

use super::{HTTP_TIMEOUT, Site, within};

/// Largest message of a page, in bytes: it cuts what is pasted into pieces of 16 KiB.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// Longest wait for a page that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What one turn of the loop brought.
enum Turn {
    Message(Option<Result<Message, Error>>),
    Frame(Option<Arc<str>>),
}

/// Answers the upgrade and serves the page until it, or its queue, is gone.
pub(super) async fn serve(site: Site, mut wire: TcpStream, request: &Request, rest: Vec<u8>) -> io::Result<()> {
    let mut switching = Response::new(101);
    let accept = request.accept_key();
    for (name, value) in [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &accept)] {
        switching.headers.push((name.to_owned(), value.to_owned()));
    }
    within(HTTP_TIMEOUT, http::write(&mut wire, &http::encode(&switching))).await?;
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocketStream::from_partially_read(wire, rest, Role::Server, Some(config)).await;
    let (outbox, frames) = site.hub.enter();
    let ended = loop {
        let message = async { Turn::Message(socket.next().await) };
        match message.or(async { Turn::Frame(frames.recv().await.ok()) }).await {
            Turn::Message(Some(Ok(Message::Text(text)))) => {
                let message = serde_json::from_str(&text).unwrap_or_default();
                site.sessions.take(&message).await;
            }
            Turn::Message(Some(Ok(_))) => {} // the library answers pings and the close frame
            Turn::Message(Some(Err(_)) | None) | Turn::Frame(None) => break Ok(()),
            Turn::Frame(Some(frame)) => {
                let text = Message::text(&*frame);
                let written = async { socket.send(text).await.map_err(io::Error::other) };
                if let Err(error) = within(WRITE_TIMEOUT, written).await {
                    break Err(error);
                }
                if outbox.has_caught_up(&frame) {
                    site.sessions.repeat(outbox.page);
                }
            }
        }
    };
    site.hub.leave(outbox.page);
    ended
}
