//! A panic as a value: where it arose, and what it says.
//!
//! It judges nothing. A panic that is caught here is not printed; every other goes to the hook that was there before.
//! Where a panic aborts the process instead of unwinding, nothing is caught, and all are printed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// File, line and column.
    pub at: String,
    /// What it says.
    pub says: String,
}

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    static CAUGHT: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs `what`; a panic in it is the error. What `what` was changing when it panicked is for looking at only.
///
/// # Errors
/// The panic, if it panics.
pub(crate) fn caught<T>(what: impl FnOnce() -> T) -> Result<T, Panic> {
    install_hook();
    CATCHING.set(CATCHING.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(what));
    CATCHING.set(CATCHING.get() - 1);
    let unnamed = || Panic { at: String::new(), says: String::new() };
    result.map_err(|_| CAUGHT.take().unwrap_or_else(unnamed))
}

/// Notes the panics of threads that catch them. The hook belongs to the process, so it is set once.
fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if cfg!(panic = "unwind") && CATCHING.get() > 0 {
                CAUGHT.set(Some(of_info(info)));
            } else {
                before(info);
            }
        }));
    });
}

fn of_info(info: &PanicHookInfo<'_>) -> Panic {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let says = info.payload_as_str().unwrap_or_default().to_owned();
    Panic { at, says }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_caught_with_place_and_message() {
        assert_eq!(caught(|| 7), Ok(7));
        let one = caught(|| -> u8 { panic!("no {} here", "door") }).expect_err("it panics");
        assert_eq!(one.says, "no door here");
        assert!(one.at.contains("panics.rs:"), "{one:?}");
        let other = caught(|| Vec::<u8>::new().remove(0)).expect_err("there is nothing to take");
        assert_ne!(one.at, other.at);
    }
}
