//! Runs a future on this thread, which waits in `poll(2)` while nothing can run: for a wake-up, and for a few
//! descriptors.
//!
//! The reactor waits on a thread of its own, so each of its events costs a second wake-up. The link, and a terminal in
//! which someone types, are waited for here instead: no other thread delays a key or its echo.
//!
//! Invariants: a watch ends with the first event of its descriptor, and wakes its task once. A watch does not keep its
//! descriptor open. Whatever is not taken here stays with the reactor.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::RefCell;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Descriptors that are watched at once: the link, and more terminals than people type in at a time. Each makes every
/// wait a little longer.
const WATCHES_MAX: usize = 8;

thread_local! {
    /// `None` on a thread that does not wait here.
    static WATCHES: RefCell<Option<Vec<Watch>>> = const { RefCell::new(None) };
}

/// A descriptor, and the task that waits for it.
struct Watch {
    source: Weak<dyn AsFd>,
    waker: Waker,
}

/// Wakes the thread.
struct Signal {
    woken: AtomicBool,
    parked: AtomicBool,
    sender: UnixStream,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) && self.parked.load(Ordering::SeqCst) {
            // If it is full, the thread is awake.
            let _ = (&self.sender).write(&[0]);
        }
    }
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let pair = UnixStream::pair().and_then(|(receiver, sender)| {
        receiver.set_nonblocking(true)?;
        sender.set_nonblocking(true)?;
        Ok((receiver, sender))
    });
    let Ok((receiver, sender)) = pair else {
        // Without descriptors, the reactor does it all.
        return futures_lite::future::block_on(future);
    };
    let outer = WATCHES.replace(Some(Vec::new()));
    let signal = Arc::new(Signal { woken: AtomicBool::new(false), parked: AtomicBool::new(false), sender });
    let waker = Waker::from(Arc::clone(&signal));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            WATCHES.set(outer);
            return output;
        }
        signal.parked.store(true, Ordering::SeqCst);
        let is_woken = signal.woken.swap(false, Ordering::SeqCst);
        let due = wait(Some(&receiver), is_woken);
        // Before its own wake-ups, which need no byte.
        signal.parked.store(false, Ordering::SeqCst);
        due.into_iter().for_each(Waker::wake);
        signal.woken.store(false, Ordering::SeqCst);
    }
}

/// Wakes the task of `waker` once there is something to read, or the end. If this is false, the reactor must do it.
pub(crate) fn watch<S: AsFd + 'static>(source: &Rc<S>, waker: &Waker) -> bool {
    // The poll(2) of macOS does not know terminals.
    if !cfg!(target_os = "linux") {
        return false;
    }
    let source: Weak<dyn AsFd> = Rc::<S>::downgrade(source);
    WATCHES.with_borrow_mut(|watches| {
        let Some(watches) = watches else { return false };
        if let Some(watch) = watches.iter_mut().find(|watch| Weak::ptr_eq(&watch.source, &source)) {
            watch.waker.clone_from(waker);
            return true;
        }
        watches.retain(|watch| watch.source.strong_count() > 0);
        let fits = watches.len() < WATCHES_MAX;
        if fits {
            watches.push(Watch { source, waker: waker.clone() });
        }
        fits
    })
}

/// Wakes the tasks whose descriptors are ready. While tasks run all the time, the thread never waits.
pub(crate) fn check() {
    wait(None, true).into_iter().for_each(Waker::wake);
}

/// Waits until a watched descriptor is ready or the thread is woken, or only looks; the result wakes the tasks.
fn wait(receiver: Option<&UnixStream>, only_look: bool) -> Vec<Waker> {
    WATCHES.with_borrow_mut(|watches| {
        let Some(watches) = watches else { return Vec::new() };
        if only_look && watches.is_empty() {
            return Vec::new();
        }
        watches.retain(|watch| watch.source.strong_count() > 0);
        let sources: Vec<Rc<dyn AsFd>> = watches.iter().filter_map(|watch| watch.source.upgrade()).collect();
        let mut interests: Vec<PollFd<'_>> = sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
        interests.extend(receiver.map(|receiver| PollFd::new(receiver, PollFlags::IN)));
        // It fails for a moment where a signal came or memory is short: the tasks run once more, and it is tried again.
        let _ = poll(&mut interests, only_look.then_some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let ready: Vec<bool> = interests.iter().map(|interest| !interest.revents().is_empty()).collect();
        if let Some(mut receiver) = receiver.filter(|_| ready.len() > sources.len() && ready.ends_with(&[true])) {
            let _ = receiver.read(&mut [0; 8]);
        }
        let mut ready = ready.into_iter();
        let due = watches.extract_if(.., |_| ready.next() == Some(true));
        due.map(|watch| watch.waker).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{poll_fn, yield_now};

    #[test]
    fn wake_from_another_thread_ends_the_wait() {
        let (sender, receiver) = async_channel::bounded(1);
        let thread =
            std::thread::spawn(move || (0..1_000).for_each(|number| sender.send_blocking(number).expect("read")));
        let received = block_on(async {
            let mut received = Vec::new();
            while let Ok(number) = receiver.recv().await {
                received.push(number);
            }
            received
        });
        thread.join().expect("it ran");
        assert_eq!(received, (0..1_000).collect::<Vec<_>>());
    }

    /// Waits until there is something to read, here alone.
    async fn readable(source: &Rc<UnixStream>) {
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            assert!(watch(source, cx.waker()));
            Poll::Pending
        })
        .await;
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn watched_descriptor_wakes_its_task_once() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let near = Rc::new(near);
        let thread = std::thread::spawn(move || (&far).write_all(b"x").map(|()| far).expect("written"));
        block_on(async {
            readable(&near).await;
            assert_eq!((&*near).read(&mut [0; 8]).expect("readable"), 1);
            let far = thread.join().expect("it ran");
            // Nothing is there, then its end.
            assert!(watch(&near, Waker::noop()));
            drop(far);
            readable(&near).await;
            assert_eq!(WATCHES.with_borrow(|watches| watches.as_ref().map(Vec::len)), Some(0));
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn watched_descriptor_is_seen_while_tasks_run() {
        let (near, far) = UnixStream::pair().expect("a pair");
        (&far).write_all(b"x").expect("written");
        let near = Rc::new(near);
        let executor = smol::LocalExecutor::new();
        block_on(executor.run(async {
            let busy = executor.spawn(async {
                loop {
                    check();
                    yield_now().await;
                }
            });
            readable(&near).await;
            drop(busy);
        }));
    }

    #[test]
    fn only_so_many_are_watched_and_none_elsewhere() {
        let pairs: Vec<_> = (0..=WATCHES_MAX).map(|_| UnixStream::pair().expect("a pair")).collect();
        let sources: Vec<_> = pairs.into_iter().map(|(near, _)| Rc::new(near)).collect();
        assert!(!watch(&sources[0], Waker::noop()), "this thread does not wait here");
        block_on(async {
            let taken: Vec<bool> = sources.iter().map(|source| watch(source, Waker::noop())).collect();
            let expected = (0..=WATCHES_MAX).map(|at| cfg!(target_os = "linux") && at < WATCHES_MAX);
            assert_eq!(taken, expected.collect::<Vec<_>>());
            assert_eq!(watch(&sources[0], Waker::noop()), cfg!(target_os = "linux"), "it has its place");
        });
        assert!(!watch(&sources[0], Waker::noop()));
    }
}
