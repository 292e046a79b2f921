//! Socket options that the standard library does not set.
//!
//! All but one go through `rustix`'s safe wrappers; the one is `TCP_NOTSENT_LOWAT`, which no safe wrapper offers. It
//! does not open, read or write sockets, and it decides no value: callers pass them.

use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// How a TCP connection notices that its peer is gone, and how much it holds back in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// Silence after which the kernel asks whether the peer is still there, in seconds.
    pub keep_alive_idle_secs: u64,
    /// Time between two such questions, in seconds.
    pub keep_alive_interval_secs: u64,
    /// How many of them may go unanswered.
    pub keep_alive_probes: u32,
    /// How long written bytes may stay unacknowledged, in milliseconds. Linux only.
    pub user_timeout_ms: u32,
    /// How many unsent bytes the kernel takes before it reports the socket full. Linux and macOS.
    pub not_sent_low_water_bytes: u32,
}

/// Sets the options on a connected socket, and `TCP_NODELAY` with them.
pub fn prepare_tcp(socket: impl AsFd, options: TcpOptions) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(options.keep_alive_idle_secs))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(options.keep_alive_interval_secs))?;
    sockopt::set_tcp_keepcnt(socket, options.keep_alive_probes)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    sockopt::set_tcp_user_timeout(socket, options.user_timeout_ms)?;
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    not_sent_low_water::set(socket, options.not_sent_low_water_bytes)?;
    Ok(())
}

/// Makes the closing of a socket a reset: nothing lingers, neither unsent bytes nor the connection itself.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod not_sent_low_water {
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const TCP_NOTSENT_LOWAT: libc::c_int = 25; // linux/tcp.h
    #[cfg(target_vendor = "apple")]
    const TCP_NOTSENT_LOWAT: libc::c_int = 0x201; // netinet/tcp.h

    /// What is set.
    #[cfg(test)]
    #[allow(unsafe_code)]
    pub(super) fn value(socket: BorrowedFd<'_>) -> io::Result<u32> {
        let (mut value, mut length): (libc::c_int, _) = (0, 4 as libc::socklen_t);
        // SAFETY: the descriptor is borrowed, hence open; the pointers are to a live `c_int` and to its length in
        // bytes.
        let status = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_NOTSENT_LOWAT,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        if status == 0 { Ok(value.unsigned_abs()) } else { Err(io::Error::last_os_error()) }
    }

    /// Linux wants at least an `int`, as does macOS.
    #[allow(unsafe_code)]
    pub(super) fn set(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
        let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        let length = libc::socklen_t::try_from(size_of_val(&value)).expect("an int is a few bytes");
        // SAFETY: the descriptor is borrowed, hence open, for the length of the call; the pointer and the length
        // describe one live `c_int`, which the kernel only reads.
        let status = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_NOTSENT_LOWAT,
                (&raw const value).cast(),
                length,
            )
        };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connected_socket_takes_all_options() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
        let options = TcpOptions {
            keep_alive_idle_secs: 30,
            keep_alive_interval_secs: 5,
            keep_alive_probes: 3,
            user_timeout_ms: 20_000,
            not_sent_low_water_bytes: 16 * 1024,
        };
        prepare_tcp(&stream, options).expect("options");
        reset_on_close(&stream).expect("linger");
        assert!(stream.nodelay().expect("nodelay"));
        assert!(sockopt::socket_keepalive(&stream).expect("keep-alive"));
        assert_eq!(sockopt::tcp_keepidle(&stream).expect("idle"), Duration::from_secs(30));
        assert_eq!(sockopt::tcp_keepintvl(&stream).expect("interval"), Duration::from_secs(5));
        assert_eq!(sockopt::tcp_keepcnt(&stream).expect("probes"), 3);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        assert_eq!(sockopt::tcp_user_timeout(&stream).expect("user timeout"), 20_000);
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        assert_eq!(not_sent_low_water::value(stream.as_fd()).expect("low water"), 16 * 1024);
        assert_eq!(sockopt::socket_linger(&stream).expect("linger"), Some(Duration::ZERO));
    }
}
