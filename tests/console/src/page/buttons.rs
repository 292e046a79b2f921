//! The buttons that break things, on the console's side of the connection.
//!
//! A stall ends with its connection. A slow connection is slow again after a reconnect, until the button is pressed
//! again.

use std::cell::Cell;
use std::sync::Arc;

use serde_json::json;

use crate::connection::Connection;
use crate::console::Console;
use crate::record::{Record, What};
use crate::registry::REPLACED_REASON;

use super::hub::Hub;

/// What a slow connection carries, in bytes a second.
const SLOW_BYTES_PER_SECOND: u64 = 100_000;

/// The state of the buttons.
#[derive(Debug)]
pub(super) struct Buttons {
    console: Console,
    hub: Arc<Hub>,
    /// The key that the agent has.
    key: String,
    /// The connection that is stalled.
    stalled: Cell<Option<u32>>,
    slow: Cell<bool>,
    refuses_key: Cell<bool>,
}

impl Buttons {
    pub(super) fn new(console: Console, hub: Arc<Hub>) -> Buttons {
        let (key, stalled, slow, refuses_key) = (console.key(), Cell::default(), Cell::default(), Cell::default());
        let buttons = Buttons { console, hub, key, stalled, slow, refuses_key };
        buttons.publish();
        buttons
    }

    /// Does what a button says. An unknown one does nothing.
    pub(super) async fn press(&self, what: &str) {
        let link = self.console.current_link();
        match (what, &link) {
            ("restart", _) => {
                let console = self.console.clone();
                smol::unblock(move || {
                    console.crash();
                    console.listen();
                })
                .await;
            }
            ("slow", _) => {
                self.slow.set(!self.slow.get());
                link.iter().for_each(|link| self.set_speed(link));
            }
            ("refuse_key", _) => {
                self.refuses_key.set(!self.refuses_key.get());
                match self.refuses_key.get() {
                    true => self.console.set_key("another key than the agent has"),
                    false => self.console.set_key(&self.key),
                }
                // The key is checked at the next connection.
                link.iter().filter(|_| self.refuses_key.get()).for_each(Connection::reset);
            }
            (_, None) => {
                self.hub.note(&format!("no connection: {what} did nothing"));
            }
            ("cut", Some(link)) => link.reset(),
            ("stall", Some(link)) if self.stalled.get().is_none() => {
                link.stall();
                self.stalled.set(Some(link.number()));
            }
            ("stall", Some(link)) => {
                link.resume();
                self.stalled.set(None);
            }
            ("replace", Some(link)) => link.close(1001, REPLACED_REASON),
            ("forget", Some(link)) => {
                link.instance_id().into_iter().for_each(|id| self.console.forget(id));
                link.reset(); // the id is checked at the next connection
            }
            (_, Some(_)) => return,
        }
        self.publish();
    }

    /// Handles one record of the console: a new connection is as slow as the button says, and is not stalled.
    pub(super) fn take_record(&self, record: &Record) {
        let is_new = matches!(record.what, What::Attached);
        let is_over = matches!(record.what, What::Ended(_)) && self.stalled.get() == Some(record.connection);
        if is_new && self.slow.get() {
            self.console.current_link().iter().for_each(|link| self.set_speed(link));
        }
        if (is_new || is_over) && self.stalled.take().is_some() {
            self.publish();
        }
    }

    fn set_speed(&self, link: &Connection) {
        link.throttle(self.slow.get().then_some(SLOW_BYTES_PER_SECOND));
    }

    fn publish(&self) {
        let (stalled, slow, refuses_key) = (self.stalled.get().is_some(), self.slow.get(), self.refuses_key.get());
        let frame = json!({"type": "buttons", "stall": stalled, "slow": slow, "refuse_key": refuses_key});
        self.hub.publish_newest("buttons", &frame);
    }
}
