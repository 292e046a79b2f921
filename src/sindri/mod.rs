//! What Sindri says about this instance: its distribution, and which extensions are installed.
//!
//! Sources: os-release(5) and Sindri's status ledger, `~/.sindri/status_ledger.jsonl` (CONSOLE.md, "Sindri's status
//! ledger"). The agent looks at the ledger with each heartbeat and reads it only after it changed. Each entry that is
//! new since the recorded [`Position`] becomes at most one [`Change`].
//!
//! Invariants: no call waits longer than [`LOOK_TIMEOUT`]; a file system that hangs costs one worker of the pool; at
//! most [`LEDGER_BYTES_MAX`] are read in one look; without a position nothing is a change.

mod entry;
mod ledger;
mod os_release;
mod place;
mod position;
mod watch;

pub use entry::{Change, ChangeKind};
pub use ledger::LEDGER_BYTES_MAX;
pub use position::Position;
pub use watch::{LOOK_TIMEOUT, News, Watch};
