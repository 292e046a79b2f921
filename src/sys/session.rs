//! Ends the remaining processes of sessions, which a signal to the process group does not reach.
//!
//! [`Child`](super::child::Child) signals groups. A process that left the session with `setsid` is not found. Costly
//! (it looks at every process of the machine), so use it only at the end of a session, and for many sessions at once.

#[cfg(target_os = "linux")]
use async_io::Async;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashSet;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

/// How often to scan again for processes forked meanwhile. Each round kills all processes of a fork bomb that it finds,
/// so a few rounds end it.
const ROUNDS_MAX: usize = 8;

/// Sends SIGKILL to every process of these sessions; the result is how many there were.
///
/// The leader of each session must not be reaped yet, so that its number cannot stand for a stranger's session.
pub fn kill_sessions(sessions: &[Pid]) -> usize {
    let mut killed = HashSet::new();
    if sessions.is_empty() {
        return 0;
    }
    for _ in 0..ROUNDS_MAX {
        let before = killed.len();
        for pid in processes() {
            if is_in(pid, sessions) && !killed.contains(&pid) && signal_one(pid, sessions, Signal::KILL) {
                killed.insert(pid);
            }
        }
        if killed.len() == before {
            break;
        }
    }
    killed.len()
}

/// Sends SIGTERM, and SIGCONT since what is stopped cannot end, to the processes of this session that are not in the
/// process group of its leader, which is signalled as a group.
///
/// The leader must not be reaped yet.
pub fn terminate_others(session: Pid) {
    // SAFETY: a plain system call, for which the safe wrapper does not allow for a group of another PID namespace.
    let group_of = |pid: &Pid| unsafe { libc::getpgid(pid.as_raw_nonzero().get()) };
    let leader = session.as_raw_nonzero().get();
    let is_other = |pid: &Pid| is_in(*pid, &[session]) && group_of(pid) > 0 && group_of(pid) != leader;
    for pid in processes().into_iter().filter(is_other) {
        for signal in [Signal::TERM, Signal::CONT] {
            signal_one(pid, &[session], signal);
        }
    }
}

/// A process that was found in a session.
#[derive(Debug)]
pub struct Member {
    session: Pid,
    #[cfg(target_os = "linux")]
    process: Option<Async<OwnedFd>>,
}

impl Member {
    /// The session.
    pub fn session(&self) -> Pid {
        self.session
    }

    /// Waits until it is gone; false, at once, where that cannot be known.
    pub async fn gone(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(process) = &self.process {
            return process.readable().await.is_ok();
        }
        false
    }
}

/// The processes of these sessions that run and are not their leaders.
pub fn members(sessions: &[Pid]) -> Vec<Member> {
    let is_member = |pid: &Pid| !sessions.contains(pid);
    processes().into_iter().filter(is_member).filter_map(|pid| member(pid, sessions)).collect()
}

fn member(pid: Pid, sessions: &[Pid]) -> Option<Member> {
    let session = *sessions.iter().find(|session| is_in(pid, &[**session]))?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open};
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return None,
            // It has ended, although its parent has not reaped it.
            Ok(process) if has_ended(&process) => return None,
            process => process.ok(),
        };
        Some(Member { session, process: process.and_then(|process| Async::new_nonblocking(process).ok()) })
    }
    #[cfg(not(target_os = "linux"))]
    Some(Member { session })
}

/// The session of a process; `None` for one of another PID namespace, as a container's programs may have, and for
/// threads of the kernel.
pub fn session_of(pid: Pid) -> std::io::Result<Option<Pid>> {
    // SAFETY: a plain system call. It answers 0 for those sessions, which the safe wrapper does not allow for.
    match unsafe { libc::getsid(pid.as_raw_nonzero().get()) } {
        -1 => Err(std::io::Error::last_os_error()),
        session => Ok(Pid::from_raw(session)),
    }
}

fn is_in(pid: Pid, sessions: &[Pid]) -> bool {
    session_of(pid).is_ok_and(|session| session.is_some_and(|session| sessions.contains(&session)))
}

/// Signals one process that was found in one of the sessions.
fn signal_one(pid: Pid, sessions: &[Pid], signal: Signal) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
        // Its number may stand for another process by now. What a pidfd stands for does not change, so look again.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            return is_in(pid, sessions) && pidfd_send_signal(process, signal).is_ok();
        }
    }
    is_in(pid, sessions) && kill_process(pid, signal).is_ok()
}

#[cfg(target_os = "linux")]
fn has_ended(process: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)) == Ok(1)
}

#[cfg(target_os = "linux")]
fn processes() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

#[cfg(target_os = "macos")]
fn processes() -> Vec<Pid> {
    /// Room for processes that start between the two calls.
    const MORE: usize = 64;
    // SAFETY: without a buffer the call only counts.
    let count = unsafe { libc::proc_listallpids(std::ptr::null_mut(), 0) };
    let mut numbers = vec![0 as libc::pid_t; usize::try_from(count).unwrap_or(0) + MORE];
    let bytes = i32::try_from(numbers.len() * size_of::<libc::pid_t>()).unwrap_or(i32::MAX);
    // SAFETY: the buffer has that many bytes.
    let filled = unsafe { libc::proc_listallpids(numbers.as_mut_ptr().cast(), bytes) };
    numbers.truncate(usize::try_from(filled).unwrap_or(0));
    numbers.into_iter().filter_map(Pid::from_raw).collect()
}
