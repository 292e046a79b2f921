//! A console to develop and test the agent against: HTTP registration and one WebSocket per instance, on loopback.
//!
//! It is *not* the product: it stores nothing, renders nothing and authenticates one fixed key. It shares no type and
//! no code with the agent (plain [`serde_json::Value`] in and out), so that one misreading of the wire cannot pass on
//! both sides. It is no model of a fast or fair server: it does what a test orders.
//!
//! The server runs on its own thread. A test holds a [`Console`], a cheap clone that is `Send + Sync` and blocks:
//!
//! ```no_run
//! use draupnir_console::{Answer, Console, Personality};
//!
//! let console = Console::start(Personality::production());
//! console.answer_registration(Answer::status(503).header("Retry-After", "1")); // the first attempt is refused
//! // … start the agent with SINDRI_CONSOLE_URL=console.url() and SINDRI_CONSOLE_API_KEY=console.key() …
//! let link = console.connection(1); //                waits until the first WebSocket is up
//! let heartbeat = console.frame("heartbeat"); //      waits for the first heartbeat that the console received
//! assert!(heartbeat.payload()["uptime_seconds"].is_u64());
//! console.browser().create("s1", 80, 24).input("s1", b"echo $((6*7))\r");
//! console.wait_text("s1", "42"); //                   waits on the terminal's assembled bytes
//! link.reset(); //                                    a TCP reset, in mid-life
//! assert_eq!(console.connection(2).hello()["type"], "registration");
//! assert_eq!(console.browser().run("exit 3")["exit_code"], 3);
//! ```
//!
//! # Structure
//!
//! - [`Personality`]: what the console does without a script: the protocol as designed, or the production console.
//! - [`Answer`] and [`Upgrade`]: what the next registration or the next upgrade gets instead.
//! - [`Connection`]: one WebSocket, to send on, close, reset, stall, throttle or cut at a byte.
//! - [`Browser`]: what a user of the console does: terminals and commands, with ids that the test chooses.
//! - [`Record`]: one thing that happened, with its time and connection. [`View`] asks about them and waits for them.
//! - [`Page`]: the console in a browser, for the demo.
//! - [`Stream`]: the bytes of one terminal or of one output of a command, assembled by offset, hashed, or only counted.
//!
//! # Invariants
//!
//! - Every wait has a deadline ([`WAIT_MAX`] unless [`View::within`] says otherwise) and panics with what did arrive.
//! - Nothing grows without a bound: [`Keep::Counts`] keeps no output at all, and a console whose records exceed
//!   [`KEPT_BYTES_MAX`] makes every wait fail rather than the machine.
//! - A frame that would bring the production console down makes every later wait fail (see
//!   [`Personality::production`]).

mod browser;
mod connection;
mod console;
mod ending;
mod fault;
mod http;
mod link;
mod order;
mod page;
mod personality;
mod poison;
mod record;
mod registry;
mod script;
mod server;
mod speech;
mod store;
mod stream;
mod view;

pub use browser::Browser;
pub use connection::Connection;
pub use console::{API_KEY, Builder, Console};
pub use http::Request;
pub use page::{Page, missing_assets};
pub use personality::{Greeting, Personality};
pub use record::{End, Record, What};
pub use script::{Answer, Pongs, Upgrade};
pub use server::{Accepting, Acceptor, Wire};
pub use store::{KEPT_BYTES_MAX, Keep};
pub use stream::{Gap, Stream};
pub use view::{View, WAIT_MAX};
