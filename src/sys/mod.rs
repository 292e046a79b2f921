//! The only unsafe code: what the agent needs from the operating system and no safe crate offers as it needs it.
//!
//! It knows no policy: when a child is started, signalled or given up is decided elsewhere, and nothing here reads the
//! configuration or the wire. Every `unsafe` block says why it is sound.
//!
//! | module | what it does |
//! |---|---|
//! | [`spawn`] | starts a program in a session of its own, with nothing of the agent in it |
//! | [`child`] | a started program: waits for it on the reactor, signals it, reaps it, and the orphans left to PID 1 |
//! | [`session`] | ends the remaining processes of sessions |
//! | [`descriptor`] | duplicates a descriptor that a library lends as a number |
//! | [`disposition`] | which signals the agent ignores, and that none is blocked |
//! | [`environment`] | the variables that children get, and the erasure of those that nobody may read |
//! | [`process`] | what the agent does to itself at its start: no core, no tracing, enough descriptors |
#![allow(unsafe_code)]

pub mod child;
pub mod descriptor;
pub mod disposition;
pub mod environment;
mod exec;
mod flight;
pub mod process;
mod raw;
pub mod session;
pub mod socket;
pub mod spawn;
#[cfg(target_os = "linux")]
mod stack;

#[cfg(test)]
mod tests;
