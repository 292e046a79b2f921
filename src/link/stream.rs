//! The byte stream to the console, whatever it is made of, with its progress counted where the kernel takes the bytes.
//!
//! It does not dial and does not know HTTP or WebSocket. Dropping it closes the descriptor at once.
//!
//! Unit: bytes as the kernel took them, so with TLS the encrypted ones.

use super::inflow::ReadPause;
use crate::park;
use crate::sys::socket;
use async_io::Async;
use futures_lite::io::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use std::cell::Cell;
use std::io::{self, Read as _};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

/// How many bytes a link has brought into the kernel; the write-stall deadline watches it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Rc<Cell<u64>>);

impl Progress {
    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.0.get()
    }

    fn advance(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes as u64));
    }
}

/// A connected socket that counts what it takes, and does not give more than it may.
#[derive(Debug)]
pub(crate) struct Tcp {
    socket: Rc<Async<TcpStream>>,
    progress: Progress,
    /// Nothing where all may be read as it comes.
    pace: Option<ReadPause>,
}

impl Tcp {
    /// Counts the bytes of this socket into `progress`.
    pub(super) fn new(socket: Async<TcpStream>, progress: Progress) -> Self {
        Self { socket: Rc::new(socket), progress, pace: Some(ReadPause::default()) }
    }

    /// Reads all as it comes: the console alone is not trusted to send only what can be worked off.
    pub(super) fn unlimited(self) -> Self {
        Self { pace: None, ..self }
    }

    /// Makes the closing of this socket a reset.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        socket::reset_on_close(&self.socket)
    }
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll_ready(cx));
        }
        let count = match (&self.pace, self.socket.get_ref().read(buffer)) {
            (Some(_), Err(error))
                if error.kind() == io::ErrorKind::WouldBlock && park::watch(&self.socket, cx.waker()) =>
            {
                return Poll::Pending;
            }
            (_, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                ready!(Pin::new(&mut &*self.socket).poll_read(cx, buffer))?
            }
            (_, read) => read?,
        };
        if let Some(pace) = &mut self.pace {
            pace.charge_bytes(count);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut &*self.socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.progress.advance(*count);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self.socket).poll_flush(cx)
    }

    /// Ends our direction; the peer's stays open.
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.get_ref().shutdown(Shutdown::Write) {
            // The peer was faster: there is nothing left to end.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

/// Looks at the socket of a [`Stream`] that another task reads. It does not keep the socket open.
pub(crate) struct Watch(Weak<Async<TcpStream>>);

impl Watch {
    /// Whether the socket is open and nothing has arrived that was not read, such as the end of the stream.
    pub(crate) fn is_quiet(&self) -> bool {
        let peeked = self.0.upgrade().map(|socket| socket.get_ref().peek(&mut [0]));
        matches!(peeked, Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// What the WebSocket and HTTP run on.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Clear text.
    Plain(Tcp),
    /// TLS; boxed, because its state is 1 KiB and there is one at a time.
    Tls(Box<TlsStream<Tcp>>),
}

impl Stream {
    /// A connection that this machine opened to the agent.
    pub(crate) fn accepted(socket: Async<TcpStream>) -> Self {
        Self::Plain(Tcp::new(socket, Progress::default()).unlimited())
    }

    /// A look at its socket from outside.
    pub(crate) fn watch(&self) -> Watch {
        Watch(Rc::downgrade(&self.tcp().socket))
    }

    fn tcp(&self) -> &Tcp {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Counts a message, a Ping or a Pong that was read.
    pub(super) fn charge_message(&mut self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut().0,
        };
        if let Some(pace) = &mut tcp.pace {
            pace.charge_message();
        }
    }

    /// Closes the descriptor now, with a reset.
    pub(super) fn reset(self) {
        // It fails only on what is no socket; the closing that follows is then an ordinary one.
        let _ = self.tcp().reset_on_close();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_close(cx),
            Self::Tls(tls) => Pin::new(tls).poll_close(cx),
        }
    }
}
