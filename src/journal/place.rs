//! Which boot, which PID namespace, which process: what must all be the same before anything is killed.

use super::key::{Hash, Key};
use super::record::Fields;
use crate::sys::session;
use std::sync::OnceLock;

/// The process of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number, which is that of its session.
    pub pid: u32,
    /// When it started, as the kernel counts; 0 where that is not known.
    started: u64,
    /// The boot that it ran in (a hash of its id), 0 where that is not known.
    boot: Hash,
    /// The PID namespace, 0 where that is not known.
    namespace: u64,
}

/// What is left of a command whose agent died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRemains {
    /// Nothing.
    None,
    /// A session that is certainly its own.
    Certain(Process),
    /// Perhaps a session: of the same number and not certainly its own, or its number was not recorded any more.
    Doubtful,
}

impl Process {
    /// The process of this number; what else is known of it is looked up when the record is written.
    pub const fn of(pid: u32) -> Self {
        Self { pid, started: 0, boot: 0, namespace: 0 }
    }

    /// The same with what the kernel says of it now.
    pub(super) fn known(self, key: &Key) -> Self {
        let started = start_of(self.pid).unwrap_or_default();
        Self { started, boot: boot(key), namespace: namespace(), ..self }
    }

    pub(super) fn encode(self, to: &mut Vec<u8>) {
        to.extend(self.pid.to_le_bytes());
        to.extend(self.started.to_le_bytes());
        to.extend(self.boot.to_le_bytes());
        to.extend(self.namespace.to_le_bytes());
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let pid = u32::from_le_bytes(fields.take()?);
        Some(Self { pid, started: fields.number()?, boot: fields.hash()?, namespace: fields.number()? })
    }

    /// What is left of it now.
    pub(super) fn remains(self, key: &Key) -> SessionRemains {
        // Of another boot nothing is left, and what another namespace has is not ours to see.
        if self.boot == 0 || self.boot != boot(key) || self.namespace == 0 || self.namespace != namespace() {
            return SessionRemains::None;
        }
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return SessionRemains::None };
        let is_leader = session::session_of(pid).is_ok_and(|session| session == Some(pid));
        if is_leader && self.started != 0 && start_of(self.pid) == Some(self.started) {
            SessionRemains::Certain(self)
        } else if is_leader || !session::members(&[pid]).is_empty() {
            SessionRemains::Doubtful
        } else {
            SessionRemains::None
        }
    }

    /// Sends SIGKILL to every process of its session, if the leader is still the same.
    pub fn kill_session(self) -> usize {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid.filter(|_| start_of(self.pid) == Some(self.started)) else { return 0 };
        session::kill_sessions(&[pid])
    }
}

/// The machine, as a hash of its id; 0 where that is not known.
pub(super) fn machine(key: &Key) -> Hash {
    hash_of(key, &contents("/etc/machine-id"))
}

fn boot(key: &Key) -> Hash {
    static BOOT: OnceLock<Vec<u8>> = OnceLock::new();
    hash_of(key, BOOT.get_or_init(|| contents("/proc/sys/kernel/random/boot_id")))
}

fn contents(file: &str) -> Vec<u8> {
    std::fs::read(file).unwrap_or_default().trim_ascii().to_vec()
}

fn hash_of(key: &Key, text: &[u8]) -> Hash {
    if text.is_empty() { 0 } else { key.text(text) }
}

fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    static NAMESPACE: OnceLock<u64> = OnceLock::new();
    *NAMESPACE.get_or_init(|| std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino()))
}

/// When a process started, in ticks since the boot: the 22nd field of its `stat`, behind a name that may hold anything.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = memchr::memrchr(b')', &stat)? + 1;
    let text = std::str::from_utf8(stat.get(behind_name..)?).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn remains_are_certain_only_where_everything_matches() {
        if start_of(std::process::id()).is_none() {
            return;
        }
        let key = Key::random();
        let mut command = Command::new("setsid");
        let mut child =
            command.arg("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("there is setsid");
        let pid = rustix::process::Pid::from_child(&child);
        while session::session_of(pid).expect("it runs") != Some(pid) {
            std::thread::yield_now();
        }
        let process = Process::of(child.id()).known(&key);
        assert_eq!(process.remains(&key), SessionRemains::Certain(process));
        let other_start = Process { started: process.started + 1, ..process };
        assert_eq!(other_start.remains(&key), SessionRemains::Doubtful);
        assert_eq!(other_start.kill_session(), 0);
        assert_eq!(Process { boot: process.boot ^ 1, ..process }.remains(&key), SessionRemains::None);
        assert_eq!(Process { namespace: process.namespace ^ 1, ..process }.remains(&key), SessionRemains::None);
        assert_eq!(process.kill_session(), 1);
        child.wait().expect("it was killed");
        assert_eq!(process.remains(&key), SessionRemains::None);
    }
}
