//! Takes samples beside the loop, and looks at Sindri's ledger with each heartbeat.
//!
//! It does not decide when; the machine orders each heartbeat and each sample. At most one request of each kind waits.

use super::Agent;
use super::host::Note;
use crate::metrics::{CPU_INTERVAL_MIN, Figure, Roots, Sampler};
use crate::protocol::Metadata;
use crate::protocol::metrics::{Live, Metrics};
use crate::report::Reporter;
use crate::sindri::{News, Watch};
use async_channel::{Receiver, Sender};
use draupnir_fsm::driver::{Input, StateKind};
use futures_lite::FutureExt as _;
use smol::{LocalExecutor, Timer};
use std::rc::Rc;

/// How many requests may wait: one of each kind. The same figures are not wanted twice.
const WANTS_MAX: usize = 2;

/// What was measured.
#[derive(Debug)]
pub enum SampleReport {
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

/// The requests to the task that samples, and what it measured last.
#[derive(Debug)]
pub(super) struct Sampling {
    wants: Sender<Want>,
    pub(super) live: Option<Live>,
    pub(super) metrics: Option<Box<Metrics>>,
}

impl Sampling {
    /// Starts the task.
    pub(super) fn begin(executor: &Rc<LocalExecutor<'static>>, reporter: Reporter, watch: Watch, first: News) -> Self {
        let (wants, requests) = async_channel::bounded(WANTS_MAX);
        executor.spawn(sample(requests, reporter, watch, first)).detach();
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

async fn sample(wants: Receiver<Want>, reporter: Reporter, mut watch: Watch, first: News) {
    reporter.report(SampleReport::Software(first)).await;
    let mut sampler = Sampler::new(Roots::default());
    let (mut heartbeat_wanted, mut metrics_wanted, mut has_started) = (false, false, false);
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
            if let Some(news) = watch.look().await {
                reporter.report(SampleReport::Software(news)).await;
            }
            let live = sampler.live();
            report_missing(&mut sampler, &reporter).await;
            reporter.report(SampleReport::Heartbeat(live)).await;
        }
        if std::mem::take(&mut metrics_wanted) {
            let metrics = Box::new(sampler.sample());
            report_missing(&mut sampler, &reporter).await;
            reporter.report(SampleReport::Metrics(metrics)).await;
            if !std::mem::replace(&mut has_started, true) {
                // The first metrics are the last thing that the start does.
                crate::sys::code::unmap_code();
            }
        }
    }
}

async fn report_missing(sampler: &mut Sampler, reporter: &Reporter) {
    let missing = sampler.take_missing();
    if !missing.is_empty() {
        reporter.report(SampleReport::Missing(missing)).await;
    }
    if let Some(mount_points) = sampler.take_left_out() {
        tracing::info!(?mount_points, "left file systems out of the metrics: another machine or a program serves them");
    }
}

impl Agent {
    /// Keeps what was measured until the driver asks for the message.
    pub(super) fn sample_report(&mut self, report: SampleReport) {
        let sample = match report {
            SampleReport::Heartbeat(live) => {
                self.host.sampling.live = Some(live);
                StateKind::Heartbeat
            }
            SampleReport::Metrics(metrics) => {
                self.host.sampling.metrics = Some(metrics);
                StateKind::Metrics
            }
            SampleReport::Software(News { inventory, changes, position }) => {
                self.host.learn(inventory);
                for change in changes {
                    let note = self.host.keep(Note::Extension(change));
                    self.handle(Input::Noted { note, cause: None });
                }
                if let Some(position) = position {
                    self.host.kept.set_position(position);
                }
                return;
            }
            SampleReport::Missing(figures) => {
                let figures = figures.into_iter().map(Figure::name).collect::<Vec<_>>().join(", ");
                let text = "figures are 0 because this machine does not report them".to_owned();
                let note = self.host.error_note("metrics", text, Metadata::new().with("figures", figures));
                // Each figure is reported once.
                return self.handle(Input::Noted { note, cause: None });
            }
        };
        self.handle(Input::Sampled { sample });
    }
}
