//! The machine and the ledger in a made-up world: a virtual clock, a network, a console, and checks after every step.
//!
//! It opens no socket and reads no clock; a seed decides everything, so that a failing world can be lived through again.
//! What is under test is [`draupnir_fsm::engine::Engine`], used as the agent's loop uses it.
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | what a seed makes of the world; the list of faults |
//! | `world` | time, and who hears of what |
//! | `host`, `turn`, `reports`, `orders` | the process around the engine |
//! | `network`, `wire`, `console` | what is on the other side |
//! | `work`, `storm`, `calm` | what is asked, what goes wrong, what must hold after it |
//! | [`breach`], `rules`, `watcher`, `messages` | the checks |
//! | [`run`], [`batch`] | one seed, and many |
//! | [`panics`] | a panic, as a breach like any other |
//! | [`failure`] | the story and the scenario of a seed that fails |
//! | [`fleet`] | many machines and one console: how all come back |
//! | [`planted`] | deliberate faults, to test the checks |

mod agenda;
pub mod batch;
pub mod breach;
mod calm;
mod console;
pub mod failure;
pub mod fleet;
mod host;
mod messages;
mod network;
mod orders;
pub mod panics;
pub mod plan;
pub mod planted;
mod reports;
mod rules;
pub mod run;
mod storm;
mod turn;
mod watcher;
mod wire;
mod work;
mod world;
