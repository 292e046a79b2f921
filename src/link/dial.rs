//! Opens the byte stream to the console: resolve, connect, and what stands between.
//!
//! It speaks neither HTTP nor WebSocket to the console and keeps no deadline: whoever dials gives up by dropping the
//! future, which closes every descriptor it holds.

use super::error::{Error, PeerFault};
use super::race::{self, Failed};
use super::resolve::{LookUp, Resolver};
use super::stream::{Progress, Stream, Tcp};
use super::target::{Target, host_and_port};
use crate::sys::socket::{self, TcpOptions};
use async_io::{Async, Timer};
use http::HeaderValue;
use rustix::io::Errno;
use smol::LocalExecutor;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

/// The connection's own ways of noticing a dead peer come after the machine's (10 s for a Pong, 10 s for a write that
/// stands still): they are the net below, for what a busy or frozen process does not see.
const TCP: TcpOptions = TcpOptions {
    keep_alive_idle_secs: 30,
    keep_alive_interval_secs: 10,
    keep_alive_probes: 3,
    user_timeout_ms: 30_000,
    // What the kernel holds unsent, the delivery ledger cannot reorder: priorities mean nothing to it.
    not_sent_low_water_bytes: 16 * 1024,
};

/// Who speaks, for the console's log.
const USER_AGENT: &str = concat!("sindri-agent/", env!("CARGO_PKG_VERSION"));

/// Knows the way to the console.
pub(super) struct Dialer {
    /// The console and the way to it.
    pub(super) target: Target,
    authorization: HeaderValue,
    resolver: Resolver,
}

impl Dialer {
    pub(super) fn new(target: Target, executor: Rc<LocalExecutor<'static>>, look_up: LookUp) -> Result<Self, Error> {
        let authorization = target.key.authorization().ok_or(Error::Key)?;
        Ok(Self { target, authorization, resolver: Resolver::new(executor, look_up) })
    }

    /// What the console did wrong, with its name.
    pub(super) fn peer_error(&self, fault: PeerFault) -> Error {
        Error::Peer { peer: self.peer(), fault }
    }

    /// The beginning of any request to the console: the first line and the headers that all have in common.
    pub(super) fn request_line_and_headers(&self, method: &str, path: &str) -> Vec<u8> {
        let mut head = format!(
            "{method} {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nAuthorization: ",
            prefix = self.target.prefix,
            host = self.target.authority(),
        )
        .into_bytes();
        head.extend_from_slice(self.authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
        head
    }

    fn peer(&self) -> String {
        host_and_port(&self.target.host, self.target.port)
    }

    /// A byte stream to the console, on which nothing has been said yet.
    pub(super) async fn open(&self, progress: Progress) -> Result<Stream, Error> {
        let addresses = self.resolver.resolve(&self.target.host, self.target.port).await?;
        let socket = connect(&self.peer(), &addresses).await?;
        Ok(Stream::Plain(Tcp::new(socket, progress)))
    }
}

/// The first of the addresses that answers.
pub(super) async fn connect(peer: &str, addresses: &[SocketAddr]) -> Result<Async<TcpStream>, Error> {
    let order = race::interleave(addresses);
    let socket = race::race(&order, Async::<TcpStream>::connect, || Timer::after(race::STAGGER))
        .await
        .map_err(|failed| connect_error(peer, failed))?;
    socket::prepare_tcp(&socket, TCP)
        .map_err(|source| Error::Machine { doing: "set the options of its socket", source })?;
    Ok(socket)
}

/// Where every attempt failed because this machine ran out of something, no firewall is to blame.
fn connect_error(peer: &str, mut failed: Vec<Failed>) -> Error {
    if !failed.is_empty() && failed.iter().all(|(_, error)| is_local(error)) {
        let (_, source) = failed.swap_remove(0);
        return Error::Machine { doing: "open a connection", source };
    }
    Error::Network { peer: peer.to_owned(), failed }
}

fn is_local(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use draupnir_fsm::fact::Failure;
    use futures_lite::future;

    #[test]
    fn an_exhausted_machine_is_not_a_network_fault() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let with = |errno: Errno| vec![(address, io::Error::from(errno))];
        assert_eq!(connect_error("console.test:443", with(Errno::MFILE)).failure(), Failure::Local);
        let refused = connect_error("console.test:443", with(Errno::CONNREFUSED));
        assert_eq!(refused.failure(), Failure::Connect);
        assert_eq!(
            refused.to_string(),
            "console.test:443 cannot be connected to (192.0.2.1:443: Connection refused (os error 111)); \
             check that it is up, and the firewall between"
        );
    }

    #[test]
    fn the_address_that_listens_is_found_among_those_that_do_not() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let live = listener.local_addr().expect("address");
        let dead = SocketAddr::from(([127, 0, 0, 2], live.port()));
        let socket = future::block_on(connect("console.test", &[dead, live])).expect("connected");
        assert_eq!(socket.get_ref().peer_addr().expect("peer"), live);
    }
}
