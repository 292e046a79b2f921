//! A child process: signals, its exit status with a deadline, and its figures in `/proc`.
//!
//! It never gets a signal after it was reaped. Methods that read `/proc` exist on Linux only. Units: bytes, counts; CPU
//! time as a duration.

use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};

pub(crate) use rustix::process::Signal;

/// A child of the test.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    shared: Arc<(Mutex<Option<ExitStatus>>, Condvar)>,
}

impl Process {
    /// Watches this child on its own thread.
    pub(crate) fn new(mut child: Child) -> Process {
        let pid = Pid::from_child(&child);
        let shared: Arc<(Mutex<Option<ExitStatus>>, Condvar)> = Arc::default();
        let watcher = shared.clone();
        std::thread::spawn(move || {
            // Waits without reaping. It reaps under the lock, so that a signal never reaches another process of the
            // same number.
            while waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
                .is_err_and(|error| error == rustix::io::Errno::INTR)
            {}
            let mut status = watcher.0.lock().unwrap_or_else(PoisonError::into_inner);
            *status = child.wait().ok();
            watcher.1.notify_all();
        });
        Process { pid, shared }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal, unless the child has ended.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        if self.lock().is_none() {
            kill_process(self.pid, signal).expect("a child that is not reaped can be signalled");
        }
    }

    /// Its exit status, or `None` at the deadline.
    pub(crate) fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let waited = self.shared.1.wait_timeout_while(self.lock(), patience, |status| status.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether it has not ended yet.
    pub(crate) fn runs(&self) -> bool {
        self.lock().is_none()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait(super::WAIT_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(target_os = "linux")]
impl Process {
    /// Resident memory, in bytes.
    #[track_caller]
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status_number("VmRSS:") * 1024
    }

    /// The most resident memory that it ever had, in bytes.
    #[track_caller]
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.status_number("VmHWM:") * 1024
    }

    /// Memory of its own that it has written to, in bytes.
    #[track_caller]
    pub(crate) fn private_dirty_bytes(&self) -> u64 {
        number_after(&self.read("smaps_rollup"), "Private_Dirty:") * 1024
    }

    /// Threads.
    #[track_caller]
    pub(crate) fn threads(&self) -> u64 {
        self.status_number("Threads:")
    }

    /// Open descriptors, as `number -> target`, in order.
    #[track_caller]
    pub(crate) fn descriptors(&self) -> Vec<(u32, String)> {
        let mut open: Vec<(u32, String)> = self
            .entries("fd")
            .into_iter()
            .filter_map(|entry| {
                let target = std::fs::read_link(entry.path()).ok()?; // it may just have been closed
                Some((entry.file_name().to_str()?.parse().ok()?, target.display().to_string()))
            })
            .collect();
        open.sort();
        open
    }

    /// Whether its descriptors can be listed: those of the agent, which is not dumpable, by root alone.
    pub(crate) fn shows_descriptors(&self) -> bool {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).is_ok()
    }

    /// Whether each of its threads is stopped: one that runs stops some time after the first.
    #[track_caller]
    pub(crate) fn is_stopped(&self) -> bool {
        let of = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        self.entries("task").into_iter().map(of).all(|stat| stat.contains(") T "))
    }

    /// Voluntary context switches of all its threads.
    #[track_caller]
    pub(crate) fn voluntary_switches(&self) -> u64 {
        let of = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let tasks = self.entries("task").into_iter().map(of);
        tasks.map(|status| number_after(&status, "voluntary_ctxt_switches:")).sum()
    }

    /// CPU time used so far, of the kernel and its own.
    #[track_caller]
    pub(crate) fn cpu_time(&self) -> Duration {
        const TICKS_PER_SECOND: u64 = 100; // fixed by the kernel's interface to user space
        let stat = self.read("stat");
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Its children, in order, and the letter of each one's state (`Z`: not reaped).
    #[track_caller]
    pub(crate) fn children(&self) -> Vec<(u32, char)> {
        let of = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("children")).unwrap_or_default();
        let listed: String = self.entries("task").into_iter().map(of).collect();
        let mut children: Vec<(u32, char)> = listed
            .split_whitespace()
            .filter_map(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid.parse().ok()?, stat.rsplit_once(") ")?.1.chars().next()?))
            })
            .collect();
        children.sort_unstable();
        children
    }

    /// Children that have ended and are not reaped.
    #[track_caller]
    pub(crate) fn zombies(&self) -> usize {
        self.children().iter().filter(|(_, state)| *state == 'Z').count()
    }

    /// A file of its `/proc` directory, as text.
    #[track_caller]
    pub(crate) fn read(&self, file: &str) -> String {
        let bytes = std::fs::read(format!("/proc/{}/{file}", self.pid()));
        String::from_utf8_lossy(&bytes.unwrap_or_else(|error| panic!("{file} of the agent: {error}"))).into_owned()
    }

    #[track_caller]
    fn status_number(&self, name: &str) -> u64 {
        number_after(&self.read("status"), name)
    }

    #[track_caller]
    fn entries(&self, directory: &str) -> Vec<std::fs::DirEntry> {
        let entries = std::fs::read_dir(format!("/proc/{}/{directory}", self.pid()));
        entries.unwrap_or_else(|error| panic!("{directory} of the agent: {error}")).flatten().collect()
    }
}

/// The number after this name at the beginning of a line.
#[cfg(target_os = "linux")]
#[track_caller]
fn number_after(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    value.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}{value}"))
}
