//! The terminal of the demo: raw mode, the alternate screen, and the way back.
//!
//! Invariant: every mode that is set here is reset, by [`Drop`], or by the panic hook if a panic does not unwind.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::terminal;

/// Alternate screen, no cursor, no line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";

/// Resets the modes that a program in the shell may have set: the scroll region (which moves the cursor, so that is
/// saved), origin and insert mode, mouse, focus, paste, cursor keys, character set, cursor shape, reverse video,
/// colours.
const RESET: &str = concat!(
    "\x1b7\x1b[r\x1b8\x1b[?6l\x1b[4l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l",
    "\x1b[?1l\x1b>\x0f\x1b(B\x1b[0 q\x1b[?5l\x1b[0m",
);

/// Resets the demo's own modes.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// Whether the terminal must be restored.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal in raw mode.
pub(crate) struct Terminal(());

impl Terminal {
    /// Sets raw mode and the alternate screen.
    pub(crate) fn take() -> io::Result<Terminal> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        write(ENTER.as_bytes())?;
        Ok(Terminal(()))
    }

    /// Columns and rows.
    pub(crate) fn size(&self) -> (u16, u16) {
        terminal::size().unwrap_or((80, 24))
    }

    /// Returns to the ordinary screen, still in raw mode, for a shell.
    pub(crate) fn leave_screen(&self) -> io::Result<()> {
        write(LEAVE.as_bytes())
    }

    /// Enters the alternate screen again, and resets all modes that a shell may have set.
    pub(crate) fn enter_screen(&self) -> io::Result<()> {
        write(format!("{RESET}{ENTER}").as_bytes())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A failure cannot be shown: the terminal is the only place for it.
        let _ = write(format!("{RESET}{LEAVE}").as_bytes());
        let _ = terminal::disable_raw_mode();
    }
}

/// Writes all of it at once.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Reads typed keys on its own thread until `emit` returns false.
pub(crate) fn follow_keys(emit: impl Fn(Vec<u8>) -> bool + Send + 'static) {
    std::thread::spawn(move || {
        let mut chunk = [0_u8; 4096];
        while let Ok(read @ 1..) = io::stdin().lock().read(&mut chunk) {
            if !emit(chunk.get(..read).unwrap_or_default().to_vec()) {
                return;
            }
        }
    });
}
