//! Measures file systems that may hang, without ever hanging.
//!
//! Source: statvfs(3) by way of [`Measure`], on the pool of `blocking`. Decides nothing about what the sizes mean.
//!
//! Invariants: at most one measurement is under way for a mount, and [`WORKERS_MAX`] for all; one waits at most
//! [`WAIT_MAX`] for all of them together; what was known stays in use for [`STALE_MAX`], and is then left out. A mount that
//! hangs for ever costs the one worker that asked it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_io::Timer;
use blocking::{Task, unblock};
use futures_lite::future::{or, poll_once};

use super::super::roots::{Measure, Space};

/// How many workers may be waiting for file systems at once. The pool is shared with name look-ups, which need theirs.
pub(crate) const WORKERS_MAX: usize = 4;

/// How long a sample waits for all of them: a server in the same building answers within a few milliseconds.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(100);

/// How old a size may be: after this, nothing is known.
pub(crate) const STALE_MAX: Duration = Duration::from_secs(300);

/// One mount that may hang.
#[derive(Debug)]
struct Distant {
    place: PathBuf,
    known: Option<(Duration, Space)>,
    asked: Option<Task<Option<Space>>>,
    wanted: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    mounts: Vec<Distant>,
}

impl Remote {
    /// These are the mounts from now on. What is known of those that stay is kept, and so is a question under way: also one
    /// about a mount that is gone, until it is answered, so that a mount that comes and goes cannot pile up workers.
    pub(crate) fn set<'a>(&mut self, places: impl Iterator<Item = &'a Path>) {
        for mount in &mut self.mounts {
            mount.wanted = false;
        }
        for place in places {
            if let Some(mount) = self.mounts.iter_mut().find(|mount| mount.place == place) {
                mount.wanted = true;
            } else {
                self.mounts.push(Distant { place: place.to_path_buf(), known: None, asked: None, wanted: true });
            }
        }
        self.mounts.retain(|mount| mount.wanted || mount.asked.is_some());
    }

    /// Asks all of them anew, and waits a bounded time for the answers.
    pub(crate) async fn refresh(&mut self, at: Duration, measure: &Measure) {
        if self.mounts.is_empty() {
            return;
        }
        let answers = async {
            // Several rounds where there are more mounts than workers: an answer makes room for a question.
            let mut next = 0;
            loop {
                let asked = self.ask(&mut next, measure);
                if !self.answer(at).await && !asked {
                    return;
                }
            }
        };
        or(answers, async {
            Timer::after(WAIT_MAX).await;
        })
        .await;
        self.collect(at).await;
    }

    /// What is known of a mount.
    pub(crate) fn known(&self, place: &Path, at: Duration) -> Option<Space> {
        let (since, space) = self.mounts.iter().find(|mount| mount.place == place)?.known?;
        (at.saturating_sub(since) <= STALE_MAX).then_some(space)
    }

    /// Puts as many questions as there are workers, from the mount numbered `next` on; whether there was one.
    fn ask(&mut self, next: &mut usize, measure: &Measure) -> bool {
        let mut busy = self.mounts.iter().filter(|mount| mount.asked.is_some()).count();
        let mut asked = false;
        for mount in self.mounts.iter_mut().skip(*next) {
            if busy >= WORKERS_MAX {
                break;
            }
            *next += 1;
            if mount.wanted && mount.asked.is_none() {
                let (measure, place) = (measure.clone(), mount.place.clone());
                mount.asked = Some(unblock(move || measure(&place).ok()));
                busy += 1;
                asked = true;
            }
        }
        asked
    }

    /// Waits for any one answer; false when no question is open.
    async fn answer(&mut self, at: Duration) -> bool {
        if self.mounts.iter().all(|mount| mount.asked.is_none()) {
            return false;
        }
        let mounts = &mut self.mounts;
        futures_lite::future::poll_fn(|context| {
            let mut any = false;
            for mount in mounts.iter_mut() {
                if let Some(task) = &mut mount.asked
                    && let std::task::Poll::Ready(space) = std::pin::Pin::new(task).poll(context)
                {
                    mount.settle(at, space);
                    any = true;
                }
            }
            if any { std::task::Poll::Ready(true) } else { std::task::Poll::Pending }
        })
        .await
    }

    /// Takes what has been answered meanwhile, without waiting.
    async fn collect(&mut self, at: Duration) {
        for mount in &mut self.mounts {
            if let Some(task) = &mut mount.asked
                && let Some(space) = poll_once(task).await
            {
                mount.settle(at, space);
            }
        }
        self.mounts.retain(|mount| mount.wanted || mount.asked.is_some());
    }
}

impl Distant {
    /// A refusal (a stale handle, a server that is gone) is an answer, too: nothing is known then.
    fn settle(&mut self, at: Duration, space: Option<Space>) {
        self.asked = None;
        self.known = space.map(|space| (at, space));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Instant;

    use futures_lite::future::block_on;

    use super::*;

    /// Answers for every place but those under `/hung`, which it holds until it is let go.
    struct Server {
        open: Mutex<bool>,
        changed: Condvar,
        waiting: AtomicUsize,
    }

    impl Server {
        fn start() -> (Arc<Self>, Measure) {
            let server =
                Arc::new(Self { open: Mutex::new(false), changed: Condvar::new(), waiting: AtomicUsize::new(0) });
            let served = server.clone();
            let measure: Measure = Arc::new(move |place: &Path| {
                if place.starts_with("/hung") {
                    served.waiting.fetch_add(1, Ordering::SeqCst);
                    let mut open = served.open.lock().expect("nobody panics here");
                    while !*open {
                        open = served.changed.wait(open).expect("nobody panics here");
                    }
                }
                Ok(Space { total_bytes: 7, directory: true, ..Space::default() })
            });
            (server, measure)
        }

        fn let_go(&self) {
            *self.open.lock().expect("nobody panics here") = true;
            self.changed.notify_all();
        }
    }

    fn places(text: &str) -> Vec<PathBuf> {
        text.split(' ').map(PathBuf::from).collect()
    }

    #[test]
    fn a_mount_that_hangs_costs_one_worker_and_a_bounded_wait() {
        let (server, measure) = Server::start();
        let places = places("/good /hung/1 /fine");
        let mut remote = Remote::default();
        let start = Instant::now();
        for round in 0..3 {
            remote.set(places.iter().map(PathBuf::as_path));
            block_on(remote.refresh(Duration::from_secs(round), &measure));
        }
        // Generous, because the machine may be busy: three bounded waits, not an endless one.
        assert!(start.elapsed() < WAIT_MAX * 3 + Duration::from_secs(5));
        assert_eq!(server.waiting.load(Ordering::SeqCst), 1, "the question is put once while it is open");
        let now = Duration::from_secs(2);
        assert!(remote.known(Path::new("/good"), now).is_some() && remote.known(Path::new("/fine"), now).is_some());
        assert_eq!(remote.known(Path::new("/hung/1"), now), None);
        server.let_go();
    }

    #[test]
    fn many_that_hang_leave_workers_for_others() {
        let (server, measure) = Server::start();
        let places: Vec<PathBuf> = (0..20).map(|index| format!("/hung/{index}").into()).collect();
        let mut remote = Remote::default();
        for round in 0..3 {
            // They even change their names: no more workers for it.
            remote.set(places.iter().skip(round).map(PathBuf::as_path));
            block_on(remote.refresh(Duration::ZERO, &measure));
        }
        assert!(server.waiting.load(Ordering::SeqCst) <= WORKERS_MAX);
        server.let_go();
    }

    #[test]
    fn more_mounts_than_workers_are_all_asked() {
        let (_, measure) = Server::start();
        let places: Vec<PathBuf> = (0..20).map(|index| format!("/good/{index}").into()).collect();
        let mut remote = Remote::default();
        remote.set(places.iter().map(PathBuf::as_path));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !places.iter().all(|place| remote.known(place, Duration::ZERO).is_some()) {
            assert!(Instant::now() < deadline, "they are never all answered");
            block_on(remote.refresh(Duration::ZERO, &measure));
        }
    }

    #[test]
    fn what_is_known_grows_old() {
        let (_, measure) = Server::start();
        let mut remote = Remote::default();
        let place = Path::new("/good");
        remote.set([place].into_iter());
        let deadline = Instant::now() + Duration::from_secs(20);
        while remote.known(place, Duration::ZERO).is_none() {
            assert!(Instant::now() < deadline, "it is never answered");
            block_on(remote.refresh(Duration::ZERO, &measure));
        }
        assert!(remote.known(place, STALE_MAX).is_some());
        assert_eq!(remote.known(place, STALE_MAX + Duration::from_millis(1)), None);
    }
}
