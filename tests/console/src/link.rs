//! One WebSocket: reads and records what the agent sends, and does what a test orders.
//!
//! It does not accept connections (`server` does). Invariants: orders that write take effect in the order in which they
//! were given; everything a link knows about faults lives in its own task; the last record of a link is `Ended`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_channel::{Receiver, Sender};
use async_net::TcpStream;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{Error, Message};
use futures_lite::{AsyncReadExt, AsyncWrite, FutureExt, Stream};
use futures_util::Sink;
use serde_json::{Value, json};
use smol::Timer;

use crate::fault::{Faults, is_cut};
use crate::personality::{Greeting, Personality};
use crate::poison;
use crate::record::{End, What};
use crate::script::{Pongs, Upgrade, UpgradeKind};
use crate::server::Wire;
use crate::store::Shared;

/// How long the agent has to answer our close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// How long what the agent still sends is read away after we ended the stream.
const LINGER: Duration = Duration::from_secs(5);

/// The kernel's receive buffer of a throttled connection, in bytes: a slow link has no megabytes in flight.
const THROTTLED_BUFFER_BYTES: usize = 16 << 10;

/// The WebSocket over whatever the acceptor made of the TCP connection.
pub(crate) type Socket = WebSocketStream<Faults<Box<dyn Wire>>>;

/// What a test can order.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send one message.
    Send(Message),
    /// Write these bytes as they are, between two frames.
    Raw(Vec<u8>),
    /// Begin the close handshake.
    Close(u16, String),
    /// End the stream without a close frame.
    Finish,
    /// Reset the connection.
    Reset,
    /// Neither read nor write (true), or do so again.
    Stall(bool),
    /// Read this many bytes a second; `None`: as they come.
    Throttle(Option<u64>),
    /// Reset after this many more bytes were read.
    CutAfter(u64),
    /// Answer pings like this.
    Pongs(Pongs),
    /// Read, but say nothing of one's own (true).
    Silence(bool),
}

/// An order, and whom to tell that it was taken.
pub(crate) type Ordered = (Order, Option<Sender<()>>);

/// What is to be written, in order.
enum Outgoing {
    Message(Message),
    Raw(Vec<u8>),
    Finish,
}

/// What one turn of the loop brought.
enum Step {
    Order(Ordered),
    Message(Message),
    Alarm,
    Finished,
    Failed(Error),
    Over,
}

/// A link under way.
pub(crate) struct Link {
    shared: Arc<Shared>,
    number: u32,
    id: Option<String>,
    socket: Socket,
    tcp: TcpStream,
    orders: Pin<Box<Receiver<Ordered>>>,
    out: VecDeque<Outgoing>,
    attached: bool,
    /// When the listener is attached, or the refusal sent.
    attach_at: Option<Instant>,
    greeting: Greeting,
    refusal: Option<(u16, String)>,
    gives_up_after: Duration,
    give_up_at: Option<Instant>,
    close_by: Option<Instant>,
    stalled: bool,
    silent: bool,
    pongs: Pongs,
    alarm: Timer,
}

impl Link {
    /// A link that was just answered with 101.
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: u32,
        id: Option<String>,
        (socket, tcp): (Socket, TcpStream),
        orders: Receiver<Ordered>,
        personality: &Personality,
        (script, refusal): (Upgrade, Option<(u16, String)>),
    ) -> Link {
        let refusal = match script.kind {
            UpgradeKind::Close(code, reason) => Some((code, reason)),
            _ => refusal,
        };
        let greeting = script.greeting.unwrap_or(personality.greeting);
        let turn = (number as usize - 1).checked_rem(personality.deaf_for.len()).unwrap_or_default();
        let deaf_for = match greeting {
            Greeting::After(delay) => delay,
            Greeting::Never | Greeting::Attached => personality.deaf_for.get(turn).copied().unwrap_or_default(),
        };
        let mut link = Link {
            shared,
            number,
            id,
            socket,
            tcp,
            orders: Box::pin(orders),
            out: VecDeque::new(),
            attached: false,
            attach_at: Some(Instant::now() + deaf_for),
            greeting,
            refusal,
            gives_up_after: personality.gives_up_after,
            give_up_at: None,
            close_by: None,
            stalled: false,
            silent: false,
            pongs: Pongs::Once,
            alarm: Timer::never(),
        };
        link.answer_pings(script.pongs);
        if deaf_for.is_zero() {
            link.ring();
        }
        link.set_alarm();
        link
    }

    /// Serves until the link is over, and says how it ended.
    pub(crate) async fn run(mut self) {
        let end = loop {
            let ended = match poll_fn(|cx| self.poll_step(cx)).await {
                Step::Order((order, taken)) => {
                    let ended = self.obey(order);
                    drop(taken); // whoever gave the order goes on
                    ended
                }
                Step::Message(message) => {
                    self.take(message);
                    None
                }
                Step::Alarm => self.ring(),
                Step::Finished => Some(self.finish().await),
                Step::Failed(error) => Some(self.fail(error).await),
                Step::Over => Some(End::Closed),
            };
            if let Some(end) = ended {
                break end;
            }
            self.set_alarm();
        };
        let Link { shared, number, id, socket, tcp, orders, .. } = self;
        orders.close();
        while orders.try_recv().is_ok() {} // whoever waits for an order learns that it is too late
        drop((socket, tcp)); // the descriptor is gone before anybody is told
        shared.change(|state| {
            state.links.remove(&number);
            if let Some(id) = &id {
                let personality = state.personality.clone();
                state.registry.ended(&personality, id, number);
            }
            state.push(number, What::Ended(end));
        });
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(Some(order)) = self.orders.as_mut().poll_next(cx) {
            return Poll::Ready(Step::Order(order));
        }
        if Pin::new(&mut self.alarm).poll(cx).is_ready() {
            return Poll::Ready(Step::Alarm);
        }
        if self.stalled {
            return Poll::Pending;
        }
        match self.poll_write(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Step::Failed(error)),
            Poll::Ready(Ok(true)) => return Poll::Ready(Step::Finished),
            Poll::Ready(Ok(false)) | Poll::Pending => {}
        }
        Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(message)) => Step::Message(message),
            Some(Err(error)) => Step::Failed(error),
            None => Step::Over,
        })
    }

    /// Writes what is queued. True: the stream is to be ended now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        loop {
            let mut socket = Pin::new(&mut self.socket);
            match self.out.front_mut() {
                None => return socket.poll_flush(cx).map_ok(|()| false),
                Some(Outgoing::Finish) => return socket.poll_flush(cx).map_ok(|()| true),
                Some(Outgoing::Message(_)) => {
                    ready!(socket.as_mut().poll_ready(cx))?;
                    if let Some(Outgoing::Message(message)) = self.out.pop_front() {
                        Pin::new(&mut self.socket).start_send(message)?;
                    }
                }
                Some(Outgoing::Raw(bytes)) if bytes.is_empty() => {
                    self.out.pop_front();
                }
                Some(Outgoing::Raw(bytes)) => {
                    ready!(socket.as_mut().poll_flush(cx))?;
                    let wire = Pin::new(socket.get_mut().get_mut().inner_mut());
                    let written = ready!(wire.poll_write(cx, bytes))?;
                    bytes.drain(..written);
                }
            }
        }
    }

    /// Does what a test ordered.
    fn obey(&mut self, order: Order) -> Option<End> {
        match order {
            Order::Send(message) => self.out.push_back(Outgoing::Message(message)),
            Order::Raw(bytes) => self.out.push_back(Outgoing::Raw(bytes)),
            Order::Close(code, reason) => self.close(code, &reason),
            Order::Finish => self.out.push_back(Outgoing::Finish),
            Order::Reset => return Some(self.reset()),
            Order::Stall(stalled) => {
                self.stalled = stalled;
                self.give_up_at = stalled.then(|| Instant::now() + self.gives_up_after);
            }
            Order::Throttle(rate) => {
                if rate.is_some() {
                    // A refusal by the kernel leaves a link that is only less slow.
                    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&self.tcp, THROTTLED_BUFFER_BYTES);
                }
                self.socket.get_mut().throttle(rate);
            }
            Order::CutAfter(bytes) => self.socket.get_mut().cut_after = Some(bytes),
            Order::Pongs(pongs) => self.answer_pings(pongs),
            Order::Silence(silent) => self.silent = silent,
        }
        None
    }

    fn answer_pings(&mut self, pongs: Pongs) {
        self.pongs = pongs;
        self.socket.get_mut().withholds_pongs = pongs == Pongs::Withheld;
    }

    /// Something is due.
    fn ring(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.give_up_at.is_some_and(|at| at <= now) || self.close_by.is_some_and(|at| at <= now) {
            return Some(self.reset());
        }
        if self.attach_at.is_some_and(|at| at <= now) {
            self.attach_at = None;
            match self.refusal.take() {
                Some((code, reason)) => self.close(code, &reason),
                None if self.id.is_some() => self.attach(),
                None => {} // a browser, as far as the console can tell: it is let be and not listened to
            }
        }
        None
    }

    fn attach(&mut self) {
        self.attached = true;
        if self.greeting != Greeting::Never {
            let greeting = json!({"protocol_version": "1.0", "type": "log:subscribe", "payload": {"paths": ["*"]}});
            self.out.push_back(Outgoing::Message(Message::text(greeting.to_string())));
        }
        self.shared.change(|state| {
            if let Some(entry) = state.links.get_mut(&self.number) {
                entry.attached = true;
            }
            state.push(self.number, What::Attached);
        });
    }

    fn set_alarm(&mut self) {
        match [self.attach_at, self.give_up_at, self.close_by].into_iter().flatten().min() {
            Some(at) => self.alarm.set_at(at),
            None => self.alarm = Timer::never(),
        }
    }

    fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        self.out.push_back(Outgoing::Message(Message::Close(Some(frame))));
        self.close_by = Some(Instant::now() + CLOSE_PATIENCE);
    }

    /// Takes one message of the agent.
    fn take(&mut self, message: Message) {
        let what = match message {
            Message::Text(text) => return self.take_text(&text),
            Message::Binary(bytes) => What::Binary(bytes.to_vec()),
            Message::Ping(payload) => {
                if self.pongs == Pongs::Twice {
                    // The library's own pong for this ping goes out with the next flush, this one after it.
                    self.out.push_back(Outgoing::Raw(Vec::new()));
                    self.out.push_back(Outgoing::Raw(pong(&payload)));
                }
                What::Ping(payload.to_vec())
            }
            Message::Pong(payload) => What::Pong(payload.to_vec()),
            Message::Close(frame) => {
                let (code, reason) = match frame {
                    Some(frame) => (Some(frame.code.into()), frame.reason.to_string()),
                    None => (None, String::new()),
                };
                What::Closed(code, reason)
            }
            Message::Frame(_) => return, // never read, by the library's own word
        };
        self.shared.change(|state| state.push(self.number, what));
    }

    fn take_text(&mut self, text: &str) {
        let heard = self.id.clone().filter(|_| self.attached);
        let heartbeat = self.shared.change(|state| {
            if heard.is_some() && state.take_output(text) {
                return false;
            }
            let value = serde_json::from_str(text).unwrap_or(Value::Null);
            let Some(id) = heard else {
                state.push(self.number, What::Unheard(text.to_owned(), value));
                return false;
            };
            if let Some(why) = poison::fatal(&value) {
                state.push(self.number, What::Poison(why.clone()));
                if state.personality.dies_of_poison {
                    state.poison.get_or_insert(why);
                }
            }
            let is_heartbeat = value["type"] == "heartbeat";
            if is_heartbeat {
                state.registry.beat(&id);
            }
            state.push(self.number, What::Text(text.to_owned(), value));
            is_heartbeat && state.personality.answers_heartbeats
        });
        if heartbeat && !self.silent {
            let answer = self.native_pong();
            self.out.push_back(Outgoing::Message(Message::text(answer.to_string())));
        }
    }

    /// The production console's answer to a heartbeat, in its native form.
    fn native_pong(&self) -> Value {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        json!({
            "protocolVersion": "1.0", "channel": "heartbeat", "type": "heartbeat:pong", "data": {"ok": true},
            "ts": u64::try_from(now_ms).unwrap_or(u64::MAX), "instanceId": self.id,
        })
    }

    /// Makes the coming drop of the socket a reset.
    fn reset(&mut self) -> End {
        // Where the option is refused the socket still closes, only more politely.
        let _ = rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO));
        End::Ours
    }

    /// Ends our half of the stream, then reads away what still comes.
    async fn finish(&mut self) -> End {
        let _ = self.tcp.shutdown(std::net::Shutdown::Write); // the agent may have been faster
        let mut rest = vec![0_u8; 16 << 10];
        let read_away = async { while matches!(self.tcp.read(&mut rest).await, Ok(1..)) {} };
        let give_up = async {
            Timer::after(LINGER).await;
        };
        read_away.or(give_up).await;
        End::Ours
    }

    /// The link broke: says how, and tells the agent where the protocol has a code for it.
    async fn fail(&mut self, error: Error) -> End {
        let (code, text) = match error {
            Error::ConnectionClosed | Error::AlreadyClosed => return End::Closed,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return End::Finished,
            Error::Io(error) if is_cut(&error) => return self.reset(),
            Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return End::Finished;
            }
            Error::Io(_) => return End::Reset,
            Error::Capacity(error @ CapacityError::MessageTooLong { .. }) => (1009_u16, error.to_string()),
            Error::Utf8(error) => (1007, error),
            error => (1002, error.to_string()),
        };
        let mut frame = vec![0x88, 2];
        frame.extend_from_slice(&code.to_be_bytes());
        self.out = VecDeque::from([Outgoing::Raw(frame)]);
        let written = poll_fn(|cx| self.poll_raw(cx));
        let give_up = async {
            Timer::after(CLOSE_PATIENCE).await;
        };
        written.or(give_up).await;
        self.finish().await;
        End::Broken(text)
    }

    /// Writes what is raw, past a WebSocket that has failed.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Outgoing::Raw(bytes)) = self.out.front_mut() {
            let wire = Pin::new(self.socket.get_mut().inner_mut());
            match ready!(wire.poll_write(cx, bytes)) {
                Ok(written) if written < bytes.len() => drop(bytes.drain(..written)),
                Ok(_) | Err(_) => drop(self.out.pop_front()),
            }
        }
        Poll::Ready(())
    }
}

/// A pong as a server writes it.
fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8A, u8::try_from(payload.len()).unwrap_or(0)];
    frame.extend_from_slice(payload);
    frame
}
