//! Checks the heap memory of decoding: bounded for the worst known frames, and linear in their length.
//!
//! It counts bytes, not seconds, so that the figures are the same on every machine.

use draupnir::protocol::{DECODE_ALLOCATION_BASE_BYTES, DECODE_ALLOCATION_FACTOR, INBOUND_BYTES_MAX, decode};
use draupnir_fuzz::heap::{Taken, taken_by};

/// Builds a frame with this many repetitions of one costly element.
type Shape = (&'static str, fn(usize) -> String);

fn dispatch(fields: &str) -> String {
    format!(r#"{{"type":"command:dispatch","payload":{{"command_id":"c","command":"true",{fields}}}}}"#)
}

fn list(field: &str, entry: &str, count: usize) -> String {
    format!("\"{field}\":[{}]", vec![entry; count].join(","))
}

const SHAPES: [Shape; 13] = [
    ("empty arguments", |count| dispatch(&list("args", "\"\"", count))),
    ("arguments of one character", |count| dispatch(&list("args", "\"a\"", count))),
    ("arguments that are escaped", |count| dispatch(&list("args", r#""\n""#, count))),
    ("empty environment entries", |count| dispatch(&list("env", "\"\"", count))),
    ("environment entries without a value", |count| dispatch(&list("env", "\"a=\"", count))),
    ("environment entries with a value", |count| dispatch(&list("env", "\"a=b\"", count))),
    ("both lists", |count| {
        dispatch(&format!("{},{}", list("args", "\"\"", count / 2), list("env", "\"a=\"", count / 2)))
    }),
    ("a list that is refused at its end", |count| dispatch(&list("args", "\"\"", count).replace(']', ",0]"))),
    ("a command of escapes", |count| {
        let command = r"\u0041".repeat(count);
        format!(r#"{{"type":"command:dispatch","payload":{{"command_id":"c","command":"{command}"}}}}"#)
    }),
    ("input in escapes", |count| {
        let data = r"\u0041".repeat(count * 4);
        format!(r#"{{"type":"terminal:input","session_id":"s","payload":{{"data":"{data}"}}}}"#)
    }),
    ("unknown fields of a payload", |count| {
        dispatch(&(0..count).map(|number| format!("\"{number}\":0")).collect::<Vec<_>>().join(","))
    }),
    ("unknown keys at the top, escaped", |count| {
        let keys: Vec<String> = (0..count).map(|number| format!("\"\\u0061{number}\":0")).collect();
        format!(r#"{{"type":"x",{}}}"#, keys.join(","))
    }),
    ("a type of escapes", |count| format!(r#"{{"type":"{}"}}"#, r"\u0041".repeat(count))),
];

fn decoding(frame: &str) -> Taken {
    taken_by(|| decode(frame)).1
}

#[test]
fn the_worst_frames_hold_no_more_at_once_than_is_stated() {
    for (about, shape) in SHAPES {
        // Lists grow by doubling: they are worst just after a power of two.
        for count in (6..=16).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]) {
            let frame = shape(count);
            if frame.len() > INBOUND_BYTES_MAX {
                continue;
            }
            let allowed = frame.len() * DECODE_ALLOCATION_FACTOR + DECODE_ALLOCATION_BASE_BYTES;
            let taken = decoding(&frame);
            assert!(
                taken.at_once <= allowed,
                "{about}, {count} times: {} bytes at once for {}, {allowed} allowed",
                taken.at_once,
                frame.len()
            );
        }
    }
}

#[test]
fn twice_the_frame_asks_for_at_most_twice_the_memory() {
    /// How much the doubling of a list may add, in bytes.
    const SLACK: usize = 16 * 1024;
    for (about, shape) in SHAPES {
        for count in [1000, 4000, 16_000] {
            let (once, twice) = (decoding(&shape(count)).in_all, decoding(&shape(2 * count)).in_all);
            // A list of 2n may have just been doubled, while one of n was not, so a little more than twice is allowed.
            assert!(twice <= once * 5 / 2 + SLACK, "{about}: {once} bytes for {count}, {twice} for twice that");
        }
    }
}

#[test]
fn refused_frame_allocates_nothing() {
    let too_deep = "[".repeat(INBOUND_BYTES_MAX);
    let too_big = format!(r#"{{"type":"x","y":"{}"}}"#, "z".repeat(INBOUND_BYTES_MAX));
    for frame in [too_deep, too_big] {
        assert_eq!(decoding(&frame).in_all, 0);
    }
}
