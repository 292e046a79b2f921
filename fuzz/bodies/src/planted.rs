//! The decoder as the targets call it: the agent's own, or one with a deliberate fault, to test the targets.
//!
//! Nothing of it is in the agent. `--cfg planted="…"` puts one of three wrappers around the decoder: each does what a
//! careless decoder would, and `fuzz/README.md` says how the targets find it.

pub(crate) use draupnir::protocol::decode;
