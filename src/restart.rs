//! What a panic leads to: a line in the log, and the same program anew in the same process.
//!
//! Release builds abort on a panic: to unwind instead, task by task, would cost 366 KB of the binary, more than a tenth
//! of it. So the hook starts the program in place, with the same number for whoever supervises it. The shells and commands
//! of the old life are killed: the new one knows nothing of them. A program that panics again and again is left to the
//! supervisor, which can wait longer than we should. It does not catch what is no panic: a signal from the kernel.

use crate::config::Secret;
use std::ffi::OsString;
use std::panic::PanicHookInfo;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The variable by which one life tells the next: how many lives have ended in a panic, and when the first did.
const VARIABLE: &str = "SINDRI_AGENT_PANICS";

/// The variable that the agent has erased and its next life needs.
const KEY_VARIABLE: &str = crate::config::API_KEY_VARIABLE;

/// So many panics within [`WINDOW`] end the process.
const PANICS_MAX: u32 = 5;

/// The time within which panics are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// The longest message of a panic that is logged, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 1_024;

/// The lives before this one, as far as they ended in a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    panics: u32,
    first_unix_s: u64,
}

impl Past {
    /// Reads what the last life left, and removes it so that no child sees it. To be called from `main`, before any
    /// thread is started.
    pub fn take() -> Self {
        let left = std::env::var(VARIABLE).ok();
        if left.is_some() {
            // Harmless if it fails: a child would see a number.
            let _ = crate::sys::environment::scrub(VARIABLE);
        }
        left.and_then(|text| Self::read(&text)).unwrap_or_default()
    }

    /// Whether the last life ended in a panic.
    pub fn is_restart(self) -> bool {
        self.panics > 0
    }

    fn read(text: &str) -> Option<Self> {
        let (panics, first_unix_s) = text.split_once('@')?;
        Some(Self { panics: panics.parse().ok()?, first_unix_s: first_unix_s.parse().ok()? })
    }

    /// With one panic more at this time; nothing where that is one too many.
    fn with_panic(self, unix_s: u64) -> Option<Self> {
        let is_recent = self.panics > 0 && unix_s.saturating_sub(self.first_unix_s) < WINDOW.as_secs();
        let counted = if is_recent { self } else { Self { panics: 0, first_unix_s: unix_s } };
        (counted.panics < PANICS_MAX).then_some(Self { panics: counted.panics + 1, ..counted })
    }
}

/// Lets every panic from now on start the program anew, which needs the key again.
pub fn on_panic(past: Past, key: Secret) {
    std::panic::set_hook(Box::new(move |panic| {
        log_panic(panic);
        // What else waits to be written says what led to it.
        crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let Some(past) = past.with_panic(unix_s) else {
            std::process::abort();
        };
        let error = begin_anew(past, &key);
        crate::logging::write_line(&format!("sindri-agent: cannot be started anew: {error}"));
        crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
        std::process::abort();
    }));
}

/// One JSON line, past the formatting of the log, which may be what panicked.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text: String = panic.to_string().chars().take(MESSAGE_CHARACTERS_MAX).collect();
    let line = serde_json::json!({"level": "ERROR", "message": "panic: starting anew", "panic": text});
    crate::logging::write_line(&line.to_string());
}

/// Replaces this program by itself; comes back only with an error.
fn begin_anew(past: Past, key: &Secret) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("sindri-agent"));
    crate::sys::child::kill_all();
    crate::sys::process::soften();
    Command::new(own_program(&name))
        .arg0(&name)
        .args(arguments)
        .env(KEY_VARIABLE, key.expose())
        .env(VARIABLE, format!("{}@{}", past.panics, past.first_unix_s))
        .exec()
}

/// On Linux the very file that runs, even if another has been put in its place since.
#[cfg(target_os = "linux")]
fn own_program(name: &OsString) -> OsString {
    let link = "/proc/self/exe";
    if std::path::Path::new(link).exists() { link.into() } else { name.clone() }
}

#[cfg(not(target_os = "linux"))]
fn own_program(name: &OsString) -> OsString {
    std::env::current_exe().map_or_else(|_| name.clone(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_counted_within_a_minute() {
        let mut past = Past::default();
        for panics in 1..=PANICS_MAX {
            past = past.with_panic(1_000 + u64::from(panics)).expect("not too many yet");
            assert_eq!(past.panics, panics);
        }
        assert_eq!(past.with_panic(1_010), None);
        let later = past.with_panic(1_002 + WINDOW.as_secs()).expect("the first is long ago");
        assert_eq!(later.panics, 1);
    }

    #[test]
    fn what_one_life_leaves_the_next_one_reads() {
        assert_eq!(Past::read("3@77"), Some(Past { panics: 3, first_unix_s: 77 }));
        for nonsense in ["", "3", "x@1", "1@", "-1@5"] {
            assert_eq!(Past::read(nonsense), None, "{nonsense:?}");
        }
    }
}
