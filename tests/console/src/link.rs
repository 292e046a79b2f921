//! One WebSocket: reads and records what the agent sends, and does what a test orders.
//!
//! It does not accept connections (`server` does). Invariants: orders that write take effect in the order in which they
//! were given; everything a link knows about faults lives in its own task; the last record of a link is `Ended`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_channel::Receiver;
use async_net::TcpStream;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{Error, Message};
use futures_lite::{AsyncWrite, FutureExt, Stream};
use futures_util::Sink;
use serde_json::Value;
use smol::Timer;

use crate::ending;
use crate::fault::Faults;
use crate::order::{Order, Ordered};
use crate::personality::{Greeting, Personality};
use crate::poison;
use crate::record::{End, What};
use crate::script::{Pongs, Upgrade, UpgradeKind};
use crate::server::Wire;
use crate::speech;
use crate::store::Shared;

/// How long the agent has to answer the console's close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The kernel's receive buffer of a throttled connection, in bytes: a slow link has no megabytes in flight.
const THROTTLED_BUFFER_BYTES: usize = 16 << 10;

/// The WebSocket over whatever the acceptor made of the TCP connection.
pub(crate) type Socket = WebSocketStream<Faults<Box<dyn Wire>>>;

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
                    drop(taken); // the sender of the order goes on
                    ended
                }
                Step::Message(message) => {
                    self.take(message);
                    None
                }
                Step::Alarm => self.ring(),
                Step::Finished => {
                    ending::finish(&mut self.tcp).await;
                    Some(End::Ours)
                }
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
        while orders.try_recv().is_ok() {} // the sender of a waiting order learns that it is too late
        drop((socket, tcp)); // the descriptor is closed before the end is recorded
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

    /// Executes an order of a test.
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
                    // If the kernel refuses, the link is only less slow.
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

    /// Handles a deadline.
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
                None => {} // the console takes it for a browser: it stays open, and its frames are ignored
            }
        }
        None
    }

    fn attach(&mut self) {
        self.attached = true;
        if self.greeting != Greeting::Never {
            let greeting = speech::greeting();
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
                    self.out.push_back(Outgoing::Raw(speech::pong_frame(&payload)));
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
            Message::Frame(_) => return, // the library never returns it from a read
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
                state.registry.heartbeat(&id);
            }
            state.push(self.number, What::Text(text.to_owned(), value));
            is_heartbeat && state.personality.answers_heartbeats
        });
        // Nothing follows a close frame.
        if heartbeat && !self.silent && self.close_by.is_none() {
            let answer = speech::heartbeat_pong(self.id.as_deref());
            self.out.push_back(Outgoing::Message(Message::text(answer.to_string())));
        }
    }

    /// Makes the coming drop of the socket a reset.
    fn reset(&mut self) -> End {
        ending::reset(&self.tcp);
        End::Ours
    }

    /// Ends a broken link: sends a close code if the protocol has one, and returns how it ended.
    async fn fail(&mut self, error: Error) -> End {
        let (code, end) = ending::verdict(error);
        if end == End::Ours {
            ending::reset(&self.tcp);
        }
        if let Some(code) = code {
            self.out = VecDeque::from([Outgoing::Raw(speech::close_frame(code))]);
            let written = poll_fn(|cx| self.poll_raw(cx));
            let give_up = async {
                Timer::after(CLOSE_PATIENCE).await;
            };
            written.or(give_up).await;
            ending::finish(&mut self.tcp).await;
        }
        end
    }

    /// Writes raw bytes, past a WebSocket that has failed.
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
