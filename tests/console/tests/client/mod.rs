//! A simple blocking client in the agent's place.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::{Error, Message, WebSocket, client};
use draupnir_console::Console;
use serde_json::{Value, json};

/// The longest wait of a read.
const READ_MAX: Duration = Duration::from_secs(10);

/// Connects over TCP.
pub(crate) fn tcp(console: &Console) -> TcpStream {
    let stream = TcpStream::connect(console.address()).expect("the console listens");
    stream.set_read_timeout(Some(READ_MAX)).expect("a timeout");
    stream
}

/// POSTs a body and returns the whole answer as text.
pub(crate) fn post(console: &Console, path: &str, body: &Value) -> String {
    let body = body.to_string();
    let mut stream = tcp(console);
    let (key, len) = (console.key(), body.len());
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    String::from_utf8(answer).expect("text")
}

/// Upgrades with these headers.
pub(crate) fn upgrade(
    console: &Console,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<WebSocket<TcpStream>, Box<Error>> {
    let url = format!("ws://{}{path}", console.address());
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        let name: async_tungstenite::tungstenite::http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    match client(request, tcp(console)) {
        Ok((socket, _)) => Ok(socket),
        Err(async_tungstenite::tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
        Err(error) => panic!("interrupted: {error}"),
    }
}

/// Upgrades as an agent of that id does.
pub(crate) fn connect(console: &Console, id: &str) -> WebSocket<TcpStream> {
    let key = format!("Bearer {}", console.key());
    upgrade(console, "/ws/agent", &[("Authorization", &key), ("X-Instance-ID", id)]).expect("upgraded")
}

/// Sends a frame.
pub(crate) fn send(socket: &mut WebSocket<TcpStream>, kind: &str, payload: &Value) {
    let frame = json!({"protocol_version": "1.0", "type": kind, "payload": payload});
    socket.send(Message::text(frame.to_string())).expect("sent");
}

/// Reads one JSON frame.
pub(crate) fn read(socket: &mut WebSocket<TcpStream>) -> Value {
    let message = socket.read().expect("a message");
    serde_json::from_str(message.to_text().expect("text")).expect("JSON")
}

/// Reads until the close frame and returns its code and reason.
pub(crate) fn read_close(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                let frame = frame.expect("a code");
                return (frame.code.into(), frame.reason.to_string());
            }
            Ok(_) => {}
            Err(error) => panic!("no close frame: {error}"),
        }
    }
}
