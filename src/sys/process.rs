//! Hardens the agent's own process at its start: no core file, no tracing, enough descriptors, and a SIGCHLD that lets
//! it wait for children.
//!
//! Children get the limits that the agent was started with.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

/// Descriptors that the agent wants for itself: four for each of 256 sessions, six for each of some commands, and the
/// link. More than the usual soft limit of 1,024, far below any hard limit.
const DESCRIPTORS: u64 = 4_096;

/// The limits that the agent was started with, where it has changed them for itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InheritedLimits {
    pub(super) core: Option<libc::rlimit>,
    pub(super) descriptors: Option<libc::rlimit>,
}

static INHERITED: OnceLock<InheritedLimits> = OnceLock::new();

/// Hardens this process, once, at its start. Its memory is in no core file, and no other process of the same user can
/// read it. It may open as many descriptors as its sessions need. It learns of the exit of a child even if its parent
/// ignored SIGCHLD. No signal is blocked, and no inherited disposition lets a signal end or stop it. What the system
/// refuses stays as it was.
pub fn harden() {
    INHERITED.get_or_init(|| {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        // Among others SIGCHLD: ignored, it would make the kernel reap children behind our back.
        super::disposition::set();
        InheritedLimits {
            core: change(Resource::Core, |limit| Rlimit { current: Some(0), ..limit }),
            descriptors: change(Resource::Nofile, |limit| Rlimit { current: raised(limit, DESCRIPTORS), ..limit }),
        }
    });
}

/// Restores the limits of this process, for the program that is about to replace it.
pub fn soften() {
    let inherited = inherited_limits();
    for (resource, limit) in [(libc::RLIMIT_CORE, inherited.core), (libc::RLIMIT_NOFILE, inherited.descriptors)] {
        if let Some(limit) = limit {
            // SAFETY: the pointer is to a limit that lives across the call. A limit that is not taken stays as it is.
            unsafe { libc::setrlimit(resource, &raw const limit) };
        }
    }
}

/// Hardens this process again after an exec that failed.
pub fn harden_again() {
    change(Resource::Core, |limit| Rlimit { current: Some(0), ..limit });
    change(Resource::Nofile, |limit| Rlimit { current: raised(limit, DESCRIPTORS), ..limit });
    super::disposition::ignore_pipe();
}

/// The limits that children get.
pub(super) fn inherited_limits() -> InheritedLimits {
    INHERITED.get().copied().unwrap_or_default()
}

/// Asks the out-of-memory killer to take this child before the agent. A best effort: the score of a process of ours may
/// be raised without any privilege, unless the system hides or lacks it.
pub(super) fn expose_to_oom_killer(pid: Pid) {
    #[cfg(target_os = "linux")]
    {
        /// How much is added to a child's out-of-memory score, in thousandths of all memory.
        const RAISE: i32 = 200;
        static SCORE: OnceLock<String> = OnceLock::new();
        let score = SCORE.get_or_init(|| {
            let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
            let own: i32 = own.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            // Children do not get a protection that the agent has.
            own.clamp(0, 1_000).saturating_add(RAISE).min(1_000).to_string()
        });
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), score);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pid;
}

/// The soft limit, raised to `wanted` as far as the hard limit allows. `None` is no limit.
fn raised(limit: Rlimit, wanted: u64) -> Option<u64> {
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    limit.current.map(|current| current.max(allowed))
}

/// Changes a limit; the result is what it was, if it is another one now.
fn change(resource: Resource, to: impl FnOnce(Rlimit) -> Rlimit) -> Option<libc::rlimit> {
    let before = getrlimit(resource);
    let after = to(before);
    if after == before || setrlimit(resource, after).is_err() {
        return None;
    }
    let raw = |limit: Option<u64>| limit.map_or(libc::RLIM_INFINITY, |limit| limit as libc::rlim_t);
    Some(libc::rlimit { rlim_cur: raw(before.current), rlim_max: raw(before.maximum) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_is_raised_as_far_as_the_hard_one() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(raised(limit(Some(1_024), Some(65_536)), 4_096), Some(4_096));
        assert_eq!(raised(limit(Some(1_024), Some(2_048)), 4_096), Some(2_048));
        assert_eq!(raised(limit(Some(8_192), None), 4_096), Some(8_192));
        assert_eq!(raised(limit(None, None), 4_096), None);
    }
}
