//! A file system that does not answer: a FUSE mount whose daemon answers the handshake and then only requests for sizes
//! and attributes, which the metrics send to every mount.
//!
//! A process with another request cannot be killed until [`Hung::answer`]. Only an agent [within](Hung::within) its
//! mount namespace sees it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::support::{Setup, WAIT_MAX};

/// The numbers of operations in `linux/fuse.h`.
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const STATX: u32 = 52;

/// The error of a daemon for an unknown operation. The kernel takes it as permission if it answers `access`.
const ENOSYS: i32 = 38;

/// The mount; it ends with the test.
pub(crate) struct Hung {
    place: TempDir,
    daemon: Arc<Daemon>,
    /// Holds the mount namespace until its input ends.
    holder: Child,
}

struct Daemon {
    device: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    kept: Vec<u64>,
    answers: bool,
}

impl Hung {
    /// Mounts it, or returns why that is not possible.
    pub(crate) fn mount() -> Result<Hung, String> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| format!("no FUSE here: {error}"))?;
        let place = tempfile::tempdir().expect("a temporary directory");
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "sh", "-c", "echo ready; exec cat"]);
        let holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut holder = holder.map_err(|error| format!("no unshare here: {error}"))?;
        let mut ready = [0; 5];
        if holder.stdout.take().expect("piped").read_exact(&mut ready).is_err() {
            let _ = holder.wait();
            return Err("no mount namespace can be had here".to_owned());
        }
        let mut mount = Command::new("nsenter");
        mount.args(["--mount", "--target", &holder.id().to_string(), "mount"]);
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0,allow_other", "hung"]);
        mount.arg(place.path()).stdin(device.try_clone().expect("a descriptor")).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            drop(holder.stdin.take());
            let _ = holder.wait();
            return Err("nothing can be mounted here".to_owned());
        }
        let daemon = Arc::new(Daemon { device, state: Mutex::default(), changed: Condvar::new() });
        let server = Arc::clone(&daemon);
        std::thread::spawn(move || server.serve());
        Ok(Hung { place, daemon, holder })
    }

    /// The same agent in the mount's namespace.
    pub(crate) fn within(&self, setup: Setup) -> Setup {
        let agent = setup.program_path().to_owned();
        let holder = OsString::from(self.holder.id().to_string());
        setup.program("nsenter").args_before(["--mount".into(), "--target".into(), holder, agent.into()])
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    /// Waits until this many requests wait for an answer.
    #[track_caller]
    pub(crate) fn wait_kept(&self, requests: usize) {
        let waits = |state: &mut State| state.kept.len() < requests;
        let waited = self.daemon.changed.wait_timeout_while(self.daemon.lock(), WAIT_MAX, waits);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "no process asks the file system");
    }

    /// Answers all requests so far, and all later ones.
    pub(crate) fn answer(&self) {
        let mut state = self.daemon.lock();
        state.answers = true;
        for unique in std::mem::take(&mut state.kept) {
            self.daemon.reply(unique, -ENOSYS, &[]);
        }
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.answer();
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

impl Daemon {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves requests until it is unmounted.
    fn serve(&self) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = (&self.device).read(&mut buffer) {
            let request = &buffer[..length];
            let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
            let unique = u64::from_ne_bytes(request[8..16].try_into().expect("eight bytes"));
            match word(4) {
                INIT => self.reply(unique, 0, &greeting()),
                GETATTR | STATFS | STATX => self.reply(unique, -ENOSYS, &[]),
                FORGET | BATCH_FORGET | INTERRUPT => {}
                _ => self.keep(unique),
            }
        }
    }

    fn keep(&self, unique: u64) {
        let mut state = self.lock();
        if state.answers {
            return self.reply(unique, -ENOSYS, &[]);
        }
        state.kept.push(unique);
        self.changed.notify_all();
    }

    fn reply(&self, unique: u64, error: i32, body: &[u8]) {
        let length = u32::try_from(16 + body.len()).expect("short");
        let header = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), body].concat();
        // The process that asked may be gone.
        let _ = (&self.device).write(&header);
    }
}

/// The answer to the kernel's first request: version 7.31, without options.
fn greeting() -> Vec<u8> {
    const WORDS: usize = 16;
    let mut words = [0_u32; WORDS];
    (words[0], words[1], words[5]) = (7, 31, 4_096);
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
