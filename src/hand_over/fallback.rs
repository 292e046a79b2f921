//! Gives the place to the previous program, if this one took over and cannot begin.
//!
//! It covers what a program can notice itself: an error at the start, a panic, and a first turn of the loop that takes
//! longer than [`FIRST_TURN_MAX`]. The previous program gets the same sealed state. Nothing is read from a terminal or
//! pipe before the first turn, so nothing is missing then. The program before this one has asked the previous one, too,
//! whether it can take over; without its yes there is no way back.

use super::state::State;
use super::{NAME, VARIABLE};
use crate::sys::descriptor::leave_open;
use crate::sys::{disposition, process};
use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::Duration;

/// How long the first turn of the loop may take: twice what the start waits for files that do not open.
pub const FIRST_TURN_MAX: Duration = Duration::from_secs(10);

/// The stack of the thread that waits for the first turn, in bytes.
const STACK_BYTES: usize = 64 << 10;

/// What the previous program needs.
struct Fallback {
    program: PathBuf,
    state: File,
    descriptors: Vec<RawFd>,
    /// It waits for the first turn.
    timer: Option<Thread>,
}

static FALLBACK: Mutex<Option<Fallback>> = Mutex::new(None);

/// Keeps the way back open until [`close`]. Call it before anything can fail.
pub(super) fn open(file: File, state: &State) {
    let Some(program) = &state.previous else { return };
    // The previous program has no other before it.
    if std::env::current_exe().is_ok_and(|own| own.as_os_str() == program.as_str()) {
        return;
    }
    let fallback =
        Fallback { program: program.into(), state: file, descriptors: state.descriptors(), timer: start_timer() };
    *FALLBACK.lock().unwrap_or_else(PoisonError::into_inner) = Some(fallback);
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("sindri-agent: {panic}");
        begin();
    }));
}

/// The first turn is over: this program stays.
pub fn close() {
    let fallback = FALLBACK.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(timer) = fallback.and_then(|fallback| fallback.timer) {
        timer.unpark();
    }
}

fn start_timer() -> Option<Thread> {
    let wait = || {
        std::thread::park_timeout(FIRST_TURN_MAX);
        begin();
    };
    let timer = std::thread::Builder::new().name("first-turn".into()).stack_size(STACK_BYTES).spawn(wait);
    timer.ok().map(|timer| timer.thread().clone())
}

/// Starts the previous program, if there is a way back; returns if there is none.
pub fn begin() {
    let fallback = match FALLBACK.try_lock() {
        Ok(mut fallback) => fallback.take(),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
        // Another thread begins.
        Err(TryLockError::WouldBlock) => None,
    };
    let Some(Fallback { program, state, descriptors, timer: _ }) = fallback else { return };
    crate::logging::write_line(
        &serde_json::json!({
            "level": "ERROR",
            "message": "the new program cannot begin; the previous one takes over",
            "program": program.display().to_string(),
        })
        .to_string(),
    );
    crate::writer::flush_all(crate::writer::FLUSH_TIMEOUT);
    for descriptor in descriptors.into_iter().chain([state.as_raw_fd()]) {
        // One that is gone is found out by the previous program.
        let _ = leave_open(descriptor, true);
    }
    process::soften();
    disposition::ignore_hand_over();
    // An agent that runs has no argument.
    let error = Command::new(program).arg0(NAME).env(VARIABLE, state.as_raw_fd().to_string()).exec();
    crate::logging::write_line(&format!("sindri-agent: the previous program does not start: {error}"));
}
