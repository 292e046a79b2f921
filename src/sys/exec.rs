//! Between fork and exec: turns a copy of the agent into the program that was asked for.
//!
//! It does not decide anything and does not prepare anything: [`Plan`] was made before, so that nothing here allocates,
//! locks or panics. On Linux the child borrows the agent's memory until its exec (`CLONE_VM | CLONE_VFORK`, as
//! `posix_spawn` does), which costs no page tables; the calling thread stands still meanwhile, and all signals are
//! blocked, so that no handler of the agent runs in the child. Elsewhere it is a plain fork.
//!
//! Invariant: every call between the fork and the exec is async-signal-safe, and works on memory that the agent keeps
//! until the child is gone from it.

use libc::{c_char, c_int};
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

/// Everything the child needs, made before the fork.
pub(super) struct Plan {
    /// What becomes descriptors 0, 1 and 2. None of them is below 3.
    pub(super) stdio: [RawFd; 3],
    /// Where an error goes; closed by a successful exec. Not below 3.
    pub(super) error_pipe: RawFd,
    /// Descriptor 0 becomes the controlling terminal.
    pub(super) controlling_terminal: bool,
    /// The working directory.
    pub(super) directory: CString,
    /// The files to try, in order.
    pub(super) candidates: Vec<CString>,
    /// `argv`.
    pub(super) arguments: Pointers,
    /// `envp`.
    pub(super) variables: Pointers,
    /// The limit of core files that the agent itself was started with.
    pub(super) core_limit: Option<libc::rlimit>,
    /// The limit of descriptors that the agent itself was started with.
    pub(super) descriptor_limit: Option<libc::rlimit>,
    /// One past the highest descriptor, to close them one by one where `close_range` is missing.
    pub(super) descriptors_end: Option<RawFd>,
}

/// Strings and the null-terminated array of pointers to them that `execve` wants.
pub(super) struct Pointers {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    /// The array for these strings.
    pub(super) fn new(strings: Vec<CString>) -> Self {
        // The bytes of a `CString` do not move with it.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }
}

/// The step at which a child failed, as it stands in the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The session, the descriptors, the limits.
    Setup = 1,
    /// The controlling terminal.
    Terminal = 2,
    /// The working directory.
    Directory = 3,
    /// The program itself.
    Exec = 4,
}

impl Step {
    /// The step that a byte of the pipe stands for.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Setup, Self::Terminal, Self::Directory, Self::Exec].into_iter().find(|step| *step as u8 == byte)
    }
}

/// Bytes of an error in the pipe: the step, then `errno`.
pub(super) const ERROR_BYTES: usize = 5;

/// Starts the child. Its process id comes back at once; how far it came stands in the pipe.
pub(super) fn start(plan: &Plan) -> io::Result<libc::pid_t> {
    let blocked = BlockedSignals::new();
    let started = fork(plan);
    drop(blocked);
    started
}

#[cfg(target_os = "linux")]
fn fork(plan: &Plan) -> io::Result<libc::pid_t> {
    extern "C" fn enter(plan: *mut libc::c_void) -> c_int {
        // SAFETY: `fork` passes a plan that it keeps borrowed until this process has left its memory.
        run(unsafe { &*plan.cast::<Plan>() })
    }
    let stack = super::stack::Stack::new()?;
    // SAFETY: the child runs `enter` on a stack of its own. CLONE_VFORK keeps this thread, and so `plan` and `stack`,
    // where they are until the child has called exec or _exit. `run` follows the rules of this module.
    let pid = unsafe {
        libc::clone(
            enter,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::from_ref(plan).cast_mut().cast(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

#[cfg(not(target_os = "linux"))]
fn fork(plan: &Plan) -> io::Result<libc::pid_t> {
    // SAFETY: the child only runs `run`, which follows the rules of this module, and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = run(plan);
            // SAFETY: _exit is async-signal-safe and does not return.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Runs in the child. Comes back only with an error, which is in the pipe by then; the result is the exit status.
fn run(plan: &Plan) -> c_int {
    let (step, errno) = become_program(plan);
    let [a, b, c, d] = errno.to_ne_bytes();
    let error: [u8; ERROR_BYTES] = [step as u8, a, b, c, d];
    // SAFETY: `error` is valid for its length; write and _exit are async-signal-safe.
    unsafe {
        libc::write(plan.error_pipe, error.as_ptr().cast(), ERROR_BYTES);
        libc::_exit(127)
    }
}

fn become_program(plan: &Plan) -> (Step, c_int) {
    reset_dispositions();
    // SAFETY: plain system calls on descriptors and memory of `plan`, all async-signal-safe.
    unsafe {
        if libc::setsid() == -1 {
            return (Step::Setup, errno());
        }
        // The sources are all above 2, so that none is overwritten before it was copied.
        if libc::dup2(plan.stdio[0], 0) == -1
            || libc::dup2(plan.stdio[1], 1) == -1
            || libc::dup2(plan.stdio[2], 2) == -1
        {
            return (Step::Setup, errno());
        }
        close_others(plan.error_pipe, plan.descriptors_end);
        if plan.controlling_terminal && libc::ioctl(0, libc::TIOCSCTTY as _, 0) == -1 {
            return (Step::Terminal, errno());
        }
        if libc::chdir(plan.directory.as_ptr()) == -1 {
            return (Step::Directory, errno());
        }
        // A limit that cannot be given back is no reason to refuse a shell.
        if let Some(limit) = &plan.core_limit {
            libc::setrlimit(libc::RLIMIT_CORE, limit);
        }
        if let Some(limit) = &plan.descriptor_limit {
            libc::setrlimit(libc::RLIMIT_NOFILE, limit);
        }
        let mut nothing: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut nothing);
        libc::pthread_sigmask(libc::SIG_SETMASK, &nothing, std::ptr::null_mut());
        (Step::Exec, exec(plan))
    }
}

/// Tries the candidates as `execvp` does; the result is the error that says most.
///
/// # Safety
/// In the child only: on success the process is another program.
unsafe fn exec(plan: &Plan) -> c_int {
    let mut said = libc::ENOENT;
    for candidate in &plan.candidates {
        // SAFETY: both arrays are null-terminated and point to strings that `plan` owns.
        unsafe {
            libc::execve(candidate.as_ptr(), plan.arguments.pointers.as_ptr(), plan.variables.pointers.as_ptr());
        }
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => said = libc::EACCES,
            other => return other,
        }
    }
    said
}

/// Every signal to its default, those included that the C library keeps for itself and does not let anyone set.
fn reset_dispositions() {
    #[cfg(target_os = "linux")]
    {
        // `SIG_DFL` is 0, and so are the flags, the restorer and the mask: a kernel `sigaction` of zeros, which is at
        // most 32 bytes on the machines Linux has.
        const DEFAULT: [u64; 8] = [0; 8];
        const SIGNALS: c_int = 64;
        const MASK_BYTES: usize = 8;
        for signal in 1..=SIGNALS {
            // SAFETY: `DEFAULT` is larger than the kernel reads; SIGKILL and SIGSTOP are refused without effect.
            unsafe {
                libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null::<u8>(), MASK_BYTES);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        const SIGNALS: c_int = 31;
        for signal in 1..=SIGNALS {
            // SAFETY: setting a disposition to the default is async-signal-safe.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Closes every descriptor above the standard ones but `kept`, which the exec closes.
fn close_others(kept: RawFd, end: Option<RawFd>) {
    const FIRST: RawFd = 3;
    if let Some(end) = end {
        for descriptor in (FIRST..end).filter(|descriptor| *descriptor != kept) {
            // SAFETY: this process has its own table of descriptors, and nobody else uses it.
            unsafe { libc::close(descriptor) };
        }
        return;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: as above. An empty range is refused without effect.
    unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, kept.wrapping_sub(1), 0u32);
        libc::syscall(libc::SYS_close_range, kept.wrapping_add(1), u32::MAX, 0u32);
    }
}

fn errno() -> c_int {
    #[cfg(target_os = "linux")]
    // SAFETY: the address of this thread's errno; in a child that borrows the agent's memory the thread stands still.
    unsafe {
        *libc::__errno_location()
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the address of this thread's errno.
    unsafe {
        *libc::__error()
    }
}

/// All signals blocked on this thread, until dropped.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        // SAFETY: sigset_t is plain data, and both sets live through the calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self { before }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}
