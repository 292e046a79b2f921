//! Numbers that name something, one type for each kind, so that one can't be passed for another.
//!
//! A number is unique within a process: the first is 1, and none is used again. In recordings they are plain numbers.
//!
//! ```compile_fail
//! use draupnir_fsm::{delivery::StreamKey, id::CommandKey};
//! StreamKey::Terminal(CommandKey(1)); // the output of a terminal belongs to a session
//! ```

use crate::canonical::{Origin, hash_relative};
use core::fmt;
use core::hash::{Hash, Hasher};
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident $($hashed:ident)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, $($hashed,)? Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number after this one. After 2³² it starts over: at one a millisecond that takes 49 days.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.wrapping_add(1))
            }
        }

        /// The number alone: the field that holds it says what it names, in recordings and in what replays print.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A registration attempt: one HTTP exchange with the console.
    RegistrationAttempt
}

number! {
    /// A probe of the console's port: bare TCP connects to its addresses.
    PortProbe
}

number! {
    /// A link: one dial, and the WebSocket that comes of it.
    LinkId
}

number! {
    /// A terminal session. The console's own id stays outside of the machine.
    SessionKey Hash
}

number! {
    /// A dispatched command. The console's own id stays outside of the machine.
    CommandKey Hash
}

impl Hash for RegistrationAttempt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_relative(Origin::Attempt, u32::MAX, self.0.into(), state);
    }
}

impl Hash for LinkId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_relative(Origin::Link, u32::MAX, self.0.into(), state);
    }
}
