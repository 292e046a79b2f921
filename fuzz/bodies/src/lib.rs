//! What the fuzz targets do: one function a target, which panics where what it promises does not hold.
//!
//! The fuzzer is not known here; a plain test calls the same functions with every input of the corpora. What each
//! target promises stands at the head of its module, and in short in `fuzz/README.md`.

mod aftermath;
pub mod close_frame;
pub mod config;
pub mod contract;
pub mod delivery;
pub mod envelope_decode;
pub mod envelope_differential;
pub mod fsm_transitions;
pub mod heap;
pub mod http_response;
mod planted;
mod secrecy;
pub mod terminal_stream;
pub mod world;
