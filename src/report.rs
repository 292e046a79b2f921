//! The one channel by which the modules that do things tell the loop what happened.
//!
//! It is bounded: a module that has more to tell than the loop can take waits, and with it whatever it reads from. The
//! loop never waits for a module, so nothing can lock up. It does not interpret.

use async_channel::{Receiver, Sender};

/// How many reports may wait for the loop. As many as it takes in one turn: more would only add delay.
pub const REPORTS_MAX: usize = 64;

/// The sending end, for a module whose reports are `R` in a channel of `T`.
pub struct Reporter<R, T = R> {
    sender: Sender<T>,
    wrap: fn(R) -> T,
}

/// A channel of reports of type `T`.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    async_channel::bounded(REPORTS_MAX)
}
