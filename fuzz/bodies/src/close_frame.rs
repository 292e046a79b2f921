//! Any close frame of a console: what the agent reports of it, and what the driver does then.
//!
//! The input is one byte that chooses key and jitter, two bytes of the close code (big-endian, as on the wire), and the
//! reason. A shorter input is a close frame without a code. The target checks (CONSOLE.md, "The WebSocket") that
//!
//! - the reported reason is one printable line of bounded length without the key;
//! - only 1008 `Authentication…`, 1008 `Unknown instance…` and 1001 `Replaced…` mean more than that the connection
//!   ended;
//! - the next attempt comes when the public description of the protocol says so, and never at once.

use crate::aftermath::Aftermath;
use crate::secrecy;
use draupnir::link::{LinkReport, close_received};
use draupnir::protocol::close;
use draupnir_fsm::driver::{Action, CloseReason, Input};

/// What a close frame without a code counts as.
const NO_STATUS: u16 = 1005;

/// The time after which the console has forgotten a closed socket, too.
const REDIAL_GAP_MS: u64 = 250;

/// Checks one input.
pub fn run(input: &[u8]) {
    let (choice, frame) = match input {
        [choice, high, low, reason @ ..] => {
            (*choice, Some((u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason))))
        }
        [choice, ..] => (*choice, None),
        [] => (0, None),
    };
    let key = secrecy::key(choice);
    let said = frame.as_ref().map(|(code, reason)| (*code, reason.as_ref()));
    let (mut aftermath, link) = Aftermath::of_ready_link(u64::from(choice));

    let report = close_received(link, said, &key);
    let LinkReport::CloseReceived { link: reported_link, code, reason: text } = report else {
        panic!("not a close: {report:?}")
    };
    assert_eq!((reported_link, code), (link, said.map_or(NO_STATUS, |(code, _)| code)));
    secrecy::assert_loggable(&text, &key);

    let reason = close::reason(code, &text);
    assert_eq!(reason, meaning(code, &text), "{code} {text:?}");
    acts_as_described(&mut aftermath, Input::CloseReceived { link, code, reason });
}

/// The meaning by the table of close codes.
fn meaning(code: u16, text: &str) -> CloseReason {
    let text = text.to_ascii_lowercase();
    let table = [
        (1008, "authentication", CloseReason::Authentication),
        (1008, "unknown instance", CloseReason::UnknownInstance),
        (1001, "replaced", CloseReason::Replaced),
    ];
    let known = table.into_iter().find(|(known, beginning, _)| *known == code && text.starts_with(beginning));
    known.map_or(CloseReason::Other, |(_, _, reason)| reason)
}

/// Checks the waits of the table of close codes, and the actions after them.
fn acts_as_described(aftermath: &mut Aftermath, input: Input) {
    let Input::CloseReceived { link, code, reason } = input else { panic!("not a close: {input:?}") };
    let actions = aftermath.handle(input);
    let forgets = actions.contains(&Action::ForgetIdentity);
    assert_eq!(forgets, reason == CloseReason::UnknownInstance, "{actions:?} after {input:?}");
    let next = aftermath.next_after(Input::LinkClosed { link });
    let (shortest_ms, longest_ms) = match (reason, code) {
        (CloseReason::Authentication, _) => (30_000, 90_000),
        (CloseReason::UnknownInstance, _) => (0, 5_000),
        (CloseReason::Replaced, _) => (5_000, 5_000),
        (CloseReason::Other, 1001 | 1012 | 1013) => (REDIAL_GAP_MS, 10_000),
        (CloseReason::Other, _) => (REDIAL_GAP_MS, 2_000),
    };
    let registers = matches!(next.action, Action::Register { .. });
    assert_eq!(registers, reason == CloseReason::UnknownInstance, "{next:?} after {input:?}");
    assert!((shortest_ms..=longest_ms.max(shortest_ms)).contains(&next.waited_ms), "{next:?} after {input:?}");
}
