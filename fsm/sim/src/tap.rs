//! Shows an observer on the same thread what the driver asks the host to encode: the frames of the agent, in order.
//!
//! The simulation itself carries sizes. An observer that makes real frames of them (the fuzz project does, with the
//! types of the wire) sees every kind of message in every order that the simulation finds.

use draupnir_fsm::driver::{Chunk, Message, StreamKey};
use std::cell::RefCell;

/// What is to be encoded.
#[derive(Clone, Copy, Debug)]
pub enum Encoded {
    /// A message.
    Message(Message),
    /// Bytes of a stream.
    Chunk {
        /// The stream.
        stream: StreamKey,
        /// What was asked for.
        cut: Chunk,
        /// How many bytes there were.
        bytes: u64,
    },
}

type Observer = Box<dyn FnMut(Encoded)>;

thread_local! {
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
}

/// Shows everything that this thread encodes from now on to the observer.
pub fn observe(observer: impl FnMut(Encoded) + 'static) {
    OBSERVER.with(|slot| *slot.borrow_mut() = Some(Box::new(observer)));
}

pub(crate) fn show(encoded: Encoded) {
    OBSERVER.with(|slot| {
        if let Some(observer) = slot.borrow_mut().as_mut() {
            observer(encoded);
        }
    });
}
