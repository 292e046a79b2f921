//! The wire as types.

pub mod metrics;
