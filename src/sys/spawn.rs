//! Starts a program in its own session, without the agent's descriptors, signal state and limits; waits for nothing.
//!
//! The caller chooses the environment. The child is the leader of a new session and process group. It has default
//! signal dispositions, no blocked signal, the three given descriptors and no other, and the limits that the agent
//! was started with. It keeps the umask. The kernel's out-of-memory killer is asked to take it before the agent.
//!
//! Everything is prepared before the child starts (see `exec.rs`). [`spawn`] returns at once; [`Start::done`] returns
//! whether the exec succeeded: a program that cannot be run is an error there, not an exit status. A file system that
//! does not answer blocks the child alone, which can be signalled meanwhile. Starts that hang are bounded by
//! [`STARTS_MAX`] and [`STARTS_BYTES_MAX`].

use super::child::{Child, signal_group};
use super::environment::Environment;
use super::exec::{self, Memory, Plan, Pointers, Step};
use super::flight::{Flight, Share};
pub use super::flight::{STARTS_BYTES_MAX, STARTS_MAX};
use super::process;
use async_io::Async;
use rustix::process::{Pid, Signal};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// What to start, and in which surroundings.
#[derive(Debug)]
pub struct Program<'a> {
    /// A path if it has a slash, else a name that is looked for on the `PATH` of `environment`.
    pub path: &'a OsStr,
    /// `argv[0]`; `path` if it is `None`.
    pub name: Option<&'a OsStr>,
    /// The arguments behind the name.
    pub arguments: &'a [OsString],
    /// All its variables. Without a `PWD` the program gets a correct one.
    pub environment: &'a Environment,
    /// Where it starts; `/` where that directory cannot be entered.
    pub home: &'a Path,
    /// Where it goes from there; it does not start where that cannot be entered.
    pub directory: Option<&'a Path>,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Standard input is a terminal that controls no session yet. It becomes the controlling terminal of this one.
    pub controlling_terminal: bool,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The caller must name another program: none has this name.
    #[error("{}: not found", .program.display())]
    NotFound {
        /// The program as it was asked for.
        program: PathBuf,
    },
    /// The caller must name another program: the file exists, but this user may not run it as a program.
    #[error("{}: {}", .program.display(), .error)]
    NotExecutable {
        /// The program as it was asked for.
        program: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The caller must mend the script: the interpreter in its first line, or the loader of the binary, does not exist.
    #[error("{}: its interpreter is not found", .program.display())]
    Interpreter {
        /// The program as it was asked for.
        program: PathBuf,
    },
    /// The caller must name another working directory.
    #[error("working directory {}: {}", .directory.display(), .error)]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The caller must leave out the NUL character: no argument, variable or path can have one.
    #[error("a NUL character in the program, an argument or a variable")]
    Nul,
    /// The operator must look for a file system that does not answer: too many starts wait for one.
    #[error("cannot start a process: {STARTS_MAX} starts, or {} MiB of them, hang already on a file system that does not answer", STARTS_BYTES_MAX >> 20)]
    Hanging,
    /// The caller must shorten it: an argument, a variable, or all of them together are longer than the system takes.
    #[error("{}: an argument or variable is longer than this system takes (128 KiB on Linux), or all of them are", .program.display())]
    TooLong {
        /// The program as it was asked for.
        program: PathBuf,
    },
    /// The operator must give the machine more: processes, descriptors or memory are used up.
    #[error("cannot start a process: {0}")]
    Exhausted(#[source] io::Error),
    /// The terminal could not be made the controlling one: a fault of the agent.
    #[error("cannot take the terminal: {0}")]
    Terminal(#[source] io::Error),
}

impl SpawnError {
    /// The exit code that a shell gives for it: 127 for a program that does not exist, else 126.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. }
            | Self::Interpreter { .. }
            | Self::Directory { .. }
            | Self::Nul
            | Self::Hanging
            | Self::TooLong { .. }
            | Self::Exhausted(_)
            | Self::Terminal(_) => 126,
        }
    }

    /// Whether the machine is out of processes, descriptors or memory, and the program may be right.
    pub fn is_exhaustion(&self) -> bool {
        matches!(self, Self::Exhausted(_) | Self::Hanging)
    }
}

/// Starts the program and returns while it starts.
pub fn spawn(program: &Program<'_>) -> Result<(Child, Start), SpawnError> {
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
    let is_absolute = program.directory.is_some_and(Path::is_absolute);
    let [variables, variables_at_root] = variables(program)?;
    let memory = Memory::new(Plan {
        stdio: [0, 1, 2].map(|at: usize| number(&moved[at], program.stdio[at])),
        error_pipe: pipe_writes.as_raw_fd(),
        controlling_terminal: program.controlling_terminal,
        home: if is_absolute { None } else { Some(c_string(program.home.as_os_str())?) },
        directory: program.directory.map(|directory| c_string(directory.as_os_str())).transpose()?,
        candidates,
        arguments: arguments(program)?,
        variables,
        variables_at_root,
        core_limit: limits.core,
        descriptor_limit: limits.descriptors,
        descriptors_end: descriptors_end(),
    });
    let memory = Box::new(memory.map_err(SpawnError::Exhausted)?);
    let share = Share::take(memory.bytes()).ok_or(SpawnError::Hanging)?;
    let pipe = Async::new(pipe_reads).map_err(SpawnError::Exhausted)?;
    // SAFETY: `Flight` frees the box only after the child has left it.
    let pid = unsafe { exec::start(&memory) }.map_err(SpawnError::Exhausted)?;
    let start = Start {
        pid: Pid::from_raw(pid).expect("a child has a number above 0"),
        program: program.path.into(),
        directory: program.home.join(program.directory.unwrap_or(Path::new(""))),
        flight: Some(Flight::new(pipe, memory, share)),
    };
    let child = Child::adopt(start.pid).map_err(SpawnError::Exhausted)?;
    Ok((child, start))
}

/// A child before its exec. If it is dropped before that, it kills the child.
#[must_use = "the program is killed when this is dropped before it runs"]
pub struct Start {
    pid: Pid,
    program: PathBuf,
    directory: PathBuf,
    flight: Option<Flight>,
}

impl Start {
    /// Waits until the program runs, or the start has failed and the child is gone.
    ///
    /// # Errors
    /// The reason why the program does not run. A child that was killed before its exec is no error: its exit code has
    /// the signal.
    pub async fn done(mut self, child: &Child) -> Result<(), SpawnError> {
        let mut said = Vec::new();
        while let Some(flight) = self.flight.as_mut().filter(|flight| !flight.has_left()) {
            // The reactor refuses nothing that it has accepted once.
            flight.readable().await.expect("the reactor still watches this pipe");
            flight.hear(&mut said);
        }
        let failure = said.split_first().and_then(|(step, errno)| {
            let errno = i32::from_ne_bytes(errno.try_into().ok()?);
            Some(self.explain(Step::from_byte(*step)?, io::Error::from_raw_os_error(errno)))
        });
        let Some(failure) = failure else {
            process::expose_to_oom_killer(self.pid);
            return Ok(());
        };
        child.exited().await;
        Err(failure)
    }

    fn explain(&self, step: Step, error: io::Error) -> SpawnError {
        let (program, directory) = (self.program.clone(), self.directory.clone());
        match step {
            Step::Setup => SpawnError::Exhausted(error),
            Step::Terminal => SpawnError::Terminal(error),
            Step::Directory => SpawnError::Directory { directory, error },
            Step::Interpreter => SpawnError::Interpreter { program },
            Step::Exec => match error.raw_os_error() {
                Some(libc::ENOENT) => SpawnError::NotFound { program },
                Some(libc::E2BIG) => SpawnError::TooLong { program },
                _ => SpawnError::NotExecutable { program, error },
            },
        }
    }
}

impl std::fmt::Debug for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Start").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        let Some(mut flight) = self.flight.take() else { return };
        if !flight.hear(&mut Vec::new()) {
            // The number is the child's: it has not even left the pipe.
            signal_group(self.pid, Signal::KILL);
            flight.abandon();
        }
    }
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
    let strings: Result<_, _> =
        [name].into_iter().chain(arguments).map(|argument| c_string(argument).map(Rc::new)).collect();
    Ok(Pointers::new(strings?))
}

/// The variables of a program that starts in its home, and of one that starts in `/` instead.
fn variables(program: &Program<'_>) -> Result<[Pointers; 2], SpawnError> {
    let variable = |name: &OsStr, value: &OsStr| {
        let mut variable = name.to_os_string().into_vec();
        variable.push(b'=');
        variable.extend_from_slice(value.as_bytes());
        CString::new(variable).map(Rc::new).map_err(|_| SpawnError::Nul)
    };
    let strings: Result<Vec<_>, _> = program.environment.iter().map(|(name, value)| variable(name, value)).collect();
    let strings = strings?;
    let with_place = |home: &Path| {
        let mut strings = strings.clone();
        let place = plain(&home.join(program.directory.unwrap_or(Path::new(""))));
        if let (None, Some(place)) = (program.environment.value("PWD"), place) {
            strings.push(variable(OsStr::new("PWD"), place.as_os_str())?);
        }
        Ok(Pointers::new(strings))
    };
    Ok([with_place(program.home)?, with_place(Path::new("/"))?])
}

/// The directory as a shell would name it in `PWD`: absolute and without detours; else the shell finds out by itself.
fn plain(directory: &Path) -> Option<PathBuf> {
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    (directory.is_absolute() && directory.components().all(is_plain)).then(|| directory.components().collect())
}

fn c_string(text: &OsStr) -> Result<CString, SpawnError> {
    CString::new(text.as_bytes()).map_err(|_| SpawnError::Nul)
}

/// The pipe through which the child sends its error: both ends close at an exec, and neither is below 3.
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
        // SAFETY: the range holds no descriptor that can exist; the call only shows whether the kernel has it.
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
