//! Whether AI tools that are pointed at the agent reach it.
//!
//! It asks the port, as a tool would, for a path of no provider.

use super::finding::Sheet;
use crate::config::Config;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// What answers on loopback does so at once, or is no agent.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of an answer is read, in bytes: the agent's is a tenth of it.
const ANSWER_BYTES_MAX: u64 = 4096;

pub(super) fn check(config: &Config, sheet: &mut Sheet) {
    let Some(llm) = &config.llm else { return };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, llm.port));
    match ask(address) {
        Ok(true) => sheet.ok("llm", format!("the agent counts the usage of AI tools at {address}")),
        Ok(false) => {
            let text = "and the agent cannot: end that program, or set SINDRI_LLM_ADAPTER to none and point AI tools elsewhere";
            sheet.fail("llm", format!("another program listens at {address}, {text}"));
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let text = "AI tools that are pointed there reach nothing until the agent runs";
            sheet.warn("llm", format!("no program listens at {address}: {text}"));
        }
        Err(error) => sheet.warn("llm", format!("{address} cannot be asked ({error})")),
    }
}

/// Whether the agent listens there.
fn ask(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // One that answers nothing, or something else, is no agent.
    let _ = asked.and_then(|()| stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer));
    Ok(memchr::memmem::find(&answer, b"sindri_agent").is_some())
}
