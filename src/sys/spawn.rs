//! Starts a program in a session of its own, with nothing of the agent in it.
//!
//! It does not wait for the program ([`Child`] does) and does not choose its environment. The child is the leader of a
//! new session and process group. Signal dispositions are the defaults and no signal is blocked, however the agent was
//! started; every descriptor but the three given is closed; limits that the agent changed for itself are given back;
//! the umask is kept. The kernel's out-of-memory killer is asked to take the child before the agent.
//!
//! Everything is prepared before the fork (see `exec.rs`). When [`spawn`] comes back with a child, its exec has
//! succeeded: a program that cannot be run is an error here, not an exit status.

use super::child::Child;
use super::environment::Environment;
use super::exec::{self, ERROR_BYTES, Plan, Pointers, Step};
use super::process;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What to start, and in which surroundings.
#[derive(Debug)]
pub struct Program<'a> {
    /// A path if it has a slash, else a name that is looked for on the `PATH` of `environment`.
    pub path: &'a OsStr,
    /// What the program finds as its own name; `path` where that is `None`.
    pub name: Option<&'a OsStr>,
    /// The arguments behind the name.
    pub arguments: &'a [OsString],
    /// All its variables.
    pub environment: &'a Environment,
    /// The working directory.
    pub directory: &'a Path,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Standard input is a terminal that nobody controls yet, and becomes the controlling terminal of the session.
    pub controlling_terminal: bool,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Whoever asked must name another program: there is none of that name.
    #[error("{}: not found", .program.display())]
    NotFound {
        /// The program as it was asked for.
        program: PathBuf,
    },
    /// Whoever asked must name another program: the file is there but is no program that this user may run.
    #[error("{}: {}", .program.display(), .error)]
    NotExecutable {
        /// The program as it was asked for.
        program: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// Whoever asked must mend the script: the interpreter that its first line names, or the loader of the binary, is
    /// not there.
    #[error("{}: its interpreter is not found", .program.display())]
    Interpreter {
        /// The program as it was asked for.
        program: PathBuf,
    },
    /// Whoever asked must name another working directory.
    #[error("working directory {}: {}", .directory.display(), .error)]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// Whoever asked must leave out the NUL character: no argument, variable or path can have one.
    #[error("a NUL character in the program, an argument or a variable")]
    Nul,
    /// The operator must give the machine more: processes, descriptors or memory are used up.
    #[error("cannot start a process: {0}")]
    Exhausted(#[source] io::Error),
    /// The terminal could not be made the controlling one: a fault of the agent.
    #[error("cannot take the terminal: {0}")]
    Terminal(#[source] io::Error),
}

impl SpawnError {
    /// The exit code by which a shell would tell it: 127 for a program that is not there, else 126.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. }
            | Self::Interpreter { .. }
            | Self::Directory { .. }
            | Self::Nul
            | Self::Exhausted(_)
            | Self::Terminal(_) => 126,
        }
    }
}

/// Starts the program. The calling thread stands still until its exec, some tenths of a millisecond.
pub fn spawn(program: &Program<'_>) -> Result<Child, SpawnError> {
    let candidates = candidates(program)?;
    let (pipe_reads, pipe_writes) = pipe().map_err(SpawnError::Exhausted)?;
    let moved = [0, 1, 2].map(|at| above_stdio(program.stdio[at]));
    let [input, output, error] = moved;
    let moved = [
        input.map_err(SpawnError::Exhausted)?,
        output.map_err(SpawnError::Exhausted)?,
        error.map_err(SpawnError::Exhausted)?,
    ];
    let limits = process::inherited_limits();
    let plan = Plan {
        stdio: [0, 1, 2].map(|at: usize| number(&moved[at], program.stdio[at])),
        error_pipe: pipe_writes.as_raw_fd(),
        controlling_terminal: program.controlling_terminal,
        directory: c_string(program.directory.as_os_str())?,
        candidates,
        arguments: arguments(program)?,
        variables: variables(program.environment)?,
        core_limit: limits.core,
        descriptor_limit: limits.descriptors,
        descriptors_end: descriptors_end(),
    };
    let pid = exec::start(&plan).map_err(SpawnError::Exhausted)?;
    let pid = Pid::from_raw(pid).expect("a child has a number above 0");
    drop(pipe_writes);
    if let Some((step, error)) = failure(pipe_reads) {
        // It is on its way out and has no children: this wait is over at once.
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
        return Err(explain(program, &plan, step, error));
    }
    process::expose_to_oom_killer(pid);
    Child::adopt(pid).map_err(SpawnError::Exhausted)
}

/// Where a program is looked for when its environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn candidates(program: &Program<'_>) -> Result<Vec<CString>, SpawnError> {
    let name = program.path.as_bytes();
    if name.is_empty() {
        return Err(SpawnError::NotFound { program: program.path.into() });
    }
    if name.contains(&b'/') {
        return Ok(vec![c_string(program.path)?]);
    }
    let path = program.environment.value("PATH");
    let path = path.unwrap_or(OsStr::new(PATH_DEFAULT)).as_bytes();
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // An empty entry stands for the working directory.
            let mut file = directory.to_vec();
            if !file.is_empty() {
                file.push(b'/');
            }
            file.extend_from_slice(name);
            CString::new(file).map_err(|_| SpawnError::Nul)
        })
        .collect()
}

fn arguments(program: &Program<'_>) -> Result<Pointers, SpawnError> {
    let name = program.name.unwrap_or(program.path);
    let arguments = program.arguments.iter().map(OsString::as_os_str);
    let strings: Result<_, _> = [name].into_iter().chain(arguments).map(c_string).collect();
    Ok(Pointers::new(strings?))
}

fn variables(environment: &Environment) -> Result<Pointers, SpawnError> {
    let strings: Result<_, _> = environment
        .iter()
        .map(|(name, value)| {
            let mut variable = name.to_os_string().into_vec();
            variable.push(b'=');
            variable.extend_from_slice(value.as_bytes());
            CString::new(variable).map_err(|_| SpawnError::Nul)
        })
        .collect();
    Ok(Pointers::new(strings?))
}

fn c_string(text: &OsStr) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::Nul)
}

/// The pipe by which the child tells why it failed: no end of it outlives an exec, none stands below 3.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(target_os = "linux")]
    let (reads, writes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    #[cfg(not(target_os = "linux"))]
    let (reads, writes) = {
        let (reads, writes) = rustix::pipe::pipe()?;
        rustix::io::fcntl_setfd(&reads, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writes, rustix::io::FdFlags::CLOEXEC)?;
        (reads, writes)
    };
    let moved = above_stdio(writes.as_fd())?;
    Ok((reads, moved.unwrap_or(writes)))
}

/// A copy above the standard descriptors of one that stands among them, as happens when the agent itself was started
/// with some of them closed.
fn above_stdio(descriptor: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    const FIRST: RawFd = 3;
    if descriptor.as_raw_fd() >= FIRST {
        return Ok(None);
    }
    Ok(Some(rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST)?))
}

fn number(moved: &Option<OwnedFd>, given: BorrowedFd<'_>) -> RawFd {
    moved.as_ref().map_or(given.as_raw_fd(), AsRawFd::as_raw_fd)
}

/// `None` where the kernel closes a range of descriptors by itself; else one past the highest that is open.
fn descriptors_end() -> Option<RawFd> {
    #[cfg(target_os = "linux")]
    {
        use std::sync::OnceLock;
        static CLOSE_RANGE: OnceLock<bool> = OnceLock::new();
        // SAFETY: the range holds no descriptor that can exist; the call only tells whether it is there.
        let probe = || unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, 0) == 0 };
        if *CLOSE_RANGE.get_or_init(probe) {
            return None;
        }
    }
    Some(highest_descriptor().map_or(DESCRIPTORS_END_UNKNOWN, |highest| highest.saturating_add(1)))
}

/// Where to stop closing when the list of descriptors cannot be read: the largest table that is usual without root.
const DESCRIPTORS_END_UNKNOWN: RawFd = 4_096;

fn highest_descriptor() -> Option<RawFd> {
    std::fs::read_dir("/dev/fd").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
}

/// What the child says of its failure; `None` when the pipe was closed by a successful exec.
fn failure(pipe: OwnedFd) -> Option<(Step, io::Error)> {
    let mut said = [0; ERROR_BYTES];
    std::fs::File::from(pipe).read_exact(&mut said).ok()?;
    let [step, errno @ ..] = said;
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
    Some((Step::from_byte(step)?, error))
}

fn explain(program: &Program<'_>, plan: &Plan, step: Step, error: io::Error) -> SpawnError {
    match step {
        Step::Setup => SpawnError::Exhausted(error),
        Step::Terminal => SpawnError::Terminal(error),
        Step::Directory => SpawnError::Directory { directory: program.directory.into(), error },
        Step::Exec if error.raw_os_error() != Some(libc::ENOENT) => {
            SpawnError::NotExecutable { program: program.path.into(), error }
        }
        // The kernel says "no such file" of the interpreter in the same words as of the script.
        Step::Exec if is_there(program, plan) => SpawnError::Interpreter { program: program.path.into() },
        Step::Exec => SpawnError::NotFound { program: program.path.into() },
    }
}

fn is_there(program: &Program<'_>, plan: &Plan) -> bool {
    plan.candidates.iter().any(|candidate| {
        let candidate = Path::new(OsStr::from_bytes(candidate.as_bytes()));
        program.directory.join(candidate).is_file()
    })
}
