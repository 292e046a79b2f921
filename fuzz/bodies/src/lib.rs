//! The fuzz targets: one function a target, which panics if a check fails.
//!
//! This crate does not depend on the fuzzer: a plain test calls the same functions with every input of the corpora. The
//! head of each module lists the checks of its target; `fuzz/README.md` has a summary.

mod aftermath;
pub mod close_frame;
pub mod config;
pub mod contract;
pub mod delivery;
pub mod envelope_decode;
pub mod envelope_differential;
pub mod fsm_transitions;
pub mod hand_over_state;
pub mod heap;
pub mod http_response;
pub mod journal_file;
pub mod llm_usage;
pub mod log_lines;
mod planted;
mod secrecy;
pub mod terminal_snapshot;
pub mod terminal_stream;
mod vt;
pub mod world;
