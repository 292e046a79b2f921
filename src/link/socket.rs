//! Runs an open WebSocket: writes frames, reads messages, and closes it in order.
//!
//! One task drives both directions at once, so a slow loop does not delay outgoing frames, and a stalled socket does
//! not delay incoming messages. The machine keeps the deadlines.
//!
//! Invariants: a Ping is answered before anything else is read; what waits for the loop is bounded ([`inflow`]); after
//! [`WsConnection::reset`] the descriptor is closed before the call returns; `Closed` is the last report, and the
//! descriptor is gone before it is made.
//!
//! [`inflow`]: super::inflow
//!
//! Wire: CONSOLE.md, "The WebSocket"; RFC 6455, sections 5.5 and 7.

use super::inflow::InboundQueue;
use super::stream::Stream;
use super::{LinkReport, WsFrame, console_text, explain};
use crate::config::Secret;
use crate::report::Reporter;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Error as WsError, Message, protocol::CloseFrame};
use draupnir_fsm::driver::LinkId;
use draupnir_fsm::driver::Loss;
use futures_lite::future::{self, poll_fn, yield_now};
use futures_lite::io::{AsyncRead, AsyncWrite};
use futures_lite::stream::Stream as _;
use futures_sink::Sink;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

/// What a close frame without a code counts as (RFC 6455, section 7.1.5).
const NO_STATUS: u16 = 1005;

/// How much a console that broke the rules may still send while our close frame is on its way, in bytes. Unread bytes
/// would turn the closing into a reset, and a reset destroys the close frame on the other side.
const DISCARDED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The socket as the task and the [`Link`](super::Link) share it.
#[derive(Default)]
pub(super) struct WsConnection {
    inner: RefCell<Inner>,
    backlog: InboundQueue,
    /// The binary messages themselves, which the protocol does not have and a report only measures: the conformance
    /// suite wants them back.
    #[cfg(test)]
    pub(super) binaries: RefCell<VecDeque<Message>>,
}

#[derive(Default)]
struct Inner {
    /// `None` before the upgrade and after the end.
    socket: Option<WebSocketStream<Stream>>,
    frames: VecDeque<Message>,
    /// A batch was handed over whose `Written` is not yet reported.
    batch: bool,
    close: Option<CloseFrame>,
    /// Our close frame was handed to the socket.
    closing: bool,
    /// The console violated the protocol; our close frame says so.
    closing_on_error: bool,
    /// The error of a write that no task has seen yet.
    write_error: Option<io::Error>,
    /// The error of a write, until the reader reports it.
    broken: Option<io::Error>,
    reset: bool,
    write_waker: Option<Waker>,
    reset_waker: Option<Waker>,
}

/// How the reading ended.
enum End {
    /// Both sides have sent a close frame, or we had and the console closed the connection.
    Closed,
    Lost(Loss, String, Option<CloseFrame>),
}

impl WsConnection {
    /// Takes a batch of frames; a socket that is gone takes none.
    pub(super) fn write(&self, frames: Vec<WsFrame>) {
        self.write_messages(frames.into_iter().map(Message::from));
    }

    /// The same for a message of any kind.
    pub(super) fn write_messages(&self, messages: impl IntoIterator<Item = Message>) {
        let mut inner = self.inner.borrow_mut();
        if inner.socket.is_none() {
            return;
        }
        debug_assert!(!inner.batch, "one batch at a time");
        inner.frames.extend(messages);
        inner.batch = true;
        inner.write_now();
        wake(&mut inner.write_waker);
    }

    /// Sends a close frame after all frames handed over.
    pub(super) fn close(&self, code: u16, reason: &str) {
        let mut inner = self.inner.borrow_mut();
        inner.close = Some(CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() });
        wake(&mut inner.write_waker);
    }

    /// Whether there is a socket.
    pub(super) fn is_open(&self) -> bool {
        self.inner.borrow().socket.is_some()
    }

    /// Closes the descriptor now, with a reset.
    pub(super) fn reset(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.reset = true;
        if let Some(socket) = inner.socket.take() {
            socket.into_inner().reset();
        }
        wake(&mut inner.reset_waker);
    }

    /// Runs an upgraded socket to its end.
    pub(super) async fn run(&self, link: LinkId, socket: WebSocketStream<Stream>, key: &Secret, reporter: &Reporter) {
        self.inner.borrow_mut().socket = Some(socket);
        let life = async {
            reporter.report(LinkReport::Opened { link }).await;
            let end = future::or(self.read(link, key, reporter), self.write_all(link, reporter)).await;
            if let End::Lost(loss, error, goodbye) = end {
                self.begin_close_on_error(goodbye).await;
                reporter.report(LinkReport::Lost { link, loss, error: console_text::sanitize(&error, key) }).await;
                self.finish_close_on_error().await;
            }
        };
        future::or(self.until_reset(), life).await;
        let socket = self.inner.borrow_mut().socket.take();
        drop(socket);
        reporter.report(LinkReport::Closed { link }).await;
    }

    async fn until_reset(&self) {
        poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            if inner.reset {
                return Poll::Ready(());
            }
            inner.reset_waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn read(&self, link: LinkId, key: &Secret, reporter: &Reporter) -> End {
        loop {
            poll_fn(|cx| self.backlog.poll_room(cx)).await;
            let report = match poll_fn(|cx| self.inner.borrow_mut().poll_next(cx)).await {
                Ok(Message::Text(text)) => LinkReport::Text { link, text: self.backlog.hold(text.as_str().to_owned()) },
                Ok(Message::Binary(bytes)) => {
                    let report = LinkReport::Binary { link, bytes: bytes.len() };
                    #[cfg(test)]
                    self.binaries.borrow_mut().push_back(Message::Binary(bytes));
                    report
                }
                Ok(Message::Pong(payload)) => LinkReport::Pong { link, payload: payload.to_vec() },
                // The answer is queued; the next read flushes it before it reads.
                Ok(Message::Ping(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(frame)) => {
                    // Our answer is queued. It is sent before the report, if the socket takes it.
                    future::poll_once(self.end_our_direction()).await;
                    if !self.inner.borrow().closing {
                        let said = frame.as_ref().map(|frame| (u16::from(frame.code), frame.reason.as_str()));
                        reporter.report(close_received(link, said, key)).await;
                    }
                    self.finish().await;
                    return End::Closed;
                }
                Err(error) => return self.inner.borrow_mut().end_of(error),
            };
            let is_input = matches!(report, LinkReport::Text { .. });
            reporter.report(report).await;
            if is_input {
                // The loop acts on it before the socket is asked for more: a key does not wait for that.
                yield_now().await;
            }
        }
    }

    /// After both close frames: flushes ours, ends our direction and waits until the console ends its own. The
    /// production console forgets a connection only then, and a dial before that would be cut off (CONSOLE.md, "The
    /// WebSocket").
    async fn finish(&self) {
        self.end_our_direction().await;
        // An end of stream, an error, or data after a close frame: each ends the connection.
        let _ = poll_fn(|cx| self.inner.borrow_mut().poll_next(cx)).await;
    }

    /// Sends a close frame to a console that violated the protocol, at once if the socket still takes it.
    async fn begin_close_on_error(&self, goodbye: Option<CloseFrame>) {
        if let Some(goodbye) = goodbye {
            self.inner.borrow_mut().begin_close_on_error(goodbye);
            future::poll_once(self.end_our_direction()).await;
        }
    }

    /// Waits for the close frame to arrive: until the console ends its direction, or has sent too much.
    async fn finish_close_on_error(&self) {
        if !self.inner.borrow().closing_on_error {
            return;
        }
        self.end_our_direction().await;
        let mut left = DISCARDED_BYTES_MAX;
        while let Ok(count @ 1..) = poll_fn(|cx| self.inner.borrow_mut().poll_discard(cx)).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    }

    async fn end_our_direction(&self) {
        // A broken socket needs no shutdown.
        let _ = poll_fn(|cx| self.inner.borrow_mut().poll_shutdown(cx)).await;
    }

    async fn write_all(&self, link: LinkId, reporter: &Reporter) -> End {
        loop {
            match poll_fn(|cx| self.inner.borrow_mut().poll_write(cx)).await {
                Ok(()) => reporter.report(LinkReport::Written { link }).await,
                Err(error) => {
                    // The console's last message may still be unread, and explains more than the failed write.
                    self.inner.borrow_mut().broken = Some(error);
                    return future::pending().await;
                }
            }
        }
    }
}

impl Inner {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, WsError>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Pending;
        };
        let message = ready!(Pin::new(&mut *socket).poll_next(cx));
        socket.get_mut().charge_message();
        Poll::Ready(message.unwrap_or(Err(WsError::ConnectionClosed)))
    }

    /// Sends what the socket takes at once, before other tasks have their turn. The task reports that, and sends the
    /// rest.
    fn write_now(&mut self) {
        if self.write_error.is_none()
            && let Some(socket) = &mut self.socket
            && let Poll::Ready(Err(error)) =
                send_all(Pin::new(socket), &mut self.frames, &mut Context::from_waker(Waker::noop()))
        {
            self.write_error = Some(error);
        }
    }

    /// Ready when a batch has left for the kernel. Flushes even where nothing waits: a Pong may.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Pending;
        };
        if let Some(error) = self.write_error.take() {
            return Poll::Ready(Err(error));
        }
        let mut socket = Pin::new(socket);
        loop {
            ready!(send_all(socket.as_mut(), &mut self.frames, cx))?;
            if self.batch {
                self.batch = false;
                return Poll::Ready(Ok(()));
            }
            if let Some(close) = self.close.take() {
                self.closing = true;
                start_send(socket.as_mut(), Message::Close(Some(close)))?;
                continue;
            }
            self.write_waker = Some(cx.waker().clone());
            // Everything is sent. The socket remembers the waker of the last flush and would wake this task twice for
            // each message that comes in.
            let _ = flush(socket, &mut Context::from_waker(Waker::noop()));
            return Poll::Pending;
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Pending;
        };
        ready!(flush(Pin::new(socket), cx))?;
        Pin::new(socket.get_mut()).poll_close(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Pending;
        };
        let mut piece = [0; 4096];
        Pin::new(socket.get_mut()).poll_read(cx, &mut piece)
    }

    /// Drops the frames that wait, and sends the close frame alone.
    fn begin_close_on_error(&mut self, goodbye: CloseFrame) {
        self.closing_on_error = true;
        self.frames.clear();
        if let Some(socket) = &mut self.socket {
            // If our close frame is sent already, or the socket is broken, nothing is left to send.
            let _ = start_send(Pin::new(socket), Message::Close(Some(goodbye)));
        }
    }

    fn end_of(&mut self, error: WsError) -> End {
        if self.closing {
            return End::Closed;
        }
        if let Some(broken) = self.broken.take() {
            return End::Lost(Loss::Reset, explain::io(&broken), None);
        }
        loss_of(error)
    }
}

impl From<WsFrame> for Message {
    fn from(frame: WsFrame) -> Self {
        match frame {
            WsFrame::Text(text) => Self::text(text),
            WsFrame::Ping(payload) => Self::Ping(payload.into()),
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The report of a console's close frame: its code and reason, or 1005 if it has none (RFC 6455, section 7.1.5). The
/// reason becomes one printable line without the key.
pub fn close_received(link: LinkId, frame: Option<(u16, &str)>, key: &Secret) -> LinkReport {
    let (code, reason) = frame.unwrap_or((NO_STATUS, ""));
    LinkReport::CloseReceived { link, code, reason: console_text::sanitize(reason, key) }
}

fn loss_of(error: WsError) -> End {
    use async_tungstenite::tungstenite::error::ProtocolError;
    let goodbye = |code, reason: &'static str| Some(CloseFrame { code, reason: reason.into() });
    let text = explain::websocket(&error);
    match error {
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | WsError::ConnectionClosed
        | WsError::AlreadyClosed => End::Lost(Loss::Eof, text, None),
        WsError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => End::Lost(Loss::Eof, text, None),
        WsError::Io(_) => End::Lost(Loss::Reset, text, None),
        WsError::Capacity(_) => End::Lost(Loss::TooBig, text, goodbye(CloseCode::Size, "over 1 MiB")),
        WsError::Utf8(_) => End::Lost(Loss::Protocol, text, goodbye(CloseCode::Invalid, "not UTF-8")),
        // tungstenite may add variants. Any other error means that the console violated the protocol.
        _ => End::Lost(Loss::Protocol, text, goodbye(CloseCode::Protocol, "protocol error")),
    }
}

type Socket<'a> = Pin<&'a mut WebSocketStream<Stream>>;

fn ready_to_send(socket: Socket<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Sink::poll_ready(socket, cx).map_err(io_error)
}

fn start_send(socket: Socket<'_>, message: Message) -> io::Result<()> {
    Sink::start_send(socket, message).map_err(io_error)
}

fn flush(socket: Socket<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Sink::poll_flush(socket, cx).map_err(io_error)
}

/// Ready when all frames have left for the kernel.
fn send_all(mut socket: Socket<'_>, frames: &mut VecDeque<Message>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !frames.is_empty() {
        ready!(ready_to_send(socket.as_mut(), cx))?;
        if let Some(frame) = frames.pop_front() {
            start_send(socket.as_mut(), frame)?;
        }
    }
    flush(socket, cx)
}

fn io_error(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        other => io::Error::other(other),
    }
}
