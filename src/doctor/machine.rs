//! Checks what the agent needs of this machine: a shell on a terminal, a state directory, descriptors, disk and memory.
//!
//! It starts one shell, which ends at once, and writes nothing.

use super::finding::Sheet;
use crate::config::{API_KEY_VARIABLE, Config, TerminalPolicy};
use crate::identity::IdentityStore;
use crate::metrics::{Roots, Sampler, Space};
use crate::protocol::metrics::Source;
use crate::sys::spawn::SpawnError;
use crate::terminal::TerminalSettings;
use crate::terminal::trial::Trial;
use crate::writer::ANSWER_TIMEOUT;
use async_io::Timer;
use futures_lite::future;
use rustix::fs::{Access, access};
use rustix::process::{Resource, Signal, geteuid, getrlimit};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the shell may take for `exit 0`.
const SHELL_PATIENCE: Duration = Duration::from_secs(5);

/// The least number of descriptors: each session takes five, the link and the agent itself about twenty.
const DESCRIPTORS_MIN: u64 = 256;

/// The least free space on a disk, in bytes.
const DISK_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// The least memory for the agent's buffers (32 MiB) and one shell, in bytes.
const MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Fewer processes than these leave no room for sessions and commands.
const TASKS_MIN: u64 = 64;

/// Runs all checks of the machine.
pub(super) async fn check(config: &Config, sheet: &mut Sheet) {
    state(config, sheet);
    home(config, sheet);
    terminal(config, sheet).await;
    limits(sheet).await;
    disk(config, sheet);
}

fn state(config: &Config, sheet: &mut Sheet) {
    let console = config.console_url.to_string();
    let opening = IdentityStore::open(config.state_dir.as_deref(), &console, &config.instance_id);
    let (store, error) = opening.wait(Instant::now() + ANSWER_TIMEOUT);
    if let Some(error) = error {
        return sheet.warn("state", format!("{error}; until then the agent registers again at every start"));
    }
    let Some(directory) = config.state_dir.as_deref() else { return };
    if !config.journal {
        sheet.warn("journal", "off: a crash loses results, and repeated commands run again (SINDRI_AGENT_JOURNAL)");
    } else if directory.join("journal.unusable").exists() {
        let text =
            format!("{}: an unusable journal was set aside there; remove it once you have looked", directory.display());
        sheet.warn("journal", text);
    }
    let shown = directory.display();
    if let Err(error) = writable(directory) {
        let text = format!("{shown} cannot be written ({error}): the agent will register again at every start");
        return sheet.warn("state", text);
    }
    match &store.identity().id {
        Some(id) => sheet.ok("state", format!("{shown}: this console has assigned the id {id}")),
        None => sheet.ok("state", format!("{shown}: no id is stored for this console yet")),
    }
}

/// Whether the user may write to a directory, or create it; does neither.
fn writable(directory: &Path) -> io::Result<()> {
    let nearest = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(nearest, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn home(config: &Config, sheet: &mut Sheet) {
    match config.home.as_deref() {
        None => sheet.warn("home", "HOME is not set: terminals and commands start in /"),
        Some(home) if home.is_dir() => sheet.ok("home", home.display().to_string()),
        Some(home) => sheet.warn("home", format!("{} is no directory: set HOME, or make it", home.display())),
    }
}

async fn terminal(config: &Config, sheet: &mut Sheet) {
    if config.terminal == TerminalPolicy::Off {
        return sheet.ok("terminal", "terminals are off: SINDRI_AGENT_TERMINAL");
    }
    let trial = match Trial::open() {
        Ok(trial) => trial,
        Err(error) => {
            let text = format!("no terminal can be opened ({error}): mount devpts at /dev/pts, or raise its limit");
            sheet.fail("pty", text);
            return sheet.skip(["shell"], "there is no terminal");
        }
    };
    sheet.ok("pty", "a terminal can be opened");
    let shell = config.shell.display();
    match run_shell(config, &trial).await {
        Ok(Some(0)) => sheet.ok("shell", format!("{shell} runs")),
        Ok(Some(code)) => sheet.fail("shell", format!("{shell} ran `exit 0` and exited with {code}")),
        Ok(None) => sheet.fail("shell", format!("{shell} ran `exit 0` and did not exit within 5 s")),
        Err(error) => sheet.fail("shell", format!("{error}; name another one in SINDRI_AGENT_SHELL")),
    }
}

/// Starts the shell as a session would and waits for its exit code; `None` if the shell does not exit in time.
async fn run_shell(config: &Config, trial: &Trial) -> Result<Option<i32>, SpawnError> {
    let (shell, home) = (config.shell.clone().into_os_string(), config.home.clone());
    let settings = TerminalSettings { shell, home, secrets: vec![API_KEY_VARIABLE.to_owned()] };
    let (shell, start) = trial.start(&settings)?;
    let run = async {
        start.done(&shell).await?;
        Ok(Some(shell.exited().await))
    };
    let late = async {
        Timer::after(SHELL_PATIENCE).await;
        Ok(None)
    };
    let code = future::or(run, late).await?;
    if code.is_none() {
        shell.signal_group(Signal::KILL);
    }
    Ok(code)
}

async fn limits(sheet: &mut Sheet) {
    let metrics = Sampler::new(Roots::default()).sample();
    match metrics.instance.descriptor_limit.map(|limit| limit.value()) {
        Some(limit) if limit < DESCRIPTORS_MIN => {
            sheet.warn("descriptors", format!("only {limit} may be open: raise the limit (ulimit -n) to 4096"));
        }
        Some(limit) => sheet.ok("descriptors", format!("{limit} may be open")),
        None => sheet.ok("descriptors", "no limit was found"),
    }
    let scope = match metrics.memory.source {
        Source::Cgroup1 | Source::Cgroup2 => "by a control group",
        Source::Host => "by the machine",
    };
    let total = metrics.memory.total_bytes.value();
    let tasks = task_limit(metrics.instance.task_limit.map(|limit| limit.value()));
    let text = format!("{} of memory, {scope}", bytes(total));
    if total > 0 && total < MEMORY_BYTES_MIN {
        sheet.warn("limits", format!("{text}: too little for the agent and a shell"));
    } else if let Some((limit, whose)) = tasks.filter(|(limit, _)| *limit < TASKS_MIN) {
        sheet.warn("limits", format!("{text}; only {limit} processes, {whose}: too few for sessions and commands"));
    } else {
        sheet.ok("limits", tasks.map_or(text.clone(), |(limit, whose)| format!("{text}; {limit} processes, {whose}")));
    }
}

/// The limit of processes and where it comes from: the control group's, or the user's, which does not bind root.
fn task_limit(of_group: Option<u64>) -> Option<(u64, &'static str)> {
    let of_user = if geteuid().is_root() { None } else { getrlimit(Resource::Nproc).current };
    let limits = [of_group.map(|limit| (limit, "by a control group")), of_user.map(|limit| (limit, "by ulimit -u"))];
    limits.into_iter().flatten().min_by_key(|(limit, _)| *limit)
}

fn disk(config: &Config, sheet: &mut Sheet) {
    let state = config.state_dir.as_deref().and_then(|dir| dir.ancestors().find(|ancestor| ancestor.exists()));
    let temporary = std::env::temp_dir();
    let places = [state, config.home.as_deref(), Some(temporary.as_path())];
    let mut seen = Vec::new();
    for place in places.into_iter().flatten() {
        let Ok(space) = Space::of(place) else { continue };
        // Two places on one file system give one finding.
        let file_system = (space.id, space.total_bytes);
        if space.total_bytes == 0 || seen.contains(&file_system) {
            continue;
        }
        seen.push(file_system);
        let text = format!("{} has {} free", place.display(), bytes(space.available_bytes));
        if space.available_bytes < DISK_BYTES_MIN {
            sheet.warn("disk", format!("{text}: make room"));
        } else if space.inodes_total > 0 && space.inodes_free == 0 {
            sheet.warn("disk", format!("{text}, but no inode: remove files"));
        } else {
            sheet.ok("disk", text);
        }
    }
}

/// Bytes in the unit that leaves one to four digits.
fn bytes(count: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (count, 0);
    while amount >= 10_000 && unit + 1 < units.len() {
        (amount, unit) = (amount / 1024, unit + 1);
    }
    format!("{amount} {}", units.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_in_a_fitting_unit() {
        for (count, text) in [(0, "0 bytes"), (9_999, "9999 bytes"), (10_240, "10 KiB"), (64 << 20, "64 MiB")] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "16777215 TiB");
    }

    #[test]
    fn missing_directory_is_fine_below_a_writable_one() {
        let home = tempfile::tempdir().expect("a directory");
        assert!(writable(&home.path().join("a/b/c")).is_ok());
        std::fs::write(home.path().join("file"), "").expect("a file");
        let error = writable(&home.path().join("file/state")).expect_err("no directory");
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
