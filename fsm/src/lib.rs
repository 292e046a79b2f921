//! The half of Draupnir that decides: inputs and a time go in, outputs come out.
//!
//! It has no clock, no socket, no thread and no source of randomness but the entropy that inputs bring with them
//! (`no_std` makes that a build error), so that everything in it can be replayed, fuzzed and simulated. Bytes stay
//! outside: it knows ids, offsets, sizes and times.
//!
//! The one door is the [`driver`]. Behind it are the connection's machine, the delivery ledger, and the lifecycles of
//! sessions and commands; [`scenario`] replays what a driver was recorded to do.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod driver;
pub mod scenario;

// Behind the driver. Reachable only for this project's own tests, simulation and fuzz targets; the agent uses the two
// above alone, and `tests/one_door.rs` holds it to that.
#[doc(hidden)]
pub mod backoff;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod command;
#[doc(hidden)]
pub mod delivery;
#[doc(hidden)]
pub mod fact;
#[doc(hidden)]
pub mod id;
#[doc(hidden)]
pub mod limits;
#[doc(hidden)]
pub mod machine;
#[doc(hidden)]
pub mod order;
#[doc(hidden)]
pub mod random;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod time;
#[doc(hidden)]
pub mod timer;
