//! The half of Draupnir that decides: inputs and a time go in, outputs come out.
//!
//! It has no clock, no socket, no thread and no source of randomness (`no_std` makes that a build error). Inputs bring
//! entropy with them. So everything in this crate can be replayed, fuzzed and simulated. It holds no byte of a stream:
//! it works with ids, offsets, sizes and times.
//!
//! The public interface is the [`driver`]. Behind it are the state machine of the connection, the delivery ledger, and
//! the lifecycles of sessions and commands. [`scenario`] replays the recording of a driver.
//!
//! # The loop
//!
//! A [`Driver`](driver::Driver) does nothing by itself. Its owner repeats four steps:
//!
//! 1. [`observe`](driver::Driver::observe) the clocks first, so that the driver notices that the machine slept or was
//!    frozen before it judges how late something is.
//! 2. [`handle`](driver::Driver::handle) what happened since the last turn, at most
//!    [`INPUTS_PER_TURN_MAX`](driver::INPUTS_PER_TURN_MAX) inputs, so that a flood keeps no deadline from firing.
//! 3. [`poll`](driver::Driver::poll) until it returns `None`, and do each [`Output`](driver::Output) at once. The
//!    result is an input of a later turn.
//! 4. Wait for the next input, or until [`next_deadline`](driver::Driver::next_deadline).
//!
//! The example runs the loop against a console that goes silent after 30 s and comes back after 60 s. Time is a
//! variable, so the example does not wait.
//!
//! ```
//! use draupnir_fsm::driver::*;
//! use std::rc::Rc;
//!
//! /// Encodes every message as 100 bytes and has no terminal and no command.
//! struct Host;
//!
//! impl Encode for Host {
//!     type Body = usize; // the length stands for the message
//!     fn encode(&mut self, _: &Message) -> Option<usize> { Some(100) }
//! }
//!
//! impl ByteSource for Host {}
//!
//! let mut driver = Driver::new(Policy::default(), Schedule::default(), 1, false, Rc::new(budget::Budget::new()));
//! let mut inputs = vec![Input::Started { id: IdSource::Remembered }];
//! let mut now = Time::START;
//! let mut states = Vec::new();
//! while now < Time::from_ms(100_000) {
//!     let console_is_up = !(30_000..60_000).contains(&now.as_ms());
//!     let ms = now.as_ms();
//!     driver.observe(now, Clocks { monotonic_ms: ms, boot_time_ms: ms, real_time_ms: ms }, || 1);
//!     inputs.drain(..).for_each(|input| driver.handle(now, input));
//!     while let Some(output) = driver.poll(now, &mut Host) {
//!         match output {
//!             Output::Do(Action::Dial { link }) if console_is_up => {
//!                 inputs.push(Input::LinkOpened { link });
//!                 inputs.push(Input::Received { link, message: ConsoleMessage::Other }); // it listens
//!             }
//!             Output::Do(Action::Dial { link }) => {
//!                 inputs.push(Input::DialFailed { link, cause: Failure::Connect, retry_after_ms: None });
//!             }
//!             Output::Write { link, frames } if console_is_up => {
//!                 inputs.push(Input::Written { link });
//!                 for frame in frames {
//!                     if let Frame::Ping(payload) = frame { inputs.push(Input::Pong { link, payload }) }
//!                 }
//!             }
//!             Output::Append { append, .. } => inputs.push(Input::Appended { append }), // to the journal
//!             Output::Do(Action::DropLink { link }) => inputs.push(Input::LinkClosed { link }),
//!             Output::Do(_) | Output::Write { .. } => {} // the agent does all of them
//!         }
//!     }
//!     states.push((now.as_ms() / 1_000, driver.snapshot().connection.state));
//!     // Something happened already, or nothing does until the next deadline.
//!     now = if inputs.is_empty() { driver.next_deadline().expect("not stopped") } else { now.after_ms(1) };
//! }
//! let state_at = |second| states.iter().rfind(|(at, _)| *at <= second).expect("it has started").1;
//! assert_eq!(state_at(29), "connected.ready");
//! assert!(state_at(50).starts_with("connecting")); // the driver notices a silent console within 20 s
//! assert_eq!(state_at(90), "connected.ready"); // and retries at least every 30 s
//! ```
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
pub mod canonical;
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
