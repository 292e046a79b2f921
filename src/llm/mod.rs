//! Counts the tokens of AI tools on this instance: a reverse proxy between them and their providers.
//!
//! It is not there unless the configuration says so. It passes requests and answers on as they are, while they stream,
//! and keeps nothing of them but the numbers in an answer and the name of the model. It decides nothing about the
//! console: each answer that tells its usage becomes one report. The driver says when the records are sent, and when a
//! port that was taken is tried again. Time-outs of connections to providers are in `upstream`.
//!
//! Invariants: it listens on loopback alone; no header and no body reaches a log, an error or a report; memory for each
//! connection is bounded, and so are the connections.
//!
//! | file | what it does |
//! |---|---|
//! | `listener` | the sockets, and how many connections there may be |
//! | `proxy` | one request: what is refused, where it goes, which headers stay behind |
//! | `body` | bodies that are counted while they pass |
//! | `upstream` | connections to a provider, kept for the next request |
//! | [`provider`] | which providers there are, and their paths |
//! | [`usage`], [`scan`], `events`, `inflate` | the numbers in an answer, compressed or not |
//!
//! Wire: PROTOCOL.md, "llm_usage:batch".

mod body;
mod events;
mod inflate;
mod listener;
pub mod provider;
mod proxy;
pub mod scan;
#[cfg(test)]
mod tests;
mod upstream;
pub mod usage;

use crate::config::Config;
use crate::link::Link;
use crate::report::Reporter;
use smol::LocalExecutor;
use std::rc::Rc;
use std::time::SystemTime;
use usage::Usage;

pub(crate) use listener::Listeners;

/// The model of a record whose answer and request name none: the console loses a batch with a record without one.
const MODEL_UNKNOWN: &str = "unknown";

/// What the loop handles.
#[derive(Debug)]
pub enum LlmReport {
    /// An answer named its usage.
    Counted(Counted),
    /// The port cannot be listened on: why, and what to do.
    PortTaken(String),
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The provider's name.
    pub provider: &'static str,
    /// The model: of the answer, else of the request, else of the path, else `unknown`.
    pub model: String,
    /// `chat`, `embedding` and so on.
    pub operation: &'static str,
    /// The numbers.
    pub usage: Usage,
    /// When the answer ended.
    pub at: SystemTime,
}

/// Starts to listen, where the configuration says so.
///
/// # Errors
/// The operator must correct the variable of the proxy that leads to a provider.
pub(crate) fn start(
    config: &Config,
    link: &Link,
    executor: &Rc<LocalExecutor<'static>>,
    reporter: &Reporter,
) -> Result<Option<Listeners>, crate::link::proxy::ProxyError> {
    let Some(llm) = &config.llm else { return Ok(None) };
    let proxy = Rc::new(proxy::Proxy::new(llm, &config.proxies, link, executor, reporter)?);
    let mut listeners = Listeners::new(llm.port, proxy, executor, reporter);
    listeners.listen();
    Ok(Some(listeners))
}
