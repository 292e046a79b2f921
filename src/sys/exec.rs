//! Between the start of a child and its exec: turns a copy of the agent into the program that was asked for.
//!
//! [`Plan`] is made before, so that no code here allocates, locks or panics. The agent does not wait: a working
//! directory or a program on a file system that does not answer blocks the child alone. On Linux the child runs in the
//! agent's memory until its exec (`CLONE_VM`), which costs no page tables, at the same time as the agent; [`Memory`]
//! therefore lives until the child has left it. Where the kernel refuses that, and elsewhere, it is a plain fork.
//!
//! Invariants:
//! - Every call between the start and the exec is async-signal-safe, leaves `errno` alone (`raw.rs`), and works on
//!   [`Memory`], which nothing else changes.
//! - No handler of the agent runs in the child: all signals are blocked until their dispositions are the defaults.

use super::raw;
#[cfg(target_os = "linux")]
use super::stack::Stack;
use libc::{c_char, c_int};
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

/// The memory that the child uses; it does not move before the child has left it.
pub(super) struct Memory {
    plan: Plan,
    #[cfg(target_os = "linux")]
    stack: Stack,
}

/// Everything the child needs, made before it starts.
pub(super) struct Plan {
    /// What becomes descriptors 0, 1 and 2. None of them is below 3.
    pub(super) stdio: [RawFd; 3],
    /// Where the child writes an error; closed by a successful exec. Not below 3.
    pub(super) error_pipe: RawFd,
    /// Descriptor 0 becomes the controlling terminal.
    pub(super) controlling_terminal: bool,
    /// Where to start; `/` where that directory cannot be entered.
    pub(super) home: Option<CString>,
    /// Where to go from there.
    pub(super) directory: Option<CString>,
    /// The files to try, in order.
    pub(super) candidates: Vec<CString>,
    /// `argv`.
    pub(super) arguments: Pointers,
    /// `envp`.
    pub(super) variables: Pointers,
    /// The same for a child that started in `/` instead of its home.
    pub(super) variables_at_root: Pointers,
    /// The limit of core files that the agent itself was started with.
    pub(super) core_limit: Option<libc::rlimit>,
    /// The limit of descriptors that the agent itself was started with.
    pub(super) descriptor_limit: Option<libc::rlimit>,
    /// One past the highest descriptor, to close them one by one where `close_range` is missing.
    pub(super) descriptors_end: Option<RawFd>,
}

/// The null-terminated array of pointers to strings that `execve` wants, and the strings, which may be shared.
pub(super) struct Pointers {
    _strings: Vec<Rc<CString>>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    /// The array for these strings.
    pub(super) fn new(strings: Vec<Rc<CString>>) -> Self {
        // The bytes of a `CString` do not move with it.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _strings: strings, pointers }
    }

    /// The memory it holds, in bytes.
    fn bytes(&self) -> usize {
        self.pointers.len() * size_of::<*const c_char>()
            + self._strings.iter().map(|string| string.count_bytes()).sum::<usize>()
    }
}

impl Memory {
    /// A plan, and a stack to work on it.
    pub(super) fn new(plan: Plan) -> io::Result<Self> {
        Ok(Self {
            plan,
            #[cfg(target_os = "linux")]
            stack: Stack::new()?,
        })
    }

    /// How much it is, in bytes, but for what is the same for every child.
    pub(super) fn bytes(&self) -> usize {
        self.plan.arguments.bytes() + self.plan.variables.bytes()
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
    /// The program is there, and what it names as its interpreter is not.
    Interpreter = 5,
}

impl Step {
    /// The step that a byte of the pipe stands for.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        let all = [Self::Setup, Self::Terminal, Self::Directory, Self::Exec, Self::Interpreter];
        all.into_iter().find(|step| *step as u8 == byte)
    }
}

/// Bytes of an error in the pipe: the step, then `errno`.
pub(super) const ERROR_BYTES: usize = 5;

/// Starts the child, waits for nothing and returns its process id; the pipe gets the child's error.
///
/// # Safety
/// `memory` must stay where and as it is until the child has called exec or is gone.
pub(super) unsafe fn start(memory: &Memory) -> io::Result<libc::pid_t> {
    let _blocked = BlockedSignals::new();
    // SAFETY: the caller's.
    unsafe { fork(memory) }
}

/// # Safety
/// As for [`start`].
#[cfg(target_os = "linux")]
unsafe fn fork(memory: &Memory) -> io::Result<libc::pid_t> {
    extern "C" fn enter(plan: *mut libc::c_void) -> c_int {
        // SAFETY: `fork` passes a plan that stays until this process has left its memory.
        run(unsafe { &*plan.cast::<Plan>() })
    }
    let clone = |flags: c_int| {
        // SAFETY: the child runs `enter` on a stack of its own, and `run` follows the rules of this module. The caller
        // keeps `memory`.
        let pid = unsafe {
            let plan = std::ptr::from_ref(&memory.plan).cast_mut().cast();
            libc::clone(enter, memory.stack.top(), flags | libc::SIGCHLD, plan)
        };
        if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid) }
    };
    // ThreadSanitizer knows one user of a thread's memory.
    if !raw::LEAVES_ERRNO_ALONE || cfg!(thread_sanitizer) {
        return clone(0);
    }
    match clone(libc::CLONE_VM) {
        // An emulator that knows no processes of one memory.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => clone(0),
        started => started,
    }
}

/// # Safety
/// None of its own.
#[cfg(not(target_os = "linux"))]
unsafe fn fork(memory: &Memory) -> io::Result<libc::pid_t> {
    // SAFETY: the child only runs `run`, which follows the rules of this module, and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => raw::exit(run(&memory.plan)),
        pid => Ok(pid),
    }
}

/// Runs in the child and never returns; the pipe has the error that prevented the exec.
fn run(plan: &Plan) -> c_int {
    let (step, errno) = become_program(plan);
    let [a, b, c, d] = errno.to_ne_bytes();
    let error: [u8; ERROR_BYTES] = [step as u8, a, b, c, d];
    let _ = raw::write(plan.error_pipe, &error);
    raw::exit(127)
}

fn become_program(plan: &Plan) -> (Step, c_int) {
    // From here on a signal ends the child even while it hangs, as it would end the program.
    raw::reset_dispositions();
    raw::unblock_signals();
    if let Err(errno) = raw::set_session() {
        return (Step::Setup, errno);
    }
    // The sources are all above 2, so that none is overwritten before it was copied.
    for (source, target) in plan.stdio.iter().zip(0..) {
        if let Err(errno) = raw::duplicate(*source, target) {
            return (Step::Setup, errno);
        }
    }
    raw::close_others(plan.error_pipe, plan.descriptors_end);
    if plan.controlling_terminal
        && let Err(errno) = raw::take_terminal()
    {
        return (Step::Terminal, errno);
    }
    // A limit that cannot be given back is no reason to refuse a shell.
    if let Some(limit) = &plan.core_limit {
        let _ = raw::set_limit(libc::RLIMIT_CORE as usize, limit);
    }
    if let Some(limit) = &plan.descriptor_limit {
        let _ = raw::set_limit(libc::RLIMIT_NOFILE as usize, limit);
    }
    let mut variables = &plan.variables;
    // SAFETY: every path is a C string that `plan` owns.
    unsafe {
        if plan.home.as_ref().is_some_and(|home| raw::enter(home.as_ptr()).is_err()) {
            variables = &plan.variables_at_root;
            if let Err(errno) = raw::enter(c"/".as_ptr()) {
                return (Step::Directory, errno);
            }
        }
        if let Some(directory) = &plan.directory
            && let Err(errno) = raw::enter(directory.as_ptr())
        {
            return (Step::Directory, errno);
        }
        execute(plan, variables)
    }
}

/// Tries the candidates as `execvp` does; returns the most telling error.
///
/// # Safety
/// In the child only: on success the process is another program.
unsafe fn execute(plan: &Plan, variables: &Pointers) -> (Step, c_int) {
    let mut says_most = (Step::Exec, libc::ENOENT);
    for candidate in &plan.candidates {
        let (arguments, variables) = (plan.arguments.pointers.as_ptr(), variables.pointers.as_ptr());
        // SAFETY: both arrays are null-terminated and point to strings that `plan` owns.
        let tried = unsafe { raw::execute(candidate.as_ptr(), arguments, variables) };
        match tried {
            // The kernel returns ENOENT both for a missing script and for its missing interpreter.
            // SAFETY: a C string.
            Err(libc::ENOENT) if unsafe { raw::is_there(candidate.as_ptr()) } => says_most.0 = Step::Interpreter,
            Ok(_) | Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(libc::EACCES) => says_most = (Step::Exec, libc::EACCES),
            Err(other) => return (Step::Exec, other),
        }
    }
    says_most
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
