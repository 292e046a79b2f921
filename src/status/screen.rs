//! `sindri-agent status` and `sindri-agent health`: ask the running agent, and print what it says.
//!
//! They read no configuration but where the socket is. Colours appear on a terminal only.

use super::{DRAINING, ONLINE, socket};
use crate::config;
use crate::json;
use serde_json::Value;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::ExitCode;

/// Prints the status of the running agent: a screen, or with `json` one JSON object. Exit status 1 if none answers.
pub fn status(json: bool) -> ExitCode {
    let answer = match socket::ask(&config::status_directories(), false) {
        Ok(answer) => answer,
        Err(error) => return fail("status", &error),
    };
    let document = answer.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
    let text = if json {
        String::from_utf8_lossy(document).into_owned()
    } else {
        match json::read(document) {
            Some(document) => screen(&document, stdout().is_terminal()),
            None => return fail("status", "the answer is not one of this version's agent"),
        }
    };
    // It is no failure if the reader has closed the pipe.
    let _ = writeln!(stdout(), "{}", text.trim_end());
    ExitCode::SUCCESS
}

/// Exit status 0 while the agent's loop turns, else 1. With `ready` the console must be reached, too, or have been
/// within the last so many seconds.
pub fn health(ready: Option<u64>) -> ExitCode {
    let answer = match socket::ask(&config::status_directories(), true) {
        Ok(answer) => answer,
        Err(error) => return fail("health", &error),
    };
    let Some(offline_max) = ready else { return ExitCode::SUCCESS };
    let vital: Value = json::read(&answer).unwrap_or_default();
    let (link, offline) = (text(&vital, "link"), number(&vital, "offline_seconds"));
    match (link.as_str(), offline) {
        (ONLINE, _) => ExitCode::SUCCESS,
        (DRAINING, _) => fail("health", "the agent stops"),
        (_, Some(seconds)) if seconds < offline_max => ExitCode::SUCCESS,
        (_, seconds) => fail("health", &format!("no console for {} s", seconds.unwrap_or_default())),
    }
}

fn fail(command: &str, error: &str) -> ExitCode {
    eprintln!("sindri-agent {command}: {error}");
    ExitCode::FAILURE
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// The screen: one line for each group of facts.
fn screen(of: &Value, colours: bool) -> String {
    let paint = |text: String, colour: &str| {
        if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text }
    };
    let is_online = text(of, "link") == ONLINE;
    let state = format!("{} for {}", text(of, "state"), ago(of, "state_seconds"));
    let state = paint(state, if is_online { GREEN } else { YELLOW });
    let causes: Vec<String> = of.get("reconnect_causes").and_then(Value::as_array).map_or_else(Vec::new, |causes| {
        causes.iter().map(|of| format!("{} {}", text(of, "cause"), text(of, "count"))).collect()
    });
    let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
    let error = of.get("last_error").filter(|error| !error.is_null());
    let last_error = error.map_or_else(
        || "none".to_owned(),
        |error| paint(format!("{}, {} ago", text(error, "text"), ago(error, "seconds_ago")), RED),
    );
    let llm = number(of, "llm_port").map_or_else(
        || "not counted".to_owned(),
        |port| format!("counted on port {port}, {} records wait", text(of, "llm_records_waiting")),
    );
    let round_trip = number(of, "round_trip_ms").map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let heartbeat =
        number(of, "last_heartbeat_seconds").map_or_else(|| "none yet".to_owned(), |s| format!("{} ago", time(s)));
    let [used, limit, waiting] =
        ["buffer_bytes", "buffer_limit_bytes", "unacknowledged_bytes"].map(|field| kib(of, field));
    let t = |field| text(of, field);
    let rows = [
        ("state", format!("{state}, since {}", t("state_since"))),
        ("console", t("console")),
        ("instance", t("instance_id")),
        ("agent", format!("version {}, process {}, up {}", t("version"), t("pid"), ago(of, "uptime_seconds"))),
        ("heartbeat", format!("{heartbeat}, round trip {round_trip}")),
        ("reconnects", format!("{} in the last hour{causes}", t("reconnects_last_hour"))),
        ("last error", last_error),
        ("running", format!("{} terminals, {} commands", t("terminals"), t("commands"))),
        ("waiting", format!("{} messages unacknowledged ({waiting})", t("unacknowledged_messages"))),
        ("lost", format!("{} messages dropped, {} gaps in output", t("dropped_messages"), t("output_gaps"))),
        ("buffers", format!("{used} of {limit}")),
        ("journal", t("journal")),
        ("locks", format!("terminals {}, commands {}, audit {}", t("terminals_lock"), t("commands_lock"), t("audit"))),
        ("logs", format!("{}, {} files followed", t("logs"), t("log_files"))),
        ("AI usage", llm),
    ];
    rows.map(|(name, text)| format!("{name:<11} {text}\n")).concat()
}

/// A field as text, without what could move the cursor.
fn text(of: &Value, field: &str) -> String {
    match of.get(field) {
        Some(Value::String(text)) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn number(of: &Value, field: &str) -> Option<u64> {
    of.get(field).and_then(Value::as_u64)
}

fn ago(of: &Value, field: &str) -> String {
    time(number(of, field).unwrap_or_default())
}

fn kib(of: &Value, field: &str) -> String {
    format!("{} KiB", number(of, field).unwrap_or_default().div_ceil(1024))
}

/// A time in its two largest units.
fn time(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_show_two_units() {
        assert_eq!(
            [0, 59, 60, 3_599, 3_660, 90_000].map(time),
            ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 1 min", "1 d 1 h"]
        );
    }

    #[test]
    fn screen_escapes_nothing_to_the_terminal() {
        let document = serde_json::json!({"link": "offline", "last_error": {"text": "a\u{1b}[2Jb", "seconds_ago": 3}});
        let shown = screen(&document, false);
        assert!(!shown.contains('\u{1b}') && shown.contains("b, 3 s ago"), "{shown}");
        assert!(screen(&document, true).contains("\u{1b}[31m"));
        assert!(shown.lines().count() <= 24, "one screen");
    }
}
