//! Opens the byte stream to the console: resolves, connects, asks the proxy for a tunnel, starts TLS.
//!
//! It keeps no deadline: the caller gives up by dropping the future, which closes every descriptor it holds.

use super::error::{Error, Hop, PeerFault};
use super::race::{self, Failed};
use super::resolve::{LookUp, Resolver};
use super::stream::{Progress, Stream, Tcp};
use super::target::{Target, host_and_port};
use super::tls::{Tls, Trusted};
use super::{USER_AGENT, proxy};
use crate::config::Secret;
use crate::sys::socket::{self, TcpOptions};
use async_io::{Async, Timer};
use draupnir_fsm::driver::PortState;
use futures_lite::future;
use futures_rustls::client::TlsStream;
use rustix::io::Errno;
use smol::LocalExecutor;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

/// TCP notices a dead peer later than the machine does (10 s for a Pong, 10 s for a stalled write). It covers the case
/// of a busy or frozen process.
const TCP: TcpOptions = TcpOptions {
    keep_alive_idle_secs: 30,
    keep_alive_interval_secs: 10,
    keep_alive_probes: 3,
    user_timeout_ms: 30_000,
    // The delivery ledger cannot reorder what the kernel holds, so the kernel may hold little.
    not_sent_low_water_bytes: 16 * 1024,
};

/// To a provider of models, which may be silent for minutes and take its time to read: nothing but a dead network ends
/// such a connection.
const TCP_TO_PROVIDER: TcpOptions = TcpOptions { user_timeout_ms: 0, not_sent_low_water_bytes: 256 * 1024, ..TCP };

/// Opens streams to one console.
pub(super) struct Dialer {
    /// The console and the way to it.
    pub(super) target: Target,
    resolver: Resolver,
    pub(super) tls: Rc<Tls>,
    /// What is reached in the end.
    end: Hop,
}

impl Dialer {
    pub(super) fn new(target: Target, executor: Rc<LocalExecutor<'static>>, look_up: LookUp) -> Result<Self, Error> {
        if !target.has_sendable_key() {
            return Err(Error::Key);
        }
        let (resolver, tls) = (Resolver::new(executor, look_up), Rc::new(Tls::new(target.trust.clone())));
        Ok(Self { target, resolver, tls, end: Hop::Console })
    }

    /// The way to a provider of models, by the same code and to the same trust. The target's key is sent nowhere.
    pub(super) fn to_provider(&self, target: Target, executor: Rc<LocalExecutor<'static>>, end: Hop) -> Self {
        Self { target, resolver: Resolver::new(executor, super::resolve::system()), tls: Rc::clone(&self.tls), end }
    }

    /// A fault of the console as an error with its name.
    pub(super) fn peer_error(&self, fault: PeerFault) -> Error {
        Error::Peer { peer: self.peer(), fault }
    }

    /// A request to the console: the first line, the headers that all requests have in common, and the `rest` of it.
    /// The key is in it, so the memory is overwritten after the request was sent.
    pub(super) fn request(&self, method: &str, path: &str, rest: [&str; 2]) -> Secret {
        let before = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: identity\r\nAuthorization: Bearer ",
            path = self.target.url.path(path),
            host = self.target.url.authority(),
        );
        Secret::joined([&before, self.target.key.expose(), "\r\n"].into_iter().chain(rest))
    }

    /// The console's name and port, for error texts.
    pub(super) fn peer(&self) -> String {
        host_and_port(self.target.url.host(), self.target.url.port())
    }

    /// A byte stream to the console, on which nothing has been sent yet.
    pub(super) async fn open(&self, progress: Progress) -> Result<Stream, Error> {
        let reached = async {
            let addresses = self.resolve().await?;
            let mut tcp = self.connect(&addresses, progress).await?;
            self.tunnel(&mut tcp).await?;
            Ok(tcp)
        };
        if !self.target.url.is_tls() {
            return Ok(Stream::Plain(reached.await?));
        }
        // Reads the roots while it waits for the network.
        let (tcp, trusted) = future::try_zip(reached, self.tls.trusted()).await?;
        Ok(Stream::Tls(Box::new(self.secure(&trusted, tcp).await?)))
    }

    /// The name and port of the proxy, if there is one, or else of the console.
    pub(super) fn next_hop(&self) -> (&str, u16) {
        match &self.target.proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (self.target.url.host(), self.target.url.port()),
        }
    }

    /// Which of the two that is.
    pub(super) fn hop(&self) -> Hop {
        self.target.proxy.as_ref().map_or(self.end, |proxy| Hop::Proxy(proxy.variable))
    }

    /// The addresses of the next hop.
    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let (host, port) = self.next_hop();
        self.resolver.resolve(host, port, self.hop()).await
    }

    /// A connection to the first of these addresses that answers.
    pub(super) async fn connect(&self, addresses: &[SocketAddr], progress: Progress) -> Result<Tcp, Error> {
        let (host, port) = self.next_hop();
        let is_console = matches!(self.end, Hop::Console);
        let options = if is_console { TCP } else { TCP_TO_PROVIDER };
        let tcp = Tcp::new(connect(&host_and_port(host, port), self.hop(), addresses, options).await?, progress);
        Ok(if is_console { tcp } else { tcp.unlimited() })
    }

    /// Asks the proxy, if there is one, for a tunnel to the console.
    pub(super) async fn tunnel(&self, tcp: &mut Tcp) -> Result<(), Error> {
        let Some(proxy) = &self.target.proxy else { return Ok(()) };
        let asked = proxy::tunnel(tcp, proxy, self.target.url.host(), self.target.url.port()).await;
        asked.map_err(|fault| Error::Proxy {
            proxy: host_and_port(&proxy.host, proxy.port),
            variable: proxy.variable,
            fault,
        })
    }

    /// TLS with the console on a connection that ends there.
    pub(super) async fn secure(&self, trusted: &Trusted, tcp: Tcp) -> Result<TlsStream<Tcp>, Error> {
        let shaken = self.tls.handshake(trusted, self.target.url.host(), tcp).await;
        shaken.map_err(|fault| Error::Tls { peer: self.peer(), hop: self.end, fault })
    }
}

/// The first of the addresses that answers.
async fn connect(
    peer: &str,
    hop: Hop,
    addresses: &[SocketAddr],
    options: TcpOptions,
) -> Result<Async<TcpStream>, Error> {
    let order = race::interleave(addresses);
    let socket = first_connection(&order, race::STAGGER).await.map_err(|failed| connect_error(peer, hop, failed))?;
    socket::prepare_tcp(&socket, options)
        .map_err(|source| Error::Machine { doing: "set the options of its socket", source })?;
    Ok(socket)
}

async fn first_connection(order: &[SocketAddr], stagger: Duration) -> Result<Async<TcpStream>, Vec<Failed>> {
    race::race(order, Async::<TcpStream>::connect, || Timer::after(stagger)).await
}

/// What these addresses answer to a connect, all of them at once. A connection that comes about is closed.
pub(super) async fn probe_port(addresses: &[SocketAddr]) -> PortState {
    match first_connection(addresses, Duration::ZERO).await {
        Ok(_) => PortState::Open,
        Err(failed) if race::are_refused(&failed) => PortState::Refused,
        Err(_) => PortState::Unreachable,
    }
}

/// If every attempt failed because this machine ran out of a resource, the error says so and blames no firewall.
fn connect_error(peer: &str, hop: Hop, mut failed: Vec<Failed>) -> Error {
    if !failed.is_empty() && failed.iter().all(|(_, error)| is_local(error)) {
        let (_, source) = failed.swap_remove(0);
        return Error::Machine { doing: "open a connection", source };
    }
    Error::Network { peer: peer.to_owned(), hop, failed }
}

fn is_local(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::driver::Failure;
    use futures_lite::future;
    use rustix::net::sockopt;

    #[test]
    fn an_exhausted_machine_is_not_a_network_fault() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let with = |errno: Errno| vec![(address, io::Error::from(errno))];
        assert_eq!(connect_error("console.test:443", Hop::Console, with(Errno::MFILE)).failure(), Failure::Local);
        let refused = connect_error("console.test:443", Hop::Console, with(Errno::CONNREFUSED));
        assert_eq!(refused.failure(), Failure::Refused);
        assert_eq!(
            refused.to_string(),
            "the console console.test:443 cannot be connected to (192.0.2.1:443: Connection refused (os error 111)); \
             check that it is up, and the firewall between"
        );
        let refused = connect_error("proxy.test:3128", Hop::Proxy("HTTPS_PROXY"), with(Errno::CONNREFUSED));
        assert_eq!(refused.failure(), Failure::Connect);
        assert_eq!(
            refused.to_string(),
            "the proxy proxy.test:3128 cannot be connected to (192.0.2.1:443: Connection refused (os error 111)); \
             check that it is up, and the firewall between, or correct HTTPS_PROXY"
        );
    }

    #[test]
    fn only_a_refusal_by_each_address_counts_as_refused() {
        let address = |last| SocketAddr::from(([192, 0, 2, last], 443));
        let failure = |errnos: &[Errno]| {
            let failed = (1..).zip(errnos).map(|(last, errno)| (address(last), io::Error::from(*errno))).collect();
            let error = connect_error("console.test:443", Hop::Console, failed);
            (error.failure(), error.refused_addresses())
        };
        let both = Some(vec![address(1), address(2)]);
        assert_eq!(failure(&[Errno::CONNREFUSED, Errno::CONNREFUSED]), (Failure::Refused, both));
        for other in [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::CONNRESET, Errno::MFILE] {
            assert_eq!(failure(&[Errno::CONNREFUSED, other]), (Failure::Connect, None), "{other}");
        }
    }

    #[test]
    fn probe_finds_a_port_open_if_one_address_listens() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let live = listener.local_addr().expect("address");
        let dead = SocketAddr::from(([127, 0, 0, 2], live.port()));
        assert_eq!(future::block_on(probe_port(&[dead, live])), PortState::Open);
        let (mut accepted, _) = listener.accept().expect("a connection");
        assert_eq!(io::copy(&mut accepted, &mut io::sink()).expect("closed without a byte"), 0);
        assert_eq!(future::block_on(probe_port(&[dead])), PortState::Refused);
        assert_eq!(future::block_on(probe_port(&[])), PortState::Unreachable);
        // Broadcast: this machine itself forbids it.
        let forbidden = SocketAddr::from(([255, 255, 255, 255], live.port()));
        assert_eq!(future::block_on(probe_port(&[dead, forbidden])), PortState::Unreachable);
    }

    #[test]
    fn listening_address_is_found_among_closed_ones() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let live = listener.local_addr().expect("address");
        let dead = SocketAddr::from(([127, 0, 0, 2], live.port()));
        let socket = future::block_on(connect("console.test", Hop::Console, &[dead, live], TCP)).expect("connected");
        assert_eq!(socket.get_ref().peer_addr().expect("peer"), live);
        // It is prepared, too; that each option is set is shown where they are.
        assert!(
            sockopt::tcp_nodelay(&socket).expect("a socket") && sockopt::socket_keepalive(&socket).expect("a socket")
        );
        let idle = sockopt::tcp_keepidle(&socket).expect("a socket");
        assert_eq!(idle.as_secs(), TCP.keep_alive_idle_secs);
    }
}
