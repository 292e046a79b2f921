//! Writes files off the loop's thread: each file has a bounded queue, and a thread that lives only while there is work.
//!
//! A file system that hangs stops the thread of that file and nothing else: the caller enqueues and returns. Jobs of
//! one writer run one after the other, in the order in which they came; two writers do not wait for each other. At rest
//! no writer has a thread. Sizes are in bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How long the start waits for a file to be opened. The same 5 s after which a request without its audit line is
/// refused.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long exit and panic wait for what is still to be written.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a thread waits for the next job before it ends: bursts of lines share one thread, and an idle agent has
/// none.
const LINGER: Duration = Duration::from_millis(100);

/// How often [`flush_all`] looks. It must not sleep on a lock that the panicking thread may hold.
const FLUSH_POLL: Duration = Duration::from_millis(1);

/// The stack of a thread: jobs format and make a few system calls.
const STACK_BYTES: usize = 256 << 10;

/// All writers of the process, for [`flush_all`].
static WRITERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

type Job = Box<dyn FnOnce() + Send>;

/// Why a job is not in the queue. It was dropped.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The file is too slow, or does not answer: the queue is full.
    #[error("too much waits to be written; the file system is too slow or does not answer")]
    Full,
    /// This machine has no thread to give.
    #[error("no thread could be started: {0}")]
    NoThread(#[from] io::Error),
}

/// The writer of one file. Clones share its queue.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    bytes_max: usize,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(usize, Job)>,
    /// What waits and what is being written.
    bytes: usize,
    has_thread: bool,
    /// When the job that runs began.
    busy_since: Option<Instant>,
}

impl Writer {
    /// A writer whose jobs may hold `bytes_max` bytes. Its thread is called `name` (at most 15 bytes on Linux).
    pub fn new(name: &'static str, bytes_max: usize) -> Self {
        let shared = Arc::new(Shared { name, bytes_max, queue: Mutex::default(), arrived: Condvar::new() });
        let mut writers = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(&shared));
        drop(writers);
        Self { shared }
    }

    /// Enqueues a job that holds `bytes`. An empty queue takes one of any size.
    ///
    /// # Errors
    /// The queue is full, or no thread can be started.
    pub fn push(&self, bytes: usize, job: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        self.enqueue(bytes, self.shared.bytes_max, true, Box::new(job))
    }

    /// Enqueues a job for which no thread is woken: one that lingers runs it within `LINGER`, or with the next job.
    ///
    /// # Errors
    /// The queue is full, or no thread can be started.
    pub fn push_lazily(&self, bytes: usize, job: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        self.enqueue(bytes, self.shared.bytes_max, false, Box::new(job))
    }

    /// Enqueues a job whatever waits already: for the one last line that says why there are no more.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn push_beyond_bound(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Refused> {
        self.enqueue(0, usize::MAX, true, Box::new(job))
    }

    /// Runs a job whose result the caller may wait for.
    pub fn ask<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
        let (sender, receiver): (Sender<T>, _) = channel();
        // A job that was dropped drops the sender: the wait ends at once. A caller that has gone needs no answer.
        let _ = self.push(0, move || drop(sender.send(job())));
        Answer { receiver }
    }

    /// Whether the job that runs has not come back for this long.
    pub fn is_stalled(&self, for_at_least: Duration) -> bool {
        self.shared.lock().busy_since.is_some_and(|since| since.elapsed() >= for_at_least)
    }

    /// Waits until everything is written; false at the deadline.
    pub fn flush(&self, deadline: Instant) -> bool {
        self.shared.flush(deadline)
    }

    fn enqueue(&self, bytes: usize, bytes_max: usize, wakes: bool, job: Job) -> Result<(), Refused> {
        let mut queue = self.shared.lock();
        if !queue.jobs.is_empty() && queue.bytes.saturating_add(bytes) > bytes_max {
            return Err(Refused::Full);
        }
        if !queue.has_thread {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name(self.shared.name.into()).stack_size(STACK_BYTES);
            thread.spawn(move || shared.run())?;
            queue.has_thread = true;
        }
        queue.bytes = queue.bytes.saturating_add(bytes);
        queue.jobs.push_back((bytes, job));
        drop(queue);
        if wakes {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writer").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Shared {
    /// The thread: runs jobs until none has come for a while.
    fn run(&self) {
        let mut queue = self.lock();
        loop {
            while let Some((bytes, job)) = queue.jobs.pop_front() {
                queue.busy_since = Some(Instant::now());
                drop(queue);
                job();
                queue = self.lock();
                queue.busy_since = None;
                queue.bytes = queue.bytes.saturating_sub(bytes);
            }
            let waited = self.arrived.wait_timeout_while(queue, LINGER, |queue| queue.jobs.is_empty());
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            if queue.jobs.is_empty() {
                queue.has_thread = false;
                return;
            }
        }
    }

    fn flush(&self, deadline: Instant) -> bool {
        self.arrived.notify_one();
        loop {
            let queue = match self.queue.try_lock() {
                Ok(queue) => Some(queue),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if queue.is_some_and(|queue| queue.jobs.is_empty() && queue.busy_since.is_none()) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(FLUSH_POLL);
        }
    }

    /// No code that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until every writer of the process has written everything, at most `timeout`; false if one has not.
pub fn flush_all(timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let Ok(writers) = WRITERS.try_lock() else { return false };
    let writers: Vec<Arc<Shared>> = writers.iter().filter_map(Weak::upgrade).collect();
    // One that hangs uses the time up; the threads of the others have written meanwhile.
    let mut is_all_written = true;
    for writer in writers {
        is_all_written &= writer.flush(deadline);
    }
    is_all_written
}

/// What a job of [`Writer::ask`] will return.
#[derive(Debug)]
pub struct Answer<T> {
    receiver: Receiver<T>,
}

impl<T> Answer<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// The file system does not answer by the deadline; the job goes on. Or the job could not be enqueued.
    pub fn wait(self, deadline: Instant) -> io::Result<T> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.receiver.recv_timeout(left).map_err(|_| not_answering())
    }
}

/// The error in the place of one from the system, where the system gives none.
pub fn not_answering() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A job that ends when the sender is dropped.
    fn hang(writer: &Writer) -> Sender<()> {
        let (release, released) = channel();
        let (begun, begins) = channel();
        let job = move || {
            let _ = begun.send(());
            let _ = released.recv();
        };
        writer.push(1, job).expect("the queue is empty");
        begins.recv().expect("the job runs");
        release
    }

    fn in_time() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn has_thread(writer: &Writer) -> bool {
        writer.shared.lock().has_thread
    }

    #[test]
    fn jobs_run_in_order_and_the_thread_ends() {
        let writer = Writer::new("test", 1_000);
        let (sender, receiver) = channel();
        for number in 0..100 {
            let sender = sender.clone();
            writer.push(1, move || sender.send(number).expect("the test listens")).expect("there is room");
        }
        assert!(writer.flush(in_time()));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        while has_thread(&writer) {
            thread::yield_now();
        }
        writer.push(1, move || sender.send(100).expect("the test listens")).expect("another thread is started");
        assert_eq!(receiver.recv(), Ok(100));
    }

    #[test]
    fn lazy_job_runs_before_the_next_or_when_the_thread_ends() {
        let writer = Writer::new("test", 1_000);
        let (sender, receiver) = channel();
        let job = |number| {
            let sender = sender.clone();
            move || sender.send(number).expect("the test listens")
        };
        writer.push_lazily(1, job(0)).expect("a thread is started");
        writer.push(1, job(1)).expect("there is room");
        assert_eq!((receiver.recv(), receiver.recv()), (Ok(0), Ok(1)));
        writer.push_lazily(1, job(2)).expect("there is room");
        assert_eq!(receiver.recv(), Ok(2), "without another push");
    }

    #[test]
    fn full_queue_refuses_all_but_the_last_line() {
        let writer = Writer::new("test", 10);
        let release = hang(&writer);
        let count = Arc::new(AtomicUsize::new(0));
        let job = || {
            let count = Arc::clone(&count);
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        writer.push(9, job()).expect("exactly full");
        assert!(matches!(writer.push(1, job()), Err(Refused::Full)));
        writer.push_beyond_bound(job()).expect("the last line always fits");
        assert!(!writer.flush(Instant::now()), "a job hangs");
        drop(release);
        assert!(writer.flush(in_time()));
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn hung_writer_does_not_delay_another() {
        let (hung, other) = (Writer::new("test", 10), Writer::new("test", 10));
        let _release = hang(&hung);
        assert!(hung.is_stalled(Duration::ZERO));
        assert_eq!(other.ask(|| 7).wait(in_time()).expect("it runs"), 7);
        let error = hung.ask(|| 7).wait(Instant::now()).expect_err("it hangs");
        assert_eq!(error.to_string(), "the file system does not answer");
        assert!(other.flush(in_time()) && !other.is_stalled(Duration::ZERO));
        assert!(!flush_all(Duration::ZERO));
    }
}
