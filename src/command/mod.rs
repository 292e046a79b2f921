//! One-off commands: a process group each, on the reactor.

use draupnir_fsm::fact::Key;

/// What a command tells the loop.
#[derive(Debug)]
pub enum Report {
    /// There is new output of a command that streams. At most one such report of a command waits.
    Output {
        /// The command.
        command: Key,
    },
    /// The last byte of both pipes was read.
    EndOfOutput {
        /// The command.
        command: Key,
    },
    /// The process is gone.
    Exited {
        /// The command.
        command: Key,
        /// The exit code; 128 + N for signal N.
        code: i32,
    },
}
