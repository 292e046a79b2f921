//! Any bytes, as a log file: the lines that are made of it.
//!
//! The first byte chooses the pieces in which the file is read; the others are the file. It promises (CONSOLE.md,
//! "Logs") that
//!
//! - reading never panics, and what it holds is bounded;
//! - records cover the file without a gap, and are the same however it is read;
//! - each line is what the console takes: JSON without a NUL, a text of at most 16 KiB, a whole number of milliseconds
//!   from 2000 to a day ahead, one of four levels.

use crate::heap;
use draupnir::logs::record::{FIELDS_BYTES_MAX, Origin};
use draupnir::logs::splitter::{RECORD_BYTES_MAX, Record, Splitter};
use draupnir::logs::time::{TIME_MS_MIN, Zone};
use serde_json::Value;

/// 2026-11-30T12:00:00Z
const NOW_MS: i64 = 1_796_040_000_000;

const DAY_MS: i64 = 86_400_000;

/// Most bytes that splitting holds besides the records that it gave: two texts that grow.
const SPLITTER_BYTES_MAX: usize = 6 * RECORD_BYTES_MAX;

/// Holds one input to what must be true.
pub fn run(input: &[u8]) {
    let [pieces, file @ ..] = input else { return };
    let piece_bytes = [1, 2, 3, 7, 64, 1000, 4096, usize::MAX][usize::from(pieces & 7)];
    let whole = records(file, usize::MAX);
    assert_eq!(whole, records(file, piece_bytes), "in pieces of {piece_bytes} bytes");
    let (_, taken) = heap::taken_by(|| {
        let mut splitter = Splitter::at(0);
        splitter.push(file, drop);
        splitter.finish(drop);
    });
    assert!(taken.at_once <= SPLITTER_BYTES_MAX, "{} bytes held for {}", taken.at_once, file.len());
    let mut at = 0;
    let (origin, mut zone) = (Origin::below_logs("node/a.log"), Zone::default());
    for record in &whole {
        assert!(record.start == at && record.end > at, "{record:?} at {at}");
        at = record.end;
        check(record, &origin.line(record, NOW_MS, &mut zone));
    }
    assert_eq!(at, file.len() as u64);
}

fn records(file: &[u8], piece_bytes: usize) -> Vec<Record> {
    let (mut splitter, mut records) = (Splitter::at(0), Vec::new());
    file.chunks(piece_bytes).for_each(|piece| splitter.push(piece, |record| records.push(record)));
    splitter.finish(|record| records.push(record));
    records
}

fn check(record: &Record, line: &str) {
    let value: Value = serde_json::from_str(line).expect("JSON");
    assert!(!holds_nul(&value), "{line}");
    let text = value["line"].as_str().expect("a text");
    assert!(text.len() <= RECORD_BYTES_MAX, "{} bytes", text.len());
    assert_eq!(text.ends_with('…'), value["metadata"].get("cut_bytes").is_some() || ends_with_mark(record), "{line}");
    let ts = value["ts"].as_i64().expect("a whole number");
    assert!((TIME_MS_MIN..=NOW_MS + DAY_MS).contains(&ts), "{ts}");
    assert!(matches!(value["level"].as_str(), Some("debug" | "info" | "warn" | "error")), "{line}");
    assert_eq!((&value["source"], &value["metadata"]["offset"]), (&"extension:node".into(), &record.start.into()));
    // A NUL takes three bytes, and its escape six.
    let fields = value["metadata"].get("fields").map_or(0, |fields| fields.to_string().len());
    assert!(fields <= 2 * FIELDS_BYTES_MAX, "{fields} bytes of fields");
}

/// Whether the text itself ends with the mark of a cut.
fn ends_with_mark(record: &Record) -> bool {
    record.text.ends_with("…".as_bytes())
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
