//! Turns a name into addresses, off the reactor, with never more than one look-up of a kind in flight.
//!
//! A look-up that takes long is repeated for IPv4 alone and for IPv6 alone, and the first addresses count. So a server
//! that swallows or refuses questions for one family costs a second, not the resolver's time-outs (RFC 8305,
//! section 3).
//!
//! It does not cache and keeps no deadline. The system's resolver cannot be interrupted: a dial that is given up leaves
//! its look-up running, and the next dial for the same name joins it instead of hanging a second thread. A dial for
//! another name fails at once. An address that stands as such is never looked up.

use super::error::{Error, Hop};
use super::explain;
use super::target::host_and_port;
use crate::sys;
use async_channel::Receiver;
use async_io::Timer;
use futures_lite::future::{self, Boxed};
use smol::LocalExecutor;
use std::cell::{OnceCell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// How long the look-up of both families has before each is asked for alone. An ordinary answer takes less, and a
/// resolver repeats a lost question after 2.5 s (musl) or 5 s (glibc).
const BOTH_FAMILIES_MAX: Duration = Duration::from_secs(1);

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Those of both families, in the system's order.
    Both,
    V4,
    V6,
}

/// One question to the system's resolver; a parameter so that tests can hang it.
pub(super) type LookUp = Rc<dyn Fn(Family, String, u16) -> Boxed<io::Result<Vec<SocketAddr>>>>;

/// Asks the system: `getaddrinfo` on the blocking pool.
pub(super) fn system() -> LookUp {
    Rc::new(|family, host, port| match family {
        Family::Both => Box::pin(async move { async_net::resolve((host, port)).await }),
        Family::V4 | Family::V6 => {
            Box::pin(blocking::unblock(move || sys::resolve::addresses(&host, port, family == Family::V6)))
        }
    })
}

/// The resolver of a link.
pub(super) struct Resolver {
    executor: Rc<LocalExecutor<'static>>,
    look_up: LookUp,
    /// One look-up a family.
    in_flight: Rc<RefCell<[Option<InFlight>; 3]>>,
}

#[derive(Clone)]
struct InFlight {
    host: String,
    port: u16,
    outcome: Rc<OnceCell<Result<Vec<SocketAddr>, String>>>,
    /// Closed when the outcome is known; nothing is ever sent.
    done: Receiver<Infallible>,
}

impl Resolver {
    pub(super) fn new(executor: Rc<LocalExecutor<'static>>, look_up: LookUp) -> Self {
        Self { executor, look_up, in_flight: Rc::default() }
    }

    /// The addresses of a host, at least one.
    pub(super) async fn resolve(&self, host: &str, port: u16, hop: Hop) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let both = self.join(Family::Both, host, port)?;
        let is_late = async {
            Timer::after(BOTH_FAMILIES_MAX).await;
            true
        };
        let answered = async {
            both.ended().await;
            false
        };
        let mut in_flight = both.clone();
        if future::or(answered, is_late).await {
            let (v4, v6) = (self.join(Family::V4, host, port)?, self.join(Family::V6, host, port)?);
            in_flight = future::or(both.ended(), future::or(v4.found(), v6.found())).await.clone();
        }
        let failed = |reason: &str| Error::Name { host: host.to_owned(), hop, reason: reason.to_owned() };
        match in_flight.outcome.get() {
            Some(Ok(addresses)) if addresses.is_empty() => Err(failed("it has no address")),
            Some(Ok(addresses)) => Ok(addresses.clone()),
            Some(Err(reason)) => Err(failed(reason)),
            None => Err(failed("the look-up was dropped")),
        }
    }

    /// The look-up of this family that is running if it is for this host, else a new one if none is running.
    fn join(&self, family: Family, host: &str, port: u16) -> Result<InFlight, Error> {
        if let Some(running) = &self.in_flight.borrow()[family as usize] {
            if running.host == host && running.port == port {
                return Ok(running.clone());
            }
            let earlier = host_and_port(&running.host, running.port);
            return Err(Error::NameService { host: host.to_owned(), earlier });
        }
        Ok(self.start(family, host, port))
    }

    fn start(&self, family: Family, host: &str, port: u16) -> InFlight {
        let (sender, done) = async_channel::bounded(1);
        let started = InFlight { host: host.to_owned(), port, outcome: Rc::default(), done };
        self.in_flight.borrow_mut()[family as usize] = Some(started.clone());
        let (outcome, slot) = (Rc::clone(&started.outcome), Rc::clone(&self.in_flight));
        let question = (self.look_up)(family, host.to_owned(), port);
        let task = async move {
            let answer = question.await.map_err(|error| explain::io(&error));
            // Set once: only this task does.
            let _ = outcome.set(answer);
            slot.borrow_mut()[family as usize] = None;
            drop(sender);
        };
        self.executor.spawn(task).detach();
        started
    }
}

impl InFlight {
    /// Waits for the outcome.
    async fn ended(&self) -> &Self {
        // Fails when the outcome is there: the sending end is gone.
        let _ = self.done.recv().await;
        self
    }

    /// Waits for an address; never ends where there is none.
    async fn found(&self) -> &Self {
        match self.ended().await.outcome.get() {
            Some(Ok(addresses)) if !addresses.is_empty() => self,
            _ => future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;
    use std::cell::Cell;

    type Answers = async_channel::Sender<io::Result<Vec<SocketAddr>>>;

    /// A resolver whose answers the test gives, and the number of questions asked.
    fn scripted() -> (Rc<LocalExecutor<'static>>, Resolver, Answers, Rc<Cell<usize>>) {
        let executor = Rc::new(LocalExecutor::new());
        let (answers, given) = async_channel::bounded::<io::Result<Vec<SocketAddr>>>(1);
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let look_up: LookUp = Rc::new(move |family, _, _| {
            if family != Family::Both {
                return Box::pin(future::pending());
            }
            count.set(count.get() + 1);
            let given = given.clone();
            Box::pin(async move { given.recv().await.expect("the test answers") })
        });
        let resolver = Resolver::new(Rc::clone(&executor), look_up);
        (executor, resolver, answers, asked)
    }

    #[test]
    fn an_address_is_not_looked_up() {
        let (executor, resolver, _answers, asked) = scripted();
        for (host, expected) in [("192.0.2.1", "192.0.2.1:80"), ("2001:db8::1", "[2001:db8::1]:80")] {
            let addresses = future::block_on(executor.run(resolver.resolve(host, 80, Hop::Console))).expect("literal");
            assert_eq!(addresses, [expected.parse().expect("address")]);
        }
        assert_eq!(asked.get(), 0);
    }

    #[test]
    fn hanging_look_up_is_joined_and_never_doubled() {
        let (executor, resolver, answers, asked) = scripted();
        future::block_on(executor.run(async {
            let first = future::poll_once(resolver.resolve("console.test", 443, Hop::Console)).await;
            assert!(first.is_none(), "it hangs, and is then given up");
            let other = resolver
                .resolve("proxy.test", 3128, Hop::Proxy("HTTP_PROXY"))
                .await
                .expect_err("another name is in flight");
            assert_eq!(
                other.to_string(),
                "an earlier look-up of console.test:443 has not come back, so proxy.test was not looked up; \
                 check this machine's DNS"
            );
            let joined = resolver.resolve("console.test", 443, Hop::Console);
            let answer = async {
                answers.send(Ok(vec![SocketAddr::from(([192, 0, 2, 7], 443))])).await.expect("awaited");
            };
            let (addresses, ()) = future::zip(joined, answer).await;
            assert_eq!(addresses.expect("resolved"), [SocketAddr::from(([192, 0, 2, 7], 443))]);
            assert_eq!(asked.get(), 1);

            let fails = resolver.resolve("proxy.test", 3128, Hop::Proxy("HTTP_PROXY"));
            let answer = async { answers.send(Err(io::Error::other("no such name"))).await.expect("awaited") };
            let (failed, ()) = future::zip(fails, answer).await;
            assert_eq!(
                failed.expect_err("unknown").to_string(),
                "the name proxy.test of the proxy cannot be resolved: no such name; check HTTP_PROXY and this \
                 machine's DNS"
            );
            assert_eq!(asked.get(), 2);
        }));
    }

    /// A resolver whose look-up of both families never ends.
    fn hanging(alone: fn(Family) -> io::Result<Vec<SocketAddr>>) -> (Rc<LocalExecutor<'static>>, Resolver) {
        let executor = Rc::new(LocalExecutor::new());
        let look_up: LookUp = Rc::new(move |family, _, _| match family {
            Family::Both => Box::pin(future::pending()),
            Family::V4 | Family::V6 => Box::pin(async move { alone(family) }),
        });
        let resolver = Resolver::new(Rc::clone(&executor), look_up);
        (executor, resolver)
    }

    #[test]
    fn hanging_look_up_is_repeated_for_each_family() {
        let v4 = SocketAddr::from(([192, 0, 2, 7], 443));
        let v6 = "[2001:db8::7]:443".parse::<SocketAddr>().expect("an address");
        let (executor, resolver) = hanging(|family| match family {
            Family::V4 => Ok(vec![SocketAddr::from(([192, 0, 2, 7], 443))]),
            Family::Both | Family::V6 => Err(io::Error::other("none")),
        });
        let ask = || resolver.resolve("console.test", 443, Hop::Console);
        assert_eq!(future::block_on(executor.run(ask())).expect("found"), [v4]);
        assert_eq!(future::block_on(executor.run(ask())).expect("the hanging look-up is joined"), [v4]);

        let (executor, resolver) = hanging(|family| match family {
            Family::V6 => Ok(vec!["[2001:db8::7]:443".parse().expect("an address")]),
            Family::Both | Family::V4 => Ok(vec![]),
        });
        let found = future::block_on(executor.run(resolver.resolve("console.test", 443, Hop::Console)));
        assert_eq!(found.expect("found"), [v6]);
    }

    #[test]
    fn the_system_knows_localhost() {
        let executor = Rc::new(LocalExecutor::new());
        let resolver = Resolver::new(Rc::clone(&executor), system());
        let addresses =
            future::block_on(executor.run(resolver.resolve("localhost", 80, Hop::Console))).expect("resolved");
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }
}
