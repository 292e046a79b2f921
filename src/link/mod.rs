//! Reaches the console: DNS, TCP, proxy, TLS, registration over HTTP, and the WebSocket.

use draupnir_fsm::fact::{Attempt, Loss};

mod error;
pub use error::Error;

/// What the link tells the loop.
#[derive(Debug)]
pub enum Report {
    /// The console answered a registration.
    RegistrationAnswered {
        /// The attempt that this answers.
        attempt: Attempt,
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u64>,
        /// The `id` of the answer's body.
        id: Option<String>,
        /// The console's own words: printable, bounded.
        words: String,
        /// Where a redirect points.
        location: Option<String>,
    },
    /// A registration ended without an answer.
    RegistrationFailed {
        /// The attempt that failed.
        attempt: Attempt,
        /// Why.
        error: Error,
    },
    /// The WebSocket is up.
    Opened {
        /// The link that is up.
        link: Attempt,
    },
    /// A dial ended without a WebSocket.
    DialFailed {
        /// The link that never came up.
        link: Attempt,
        /// Why.
        error: Error,
        /// `Retry-After`, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// A text message.
    Text {
        /// The link it came on.
        link: Attempt,
        /// The message.
        text: String,
    },
    /// A binary message, which the protocol does not have.
    Binary {
        /// The link it came on.
        link: Attempt,
        /// Its length.
        bytes: usize,
    },
    /// A Pong.
    Pong {
        /// The link it came on.
        link: Attempt,
        /// The payload it echoes.
        payload: Vec<u8>,
    },
    /// What was handed over by [`Link::write`] has left for the kernel.
    Written {
        /// The link it went to.
        link: Attempt,
    },
    /// The console sent a close frame.
    CloseReceived {
        /// The link it closes.
        link: Attempt,
        /// The close code; 1005 where the frame had none.
        code: u16,
        /// The reason, printable.
        reason: String,
    },
    /// The link broke without a close frame.
    Lost {
        /// The link that broke.
        link: Attempt,
        /// How it was noticed.
        loss: Loss,
        /// What was noticed, for the log.
        error: String,
    },
    /// The socket is gone, its descriptor too. Always the last report of a link that was opened.
    Closed {
        /// The link whose socket is gone.
        link: Attempt,
    },
}
