//! Ends connections: resets, the end of a stream, and the close code for an agent that violated the protocol.
//!
//! `link` records the end.

use std::net::Shutdown;
use std::time::Duration;

use async_net::TcpStream;
use async_tungstenite::tungstenite::Error;
use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use futures_lite::{AsyncReadExt, FutureExt};
use smol::Timer;

use crate::fault::is_cut;
use crate::record::End;

/// How long the console reads and drops data after it has ended the stream.
const LINGER: Duration = Duration::from_secs(5);

/// Makes the coming drop of the socket a reset.
pub(crate) fn reset(tcp: &TcpStream) {
    // If the kernel refuses the option, the socket closes without a reset.
    let _ = rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
}

/// Ends the console's half of the stream, then reads and drops data: closing a socket with unread bytes would be a
/// reset.
pub(crate) async fn finish(tcp: &mut TcpStream) {
    let _ = tcp.shutdown(Shutdown::Write); // the agent may have been faster
    let mut rest = vec![0_u8; 16 << 10];
    let read_away = async { while matches!(tcp.read(&mut rest).await, Ok(1..)) {} };
    let give_up = async {
        Timer::after(LINGER).await;
    };
    read_away.or(give_up).await;
}

/// The close code for the agent after this error, and how the link ended.
pub(crate) fn verdict(error: Error) -> (Option<u16>, End) {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => (None, End::Closed),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => (None, End::Finished),
        Error::Io(error) if is_cut(&error) => (None, End::Ours),
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => (None, End::Finished),
        Error::Io(_) => (None, End::Reset),
        Error::Capacity(error @ CapacityError::MessageTooLong { .. }) => (Some(1009), End::Broken(error.to_string())),
        Error::Utf8(error) => (Some(1007), End::Broken(error)),
        error => (Some(1002), End::Broken(error.to_string())),
    }
}
