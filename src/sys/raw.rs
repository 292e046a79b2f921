//! The system calls of a child between its start and its exec.
//!
//! On Linux such a child runs in the agent's memory, at the same time as the agent, and so shares the agent's `errno`.
//! These calls go to the kernel directly and return the error instead. On machines for which no such call is written
//! down here, and on other systems, the child has a copy of the memory, and the C library does.

use libc::{c_char, c_int};
use std::os::fd::RawFd;

/// What a call returns, or `errno`.
pub(super) type Answer = Result<usize, c_int>;

/// Whether a child may run in the agent's memory: no call of it touches `errno`.
#[cfg(target_os = "linux")]
pub(super) const LEAVES_ERRNO_ALONE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

#[cfg(target_os = "linux")]
mod system {
    use super::{Answer, c_char, c_int};
    use std::os::fd::RawFd;

    /// A call with arguments as the kernel takes them.
    ///
    /// # Safety
    /// As for the call itself.
    #[cfg(target_arch = "x86_64")]
    unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> Answer {
        let [a, b, c, d] = arguments;
        let result: libc::c_long;
        // SAFETY: the kernel changes `rax`, `rcx` and `r11`, and memory as the call says.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") number => result,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer(result)
    }

    /// A call with arguments as the kernel takes them.
    ///
    /// # Safety
    /// As for the call itself.
    #[cfg(target_arch = "aarch64")]
    unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> Answer {
        let [a, b, c, d] = arguments;
        let result: libc::c_long;
        // SAFETY: the kernel changes `x0`, and memory as the call says.
        unsafe {
            std::arch::asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") a => result,
                in("x1") b,
                in("x2") c,
                in("x3") d,
                options(nostack),
            );
        }
        answer(result)
    }

    /// A call with arguments as the kernel takes them.
    ///
    /// # Safety
    /// As for the call itself.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    unsafe fn call(number: libc::c_long, arguments: [usize; 4]) -> Answer {
        let [a, b, c, d] = arguments;
        // SAFETY: the caller's; and `errno` belongs to this thread.
        unsafe {
            match libc::syscall(number, a, b, c, d) {
                -1 => Err(*libc::__errno_location()),
                result => Ok(result as usize),
            }
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn answer(result: libc::c_long) -> Answer {
        // Errors are -4095 to -1; what is not negative is a result.
        usize::try_from(result).map_err(|_| c_int::try_from(-result).unwrap_or(libc::EINVAL))
    }

    pub(in super::super) fn set_session() -> Answer {
        // SAFETY: it has no arguments.
        unsafe { call(libc::SYS_setsid, [0; 4]) }
    }

    pub(in super::super) fn duplicate(from: RawFd, to: RawFd) -> Answer {
        // SAFETY: this process has its own table of descriptors.
        unsafe { call(libc::SYS_dup3, [from as usize, to as usize, 0, 0]) }
    }

    pub(in super::super) fn close(descriptor: RawFd) -> Answer {
        // SAFETY: as above.
        unsafe { call(libc::SYS_close, [descriptor as usize, 0, 0, 0]) }
    }

    /// Closes `first` to `last`; an empty range is refused without effect.
    pub(in super::super) fn close_range(first: RawFd, last: RawFd) -> Answer {
        // SAFETY: as above.
        unsafe { call(libc::SYS_close_range, [first as usize, last as usize, 0, 0]) }
    }

    pub(in super::super) fn take_terminal() -> Answer {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a number of 16 bits, in a type that depends on the C library"
        )]
        const TAKE: usize = libc::TIOCSCTTY as usize;
        // SAFETY: the request has no memory.
        unsafe { call(libc::SYS_ioctl, [0, TAKE, 0, 0]) }
    }

    /// # Safety
    /// `directory` is a C string.
    pub(in super::super) unsafe fn enter(directory: *const c_char) -> Answer {
        // SAFETY: the caller's.
        unsafe { call(libc::SYS_chdir, [directory as usize, 0, 0, 0]) }
    }

    /// # Safety
    /// `file` is a C string.
    pub(in super::super) unsafe fn is_there(file: *const c_char) -> bool {
        // SAFETY: the caller's.
        unsafe { call(libc::SYS_faccessat, [libc::AT_FDCWD as usize, file as usize, libc::F_OK as usize, 0]) }.is_ok()
    }

    pub(in super::super) fn set_limit(resource: usize, limit: &libc::rlimit) -> Answer {
        let limit: [u64; 2] = [limit.rlim_cur, limit.rlim_max];
        // SAFETY: the kernel reads two numbers of 64 bits, and 0 stands for this process.
        unsafe { call(libc::SYS_prlimit64, [0, resource, limit.as_ptr() as usize, 0]) }
    }

    /// # Safety
    /// All three are what `execve` wants.
    pub(in super::super) unsafe fn execute(
        file: *const c_char,
        arguments: *const *const c_char,
        variables: *const *const c_char,
    ) -> Answer {
        // SAFETY: the caller's.
        unsafe { call(libc::SYS_execve, [file as usize, arguments as usize, variables as usize, 0]) }
    }

    pub(in super::super) fn write(descriptor: RawFd, bytes: &[u8]) -> Answer {
        // SAFETY: `bytes` is valid for its length.
        unsafe { call(libc::SYS_write, [descriptor as usize, bytes.as_ptr() as usize, bytes.len(), 0]) }
    }

    pub(in super::super) fn exit(status: c_int) -> ! {
        loop {
            // SAFETY: it does not come back.
            let _ = unsafe { call(libc::SYS_exit_group, [status as usize, 0, 0, 0]) };
        }
    }

    /// Bytes of the kernel's set of signals.
    const SIGNAL_SET_BYTES: usize = 8;

    /// Every signal to its default, those included that the C library keeps for itself and does not let anyone set.
    pub(in super::super) fn reset_dispositions() {
        // `SIG_DFL` is 0, and so are the flags, the restorer and the mask: a kernel `sigaction` of zeros, which is at
        // most 32 bytes on the machines Linux has.
        const DEFAULT: [u64; 8] = [0; 8];
        const SIGNALS: usize = 64;
        for signal in 1..=SIGNALS {
            let arguments = [signal, DEFAULT.as_ptr() as usize, 0, SIGNAL_SET_BYTES];
            // SAFETY: `DEFAULT` is larger than the kernel reads; SIGKILL and SIGSTOP are refused without effect.
            let _ = unsafe { call(libc::SYS_rt_sigaction, arguments) };
        }
    }

    pub(in super::super) fn unblock_signals() {
        const NOTHING: [u64; 1] = [0];
        let arguments = [libc::SIG_SETMASK as usize, NOTHING.as_ptr() as usize, 0, SIGNAL_SET_BYTES];
        // SAFETY: the kernel reads a set of that many bytes.
        let _ = unsafe { call(libc::SYS_rt_sigprocmask, arguments) };
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Answer, c_char, c_int};
    use std::os::fd::RawFd;

    fn answer(result: c_int) -> Answer {
        // SAFETY: the address of this thread's errno, in a process that has this thread alone.
        if result == -1 { Err(unsafe { *libc::__error() }) } else { Ok(result as usize) }
    }

    pub(in super::super) fn set_session() -> Answer {
        // SAFETY: it has no arguments.
        answer(unsafe { libc::setsid() })
    }

    pub(in super::super) fn duplicate(from: RawFd, to: RawFd) -> Answer {
        // SAFETY: this process has its own table of descriptors.
        answer(unsafe { libc::dup2(from, to) })
    }

    pub(in super::super) fn close(descriptor: RawFd) -> Answer {
        // SAFETY: as above.
        answer(unsafe { libc::close(descriptor) })
    }

    pub(in super::super) fn take_terminal() -> Answer {
        // SAFETY: the request has no memory.
        answer(unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) })
    }

    /// # Safety
    /// `directory` is a C string.
    pub(in super::super) unsafe fn enter(directory: *const c_char) -> Answer {
        // SAFETY: the caller's.
        answer(unsafe { libc::chdir(directory) })
    }

    /// # Safety
    /// `file` is a C string.
    pub(in super::super) unsafe fn is_there(file: *const c_char) -> bool {
        // SAFETY: the caller's.
        answer(unsafe { libc::access(file, libc::F_OK) }).is_ok()
    }

    pub(in super::super) fn set_limit(resource: usize, limit: &libc::rlimit) -> Answer {
        let resource = c_int::try_from(resource).map_err(|_| libc::EINVAL)?;
        // SAFETY: the limit lives across the call.
        answer(unsafe { libc::setrlimit(resource, limit) })
    }

    /// # Safety
    /// All three are what `execve` wants.
    pub(in super::super) unsafe fn execute(
        file: *const c_char,
        arguments: *const *const c_char,
        variables: *const *const c_char,
    ) -> Answer {
        // SAFETY: the caller's.
        answer(unsafe { libc::execve(file, arguments, variables) })
    }

    pub(in super::super) fn write(descriptor: RawFd, bytes: &[u8]) -> Answer {
        // SAFETY: `bytes` is valid for its length.
        let written = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        usize::try_from(written).map_err(|_| libc::EIO)
    }

    pub(in super::super) fn exit(status: c_int) -> ! {
        // SAFETY: it is async-signal-safe.
        unsafe { libc::_exit(status) }
    }

    /// Every signal to its default.
    pub(in super::super) fn reset_dispositions() {
        const SIGNALS: c_int = 31;
        for signal in 1..=SIGNALS {
            // SAFETY: setting a disposition to the default is async-signal-safe.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }

    pub(in super::super) fn unblock_signals() {
        // SAFETY: sigset_t is plain data, and lives through the calls.
        unsafe {
            let mut nothing: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut nothing);
            libc::pthread_sigmask(libc::SIG_SETMASK, &nothing, std::ptr::null_mut());
        }
    }
}

pub(super) use system::*;

/// Closes every descriptor from 3 on but `kept`; `end` is one past the highest where the kernel closes no range.
pub(super) fn close_others(kept: RawFd, end: Option<RawFd>) {
    const FIRST: RawFd = 3;
    if let Some(end) = end {
        for descriptor in (FIRST..end).filter(|descriptor| *descriptor != kept) {
            let _ = close(descriptor);
        }
        return;
    }
    #[cfg(target_os = "linux")]
    {
        let _ = close_range(FIRST, kept.wrapping_sub(1));
        let _ = close_range(kept.wrapping_add(1), RawFd::MAX);
    }
}
