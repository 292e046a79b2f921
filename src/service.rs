//! Speaks to the service manager that started the agent: the datagrams of sd_notify(3).
//!
//! `draupnir_fsm::driver::ServiceNotifier` decides what is sent when. Sending never blocks: a manager that does not
//! read must not hold the loop. Without a manager nothing is sent.

use crate::config::Service;
use draupnir_fsm::driver::{LinkPhase, ServiceNotice};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The longest sentence of a status, in characters.
const STATUS_CHARACTERS_MAX: usize = 200;

/// The socket of the manager.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    /// The manager that the configuration names.
    ///
    /// # Errors
    /// Its address is none, or this machine has no socket left.
    pub fn of(service: &Service) -> io::Result<Self> {
        let bytes = service.socket.as_encoded_bytes();
        let address = match bytes.split_first() {
            #[cfg(target_os = "linux")]
            Some((b'@', name)) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&service.socket)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// Sends a notice with this sentence about the phase.
    ///
    /// # Errors
    /// The manager is not there, or has no room.
    pub fn notify(&self, notice: ServiceNotice, sentence: &str) -> io::Result<()> {
        let mut text = String::new();
        for (is_sent, line) in
            [(notice.ready, "READY=1\n"), (notice.stopping, "STOPPING=1\n"), (notice.watchdog, "WATCHDOG=1\n")]
        {
            if is_sent {
                text.push_str(line);
            }
        }
        text.push_str("STATUS=");
        text.extend(sentence.chars().filter(|letter| !letter.is_control()).take(STATUS_CHARACTERS_MAX));
        self.send(&text)
    }

    /// Reports that the program is about to replace itself: READY follows from the next one. A best effort.
    pub fn reloading(&self, sentence: &str) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        let text = format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nWATCHDOG=1\nSTATUS={sentence}");
        let _ = self.send(&text);
    }

    fn send(&self, text: &str) -> io::Result<()> {
        self.socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }
}

/// One sentence about the connection.
pub fn sentence(phase: LinkPhase, console: &str, last_error: Option<&str>) -> String {
    match (phase, last_error) {
        (LinkPhase::Online, _) => format!("Connected to {console}"),
        (LinkPhase::Draining, _) => "Draining: sessions and commands end".to_owned(),
        (LinkPhase::Offline, Some(error)) => format!("Not connected to {console}: {error}"),
        (LinkPhase::Offline, None) => format!("Connecting to {console}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: &std::path::Path, listener: &UnixDatagram) -> Manager {
        listener.set_nonblocking(true).expect("a socket");
        Manager::of(&Service { socket: socket.into(), watchdog_ms: None }).expect("an address")
    }

    const NOTICE: ServiceNotice =
        ServiceNotice { ready: true, stopping: false, watchdog: true, phase: LinkPhase::Online };

    #[test]
    fn notice_is_one_datagram_of_lines() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("bound");
        manager(&path, &listener).notify(NOTICE, "Connected to\nWATCHDOG=trigger").expect("there is room");
        let mut bytes = [0; 512];
        let length = listener.recv(&mut bytes).expect("a datagram");
        // A line end within the sentence would be another assignment.
        assert_eq!(
            std::str::from_utf8(&bytes[..length]),
            Ok("READY=1\nWATCHDOG=1\nSTATUS=Connected toWATCHDOG=trigger")
        );
    }

    #[test]
    fn manager_that_does_not_read_blocks_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("bound");
        let manager = manager(&path, &listener);
        let error = (0..1_000_000).find_map(|_| manager.notify(NOTICE, &"x".repeat(200)).err()).expect("it is full");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_address_is_understood() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("draupnir-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let listener = UnixDatagram::bind_addr(&address).expect("bound");
        let manager = manager(format!("@{name}").as_ref(), &listener);
        manager.notify(NOTICE, "").expect("there is room");
        assert!(listener.recv(&mut [0; 64]).is_ok());
    }

    #[test]
    fn sentence_says_why_it_is_offline() {
        let sentence = |phase, error| sentence(phase, "https://console.test", error);
        assert_eq!(sentence(LinkPhase::Online, Some("old")), "Connected to https://console.test");
        assert_eq!(sentence(LinkPhase::Offline, Some("refused")), "Not connected to https://console.test: refused");
    }
}
