//! The smallest program that registers and opens a WebSocket. `tests/budgets` compares the agent's start with it.
//!
//! It makes the agent's two requests, each on its own connection, with blocking sockets and fixed text. Then it waits
//! until it is killed. `tests/budgets` compiles this file alone, as static and as small as the agent.

use std::io::{Error, Read as _, Write as _};
use std::net::TcpStream;

/// Much longer than an answer of the console, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

fn main() -> Result<(), Error> {
    let variable = |name| std::env::var(name).map_err(Error::other);
    let (url, key) = (variable("SINDRI_CONSOLE_URL")?, variable("SINDRI_CONSOLE_API_KEY")?);
    let id = variable("SINDRI_INSTANCE_ID")?;
    let address = url.trim_start_matches("http://");
    let head = format!("HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nX-Instance-ID: {id}\r\n");
    let body = format!(r#"{{"instance_id":"{id}","hostname":"bare","agent_version":"0","os":"linux","arch":"amd64"}}"#);
    let registration = format!(
        "POST /api/v1/instances/register {head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(address, &registration)?;
    let upgrade = format!(
        "GET /ws/agent {head}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut link = exchange(address, &upgrade)?;
    while link.read(&mut [0; ANSWER_BYTES_MAX])? > 0 {}
    Ok(())
}

/// Sends a request on a new connection and reads the head of its answer.
fn exchange(address: &str, request: &str) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; ANSWER_BYTES_MAX];
        let count = stream.read(&mut piece)?;
        if count == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Err(Error::other("no answer"));
        }
        answer.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    Ok(stream)
}
