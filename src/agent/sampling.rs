//! Takes samples beside the loop, and looks at Sindri's ledger with each heartbeat.
//!
//! It does not decide when; the machine orders each heartbeat and each sample. At most one request of each kind waits.

use super::Agent;
use crate::metrics::{CPU_INTERVAL_MIN, Figure, Roots, Sampler};
use crate::protocol::metrics::{Live, Metrics, Stamped};
use crate::protocol::{Heartbeat, Timestamp};
use crate::report::Reporter;
use crate::sindri::{News, Watch};
use async_channel::{Receiver, Sender};
use draupnir_fsm::delivery::StateKind;
use futures_lite::FutureExt as _;
use smol::{LocalExecutor, Timer};
use std::rc::Rc;

/// How many requests may wait: one of each kind. The same figures are not wanted twice.
const WANTS_MAX: usize = 2;

/// What was measured.
#[derive(Debug)]
pub enum Report {
    /// The live figures of a heartbeat.
    Heartbeat(Live),
    /// Everything.
    Metrics(Box<Metrics>),
    /// What is new about the instance's software.
    Software(News),
    /// What cannot be measured here; each figure once.
    Missing(Vec<Figure>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Heartbeat,
    Metrics,
}

/// The requests to the task that samples.
#[derive(Debug)]
pub(super) struct Sampling {
    wants: Sender<Want>,
}

impl Sampling {
    /// Starts the task.
    pub(super) fn begin(executor: &Rc<LocalExecutor<'static>>, reporter: Reporter, watch: Watch, first: News) -> Self {
        let (wants, requests) = async_channel::bounded(WANTS_MAX);
        executor.spawn(sample(requests, reporter, watch, first)).detach();
        Self { wants }
    }

    pub(super) fn want_heartbeat(&self) {
        // Full: one waits already, and its figures will be as new.
        let _ = self.wants.try_send(Want::Heartbeat);
    }

    pub(super) fn want_metrics(&self) {
        let _ = self.wants.try_send(Want::Metrics);
    }
}

async fn sample(wants: Receiver<Want>, reporter: Reporter, mut watch: Watch, first: News) {
    watch.keep().await;
    reporter.report(Report::Software(first)).await;
    let mut sampler = Sampler::new(Roots::default());
    let (mut heartbeat_wanted, mut metrics_wanted) = (false, false);
    loop {
        let is_early = !sampler.has_cpu_sample();
        let ready = async {
            match (heartbeat_wanted || metrics_wanted, is_early) {
                (false, _) => std::future::pending().await,
                (true, true) => drop(Timer::after(CPU_INTERVAL_MIN).await),
                (true, false) => {}
            }
            Ok(None)
        };
        let Ok(want) = (async { wants.recv().await.map(Some) }).or(ready).await else { return };
        match want {
            Some(Want::Heartbeat) => heartbeat_wanted = true,
            Some(Want::Metrics) => metrics_wanted = true,
            None => {}
        }
        if !sampler.has_cpu_sample() {
            // The first ones wait for a figure for the processors, which takes two readings.
            if want.is_some() {
                sampler.prime();
            }
            continue;
        }
        if std::mem::take(&mut heartbeat_wanted) {
            let news = watch.look().await;
            watch.keep().await;
            if let Some(news) = news {
                reporter.report(Report::Software(news)).await;
            }
            let live = sampler.live();
            report_missing(&mut sampler, &reporter).await;
            reporter.report(Report::Heartbeat(live)).await;
        }
        if std::mem::take(&mut metrics_wanted) {
            let metrics = Box::new(sampler.sample());
            report_missing(&mut sampler, &reporter).await;
            reporter.report(Report::Metrics(metrics)).await;
        }
    }
}

async fn report_missing(sampler: &mut Sampler, reporter: &Reporter) {
    let missing = sampler.take_missing();
    if !missing.is_empty() {
        reporter.report(Report::Missing(missing)).await;
    }
    if let Some(mount_points) = sampler.take_left_out() {
        tracing::info!(?mount_points, "left file systems out of the metrics: another machine or a program serves them");
    }
}

impl Agent {
    /// Turns what was measured into a state message. A link that has gone meanwhile gets nothing: its successor asks anew.
    pub(super) fn sample_reports(&mut self, report: Report) {
        let is_linked = self.live_link().is_some();
        let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
        let timestamp = Timestamp::now();
        match report {
            Report::Heartbeat(live) => {
                let uptime_seconds = self.start.elapsed().as_ms() / 1_000;
                // Once for each connection, and once after a change.
                let is_due = is_linked && !std::mem::replace(&mut self.seen.inventory_sent, is_linked);
                let inventory = is_due.then_some(&self.inventory);
                let message =
                    Heartbeat { instance_id, timestamp, uptime_seconds, live: Some(live), inventory }.message();
                self.engine.delivery.set_state(StateKind::Heartbeat, message);
            }
            Report::Metrics(metrics) => {
                let message = Stamped { instance_id, timestamp, metrics: &metrics }.message();
                self.engine.delivery.set_state(StateKind::Metrics, message);
            }
            Report::Software(News { inventory, changes }) => {
                self.seen.inventory_sent &= self.inventory == inventory;
                self.inventory = inventory;
                for change in &changes {
                    let instance_id = self.identity.id.as_ref().unwrap_or(&self.config.instance_id);
                    let message = self.events.extension(change, instance_id);
                    self.push_event(message);
                }
            }
            Report::Missing(figures) => {
                let figures = figures.into_iter().map(Figure::name).collect::<Vec<_>>().join(", ");
                self.tell_missing(&figures);
            }
        }
    }
}
