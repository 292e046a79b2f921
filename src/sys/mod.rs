//! The only unsafe code: system calls for which no safe crate fits.
//!
//! The callers decide when a child is started, signalled or given up. Every `unsafe` block says why it is sound.
//!
//! | module | what it does |
//! |---|---|
//! | [`spawn`] | starts a program in its own session, without the agent's descriptors, signal state and limits |
//! | [`child`] | waits for a started program on the reactor, signals and reaps it, and reaps orphans left to PID 1 |
//! | [`code`] | unmaps the code that only the start needs |
//! | [`session`] | ends the remaining processes of sessions |
//! | [`descriptor`] | duplicates a descriptor that a library lends as a number |
//! | [`disposition`] | which signals the agent ignores, and that none is blocked |
//! | [`environment`] | the variables that children get, and the erasure of secret ones |
//! | [`resolve`] | asks the system's resolver for the addresses of one family |
//! | [`local_time`] | the offset of local time from UTC |
//! | `vnode` | says which of many open files and directories change, on macOS |
//! | [`process`] | hardens the agent's own process at its start: no core file, no tracing, enough descriptors |
#![allow(unsafe_code)]

pub mod child;
pub mod code;
pub mod descriptor;
pub mod disposition;
pub mod environment;
mod exec;
mod flight;
pub mod local_time;
pub mod process;
mod raw;
pub mod resolve;
pub mod session;
pub mod socket;
pub mod spawn;
#[cfg(target_os = "linux")]
mod stack;
#[cfg(target_os = "macos")]
pub mod vnode;

#[cfg(test)]
mod tests;
