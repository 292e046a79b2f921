//! The variables that children get, and the erasure of secret ones.
//!
//! `config` knows which variables are secret. [`scrub`] exists because removing a variable leaves it in the block of
//! memory that `/proc/<pid>/environ` shows to every process of the same user.

use litemap::LiteMap;
use std::ffi::{CStr, OsStr, OsString};
use std::io;

/// Variables of the program that started the agent, which are wrong in a session or command: its terminal, multiplexer,
/// connection, directory and supervisor. Exact names.
pub const NOT_INHERITED: &[&str] = &[
    // The terminal.
    "ALACRITTY_LOG",
    "ALACRITTY_SOCKET",
    "ALACRITTY_WINDOW_ID",
    "COLUMNS",
    "GHOSTTY_BIN_DIR",
    "GHOSTTY_RESOURCES_DIR",
    "GHOSTTY_SHELL_FEATURES",
    "GNOME_TERMINAL_SCREEN",
    "GNOME_TERMINAL_SERVICE",
    "INSIDE_EMACS",
    "ITERM_PROFILE",
    "ITERM_SESSION_ID",
    "KITTY_LISTEN_ON",
    "KITTY_PID",
    "KITTY_PUBLIC_KEY",
    "KITTY_WINDOW_ID",
    "KONSOLE_DBUS_SERVICE",
    "KONSOLE_DBUS_SESSION",
    "KONSOLE_DBUS_WINDOW",
    "KONSOLE_PROFILE_NAME",
    "KONSOLE_VERSION",
    "LC_TERMINAL",
    "LC_TERMINAL_VERSION",
    "LINES",
    "NVIM",
    "TERMCAP",
    "TERMINATOR_DBUS_NAME",
    "TERMINATOR_DBUS_PATH",
    "TERMINATOR_UUID",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TERM_SESSION_ID",
    "TILIX_ID",
    "VTE_VERSION",
    "WEZTERM_PANE",
    "WEZTERM_UNIX_SOCKET",
    "WINDOWID",
    "WT_PROFILE_ID",
    "WT_SESSION",
    "XTERM_LOCALE",
    "XTERM_SHELL",
    "XTERM_VERSION",
    // The multiplexer.
    "STY",
    "TMUX",
    "TMUX_PANE",
    "WINDOW",
    "ZELLIJ",
    "ZELLIJ_PANE_ID",
    "ZELLIJ_SESSION_NAME",
    // The connection.
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_ORIGINAL_COMMAND",
    "SSH_TTY",
    // The directory.
    "OLDPWD",
    "PWD",
    // The supervisor.
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// The variables of a child, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: LiteMap<OsString, OsString>,
}

impl Environment {
    /// What the agent itself was started with, without [`NOT_INHERITED`] and the variables named in `secrets`.
    pub fn inherited(secrets: &[&str]) -> Self {
        let is_left_out = |name: &OsStr| NOT_INHERITED.iter().chain(secrets).any(|left_out| name == *left_out);
        Self { variables: std::env::vars_os().filter(|(name, _)| !is_left_out(name)).collect() }
    }

    /// Sets one variable. A name that is empty or has a `=` would be read as another variable, and is left out.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        if !name.is_empty() && !name.as_encoded_bytes().contains(&b'=') {
            self.variables.insert(name, value.into());
        }
    }

    /// Removes one variable.
    pub fn remove(&mut self, name: &str) {
        self.variables.remove(OsStr::new(name));
    }

    /// The value of one variable.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

/// Why a variable was not erased.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The agent must erase before it starts threads: another one could be reading the variable now.
    #[error("{0} threads run already")]
    Threads(usize),
}

/// Overwrites the value of a variable in the memory that `/proc/self/environ` shows, and removes it.
///
/// Call it from `main` before any thread is started; it checks the number of threads where the system shows it.
pub fn scrub(name: &str) -> Result<(), ScrubError> {
    match threads() {
        Ok(1) | Err(_) => {}
        Ok(threads) => return Err(ScrubError::Threads(threads)),
    }
    // SAFETY: no other thread runs, so no other code reads or changes the environment.
    unsafe { overwrite(name) };
    Ok(())
}

/// How many threads this process has; an error where the system does not show it.
fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// # Safety
/// No other thread may use the environment meanwhile.
unsafe fn overwrite(name: &str) {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: `environ` is a null-terminated array of C strings, and the strings that the process was started with are
    // writable. One that is in the block twice stands in the array twice.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let variable = CStr::from_ptr(*entry).to_bytes();
            let value_at = name.len() + 1;
            let is_it = variable.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='));
            if is_it {
                let value_len = variable.len() - value_at;
                std::ptr::write_bytes((*entry).add(value_at), 0, value_len);
            }
            entry = entry.add(1);
        }
        std::env::remove_var(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn inherited_environment_lacks_removed_variables() {
        let whole = Environment::inherited(&[]);
        let (name, _) = whole.iter().next().expect("tests run with variables");
        let name = name.to_str().expect("its name is text").to_owned();
        let less = Environment::inherited(&[&name]);
        assert_eq!(less.value(&name), None);
        assert_eq!(less.iter().count() + 1, whole.iter().count());
    }

    #[test]
    fn name_empty_or_with_equals_sign_is_left_out() {
        let mut environment = Environment::default();
        environment.set("A=B", "c");
        environment.set("", "c");
        assert_eq!(environment.iter().count(), 0);
        environment.set("A", "B=c");
        assert_eq!(environment.value("A"), Some(OsStr::new("B=c")));
    }

    const SECRET: &str = "DRAUPNIR_TEST_SECRET";

    /// Runs in a process of its own, which the test below starts: the block is the one a process is started with.
    #[test]
    #[ignore = "run by the_block_no_longer_shows_a_scrubbed_variable"]
    fn scrubs_itself() {
        assert!(std::env::var(SECRET).is_ok());
        let shows = || {
            let block = std::fs::read("/proc/self/environ").expect("own environment is readable");
            block.windows(11).any(|part| part == b"squeamish-o")
        };
        assert!(shows());
        assert!(matches!(scrub(SECRET), Err(ScrubError::Threads(_))), "a test has threads");
        // SAFETY: this is the only test of its process, and the thread that started it only waits.
        unsafe { overwrite(SECRET) };
        assert!(!shows());
        assert!(std::env::var(SECRET).is_err());
        assert!(std::env::var("PATH").is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_block_no_longer_shows_a_scrubbed_variable() {
        let this = std::env::current_exe().expect("own path");
        let status = Command::new(this)
            .args(["--exact", "sys::environment::tests::scrubs_itself", "--ignored"])
            .env(SECRET, "squeamish-ossifrage")
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && said.contains("1 passed"), "{said}");
    }
}
