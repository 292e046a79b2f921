//! The loop around the driver: reports become inputs, outputs become calls.
//!
//! It decides nothing. What a report means stands in `reports`, what is done about an output in `actions`, what
//! messages look like in `host`; `sessions` and `commands` keep the console's ids. All of it runs on one executor on
//! the main thread, and nothing blocks it but the wait for the next report or deadline.

mod actions;
mod clocks;
mod commands;
mod events;
mod hand_over;
mod health;
mod host;
mod journal;
mod policy;
mod recorder;
mod reports;
pub mod sampling;
mod sessions;
mod settings;
pub mod signals;

pub(crate) use host::Text;

use crate::audit::Audit;
use crate::config::{Config, host_name};
use crate::hand_over::fallback;
use crate::hand_over::state::State;
use crate::identity::{self, IdentityStore};
use crate::journal::Journal;
use crate::link::proxy::ProxyError;
use crate::link::{self, Link, Target};
use crate::llm;
use crate::logs::Logs;
use crate::park;
use crate::protocol::Metadata;
use crate::report::{self, Report, Reporter};
use crate::sindri;
use crate::status;
use crate::writer::ANSWER_TIMEOUT;
use async_channel::Receiver;
use clocks::{DeadlineTimer, Epoch};
use draupnir_fsm::driver::budget::Budget;
use draupnir_fsm::driver::{Driver, INPUTS_PER_TURN_MAX, IdSource, Input, PanicHistory, Policy, Schedule, Time};
use futures_lite::FutureExt as _;
use host::Host;
use litemap::LiteMap;
use smol::LocalExecutor;
use std::collections::VecDeque;
use std::hash::RandomState;
use std::rc::Rc;
use std::time::Instant;

/// Everything that lives as long as the process.
pub struct Agent {
    driver: Driver<Text>,
    host: Host,
    /// Makes numbers of the causes of errors.
    hasher: RandomState,
    reports: Receiver<Report>,
    /// What was known at once when an output was performed: input of the next turn.
    pending: Vec<Input>,
    /// The time of this turn.
    now: Time,
    /// What the kernel had taken of the link's bytes when that was last looked at.
    bytes_written: u64,
    deadline_timer: DeadlineTimer,
    /// The service manager, where one started the agent.
    service: Option<health::Notifications>,
}

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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

/// Runs the agent until it has received a signal that asks it to stop, and has drained. `state` is what the program
/// before this one left.
///
/// # Errors
/// It could not start. Once it runs, nothing ends it but a signal.
pub fn run(config: Config, history: PanicHistory, state: Option<State>) -> Result<(), StartError> {
    let executor = Rc::new(LocalExecutor::new());
    let epoch = Epoch::now();
    let spawner = Rc::clone(&executor);
    // A task like the others, or it would have its turn only when none of them can run.
    let agent = executor.spawn(async move {
        let (reporter, reports) = report::channel();
        let listening = signals::listen(reporter.clone()).map_err(StartError::Signals)?;
        spawner.spawn(listening).detach();
        let left = history.is_restart() || state.as_ref().is_some_and(|state| !state.abandoned.is_empty());
        let reaping = signals::reap_orphans(left).map_err(StartError::Signals)?;
        let agent = Agent::new(config, epoch, &spawner, &reporter, reports, state).await?;
        // Not before: a shell or command that has ended by now is no orphan, and its exit code is not lost.
        if let Some(reaping) = reaping {
            spawner.spawn(reaping).detach();
        }
        agent.run(history).await;
        Ok(())
    });
    park::block_on(executor.run(agent))
}

impl Agent {
    async fn new(
        config: Config,
        epoch: Epoch,
        executor: &Rc<LocalExecutor<'static>>,
        reporter: &Reporter,
        reports: Receiver<Report>,
        mut state_before: Option<State>,
    ) -> Result<Box<Self>, StartError> {
        let config = Rc::new(config);
        let Config { heartbeat_ms, metrics_ms, log_lines_per_s, .. } = *config;
        let schedule = Schedule { heartbeat_ms, metrics_ms, log_lines_per_s };
        let seed = state_before.as_ref().filter(|state| !state.is_partial).map_or_else(entropy, |state| state.seed);
        let audited = config.audit.is_some();
        let budget = Rc::new(Budget::new());
        let mut driver = Driver::new(Policy::default(), schedule, seed, audited, Rc::clone(&budget));
        // All four are opened at once, so that one that hangs leaves the others their time.
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let recording = config.record.as_ref().map(|path| recorder::begin(&mut driver, path, seed, schedule, audited));
        let (audit, audit_opening) = Audit::open(config.audit.clone(), executor, reporter.clone());
        let console = config.console_url.to_string();
        let state = IdentityStore::open(config.state_dir.as_deref(), &console, &config.instance_id);
        let opening = config.journal.then(|| Journal::open(config.state_dir.as_deref(), executor, reporter.clone()));
        let (store, error) = state.wait(deadline);
        if let Some(error) = error {
            identity::warn(&error);
        }
        if let Some(recording) = recording {
            recording.wait(deadline);
        }
        let audit_problem = audit_opening.wait(deadline);
        let is_audit_failing = audit_problem.is_some();
        if let Some(problem) = audit_problem {
            tracing::error!(%problem, "audit log not writable; refusing terminals and commands");
        }
        let opened = opening.map(|opening| match opening {
            Ok(opening) => opening.wait(deadline),
            Err(error) => (Journal::absent(), Err(error)),
        });
        // Without a state directory the program before this one alone knows it.
        let identity = state_before.as_ref().and_then(hand_over::identity);
        let identity = identity.unwrap_or_else(|| store.identity().clone());
        let mut kept = journal::Kept::new(opened, &config, identity.id.as_ref(), state_before.as_ref());
        let mut watch = sindri::Watch::new(config.home.as_deref(), kept.take_position());
        let news = watch.look().await.unwrap_or_default();
        let target = Target::of(&config)?;
        if target.exposes_key() {
            tracing::warn!(host = config.console_url.host(), "the key travels in clear text: use https");
        }
        let link = Link::new(target, Rc::clone(executor), reporter.clone())?;
        status::socket::serve(config.status_directories.clone(), executor, reporter.clone());
        let service = health::Notifications::new(config.service.as_ref());
        let mut host = Host {
            epoch,
            listeners: llm::start(&config, &link, executor, reporter)?,
            logs: Logs::new(settings::log_roots(&config), kept.take_log_positions(), executor, reporter),
            link,
            identity,
            store,
            registering_at: None,
            is_named: config.instance_id.as_str() != host_name(),
            hostname: host_name(),
            inventory: news.inventory.clone(),
            inventory_sent: false,
            events: events::Events::new(entropy()),
            sampling: sampling::Sampling::begin(executor, reporter.clone(), watch, news),
            sessions: sessions::Sessions::new(&config, executor, reporter, &budget),
            commands: commands::Commands::new(&config, executor, reporter, &budget),
            audit,
            kept,
            budget,
            last_error: None,
            textfile: config.textfile.clone().map(status::textfile::Textfile::new),
            sample_text: None,
            is_audit_failing,
            audit_problem: "the audit log was not written in time".to_owned(),
            notes: LiteMap::new(),
            next_note: 1,
            versions_warned: Vec::new(),
            last_connect_error: None,
            console_text: None,
            hand_over: hand_over::Steps::new(executor, reporter),
            taken_over: Vec::new(),
            usage: VecDeque::new(),
            config,
        };
        if let Some(state) = &mut state_before {
            host.taken_over = host.take_over(state);
        }
        // On the heap: each move of a future that holds it would use as much of the stack, which is never given back.
        Ok(Box::new(Self {
            driver,
            host,
            hasher: RandomState::new(),
            reports,
            pending: Vec::new(),
            now: epoch.elapsed(),
            bytes_written: 0,
            deadline_timer: DeadlineTimer::new(),
            service,
        }))
    }

    async fn run(mut self: Box<Self>, history: PanicHistory) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            instance_id = %self.host.instance_id(),
            console = %self.host.config.console_url,
            "started"
        );
        let id = match &self.host.identity.id {
            Some(_) => IdSource::Remembered,
            None => IdSource::of_configured(self.host.config.instance_id.as_str()),
        };
        self.handle(Input::Started { id });
        let mut has_begun = false;
        if history.is_restart() {
            let text = "the agent panicked and was restarted".to_owned();
            let note = self.host.error_note("agent", text, Metadata::new());
            self.handle(Input::Noted { note, cause: None });
        }
        loop {
            self.run_once();
            if !std::mem::replace(&mut has_begun, true) {
                fallback::close();
            }
            self.notify_service();
            if self.driver.is_stopped() {
                tracing::info!("stopped");
                return;
            }
            let report = self.wait().await;
            self.now = self.host.epoch.elapsed();
            // First of all, or what waits to be handled would count as lived through after a freeze.
            self.driver.observe(self.now, clocks::read(), entropy);
            std::mem::take(&mut self.pending).into_iter().for_each(|input| self.handle(input));
            let Some(report) = report else { continue };
            self.take_in(report);
            for _ in 1..INPUTS_PER_TURN_MAX {
                let Ok(report) = self.reports.try_recv() else { break };
                self.take_in(report);
            }
        }
    }

    /// The next report, or nothing once the next deadline is there.
    async fn wait(&mut self) -> Option<Report> {
        park::check();
        if !self.pending.is_empty() {
            return None;
        }
        let of_service = self.service.as_ref().and_then(|service| service.notifier.next_deadline());
        let deadline = self.driver.next_deadline().into_iter().chain(of_service).min();
        let due = deadline.and_then(|deadline| self.host.epoch.instant(deadline));
        let report = async { self.reports.recv().await.ok() };
        match due {
            Some(due) => {
                let deadline = async {
                    self.deadline_timer.wait_until(due).await;
                    None
                };
                report.or(deadline).await
            }
            None => report.await,
        }
    }

    /// Does what the driver wants, until nothing is left for this turn.
    fn run_once(&mut self) {
        let bytes = self.host.link.bytes_written();
        if bytes != std::mem::replace(&mut self.bytes_written, bytes) {
            self.handle(Input::WriteProgress { bytes });
        }
        for input in std::mem::take(&mut self.host.taken_over) {
            self.handle(input);
        }
        for input in self.host.take_restored() {
            self.handle(input);
        }
        while let Some(output) = self.driver.poll(self.now, &mut self.host) {
            self.host.perform(output, &mut self.pending);
        }
        self.pending.extend(self.host.kept.end_turn());
        self.do_hand_over();
        if let (Some(text), Some(textfile)) = (self.host.sample_text.take(), &self.host.textfile) {
            textfile.write(&text, &self.driver.health(self.now));
        }
    }

    fn handle(&mut self, input: Input) {
        self.driver.handle(self.now, input);
    }
}

/// 64 bits that no peer can foresee.
fn entropy() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library seeds each of these from the operating system, and it is linked already.
    RandomState::new().build_hasher().finish()
}
