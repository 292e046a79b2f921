//! Logs a panic and starts the same program again in the same process.
//!
//! Release builds abort on a panic: to unwind instead would cost 366 KB of the binary, more than a tenth of it. So the
//! panic hook replaces the program by itself with exec, and a supervisor sees the same process id. The new program
//! takes over the shells and commands (`hand_over::table`); scrollbacks and captured output are lost. After repeated
//! panics the process exits, and the supervisor decides when to start it again. A signal from the kernel, such as
//! SIGSEGV, is no panic and is not caught.

use crate::config::{Secret, Service};
use crate::hand_over::{self, fallback, table};
use crate::service::Manager;
use crate::sys::disposition;
use draupnir_fsm::driver::PanicHistory;
use std::ffi::OsString;
use std::panic::PanicHookInfo;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The variable that one program hands to the next: how many have ended in a panic, and when the first did.
const VARIABLE: &str = "SINDRI_AGENT_PANICS";

/// The variable that the agent has erased and the next program needs.
const KEY_VARIABLE: &str = crate::config::API_KEY_VARIABLE;

/// How long a restart may take, in seconds: it waits 1 s for files at most twice.
const RESTART_SECONDS_MAX: u32 = 5;

/// The longest message of a panic that is logged, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 1_024;

/// Reads the variable from the program before this one and removes it, so that no child sees it. Call it from `main`,
/// before any thread is started.
pub fn take_history() -> PanicHistory {
    let left = std::env::var(VARIABLE).ok();
    if left.is_some() {
        // Harmless if it fails: a child would see a number.
        let _ = crate::sys::environment::scrub(VARIABLE);
    }
    left.and_then(|text| read_history(&text)).unwrap_or_default()
}

fn read_history(text: &str) -> Option<PanicHistory> {
    let (panics, first_unix_s) = text.split_once('@')?;
    Some(PanicHistory { panics: panics.parse().ok()?, first_unix_s: first_unix_s.parse().ok()? })
}

/// Installs the panic hook that starts the program again with the key, and reports that to the service manager.
pub fn on_panic(history: PanicHistory, key: Secret, service: Option<&Service>) {
    let manager = service.and_then(|service| Manager::of(service).ok());
    std::panic::set_hook(Box::new(move |panic| {
        // Where a thread hangs and holds what is needed here, the supervisor starts the agent again.
        disposition::end_after(RESTART_SECONDS_MAX);
        log_panic(panic);
        // A program that took over and has not begun leaves its place to the previous one.
        fallback::begin();
        // The lines that still wait may show what led to the panic.
        crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let Some(history) = history.after_panic(unix_s) else {
            std::process::abort();
        };
        if let Some(manager) = &manager {
            manager.reloading("Starting again after a panic");
        }
        let error = reexec(history, &key);
        crate::logging::write_line(&format!("sindri-agent: cannot be started again: {error}"));
        crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
        std::process::abort();
    }));
}

/// One JSON line, past the formatting of the log, which may be what panicked.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let text: String = panic.to_string().chars().take(MESSAGE_CHARACTERS_MAX).collect();
    let line = serde_json::json!({"level": "ERROR", "message": "panic: starting again", "panic": text});
    crate::logging::write_line(&line.to_string());
}

/// Replaces this program by itself; returns only with an error.
fn reexec(history: PanicHistory, key: &Secret) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("sindri-agent"));
    let mut state = table::state(key.expose());
    let mut command = Command::new(own_program(&name));
    command.arg0(&name).args(arguments);
    command.env(VARIABLE, format!("{}@{}", history.panics, history.first_unix_s));
    let kept = match hand_over::set_out(&mut state) {
        Ok((variable, descriptor)) => {
            command.env(variable, descriptor);
            state.processes()
        }
        // Without memory or descriptors the shells are lost, and the agent is not.
        Err(_) => {
            command.env(KEY_VARIABLE, key.expose());
            Vec::new()
        }
    };
    crate::sys::child::kill_all_but(&kept);
    crate::sys::process::soften();
    disposition::ignore_hand_over();
    command.exec()
}

/// On Linux the file that runs, even if another has replaced it at its path.
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
    fn panic_history_survives_a_restart() {
        assert_eq!(read_history("3@77"), Some(PanicHistory { panics: 3, first_unix_s: 77 }));
        for nonsense in ["", "3", "x@1", "1@", "-1@5"] {
            assert_eq!(read_history(nonsense), None, "{nonsense:?}");
        }
    }
}
