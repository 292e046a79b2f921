//! How many TCP connections are established.
//!
//! Source: `/proc/net/snmp`, RFC 1213's tcpCurrEstab (IPv4 and IPv6 alike), for the network namespace that we are in. Lists
//! no connection: with many of them that alone would cost more than all other figures.

use super::super::scan::{line_of, lines, number, words};

/// The number of connections; `None` when the file does not say.
pub(crate) fn established(text: &[u8]) -> Option<u64> {
    // Each protocol has a line of names and a line of values under it. Values can be negative (MaxConn is -1).
    let mut both = lines(text).filter(|line| line.starts_with(b"Tcp:"));
    let names = line_of(both.next()?, b"Tcp")?;
    let values = line_of(both.next()?, b"Tcp")?;
    words(names).zip(words(values)).find_map(|(name, value)| (name == b"CurrEstab").then(|| number(value)).flatten())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_is_below_its_name() {
        let text = b"Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn CurrEstab InSegs\nTcp: 1 -1 42 7\nUdp: CurrEstab\nUdp: 9\n";
        assert_eq!(established(text), Some(42));
        assert_eq!(established(b"Tcp: CurrEstab\n"), None);
        assert_eq!(established(b"Tcp: CurrEstab\nTcp: x\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = established(&text);
        }
    }
}
