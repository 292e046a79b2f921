//! Replaces the running program by the one at the agent's own path, which goes on with everything.
//!
//! `draupnir_fsm::driver` decides when (`HandOverStep`). The process stays the same: its number, its children, and the
//! descriptors of its terminals and pipes. The new program reads the rest from a sealed file in memory
//! ([`state`]); an environment variable holds its number, and nothing of the state. Both programs read and
//! write the state by this module, so that a new one reads what an old one wrote.
//!
//! Invariants:
//! - the new program has read the state, as a child, before it takes the place of this one;
//! - a descriptor is left open across the exec only if the state names it, and only right before it;
//! - the API key is in the state alone.
//!
//! | file | what it does |
//! |---|---|
//! | [`state`] | the state, and its form |
//! | `question` | asks a program whether it can read a state |
//! | [`table`] | what a panic hands over |
//! | [`fallback`] | gives the place to the previous program, if this one cannot begin |

pub mod fallback;
pub mod question;
pub mod state;
pub mod table;

use crate::sys::descriptor::{inherited, leave_open};
use crate::sys::{disposition, environment, process};
use crate::writer::FLUSH_TIMEOUT;
use rustix::io::Errno;
use state::{Format, State};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The variable that tells the new program the descriptor of the state.
const VARIABLE: &str = "SINDRI_AGENT_STATE_DESCRIPTOR";

/// Why the program was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator may look for a file system that does not answer.
    #[error("a file is not written")]
    NotFlushed,
    /// The machine is out of memory or descriptors, or the new program is gone.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// `argv[0]` of the next program.
const NAME: &str = "sindri-agent";

/// What the installer appends to the name of the program before the present one.
const PREVIOUS: &str = ".previous";

static OWN_PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The path from which this program was started, even if another file is there by now. The first call must be at the
/// start of the process: later the kernel may name another path.
pub fn own_program() -> &'static Path {
    OWN_PROGRAM.get_or_init(|| {
        let path = std::env::current_exe().unwrap_or_default();
        let text = path.to_string_lossy();
        // So the kernel marks a program that was replaced.
        let text = text.strip_suffix(" (deleted)").unwrap_or(&text);
        // The previous program stands in for one at this path that could not begin.
        text.strip_suffix(PREVIOUS).unwrap_or(text).into()
    })
}

/// The path of the program before the present one, where the installer keeps it.
pub fn previous_program() -> PathBuf {
    let mut path = own_program().as_os_str().to_owned();
    path.push(PREVIOUS);
    path.into()
}

/// The state that the program before this one left, if it did. Call it from `main`, before any thread is started.
///
/// # Errors
/// It cannot be read.
pub fn take() -> Option<Result<State, Format>> {
    let number = std::env::var(VARIABLE).ok()?;
    // Harmless if it fails: a child would see a number.
    let _ = environment::scrub(VARIABLE);
    let file = number.parse().ok().and_then(|number: RawFd| inherited(number).ok()).map(File::from);
    let Some(file) = file else { return Some(Err(Format::Unreadable)) };
    let state = read(&file);
    if let Ok(state) = &state {
        fallback::open(file, state);
    }
    Some(state)
}

/// Reads a state from its beginning, wherever the descriptor stands.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read(file: &File) -> Result<State, Format> {
    let length = file.metadata().map_err(|_| Format::Unreadable)?.len();
    let length = usize::try_from(length).ok().filter(|length| *length <= state::BYTES_MAX).ok_or(Format::TooLong)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(|_| Format::Unreadable)?;
    let state = State::decode(&bytes);
    crate::config::wipe(&mut bytes);
    state
}

/// Replaces this program by the one at its own path; returns only with an error, and then everything is as before.
pub fn replace(state: &mut State) -> Error {
    if !crate::writer::flush_all(FLUSH_TIMEOUT) {
        return Error::NotFlushed;
    }
    let file = match write(state) {
        Ok(file) => file,
        Err(error) => return error.into(),
    };
    let mut descriptors = state.descriptors();
    descriptors.push(file.as_raw_fd());
    let error = exec(&descriptors);
    for descriptor in descriptors {
        let _ = leave_open(descriptor, false);
    }
    error.into()
}

/// Sets a state out for the program that replaces this one after a panic: the variable that names it, and its value.
/// The descriptors stay open from now on.
///
/// # Errors
/// The machine is out of memory or descriptors.
pub fn set_out(state: &mut State) -> io::Result<(&'static str, String)> {
    let file = write(state)?;
    for descriptor in state.descriptors().into_iter().chain([file.as_raw_fd()]) {
        // One that was closed meanwhile is found out by the new program.
        let _ = leave_open(descriptor, true);
    }
    let number = file.as_raw_fd().to_string();
    // It is closed by the program that reads it.
    std::mem::forget(file);
    Ok((VARIABLE, number))
}

/// Writes a state into a file that has no name, and that nothing can change.
///
/// # Errors
/// The machine is out of memory or descriptors.
pub fn write(state: &mut State) -> io::Result<OwnedFd> {
    let mut file = File::from(unnamed_file()?);
    state.encode(|bytes| file.write_all(bytes))?;
    let file = OwnedFd::from(file);
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{SealFlags, fcntl_add_seals};
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    }
    Ok(file)
}

#[cfg(target_os = "linux")]
fn unnamed_file() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("sindri-agent", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// Of mode 0600, and removed at once.
#[cfg(not(target_os = "linux"))]
fn unnamed_file() -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = std::env::temp_dir().join(format!(".sindri-agent-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file.into())
}

fn exec(descriptors: &[RawFd]) -> io::Error {
    let Some(state) = descriptors.last() else { return Errno::INVAL.into() };
    for descriptor in descriptors {
        if let Err(error) = leave_open(*descriptor, true) {
            return error;
        }
    }
    process::soften();
    // A second request must not end the new program before it listens.
    disposition::ignore_hand_over();
    // An agent that runs has no argument.
    let error = Command::new(own_program()).arg0(NAME).env(VARIABLE, state.to_string()).exec();
    process::harden_again();
    error
}
