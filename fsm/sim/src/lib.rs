//! The driver in a made-up world: a virtual clock, a network, a console, and checks after every step.
//!
//! It opens no socket and reads no clock; a seed decides everything, so that a failing world can be run again.
//! What is under test is [`draupnir_fsm::driver::Driver`], the one that the agent ships: the host around it only
//! carries inputs and outputs.
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | what a seed makes of the world; the list of faults |
//! | `world` | time, and who hears of what |
//! | `host`, `inputs`, `actions`, `doors` | the process around the driver |
//! | `network`, `wire`, `console`, `rows`, `identity` | what is on the other side |
//! | `work`, `storm`, `calm` | what is asked, what goes wrong, what must hold after it |
//! | [`violation`], `rules`, `watcher`, `messages` | the checks |
//! | `programs` | another program in the same process: a hand-over, and the restart after a panic |
//! | `journal` | what outlives the process |
//! | [`run`], [`batch`] | one seed, and many |
//! | [`panics`] | a panic, as a violation like any other |
//! | [`failure`] | the story and the scenario of a seed that fails |
//! | [`fleet`] | many machines and one console: how all come back |
//! | [`resync`] | what a resync costs |
//! | [`wide`] | floods over links of many speeds and lengths |
//! | [`planted`] | deliberate faults, to test the checks |
//! | [`tap`] | what the driver asks the host to encode, for an observer |

mod actions;
mod agenda;
pub mod batch;
mod calm;
mod console;
mod doors;
pub mod failure;
pub mod fleet;
mod host;
mod identity;
mod inputs;
mod journal;
mod logs;
mod messages;
mod network;
pub mod panics;
pub mod plan;
pub mod planted;
mod programs;
pub mod resync;
mod rows;
mod rules;
pub mod run;
mod storm;
pub mod tap;
pub mod violation;
mod watcher;
pub mod wide;
mod wire;
mod work;
mod world;
