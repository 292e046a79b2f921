//! What can go wrong on the way to the console.

/// Why the console was not reached.
#[derive(Debug, thiserror::Error)]
#[error("not written yet")]
pub struct Error;
