//! What the console's close frames mean (CONSOLE.md, "The WebSocket").
//!
//! It reads code and reason; what follows from them is the machine's.

use draupnir_fsm::driver::CloseReason;

/// The endpoint goes away: also what the console says to a connection that another one replaces.
const GOING_AWAY: u16 = 1001;

/// A policy is violated: how the console refuses keys and instance ids.
const POLICY_VIOLATION: u16 = 1008;

/// What a close frame is known to mean. Anything that is not known by code and words is `Other`.
pub fn reason(code: u16, words: &str) -> CloseReason {
    match code {
        POLICY_VIOLATION if begins_with(words, "authentication") => CloseReason::Authentication,
        POLICY_VIOLATION if begins_with(words, "unknown instance") => CloseReason::UnknownInstance,
        GOING_AWAY if begins_with(words, "replaced") => CloseReason::Replaced,
        _ => CloseReason::Other,
    }
}

/// Whether the reason begins so, ignoring case: consoles have been seen to change that between versions.
fn begins_with(words: &str, beginning: &str) -> bool {
    words.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_reasons_of_the_production_console_are_known() {
        assert_eq!(reason(1008, "Authentication required. Use a WebSocket ticket"), CloseReason::Authentication);
        assert_eq!(reason(1008, "Unknown instance ID: nope"), CloseReason::UnknownInstance);
        assert_eq!(reason(1001, "Replaced by new connection"), CloseReason::Replaced);
    }

    #[test]
    fn document_lists_each_known_reason() {
        let table = include_str!("PROTOCOL.md").split("### Close codes").nth(1).expect("a section");
        let rows = table.lines().skip(4).take_while(|line| line.starts_with('|'));
        let known = rows.filter_map(|row| {
            let (code, words) = row.strip_prefix("| ")?.split_once(" `")?;
            Some(reason(code.parse().ok()?, words.split('…').next()?))
        });
        let expected = [CloseReason::Authentication, CloseReason::UnknownInstance, CloseReason::Replaced];
        assert_eq!(known.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn known_reason_with_other_code_has_no_meaning() {
        assert_eq!(reason(1000, "Authentication required"), CloseReason::Other);
        assert_eq!(reason(1008, "Replaced by new connection"), CloseReason::Other);
        assert_eq!(reason(1001, "Unknown instance ID: x"), CloseReason::Other);
        assert_eq!(reason(1008, ""), CloseReason::Other);
    }

    proptest! {
        #[test]
        fn any_reason_is_read_without_panic(code: u16, words in ".*") {
            let known = reason(code, &words) != CloseReason::Other;
            prop_assert!(!known || code == 1001 || code == 1008);
        }
    }
}
