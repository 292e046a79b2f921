//! x
pub mod metrics;
pub mod protocol;
