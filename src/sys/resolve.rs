//! Asks the system's resolver for the addresses of one family, which the standard library cannot.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ptr;

/// The IPv6 or IPv4 addresses of a host. It blocks for as long as the system's resolver does.
///
/// # Errors
/// Where there are none, for whatever reason.
pub fn addresses(host: &str, port: u16, is_v6: bool) -> io::Result<Vec<SocketAddr>> {
    let host = CString::new(host)?;
    // SAFETY: addrinfo consists of integers and pointers, for which zero is a value.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: the name ends with a zero byte, and all four pointers are valid during the call or null.
    if unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &raw const hints, &raw mut list) } != 0 {
        return Err(io::Error::other("no address of this family"));
    }
    let (mut found, mut next) = (Vec::new(), list);
    // SAFETY: the list is getaddrinfo's, ends with null, and lives until it is freed below.
    while let Some(entry) = unsafe { next.as_ref() } {
        found.push(if is_v6 {
            // SAFETY: of this family alone was asked, so each address is a sockaddr_in6.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            SocketAddrV6::new(Ipv6Addr::from(address.sin6_addr.s6_addr), port, 0, address.sin6_scope_id).into()
        } else {
            // SAFETY: of this family alone was asked, so each address is a sockaddr_in.
            let address = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            (Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)), port).into()
        });
        next = entry.ai_next;
    }
    // SAFETY: the list is getaddrinfo's, and nothing points into it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_family() {
        assert_eq!(
            addresses("127.0.0.7", 80, false).expect("it is one"),
            ["127.0.0.7:80".parse().expect("an address")]
        );
        assert_eq!(addresses("::1", 80, true).expect("it is one"), ["[::1]:80".parse().expect("an address")]);
        assert!(addresses("127.0.0.7", 80, true).is_err() && addresses("::1", 80, false).is_err());
        assert!(addresses("a\0b", 80, false).is_err());
    }
}
