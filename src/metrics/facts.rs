//! Facts about the machine that do not change while the agent runs.
//!
//! Source: `sysinfo`, which knows where each system keeps its name and version.

use std::sync::OnceLock;

use sysinfo::System;

/// What this machine is; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The operating system by name and version, as people call it.
    pub os_version: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// Its processors, whatever part of them may be used; 0 when that is not known.
    pub core_count: u32,
}

/// The facts, read at the first call.
pub fn facts() -> &'static Facts {
    static FACTS: OnceLock<Facts> = OnceLock::new();
    FACTS.get_or_init(|| Facts {
        os_version: System::long_os_version().unwrap_or_default(),
        kernel_version: System::kernel_version().unwrap_or_default(),
        core_count: core_count(),
    })
}

/// How many processors the standard library sees; `sysinfo` lists them only together with their use.
pub(crate) fn core_count() -> u32 {
    std::thread::available_parallelism().map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_processors() {
        assert!(!facts().kernel_version.is_empty() && facts().core_count >= 1);
    }
}
