//! The loop: reports in, facts to the machine, orders out, frames to the link.
//!
//! It owns everything and decides nothing. What a report means stands in `inbound`, how an order is performed in
//! `orders`, what is written in `outbound`; `sessions` and `commands` know which of the console's ids is which number.
//! All of it runs on one executor on the main thread, and no part of it ever waits but the loop itself, for the next
//! report or deadline.

mod clocks;
mod commands;
mod events;
mod inbound;
mod orders;
mod outbound;
mod policy;
mod recorder;
pub mod sampling;
mod sessions;
mod settings;
mod share;
pub mod signals;

use crate::audit::Audit;
use crate::config::{Config, host_name};
use crate::identity::{Identity, Memory};
use crate::link::proxy::ProxyError;
use crate::link::{self, Link, Target};
use crate::protocol::{InstanceId, Inventory, Metadata};
use crate::report::{self, Report, Reporter};
use crate::restart::Past;
use crate::sindri;
use async_channel::Receiver;
use clocks::{Alarm, Start};
use draupnir_fsm::delivery::budget::Budget;
use draupnir_fsm::engine::Engine;
use draupnir_fsm::fact::{Attempt, Fact};
use draupnir_fsm::limits::{Policy, Schedule};
use draupnir_fsm::order::RegisterPath;
use futures_lite::FutureExt as _;
use smol::LocalExecutor;
use std::rc::Rc;

/// How many reports are taken in before time is allowed to pass: a flood must not keep deadlines from firing.
const REPORTS_PER_TURN_MAX: usize = 64;

/// Everything that lives as long as the process.
pub struct Agent {
    config: Rc<Config>,
    start: Start,
    engine: Engine<String>,
    link: Link,
    /// Which id and path are known, as long as the process lives.
    identity: Identity,
    /// The same, across restarts.
    memory: Memory,
    /// The path of the registration in flight: the one that worked is remembered.
    registering_at: Option<RegisterPath>,
    hostname: String,
    /// Whether the operator set the id: where he did not, the host name stands in for it.
    is_named: bool,
    /// The software, as it was looked at last.
    inventory: Inventory,
    events: events::Events,
    sampling: sampling::Sampling,
    sessions: sessions::Sessions,
    commands: commands::Commands,
    audit: Audit,
    /// What was noticed on the current link.
    seen: LinkNotes,
    /// What keeps the agent from the console, as it was last told: the same is not worth a line at each retry.
    trouble: Option<String>,
    /// How the console put its last refusal, until a problem is reported with it.
    words: Option<String>,
    reports: Receiver<Report>,
    alarm: Alarm,
}

/// What is noticed once for each link.
#[derive(Debug, Default)]
struct LinkNotes {
    greeted: bool,
    inventory_sent: bool,
    versions_warned: Vec<String>,
}

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine must let the agent handle signals.
    #[error("the signal handlers cannot be installed: {0}")]
    Signals(std::io::Error),
    /// The operator must correct the variable of the proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The operator must correct what the link is made of.
    #[error(transparent)]
    Link(#[from] link::Error),
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// It could not begin. Once it runs, nothing ends it but a signal.
pub fn run(config: Config, past: Past) -> Result<(), Error> {
    let executor = Rc::new(LocalExecutor::new());
    let start = Start::now();
    let spawner = Rc::clone(&executor);
    futures_lite::future::block_on(executor.run(async move {
        let (reporter, reports) = report::channel();
        let listening = signals::listen(reporter.clone()).map_err(Error::Signals)?;
        spawner.spawn(listening).detach();
        if let Some(reaping) = signals::reap_orphans(past).map_err(Error::Signals)? {
            spawner.spawn(reaping).detach();
        }
        let mut watch = sindri::Watch::new(config.home.as_deref(), config.state_dir.as_deref());
        let news = watch.look().await.unwrap_or_default();
        Agent::new(config, start, &spawner, &reporter, reports, (watch, news))?.live(past).await;
        Ok(())
    }))
}

impl Agent {
    fn new(
        config: Config,
        start: Start,
        executor: &Rc<LocalExecutor<'static>>,
        reporter: &Reporter,
        reports: Receiver<Report>,
        (watch, news): (sindri::Watch, sindri::News),
    ) -> Result<Self, Error> {
        let config = Rc::new(config);
        let schedule = Schedule { heartbeat_ms: config.heartbeat_ms, metrics_ms: config.metrics_ms };
        let seed = entropy();
        let mut engine = Engine::new(Policy::default(), schedule, seed);
        if let Some(path) = &config.record {
            recorder::begin(&mut engine, path, seed, schedule);
        }
        let console = config.console_url.to_string();
        let (memory, error) = Memory::open(config.state_dir.as_deref(), &console, &config.instance_id);
        if let Some(error) = error {
            tracing::warn!(%error, "nothing is remembered across restarts");
        }
        let target = Target::of(&config)?;
        if target.exposes_key() {
            tracing::warn!(host = config.console_url.host(), "the key travels in clear text: use https");
        }
        let (audit, problem) = Audit::open(config.audit.clone());
        if let Some(problem) = problem {
            tracing::error!(%problem, "no terminal is opened and no command run until it can");
        }
        let budget = Rc::new(Budget::new());
        Ok(Self {
            link: Link::new(target, Rc::clone(executor), reporter.clone())?,
            identity: memory.identity(),
            memory,
            registering_at: None,
            is_named: config.instance_id.as_str() != host_name(),
            hostname: host_name(),
            inventory: news.inventory.clone(),
            events: events::Events::new(entropy()),
            sampling: sampling::Sampling::begin(executor, reporter.clone(), watch, news),
            sessions: sessions::Sessions::new(&config, executor, reporter, &budget),
            commands: commands::Commands::new(&config, executor, reporter, &budget),
            audit,
            seen: LinkNotes::default(),
            trouble: None,
            words: None,
            config,
            start,
            engine,
            reports,
            alarm: Alarm::new(),
        })
    }

    async fn live(mut self, past: Past) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            instance_id = %self.instance_id(),
            console = %self.config.console_url,
            "started"
        );
        if past.is_restart() {
            self.error_event("agent", "the agent panicked and was started anew", Metadata::new());
        }
        self.tell(Fact::Started { remembered: self.identity.id.is_some() });
        loop {
            self.turn();
            if self.engine.machine().is_stopped() {
                tracing::info!("stopped");
                return;
            }
            let report = self.wait().await;
            // First of all, or what waits to be told would count as lived through after a freeze.
            self.engine.observe(self.start.elapsed(), clocks::read(), entropy);
            let Some(report) = report else { continue };
            self.take_in(report);
            for _ in 1..REPORTS_PER_TURN_MAX {
                let Ok(report) = self.reports.try_recv() else { break };
                self.take_in(report);
            }
        }
    }

    /// The next report, or nothing once the next deadline is there.
    async fn wait(&mut self) -> Option<Report> {
        let due = self.engine.next_deadline().and_then(|deadline| self.start.instant(deadline));
        let report = async { self.reports.recv().await.ok() };
        match due {
            Some(due) => {
                let deadline = async {
                    self.alarm.wait_until(due).await;
                    None
                };
                report.or(deadline).await
            }
            None => report.await,
        }
    }

    /// Lets time pass and does all that is to be done, until nothing more is.
    fn turn(&mut self) {
        let now = self.start.elapsed();
        loop {
            self.engine.tick(now, self.link.bytes_written());
            let mut performed = false;
            while let Some(order) = self.engine.poll_order() {
                performed = true;
                self.perform(order);
            }
            self.follow_deliveries();
            if !performed {
                break;
            }
        }
        self.feed_link(now);
        self.feed_sources();
    }

    /// Hands one fact to the machine, now.
    fn tell(&mut self, fact: Fact) {
        let now = self.start.elapsed();
        self.engine.handle(now, fact);
    }

    /// The id by which the console knows this instance: the one it gave, else the configured one.
    fn instance_id(&self) -> &InstanceId {
        self.identity.id.as_ref().unwrap_or(&self.config.instance_id)
    }

    /// The link that is up, if one is.
    fn live_link(&self) -> Option<Attempt> {
        self.engine.machine().snapshot().link
    }
}

/// 64 bits that nobody can foresee.
fn entropy() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds each of these from the operating system, and it is linked already.
    std::hash::RandomState::new().build_hasher().finish()
}
