//! Terminal sessions: a PTY and its shell each, on the reactor.

use draupnir_fsm::fact::Key;

/// What a terminal tells the loop.
#[derive(Debug)]
pub enum Report {
    /// There is new output. At most one such report of a session waits.
    Output {
        /// The session.
        session: Key,
    },
    /// The last byte was read.
    EndOfOutput {
        /// The session.
        session: Key,
    },
    /// The shell is gone.
    Exited {
        /// The session.
        session: Key,
        /// The exit code; 128 + N for signal N.
        code: i32,
    },
    /// Nothing of the session is left.
    Reaped {
        /// The session.
        session: Key,
    },
}
