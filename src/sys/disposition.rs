//! The signals of the agent itself, independent of what it inherited: none is blocked, and each is at its default,
//! ignored, or handled (by `agent::signals`).
//!
//! What children get is not touched: every disposition of theirs is the default (`exec.rs`).

use libc::c_int;
use std::sync::OnceLock;

/// Signals whose default action would end or stop the agent for nothing. A signal that is neither here nor handled
/// keeps its default: the faults (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS) end the process, SIGTSTP
/// stops it when a person wants that.
const IGNORED: &[c_int] = &[
    libc::SIGUSR2, // until it is handled: a second request for a hand-over may come while the new program starts
    libc::SIGPIPE, // a write fails instead
    libc::SIGXFSZ, // a write beyond `ulimit -f` fails instead, as on a full disk
    libc::SIGTTIN, // it reads no terminal
    libc::SIGTTOU, // it may log to a terminal in the background (`stty tostop`)
    libc::SIGALRM, // timers that its starter left; it has none
    libc::SIGVTALRM, // as above
    libc::SIGPROF, // as above
    libc::SIGIO,   // for descriptors whose starter asked for it
    #[cfg(target_os = "linux")]
    libc::SIGSTKFLT, // has no meaning
    #[cfg(target_os = "linux")]
    libc::SIGPWR, // is for init
];

static HANG_UP_IGNORED: OnceLock<bool> = OnceLock::new();

/// Whether SIGHUP was ignored at the start (`nohup`), and is to stay so.
pub fn is_hang_up_ignored() -> bool {
    HANG_UP_IGNORED.get().copied().unwrap_or(false)
}

/// Sets them, once, at the start of the process.
pub(super) fn set() {
    HANG_UP_IGNORED.get_or_init(|| is_ignored(libc::SIGHUP));
    // SIGUSR2 is ignored all the time, so that it never ends a program that took over.
    let keeps = |signal: c_int| signal == libc::SIGUSR2 || (signal == libc::SIGHUP && is_hang_up_ignored());
    for signal in (1..=SIGNAL_MAX).filter(|signal| is_ignored(*signal) && !keeps(*signal)) {
        dispose(signal, libc::SIG_DFL);
    }
    #[cfg(target_os = "linux")]
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    #[cfg(not(target_os = "linux"))]
    let real_time = std::iter::empty();
    for signal in IGNORED.iter().copied().chain(real_time) {
        dispose(signal, libc::SIG_IGN);
    }
    // SAFETY: sigset_t is plain data, and lives through the calls; an alarm changes no memory.
    unsafe {
        // That of a program that panicked.
        libc::alarm(0);
        let mut nothing: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut nothing);
        libc::pthread_sigmask(libc::SIG_SETMASK, &nothing, std::ptr::null_mut());
    }
}

/// Lets SIGALRM end this process, or the program that replaces it and does not get to its start, after so many seconds.
pub fn end_after(seconds: u32) {
    dispose(libc::SIGALRM, libc::SIG_DFL);
    // SAFETY: sigset_t is plain data, and lives through the calls; an alarm changes no memory.
    unsafe {
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut alarm);
        libc::sigaddset(&mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &alarm, std::ptr::null_mut());
        libc::alarm(seconds);
    }
}

/// Ignores another request for a hand-over, across the exec and until the new program handles it.
pub fn ignore_hand_over() {
    dispose(libc::SIGUSR2, libc::SIG_IGN);
}

/// Ignores SIGPIPE again, which an exec of the standard library that failed has set to its default.
pub(super) fn ignore_pipe() {
    dispose(libc::SIGPIPE, libc::SIG_IGN);
}

/// The highest signal that has a name.
const SIGNAL_MAX: c_int = 31;

fn is_ignored(signal: c_int) -> bool {
    // SAFETY: sigaction is plain data, and nothing is set.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn dispose(signal: c_int, disposition: libc::sighandler_t) {
    // SAFETY: it installs no code. SIGKILL and SIGSTOP are refused without effect.
    unsafe { libc::signal(signal, disposition) };
}
