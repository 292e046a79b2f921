//! Takes samples beside the loop: a file system that hangs may delay metrics, and nothing else.
//!
//! It does not decide when; the machine orders each heartbeat and each sample. At most one request of each kind waits.

use super::Agent;
use crate::metrics::{CPU_INTERVAL_MIN, Figure, Roots, Sampler};
use crate::protocol::Metadata;
use crate::protocol::metrics::{Live, Metrics};
use crate::report::Reporter;
use async_channel::{Receiver, Sender};
use draupnir_fsm::driver::{Input, StateKind};
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
    /// What cannot be measured here; each figure once.
    Missing(Vec<Figure>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Heartbeat,
    Metrics,
}

/// The requests to the task that samples, and what it measured last.
#[derive(Debug)]
pub(super) struct Sampling {
    wants: Sender<Want>,
    pub(super) live: Option<Live>,
    pub(super) metrics: Option<Box<Metrics>>,
}

impl Sampling {
    /// Starts the task.
    pub(super) fn begin(executor: &Rc<LocalExecutor<'static>>, reporter: Reporter) -> Self {
        let (wants, requests) = async_channel::bounded(WANTS_MAX);
        executor.spawn(sample(requests, reporter)).detach();
        Self { wants, live: None, metrics: None }
    }

    pub(super) fn want_heartbeat(&self) {
        // Full: one waits already, and its figures will be as new.
        let _ = self.wants.try_send(Want::Heartbeat);
    }

    pub(super) fn want_metrics(&self) {
        let _ = self.wants.try_send(Want::Metrics);
    }
}

async fn sample(wants: Receiver<Want>, reporter: Reporter) {
    let mut sampler = Sampler::new(Roots::default());
    let mut metrics_wanted = false;
    loop {
        // The first metrics wait for a figure for the processors; heartbeats do not wait for them.
        let early = metrics_wanted && !sampler.has_cpu_sample();
        let ready = async {
            match (metrics_wanted, early) {
                (false, _) => std::future::pending().await,
                (true, true) => drop(Timer::after(CPU_INTERVAL_MIN).await),
                (true, false) => {}
            }
            Some(Want::Metrics)
        };
        match (async { wants.recv().await.ok() }).or(ready).await {
            Some(Want::Heartbeat) => {
                let live = sampler.live();
                report_missing(&mut sampler, &reporter).await;
                reporter.report(Report::Heartbeat(live)).await;
            }
            Some(Want::Metrics) if metrics_wanted && sampler.has_cpu_sample() => {
                metrics_wanted = false;
                let metrics = Box::new(sampler.sample().await);
                report_missing(&mut sampler, &reporter).await;
                reporter.report(Report::Metrics(metrics)).await;
            }
            Some(Want::Metrics) => {
                metrics_wanted = true;
                sampler.prime();
            }
            None => return,
        }
    }
}

async fn report_missing(sampler: &mut Sampler, reporter: &Reporter) {
    let missing = sampler.take_missing();
    if !missing.is_empty() {
        reporter.report(Report::Missing(missing)).await;
    }
}

impl Agent {
    /// Keeps what was measured until the driver asks for the message.
    pub(super) fn sample_report(&mut self, report: Report) {
        let sample = match report {
            Report::Heartbeat(live) => {
                self.host.sampling.live = Some(live);
                StateKind::Heartbeat
            }
            Report::Metrics(metrics) => {
                self.host.sampling.metrics = Some(metrics);
                StateKind::Metrics
            }
            Report::Missing(figures) => {
                let figures = figures.into_iter().map(Figure::name).collect::<Vec<_>>().join(", ");
                let text = "figures are 0 because this machine does not tell them".to_owned();
                let note = self.host.note("metrics", text, Metadata::new().with("figures", figures));
                // Each figure is reported once.
                return self.handle(Input::Noted { note, cause: None });
            }
        };
        self.handle(Input::Sampled { sample });
    }
}
