//! The half of Draupnir that decides: facts and a time go in, orders come out.
//!
//! It has no clock, no socket, no thread and no source of randomness but the entropy that facts bring with them
//! (`no_std` makes that a build error), so that everything in it can be replayed, fuzzed and simulated. It does not
//! carry bytes: [`delivery`] knows offsets and windows, the agent holds what they stand for.
//!
//! | module | what it decides |
//! |---|---|
//! | [`machine`] | the connection: registration, dialling, greeting, keep-alive, resync, drain |
//! | [`session`], [`command`] | the lifecycles of terminal sessions and one-off commands |
//! | [`delivery`] | what is sent when, what is known to have arrived, what is held for how long |
//! | [`engine`] | the machine and the ledger on one tick, as the agent and the simulation use them |
//! | [`clock`], [`complaint`] | that time did not pass as usual; how often a trouble is told |
//! | [`scenario`] | recorded lives of the machine, and their replay |
//! | [`fact`], [`order`] | what goes in and what comes out; the vocabulary of recordings |
//! | [`id`] | the numbers that name attempts, links, sessions and commands |
//! | [`limits`] | every number: one table, each with its reason |
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod backoff;
pub mod clock;
pub mod command;
pub mod complaint;
pub mod delivery;
pub mod engine;
pub mod fact;
pub mod id;
pub mod limits;
pub mod machine;
pub mod order;
pub mod random;
pub mod scenario;
pub mod session;
pub mod time;
pub mod timer;
