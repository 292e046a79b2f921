//! The Unix socket: where it is, how the agent serves it, how `status` and `health` ask.
//!
//! The agent takes the first place that it can: the state directory, the runtime directory of its user, on Linux an
//! abstract name with its user's number and the state directory. In a directory the socket has mode 0600 and is locked
//! by a lock on the directory: a second agent with the same directory warns and is not asked. On Linux only processes
//! of the same user and of root are answered. The socket stays behind when the agent ends; the next one removes it.
//!
//! Invariants: one connection at a time, and nothing is read from it; what does not fit into the socket's buffer is
//! dropped, so that a client that does not read costs nothing; everything that touches a file system is off the loop.

use super::StatusReport;
use crate::report::Reporter;
use async_io::{Async, Timer};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use smol::LocalExecutor;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of the socket in its directory.
pub(crate) const FILE_NAME: &str = "status.sock";

/// How much of a directory's path the abstract name holds, from its end, in bytes: with the rest of the name it fits
/// into the 107 that an address has.
#[cfg(target_os = "linux")]
const PATH_BYTES_MAX: usize = 80;

/// How many connections may wait to be accepted. Each is answered in a turn of the loop; more clients than these are
/// refused by the kernel.
const BACKLOG: i32 = 8;

/// How long a client waits for an answer: the loop turns within milliseconds, on a loaded machine within some hundred.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer that a client reads, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long the agent waits where it could not accept: out of descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Serves the socket as long as the executor lives. It is bound off the loop: a file system that hangs delays nothing.
pub(crate) fn serve(directories: Vec<PathBuf>, executor: &LocalExecutor<'static>, reporter: Reporter) {
    executor
        .spawn(async move {
            let Some((listener, lock)) = blocking::unblock(move || bind_first(&directories)).await else { return };
            let Ok(listener) = Async::new(listener) else { return };
            answer_all(&listener, &reporter).await;
            drop(lock);
        })
        .detach();
}

async fn answer_all(listener: &Async<UnixListener>, reporter: &Reporter) {
    loop {
        let Ok((mut stream, _)) = listener.read_with(UnixListener::accept).await else {
            Timer::after(ACCEPT_RETRY).await;
            continue;
        };
        if !is_allowed(&stream) || stream.set_nonblocking(true).is_err() {
            continue;
        }
        let (answer, answered) = async_channel::bounded(1);
        reporter.report(StatusReport { answer }).await;
        if let Ok(answer) = answered.recv().await {
            // A new socket takes all of it at once. The client may have gone.
            let _ = stream.write(&answer);
        }
    }
}

/// Whether the other end belongs to this user or to root.
#[cfg(target_os = "linux")]
fn is_allowed(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// The mode of the socket decides.
#[cfg(not(target_os = "linux"))]
const fn is_allowed(_stream: &UnixStream) -> bool {
    true
}

/// The socket at the first place that has room for it, and what locks that place.
fn bind_first(directories: &[PathBuf]) -> Option<(UnixListener, Option<OwnedFd>)> {
    for directory in directories {
        match bind_in(directory) {
            Ok((listener, lock)) => return Some((listener, Some(lock))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let directory = directory.display();
                tracing::warn!(%directory, "another agent uses the directory; this one cannot be asked for its status");
                return None;
            }
            Err(error) => tracing::debug!(directory = %directory.display(), %error, "no status socket here"),
        }
    }
    let instead_of = directories.first().map_or(Path::new(""), PathBuf::as_path);
    match abstract_address(instead_of).and_then(|address| listener_at(&address)) {
        Ok(listener) => Some((listener, None)),
        Err(error) => {
            tracing::warn!(%error, "no place for the status socket; this agent cannot be asked for its status");
            None
        }
    }
}

fn bind_in(directory: &Path) -> io::Result<(UnixListener, OwnedFd)> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let opened = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    let path = directory.join(FILE_NAME);
    match fs::symlink_metadata(&path) {
        // Of an agent that has ended, since the directory is ours.
        Ok(stale) if stale.file_type().is_socket() => fs::remove_file(&path)?,
        Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = listener_at(&address_in(&path, &opened)?)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok((listener, opened))
}

/// The address of the socket in its directory. A path that is too long for one leads over the open directory.
fn address_in(path: &Path, directory: &OwnedFd) -> io::Result<SocketAddrUnix> {
    match SocketAddrUnix::new(path) {
        Err(Errno::NAMETOOLONG) if cfg!(target_os = "linux") => {
            Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{FILE_NAME}", directory.as_raw_fd()))?)
        }
        address => Ok(address?),
    }
}

/// The abstract name for an agent that could not use this directory: another agent of the user has another one.
#[cfg(target_os = "linux")]
fn abstract_address(instead_of: &Path) -> io::Result<SocketAddrUnix> {
    let path = instead_of.as_os_str().as_bytes();
    let end = &path[path.len().saturating_sub(PATH_BYTES_MAX)..];
    let name = [format!("sindri-agent/{}", rustix::process::geteuid().as_raw()).as_bytes(), end].concat();
    Ok(SocketAddrUnix::new_abstract_name(&name)?)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_instead_of: &Path) -> io::Result<SocketAddrUnix> {
    Err(ErrorKind::Unsupported.into())
}

fn listener_at(address: &SocketAddrUnix) -> io::Result<UnixListener> {
    let socket = socket()?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// A socket that does not block, and that no child inherits.
fn socket() -> io::Result<OwnedFd> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    #[cfg(target_vendor = "apple")]
    let flags = SocketFlags::empty();
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    #[cfg(target_vendor = "apple")]
    {
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
    }
    Ok(socket)
}

/// Asks the agent that serves the first of these places. With `line`, reads the first line alone.
///
/// An agent that serves a place and does not answer there is the one that is asked: no other answers for it.
///
/// # Errors
/// No agent answers; the text says where it was looked for.
pub(super) fn ask(directories: &[PathBuf], line: bool) -> Result<Vec<u8>, String> {
    let mut tried = Vec::new();
    let in_directories =
        directories.iter().map(|directory| (directory.join(FILE_NAME).display().to_string(), connect_in(directory)));
    let by_name = directories.iter().map(PathBuf::as_path).chain([Path::new("")]).filter_map(|directory| {
        let stream = connected(&abstract_address(directory).ok()?).and_then(verified);
        Some((format!("the abstract socket of this user for '{}'", directory.display()), stream))
    });
    for (place, stream) in in_directories.chain(by_name) {
        let is_served = stream.as_ref().err().is_none_or(is_full);
        match stream.and_then(|stream| read(stream, line)) {
            Ok(answer) => return Ok(answer),
            Err(error) => tried.push(format!("{place}: {error}")),
        }
        if is_served {
            break;
        }
    }
    Err(format!("no agent answers; SINDRI_AGENT_STATE_DIR must be that of the agent\n  {}", tried.join("\n  ")))
}

/// More connections wait there already than may.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Only the agent of this user may have the name; any user can take a free one.
fn verified(stream: UnixStream) -> io::Result<UnixStream> {
    if is_allowed(&stream) { Ok(stream) } else { Err(ErrorKind::PermissionDenied.into()) }
}

fn connect_in(directory: &Path) -> io::Result<UnixStream> {
    let path = directory.join(FILE_NAME);
    match SocketAddrUnix::new(&path) {
        Err(Errno::NAMETOOLONG) => {
            #[cfg(target_os = "linux")]
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            #[cfg(not(target_os = "linux"))]
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = open(directory, flags, Mode::empty())?;
            connected(&address_in(&path, &opened)?)
        }
        address => connected(&address?),
    }
}

/// A connection. It does not block where too many wait already: an agent that accepts nothing must not hold a probe.
fn connected(address: &SocketAddrUnix) -> io::Result<UnixStream> {
    let socket = socket()?;
    connect(&socket, address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn read(mut stream: UnixStream, line: bool) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let bytes = match stream.read(&mut part) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        answer.extend_from_slice(part.get(..bytes).unwrap_or_default());
        if let Some(end) = answer.iter().position(|byte| *byte == b'\n').filter(|_| line) {
            answer.truncate(end);
            return Ok(answer);
        }
        if bytes == 0 || answer.len() > ANSWER_BYTES_MAX {
            // The agent ended, or was too busy, before it answered.
            return if answer.is_empty() || line { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(answer) };
        }
    }
}
