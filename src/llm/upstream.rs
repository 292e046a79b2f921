//! Connections to one provider: opened when needed, and kept for a while for the next request.
//!
//! A request is sent once. A kept connection that the provider has closed is not used. One that it closes while the
//! request is on its way fails that request with 502: a proxy must not repeat what may have been done already (RFC
//! 9110, section 9.2.2), and the tool can, as after any connection that broke.

use super::body::RequestBody;
use super::listener::BUFFER_BYTES_MAX;
use crate::config::ConsoleUrl;
use crate::link::{self, Watch};
use async_io::Timer;
use futures_lite::future;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use smol::LocalExecutor;
use smol_hyper::rt::FuturesIo;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// DNS, TCP, proxy and TLS together have this long. Nothing else here has a time-out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection without requests is closed after this, so that an instance without work has none.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How many unused connections are kept. Tools ask one thing after the other, a few at a time.
const KEPT_MAX: usize = 8;

/// A connection on which a request can be sent.
pub(super) struct Sender {
    requests: SendRequest<RequestBody>,
    socket: Watch,
}

impl Sender {
    /// Whether the provider has neither closed it nor sent anything without a request.
    fn is_usable(&self) -> bool {
        self.requests.is_ready() && self.socket.is_quiet()
    }
}

/// One provider's connections.
pub(super) struct Upstream {
    way: link::UpstreamDialer,
    executor: Rc<LocalExecutor<'static>>,
    kept: RefCell<Vec<(Sender, Instant)>>,
    is_sweeping: Cell<bool>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error("{0} took no connection within 30 s")]
    Late(String),
    #[error("{0} broke the connection off before it answered")]
    Broke(String),
}

impl Upstream {
    pub(super) fn new(way: link::UpstreamDialer, executor: Rc<LocalExecutor<'static>>) -> Self {
        Self { way, executor, kept: RefCell::default(), is_sweeping: Cell::new(false) }
    }

    pub(super) fn url(&self) -> &ConsoleUrl {
        self.way.url()
    }

    /// Sends a request, on a kept connection where there is one that still works.
    pub(super) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Sender), Unanswered> {
        loop {
            let kept = self.take_kept();
            let is_new = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            match sender.requests.try_send_request(request).await {
                Ok(answer) => return Ok((answer, sender)),
                // Nothing of the request has left.
                Err(mut error) => match error.take_message().filter(|_| !is_new) {
                    Some(unsent) => request = unsent,
                    None => return Err(Unanswered::Broke(self.url().authority())),
                },
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(self: &Rc<Self>, sender: Sender) {
        let mut kept = self.kept.borrow_mut();
        if sender.requests.is_closed() || kept.len() >= KEPT_MAX {
            return;
        }
        kept.push((sender, Instant::now()));
        if !self.is_sweeping.replace(true) {
            self.executor.spawn(Rc::clone(self).sweep()).detach();
        }
    }

    async fn sweep(self: Rc<Self>) {
        while !self.kept.borrow().is_empty() {
            Timer::after(IDLE_MAX / 2).await;
            self.kept.borrow_mut().retain(|(sender, since)| sender.is_usable() && since.elapsed() < IDLE_MAX);
        }
        self.is_sweeping.set(false);
    }

    /// The connection that was used last, of those that work.
    fn take_kept(&self) -> Option<Sender> {
        let mut kept = self.kept.borrow_mut();
        std::iter::from_fn(|| kept.pop()).map(|(sender, _)| sender).find(Sender::is_usable)
    }

    async fn connect(&self) -> Result<Sender, Unanswered> {
        let late = async {
            Timer::after(CONNECT_TIMEOUT).await;
            Err(Unanswered::Late(self.url().authority()))
        };
        let stream = future::or(async { Ok(self.way.open().await?) }, late).await?;
        let socket = stream.watch();
        let shaken = http1::Builder::new()
            .preserve_header_case(true)
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(FuturesIo::new(stream))
            .await;
        let (requests, connection) = shaken.map_err(|_| Unanswered::Broke(self.url().authority()))?;
        let running = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a provider broke");
            }
        };
        self.executor.spawn(running).detach();
        Ok(Sender { requests, socket })
    }
}
