//! The sockets of the proxy: loopback in both families, a bounded number of connections, one task each.

use super::Report;
use super::proxy::Proxy;
use crate::report::Reporter;
use async_io::{Async, Timer};
use futures_lite::{AsyncWriteExt as _, future};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::LocalExecutor;
use smol_hyper::rt::FuturesIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

/// How many connections there may be at once: two descriptors each, of the usual 1,024.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// What hyper may hold of one connection in one direction, in bytes; a request's head must fit, too.
pub(super) const BUFFER_BYTES_MAX: usize = 64 << 10;

/// After this, a port that was taken is tried again: the agent before this one may still be draining.
const RETRY: Duration = Duration::from_secs(5);

/// The answer to one connection too many.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Listens on both loopback addresses, for ever. An address that is taken is reported once and tried again.
pub(super) async fn listen(port: u16, proxy: Rc<Proxy>, executor: Rc<LocalExecutor<'static>>, reporter: Reporter) {
    let connections = Rc::new(Cell::new(0));
    let on = |ip: IpAddr| {
        let (proxy, executor, connections) = (Rc::clone(&proxy), Rc::clone(&executor), Rc::clone(&connections));
        let reporter = reporter.clone();
        async move {
            let address = SocketAddr::new(ip, port);
            if let Some(listener) = bind(address, &reporter).await {
                tracing::info!(%address, "counting the usage of AI tools");
                accept(&listener, &proxy, &executor, &connections).await;
            }
        }
    };
    future::zip(on(Ipv4Addr::LOCALHOST.into()), on(Ipv6Addr::LOCALHOST.into())).await;
}

/// Nothing where this machine has no such address.
async fn bind(address: SocketAddr, reporter: &Reporter) -> Option<Async<TcpListener>> {
    let mut was_told = false;
    loop {
        match Async::<TcpListener>::bind(address) {
            Ok(listener) => return Some(listener),
            Err(error) if address.is_ipv6() && !matches!(error.kind(), ErrorKind::AddrInUse) => {
                tracing::debug!(%address, %error, "not listening on IPv6");
                return None;
            }
            Err(error) => {
                if !std::mem::replace(&mut was_told, true) {
                    let text = format!(
                        "AI tools cannot reach their providers through {address} ({error}): end what listens there, or \
                         set SINDRI_LLM_ADAPTER to none and point the tools elsewhere"
                    );
                    tracing::error!("{text}");
                    reporter.report(Report::NotListening(text)).await;
                }
            }
        }
        Timer::after(RETRY).await;
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
            // It fits into an empty socket; what does not is of no use to anybody.
            let _ = future::poll_once(stream.write_all(FULL)).await;
            continue;
        }
        let counted = Counted::new(connections);
        let proxy = Rc::clone(proxy);
        let serving = async move {
            serve(stream, proxy).await;
            drop(counted);
        };
        executor.spawn(serving).detach();
    }
}

async fn serve(stream: Async<TcpStream>, proxy: Rc<Proxy>) {
    if prepare(&stream).is_err() {
        return;
    }
    let service = service_fn(move |request| {
        let proxy = Rc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .preserve_header_case(true)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(FuturesIo::new(stream), service);
    // It ends by the client, or by a provider that broke its answer off: the tool sees what it would have seen.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of an AI tool broke");
    }
}

fn prepare(stream: &Async<TcpStream>) -> io::Result<()> {
    stream.get_ref().set_nodelay(true)
}

/// One connection, as long as it lives.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(connections: &Rc<Cell<usize>>) -> Self {
        connections.set(connections.get() + 1);
        Self(Rc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
