//! Waits for the end of a started program on the reactor, signals and reaps it, and reaps the orphans left to PID 1.
//!
//! It reads the exit status without reaping the child (`WNOWAIT`). Until [`Child`] is dropped, no other process gets
//! its number, so that its process group and session can be signalled while its background jobs still run.
//!
//! The wait is a pidfd on Linux and a kqueue filter on macOS; where a kernel has no pidfd, or a sandbox does not allow
//! it, SIGCHLD.

use async_signal::{Signal as Caught, Signals};
use futures_lite::StreamExt;
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid, waitpid,
};
use std::collections::HashSet;
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};

/// The exit code of a child whose status is lost, because other code has reaped it.
pub const EXIT_CODE_UNKNOWN: i32 = 255;

/// A child process, the leader of its session and process group.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    #[cfg(target_os = "linux")]
    Pidfd(async_io::Async<std::os::fd::OwnedFd>),
    #[cfg(target_os = "macos")]
    Kqueue(async_io::os::kqueue::Filter<async_io::os::kqueue::Exit>),
    Signals(Signals),
}

impl Child {
    /// Takes over a running child. A child that cannot be watched is killed.
    pub(super) fn adopt(pid: Pid) -> io::Result<Self> {
        {
            let mut children = children();
            children.reap_abandoned();
            children.own.insert(pid);
        }
        match Watch::new(pid) {
            Ok(watch) => Ok(Self { pid, watch }),
            Err(error) => {
                signal_group(pid, Signal::KILL);
                children().abandon(pid);
                Err(error)
            }
        }
    }

    /// Takes over a child that the program before this one started.
    ///
    /// # Errors
    /// It is no child of this process that is not reaped, or it cannot be watched.
    pub fn take_over(pid: Pid) -> io::Result<Self> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::Pid(pid), options))?;
        Self::adopt(pid)
    }

    /// Its number, which is that of its process group and session too.
    pub fn id(&self) -> Pid {
        self.pid
    }

    /// Waits for its end. The result is its exit code, 128 + N for signal N. It may be asked for again, and dropped
    /// while it waits.
    pub async fn exited(&self) -> i32 {
        loop {
            if let Some(code) = self.exit_code() {
                return code;
            }
            let woken = match &self.watch {
                #[cfg(target_os = "linux")]
                Watch::Pidfd(pidfd) => pidfd.readable().await,
                #[cfg(target_os = "macos")]
                Watch::Kqueue(filter) => filter.ready().await,
                Watch::Signals(signals) => {
                    let mut signals = signals;
                    signals.next().await.map_or(Ok(()), |caught| caught.map(drop))
                }
            };
            // The reactor refuses no descriptor that it has accepted once. Otherwise the end of this child would be
            // lost, or polled at full speed.
            woken.expect("the reactor still watches this child");
        }
    }

    /// Its exit code, if it is gone.
    pub fn exit_code(&self) -> Option<i32> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match retry_on_intr(|| waitid(WaitId::Pid(self.pid), options)) {
            Ok(None) => None,
            Ok(Some(status)) => {
                let by_signal = || Some(status.terminating_signal()?.saturating_add(SIGNAL_CODE_BASE));
                let code = status.exit_status().or_else(by_signal);
                Some(code.unwrap_or(EXIT_CODE_UNKNOWN))
            }
            Err(_) => Some(EXIT_CODE_UNKNOWN),
        }
    }

    /// Sends a signal to its process group, whether or not the child itself still runs. A group that is gone is none.
    pub fn signal_group(&self, signal: Signal) {
        signal_group(self.pid, signal);
    }

    /// Sends a signal to the child alone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }
}

impl Drop for Child {
    /// Reaps it. One that still runs is reaped when it has ended, at the next occasion.
    fn drop(&mut self) {
        children().abandon(self.pid);
    }
}

/// What a shell adds to the number of a signal to make it an exit code.
const SIGNAL_CODE_BASE: i32 = 128;

impl Watch {
    fn new(pid: Pid) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            use async_io::Async;
            use rustix::process::{PidfdFlags, pidfd_open};
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(pidfd) => return Ok(Self::Pidfd(Async::new_nonblocking(pidfd)?)),
                // Descriptors or memory are used up: the other way needs even more of them.
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                    return Err(error.into());
                }
                Err(_) => {}
            }
        }
        #[cfg(target_os = "macos")]
        {
            use async_io::os::kqueue::{Exit, Filter};
            // SAFETY: the child is not reaped before `Child` is dropped, so its number stands for it.
            let exit = unsafe { Exit::from_pid(pid.as_raw_nonzero()) };
            // It fails if the child is gone already.
            if let Ok(filter) = Filter::new(exit) {
                return Ok(Self::Kqueue(filter));
            }
        }
        Self::signals()
    }

    fn signals() -> io::Result<Self> {
        Ok(Self::Signals(Signals::new([Caught::Child])?))
    }
}

/// All children of this process that are not reaped, so that orphans can be distinguished from them.
#[derive(Debug, Default)]
struct Children {
    /// Those with a [`Child`].
    own: HashSet<Pid>,
    /// Those whose [`Child`] was dropped while they ran, such as one that hangs in the kernel in spite of a SIGKILL.
    abandoned: Vec<Pid>,
}

static CHILDREN: LazyLock<Mutex<Children>> = LazyLock::new(Mutex::default);

fn children() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children that nothing will wait for in the program that takes over: all but those that it is given.
pub fn abandoned(given: &[u32]) -> Vec<u32> {
    let mut children = children();
    children.reap_abandoned();
    let all = children.abandoned.iter().chain(&children.own);
    all.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).filter(|pid| !given.contains(pid)).collect()
}

/// Kills these children of the program before this one, and reaps them at the next occasion. A program that failed to
/// take over may have reaped one already, and its number may be another process's: that is left alone.
pub fn take_over_abandoned(pids: &[u32]) {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let pids = pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
    for pid in pids.filter(|pid| waitid(WaitId::Pid(*pid), ended).is_ok()) {
        signal_group(pid, Signal::KILL);
        children().abandon(pid);
    }
}

/// Kills every child that has a [`Child`] and is not among these, with its process group. For a program that is about
/// to be replaced and whose memory may be in any state. It waits for nothing.
pub fn kill_all_but(kept: &[u32]) {
    let children = match CHILDREN.try_lock() {
        Ok(children) => children,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // The thread that holds the lock will never release it.
        Err(TryLockError::WouldBlock) => return,
    };
    let is_kept = |pid: &&Pid| kept.contains(&pid.as_raw_nonzero().get().unsigned_abs());
    for pid in children.own.iter().filter(|pid| !is_kept(pid)) {
        signal_group(*pid, Signal::KILL);
    }
}

/// Sends a signal to the process group of a child that is not reaped, or to the child alone while it has no group yet,
/// just after its start.
pub(super) fn signal_group(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal) == Err(Errno::SRCH) {
        let _ = kill_process(pid, signal);
    }
}

impl Children {
    fn abandon(&mut self, pid: Pid) {
        self.own.remove(&pid);
        self.abandoned.push(pid);
        self.reap_abandoned();
    }

    fn reap_abandoned(&mut self) {
        self.abandoned.retain(|pid| matches!(retry_on_intr(|| waitpid(Some(*pid), WaitOptions::NOHANG)), Ok(None)));
    }
}

/// How many orphans one call of [`reap_orphans`] reaps: the rest waits for the next, so that a flood of them does not
/// delay the loop.
const ORPHANS_PER_CALL_MAX: usize = 1_024;

/// Reaps the ended processes that this one inherited as PID 1, but never a child that has a [`Child`]. Returns how many
/// there were. Call it at SIGCHLD; it is cheap when there is nothing to do.
pub fn reap_orphans() -> usize {
    let mut children = children();
    children.reap_abandoned();
    let mut reaped = 0;
    while reaped < ORPHANS_PER_CALL_MAX {
        let Some(ended) = any_ended() else {
            return reaped;
        };
        if children.own.contains(&ended) {
            // The kernel would return this one again and again, and none of the later ones.
            return reaped + reap_orphans_by_name(&children);
        }
        let _ = retry_on_intr(|| waitpid(Some(ended), WaitOptions::NOHANG));
        reaped += 1;
    }
    reaped
}

/// The first child that has ended and is not reaped.
fn any_ended() -> Option<Pid> {
    // SAFETY: siginfo_t is plain data, filled by the kernel; with NOHANG and no ended child it stays zero.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        match libc::waitid(libc::P_ALL, 0, &mut info, options) {
            0 => info.si_pid(),
            _ => 0,
        }
    };
    Pid::from_raw(pid)
}

/// Reaps orphans that stand behind a child of ours in the kernel's list.
fn reap_orphans_by_name(children: &Children) -> usize {
    let own_number = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0; // They wait until our own child is reaped.
    };
    entries
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|pid| !children.own.contains(pid) && is_zombie_of(*pid, own_number))
        .take(ORPHANS_PER_CALL_MAX)
        .filter(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_))))
        .count()
}

fn is_zombie_of(pid: Pid, parent: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else {
        return false;
    };
    // The name in parentheses may hold anything, parentheses too.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.next() == Some("Z") && fields.next().and_then(|parent| parent.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_io::block_on;

    /// Forks without the machinery of this folder, whose children know their way to wait already.
    fn sleeper() -> Pid {
        #[expect(clippy::zombie_processes, reason = "the caller reaps it")]
        let child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep starts");
        Pid::from_raw(i32::try_from(child.id()).expect("a process number")).expect("a child")
    }

    #[test]
    fn without_a_pidfd_sigchld_reports_the_end() {
        let watch = Watch::signals().expect("a handler");
        let child = Child { pid: sleeper(), watch };
        let other = Child { pid: sleeper(), watch: Watch::signals().expect("a handler") };
        assert_eq!(child.exit_code(), None);
        block_on(async {
            // The end of another child wakes this one's wait without ending it.
            let order = futures_lite::future::or(child.exited(), async {
                other.signal(Signal::TERM);
                let code = other.exited().await;
                child.signal(Signal::KILL);
                futures_lite::future::pending::<()>().await;
                code
            });
            assert_eq!(order.await, 128 + 9);
            assert_eq!(other.exited().await, 128 + 15);
        });
    }

    #[test]
    fn child_dropped_while_running_is_reaped_later() {
        let pid = sleeper();
        let child = Child { pid, watch: Watch::new(pid).expect("watched") };
        drop(child);
        // Without the lock the next child that another test drops would reap this one first.
        let mut children = children();
        assert!(children.abandoned.contains(&pid));
        kill_process(pid, Signal::KILL).expect("it runs");
        let gone = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        assert!(gone.is_ok());
        children.reap_abandoned();
        assert!(!children.abandoned.contains(&pid));
        assert_eq!(kill_process(pid, Signal::KILL), Err(Errno::SRCH));
    }
}
