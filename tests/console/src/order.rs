//! The orders of a test to a live connection.
//!
//! `connection` sends them, `link` executes them.

use async_channel::Sender;
use async_tungstenite::tungstenite::Message;

use crate::script::Pongs;

/// An order.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send one message.
    Send(Message),
    /// Write these bytes as they are, between two frames.
    Raw(Vec<u8>),
    /// Begin the close handshake.
    Close(u16, String),
    /// End the stream without a close frame.
    Finish,
    /// Reset the connection.
    Reset,
    /// Neither read nor write (true), or do so again.
    Stall(bool),
    /// Read this many bytes a second; `None`: as they come.
    Throttle(Option<u64>),
    /// Reset after this many more bytes were read.
    CutAfter(u64),
    /// Answer pings like this.
    Pongs(Pongs),
    /// Read, but send nothing (true).
    Silence(bool),
}

/// An order, and the channel that reports that it was taken.
pub(crate) type Ordered = (Order, Option<Sender<()>>);
