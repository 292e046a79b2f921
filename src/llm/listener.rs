//! The sockets of the proxy: loopback in both families, a bounded number of connections, one task each.

use super::LlmReport;
use super::proxy::Proxy;
use crate::link::Stream;
use crate::report::Reporter;
use async_io::{Async, Timer};
use futures_lite::{AsyncWriteExt as _, future};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::LocalExecutor;
use smol_hyper::rt::FuturesIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

/// How many connections there may be at once: two descriptors each, of the usual 1,024.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// What hyper may hold of one connection in one direction, in bytes; a request's head must fit, too.
pub(super) const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The answer to one connection too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// The sockets of both loopback addresses, and what their connections share.
pub(crate) struct Listeners {
    /// Where it does not listen yet.
    missing: Vec<SocketAddr>,
    port: u16,
    is_listening: bool,
    proxy: Rc<Proxy>,
    executor: Rc<LocalExecutor<'static>>,
    reporter: Reporter,
    connections: Rc<Cell<usize>>,
}

impl Listeners {
    pub(super) fn new(port: u16, proxy: Rc<Proxy>, executor: &Rc<LocalExecutor<'static>>, reporter: &Reporter) -> Self {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let missing = loopback.map(|ip| SocketAddr::new(ip, port)).to_vec();
        let (executor, reporter) = (Rc::clone(executor), reporter.clone());
        Self { missing, port, is_listening: false, proxy, executor, reporter, connections: Rc::default() }
    }

    /// The port that is listened on, on one of the addresses at least.
    pub(crate) fn port(&self) -> Option<u16> {
        self.is_listening.then_some(self.port)
    }

    /// How many answers are being passed on.
    pub(crate) fn in_flight(&self) -> Rc<Cell<usize>> {
        self.proxy.in_flight()
    }

    /// Listens on each address where it does not yet. Reports [`LlmReport::PortTaken`] where one is taken.
    pub(crate) fn listen(&mut self) {
        let mut taken = None;
        for address in std::mem::take(&mut self.missing) {
            match Async::<TcpListener>::bind(address) {
                Ok(listener) => {
                    tracing::info!(%address, "counting the usage of AI tools");
                    self.is_listening = true;
                    let (proxy, connections) = (Rc::clone(&self.proxy), Rc::clone(&self.connections));
                    let executor = Rc::clone(&self.executor);
                    self.executor
                        .spawn(async move { accept(&listener, &proxy, &executor, &connections).await })
                        .detach();
                }
                Err(error) if address.is_ipv6() && error.kind() != ErrorKind::AddrInUse => {
                    tracing::debug!(%address, %error, "not listening on IPv6");
                }
                Err(error) => {
                    self.missing.push(address);
                    taken = taken.or(Some((address, error)));
                }
            }
        }
        if let Some((address, error)) = taken {
            let text = format!(
                "AI tools cannot reach their providers through {address} ({error}): end what listens there, or set \
                 SINDRI_LLM_ADAPTER to none and point the tools elsewhere"
            );
            let reporter = self.reporter.clone();
            self.executor.spawn(async move { reporter.report(LlmReport::PortTaken(text)).await }).detach();
        }
    }
}

async fn accept(
    listener: &Async<TcpListener>,
    proxy: &Rc<Proxy>,
    executor: &LocalExecutor<'static>,
    connections: &Rc<Cell<usize>>,
) {
    let mut is_full = false;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: those that are open must end first.
            Timer::after(Duration::from_secs(1)).await;
            continue;
        };
        let was_full = std::mem::replace(&mut is_full, connections.get() >= CONNECTIONS_MAX);
        if is_full {
            if !was_full {
                tracing::warn!(CONNECTIONS_MAX, "refusing connections of AI tools: too many are open");
            }
            // It fits into an empty socket; what does not is not needed.
            let _ = future::poll_once(stream.write_all(FULL)).await;
            continue;
        }
        let counted = CountGuard::new(connections);
        let proxy = Rc::clone(proxy);
        let serving = async move {
            serve(stream, proxy).await;
            drop(counted);
        };
        executor.spawn(serving).detach();
    }
}

async fn serve(socket: Async<TcpStream>, proxy: Rc<Proxy>) {
    // It fails only on what is no socket.
    let _ = socket.get_ref().set_nodelay(true);
    let service = service_fn(move |request| {
        let proxy = Rc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    // The type of stream that leads to providers: half of hyper's code is there once for both.
    let stream = FuturesIo::new(Stream::accepted(socket));
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .preserve_header_case(true)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(stream, service);
    // It ends by the client, or by a provider that broke its answer off: the tool sees what it would have seen.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of an AI tool broke");
    }
}

/// One connection or answer, as long as it lives.
pub(super) struct CountGuard(Rc<Cell<usize>>);

impl CountGuard {
    pub(super) fn new(connections: &Rc<Cell<usize>>) -> Self {
        connections.set(connections.get() + 1);
        Self(Rc::clone(connections))
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
