//! Records the frames of agents, for the check against the schema.
//!
//! If `DRAUPNIR_FRAMES` names a file, each frame that the console kept becomes a line of it when the agent ends.
//! `tests/scripts/contract.py` validates all lines at the end of a run. Of many frames of one type the first are
//! enough.

use std::collections::BTreeMap;
use std::io::Write as _;

use draupnir_console::{Console, Record, What};
use serde_json::Value;

/// The most frames of one type that are recorded for each agent.
const OF_TYPE_MAX: u32 = 200;

/// Records the frames and registrations of a console's agents.
pub(crate) fn note(console: &Console) {
    let Some(path) = std::env::var_os("DRAUPNIR_FRAMES") else { return };
    let thread = std::thread::current();
    let by = thread.name().unwrap_or("main");
    let mut counts = BTreeMap::<String, u32>::new();
    let mut lines = String::new();
    for record in console.all(|_| true) {
        let Some((definition, frame)) = noted(&record) else { continue };
        let count = counts.entry(frame["type"].as_str().unwrap_or_default().to_owned()).or_default();
        *count += 1;
        if *count <= OF_TYPE_MAX {
            let line = serde_json::json!({"by": by, "as": definition, "frame": frame});
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
    }
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("the list of frames can be written");
}

/// The definition in the schema for a record, and its JSON.
fn noted(record: &Record) -> Option<(&'static str, Value)> {
    match &record.what {
        What::Text(_, frame) | What::Unheard(_, frame) => Some(("AgentMessage", frame.clone())),
        What::Registration(request, _) => {
            // A request that the test cut off is no JSON.
            Some(("RegistrationRequest", serde_json::from_slice(&request.body).ok()?))
        }
        _ => None,
    }
}
