//! The handle of a test for one WebSocket.
//!
//! Each call returns when the server's thread has accepted the order: a fault then takes effect, and data is queued in
//! the order of the calls. A [`View`] waits for the consequences.

use async_tungstenite::tungstenite::{Bytes, Message};
use serde_json::Value;

use crate::order::Order;
use crate::record::What;
use crate::script::Pongs;
use crate::store::{LinkEntry, State};
use crate::view::View;

/// A connection that is or was up.
#[derive(Clone, Debug)]
pub struct Connection {
    number: u32,
    entry: LinkEntry,
    view: View,
}

impl Connection {
    #[track_caller]
    pub(crate) fn wait(view: &View, number: u32) -> Connection {
        let entry = view.until(&format!("connection {number} to be up"), |state| state.links.get(&number).cloned());
        Connection { number, entry, view: view.on(number) }
    }

    #[track_caller]
    pub(crate) fn newest(view: &View) -> Connection {
        let (number, entry) = view.until("a connection that is listened to", newest_listened_to);
        Connection { number, entry, view: view.on(number) }
    }

    pub(crate) fn current(view: &View) -> Option<Connection> {
        let (number, entry) = newest_listened_to(&view.shared.look())?;
        Some(Connection { number, entry, view: view.on(number) })
    }

    /// Its number: the first upgrade request's is 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The instance id; `None` if the console takes it for a browser, or refused it.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.entry.id.as_deref()
    }

    /// The records of this connection.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Waits for the first frame that the console received on it.
    #[track_caller]
    pub fn hello(&self) -> Value {
        let first = self.view.wait("a first frame", |record| matches!(record.what, What::Text(..)));
        first.value().clone()
    }

    /// Whether frames of a browser reach it: the production console loses the route if an older connection ends late.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.view.shared.look().registry.routes_to(self.number)
    }

    /// Sends a JSON text frame.
    pub fn send(&self, frame: &Value) {
        self.send_text(&frame.to_string());
    }

    /// Sends a text frame.
    pub fn send_text(&self, text: &str) {
        self.order(Order::Send(Message::text(text)));
    }

    /// Sends a binary frame.
    pub fn send_binary(&self, bytes: &[u8]) {
        self.order(Order::Send(Message::binary(bytes.to_vec())));
    }

    /// Sends a ping.
    pub fn send_ping(&self, payload: &[u8]) {
        self.order(Order::Send(Message::Ping(Bytes::copy_from_slice(payload))));
    }

    /// Sends an unsolicited pong.
    pub fn send_pong(&self, payload: &[u8]) {
        self.order(Order::Send(Message::Pong(Bytes::copy_from_slice(payload))));
    }

    /// Writes these bytes as they are, between two frames: for frames that no library writes.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.order(Order::Raw(bytes.to_vec()));
    }

    /// Begins the close handshake with this code and reason.
    pub fn close(&self, code: u16, reason: &str) {
        self.order(Order::Close(code, reason.to_owned()));
    }

    /// Resets the TCP connection.
    pub fn reset(&self) {
        self.order(Order::Reset);
    }

    /// Ends the stream without a close frame.
    pub fn finish(&self) {
        self.order(Order::Finish);
    }

    /// Stops reading and writing. For the agent this is a half-open link.
    pub fn stall(&self) {
        self.order(Order::Stall(true));
    }

    /// Reads and writes again.
    pub fn resume(&self) {
        self.order(Order::Stall(false));
    }

    /// Reads this many bytes a second; `None`: as they come.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        self.order(Order::Throttle(bytes_per_second));
    }

    /// Resets the connection after this many more bytes from the agent, possibly inside a frame.
    pub fn cut_after(&self, bytes: u64) {
        self.order(Order::CutAfter(bytes));
    }

    /// Answers pings like this from now on.
    pub fn pongs(&self, pongs: Pongs) {
        self.order(Order::Pongs(pongs));
    }

    /// Still reads, but sends no more messages (pongs go on).
    pub fn go_silent(&self) {
        self.order(Order::Silence(true));
    }

    fn order(&self, order: Order) {
        let (taken, wait) = async_channel::bounded(1);
        // Errors mean that the connection is over, which the view shows; the sender's end is dropped when it is taken.
        if self.entry.orders.try_send((order, Some(taken))).is_ok() {
            let _ = wait.recv_blocking();
        }
    }
}

fn newest_listened_to(state: &State) -> Option<(u32, LinkEntry)> {
    let (number, entry) = state.links.iter().rev().find(|(_, entry)| entry.attached)?;
    Some((*number, entry.clone()))
}
