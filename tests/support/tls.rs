//! A console behind TLS.

use super::authority::Authority;
use draupnir_console::{Accepting, Acceptor, Builder, Console, Personality, Wire};
use futures_rustls::TlsAcceptor;
use std::sync::Arc;

/// TLS in front of a console.
pub(crate) struct Tls(pub(crate) TlsAcceptor);

impl Acceptor for Tls {
    fn accept(&self, tcp: async_net::TcpStream) -> Accepting {
        let accepting = self.0.accept(tcp);
        Box::pin(async move { Ok(Box::new(accepting.await?) as Box<dyn Wire>) })
    }
}

/// A production console with this side of TLS.
pub(crate) fn console(server: TlsAcceptor) -> Builder {
    Console::builder(Personality::production()).acceptor(Arc::new(Tls(server)), "https")
}

/// A production console with a valid certificate of this authority.
pub(crate) fn valid_console(authority: &Authority) -> Console {
    console(authority.valid(&["127.0.0.1"])).start()
}
