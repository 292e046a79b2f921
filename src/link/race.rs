//! Tries several addresses so that one dead family costs a quarter of a second, not a time-out (RFC 8305).
//!
//! It does not resolve names, open sockets or keep time: the addresses, the attempts and the pauses are passed in, so
//! every order of events can be tested without a network or a clock.
//!
//! Invariants: attempts start in the order of [`interleave`]; the next one starts when a pause has ended or an attempt
//! has failed, whichever comes first; the first connection wins, and the losers are dropped before it is returned.

use futures_lite::future::poll_fn;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long one attempt has before the next address is tried beside it (RFC 8305, section 5).
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// How many addresses of a name are tried. More would not be reached within the deadline of a dial.
pub(super) const ADDRESSES_MAX: usize = 16;

/// An attempt that failed, and how.
pub(super) type Failed = (SocketAddr, io::Error);

/// Whether each of these attempts was refused by the peer: nothing listens at any of the addresses.
pub(super) fn are_refused(failed: &[Failed]) -> bool {
    !failed.is_empty() && failed.iter().all(|(_, error)| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The addresses with the families taking turns, the first one's first, otherwise in the order given; duplicates go.
pub(super) fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut unique: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !unique.contains(address) {
            unique.push(*address);
        }
    }
    let first_is_v6 = unique.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = unique.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut order = Vec::new();
    loop {
        let turn = [preferred.next(), other.next()];
        if turn.iter().all(Option::is_none) {
            break;
        }
        order.extend(turn.into_iter().flatten());
    }
    order.truncate(ADDRESSES_MAX);
    order
}

/// The first connection that comes about, or how every attempt failed, in the order of failing.
pub(super) async fn race<S, Attempt, Pause>(
    addresses: &[SocketAddr],
    mut connect: impl FnMut(SocketAddr) -> Attempt,
    mut pause: impl FnMut() -> Pause,
) -> Result<S, Vec<Failed>>
where
    Attempt: Future<Output = io::Result<S>>,
    Pause: Future,
{
    let mut waiting = addresses.iter().copied();
    let mut running: Vec<(SocketAddr, Pin<Box<Attempt>>)> = Vec::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push((address, Box::pin(connect(address))));
        } else if running.is_empty() {
            return Err(failed);
        }
        // Once all attempts run there is nothing left that a pause could start.
        let mut pause = (waiting.len() > 0).then(|| Box::pin(pause()));
        let won = poll_fn(|cx| match poll_attempts(&mut running, &mut failed, cx) {
            Step::Won(stream) => Poll::Ready(Some(stream)),
            Step::Failed => Poll::Ready(None),
            Step::Pending => match pause.as_mut().map(|pause| pause.as_mut().poll(cx)) {
                Some(Poll::Ready(_)) => Poll::Ready(None),
                Some(Poll::Pending) | None => Poll::Pending,
            },
        })
        .await;
        if let Some(stream) = won {
            return Ok(stream);
        }
    }
}

enum Step<S> {
    Won(S),
    Failed,
    Pending,
}

fn poll_attempts<S, Attempt: Future<Output = io::Result<S>>>(
    running: &mut Vec<(SocketAddr, Pin<Box<Attempt>>)>,
    failed: &mut Vec<Failed>,
    cx: &mut Context<'_>,
) -> Step<S> {
    let before = failed.len();
    let mut won = None;
    running.retain_mut(|(address, attempt)| {
        if won.is_some() {
            return false;
        }
        match attempt.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(stream)) => {
                won = Some(stream);
                false
            }
            Poll::Ready(Err(error)) => {
                failed.push((*address, error));
                false
            }
        }
    });
    match won {
        Some(stream) => Step::Won(stream),
        None if failed.len() > before => Step::Failed,
        None => Step::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]);
        let order = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleave(&given), order);
        let v4_first = addresses(&["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"]);
        assert_eq!(interleave(&v4_first), addresses(&["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]));
        assert_eq!(interleave(&[]), []);
        let many: Vec<SocketAddr> = (1..=100).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        assert_eq!(interleave(&many).len(), ADDRESSES_MAX);
    }

    /// What an address does when it is tried.
    #[derive(Clone, Copy)]
    enum Does {
        Connect,
        Refuse,
        Nothing,
    }

    /// Runs a race in which every pause ends at once, and says which addresses were tried and how it ended.
    fn run(script: &[Does]) -> (Vec<u16>, Option<Result<u16, usize>>) {
        let tried = Rc::new(RefCell::new(Vec::new()));
        let list: Vec<SocketAddr> =
            (1u16..).zip(script).map(|(port, _)| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let connect = |address: SocketAddr| {
            tried.borrow_mut().push(address.port());
            let does = script[usize::from(address.port()) - 1];
            async move {
                match does {
                    Does::Connect => Ok(address.port()),
                    Does::Refuse => Err(io::ErrorKind::ConnectionRefused.into()),
                    Does::Nothing => future::pending().await,
                }
            }
        };
        let outcome = future::block_on(future::poll_once(race(&list, connect, || future::ready(()))));
        (tried.take(), outcome.map(|result| result.map_err(|failed| failed.len())))
    }

    #[test]
    fn a_silent_address_only_costs_a_pause() {
        use Does::{Connect, Nothing, Refuse};
        assert_eq!(run(&[Nothing, Connect]), (vec![1, 2], Some(Ok(2))));
        assert_eq!(run(&[Nothing, Refuse, Nothing, Connect, Connect]), (vec![1, 2, 3, 4], Some(Ok(4))));
        assert_eq!(run(&[Connect, Connect]), (vec![1], Some(Ok(1))));
        assert_eq!(run(&[Refuse, Refuse]), (vec![1, 2], Some(Err(2))));
        assert_eq!(run(&[Nothing, Refuse]), (vec![1, 2], None));
        assert_eq!(run(&[]), (vec![], Some(Err(0))));
    }

    #[test]
    fn a_refusal_starts_the_next_attempt_without_a_pause() {
        let pauses = Cell::new(0);
        let list = addresses(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        let connect = |address: SocketAddr| async move {
            if address.port() == 3 { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        };
        let pause = || {
            pauses.set(pauses.get() + 1);
            future::pending::<()>()
        };
        let outcome = future::block_on(future::poll_once(race(&list, connect, pause)));
        assert!(matches!(outcome, Some(Ok(()))));
        assert_eq!(pauses.get(), 2, "a pause is armed with every attempt but the last, and none was waited for");
    }

    #[test]
    fn the_losers_are_gone_when_the_winner_is_returned() {
        struct Loser(Rc<Cell<bool>>);
        impl Drop for Loser {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let dropped = Rc::new(Cell::new(false));
        let list = addresses(&["127.0.0.1:1", "127.0.0.1:2"]);
        let connect = |address: SocketAddr| {
            let loser = (address.port() == 1).then(|| Loser(Rc::clone(&dropped)));
            async move {
                match loser {
                    None => Ok(()),
                    Some(_kept) => future::pending().await,
                }
            }
        };
        let won = future::block_on(race(&list, connect, || future::ready(())));
        assert!(won.is_ok() && dropped.get());
    }
}
