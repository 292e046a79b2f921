//! The demo without a terminal: one line for each important record, then a drain.
//!
//! No colours, no cursor. Frames of terminals and commands are left out, pings too.

use std::io::{self, Write};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use draupnir_console::{Console, Page, Record, What};
use serde_json::Value;

use crate::agent::Agent;
use crate::model::Model;
use crate::paint::{bytes, seconds};
use crate::run::{Happening, watch};
use crate::web::Web;

/// How long a drain may take before the agent is killed: its own table ends at 4 s.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(8);

/// The longest that the demo watches: a year.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves the page and prints its address, or why there is none.
pub(crate) fn open(web: &Web) -> io::Result<Option<Page>> {
    let page = web.open();
    let words = page.as_ref().map_or_else(String::as_str, Page::url);
    writeln!(io::stdout(), "{:>10}  {:<12} {words}", "", "page")?;
    Ok(page.ok())
}

/// Watches for this time, or until a signal, drains, and returns an exit status that shows whether the agent worked.
pub(crate) fn run(console: &Console, mut agent: Agent, watched: Option<Duration>) -> io::Result<ExitCode> {
    let (happens, happenings) = mpsc::channel();
    watch(console, &mut agent, &happens)?;
    let mut model = Model::default();
    let mut deadline = Instant::now() + watched.unwrap_or(EVER);
    let mut draining = false;
    let status = loop {
        match happenings.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Happening::Record(record)) => {
                model.take(&record);
                if let Some(line) = line(&record) {
                    writeln!(io::stdout(), "{line}")?;
                }
            }
            Ok(Happening::Exited(status)) => break Some(status),
            Ok(Happening::Resized | Happening::Typed(_) | Happening::Output(_) | Happening::Page(_)) => {}
            Ok(Happening::Interrupted) | Err(RecvTimeoutError::Timeout) if !draining => {
                draining = true;
                deadline = Instant::now() + DRAIN_MAX;
                writeln!(io::stdout(), "{:>10}  draining", "")?;
                agent.drain();
            }
            Ok(Happening::Interrupted) | Err(_) => break None,
        }
    };
    if status.is_some() {
        agent.has_ended();
        // The console may not have recorded the last messages yet.
        while let Ok(Happening::Record(record)) = happenings.recv_timeout(Duration::from_millis(200)) {
            line(&record).map_or(Ok(()), |line| writeln!(io::stdout(), "{line}"))?;
            model.take(&record);
        }
    }
    finish(&model, &agent, status, draining)
}

/// The last line, and the exit status.
pub(crate) fn finish(model: &Model, agent: &Agent, status: Option<ExitStatus>, draining: bool) -> io::Result<ExitCode> {
    let how = status.map_or_else(|| "did not drain and was killed".to_owned(), |status| format!("ended with {status}"));
    let good = draining && status.is_some_and(|status| status.success()) && model.is_healthy();
    writeln!(
        io::stdout(),
        "agent {how}; {} registrations, {} connections, {} heartbeats, {} messages",
        model.registrations,
        model.connections,
        model.heartbeats,
        model.messages
    )?;
    if !good {
        eprintln!("the agent's last words:\n{}", agent.last_words());
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The line for a record, if it gets one.
pub(crate) fn line(record: &Record) -> Option<String> {
    let (what, words) = match &record.what {
        What::Registration(request, status) => {
            let taken = matches!(status, 200..=299 | 409);
            (if taken { "registered" } else { "refused" }, format!("{} {status}", request.path))
        }
        What::Other(request) => ("request", format!("{} {} 404", request.method, request.path)),
        What::Upgrade(request) => ("connecting", request.header("X-Instance-ID").unwrap_or("without an id").to_owned()),
        What::Opened => ("connected", format!("link {}", record.connection)),
        What::Closed(code, reason) => ("close", format!("{} {reason}", code.unwrap_or(1005))),
        What::Ended(end) => ("ended", format!("link {}: {end:?}", record.connection)),
        What::Unheard(raw, _) => ("unheard", format!("{} bytes before the console listened", raw.len())),
        What::Poison(why) => ("POISON", why.clone()),
        What::Text(_, frame) => frame_words(record.kind(), &frame["payload"])?,
        What::Binary(_) | What::Ping(_) | What::Pong(_) | What::Attached => return None,
    };
    let clean: String = words.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    Some(format!("{:>8.3} s  {what:<12} {}", seconds(Duration::from_millis(record.at_ms)), clean.trim_end()))
}

fn frame_words(kind: &str, payload: &Value) -> Option<(&'static str, String)> {
    let text = |key: &str| payload[key].as_str().unwrap_or("-").to_owned();
    Some(match kind {
        "registration" => {
            let fields = ["instance_id", "hostname", "provider", "region", "agent_version", "os", "arch"];
            ("registration", fields.map(|key| format!("{key}={}", text(key))).join(" "))
        }
        "heartbeat" => ("heartbeat", format!("up {} s", payload["uptime_seconds"])),
        "metrics" => ("metrics", metrics_words(payload)),
        "event" => ("event", format!("{} {}", text("event_type"), payload["message"].as_str().unwrap_or_default())),
        "terminal:closed" => ("terminal", format!("{} closed with {}", text("session_id"), payload["exit_code"])),
        "command:result" => ("command", format!("{} ended with {}", text("command_id"), payload["exit_code"])),
        _ => return None,
    })
}

fn metrics_words(payload: &Value) -> String {
    let number = |group: &str, key: &str| payload[group][key].as_f64().unwrap_or_default();
    let size = |group: &str, key: &str| bytes(payload[group][key].as_u64().unwrap_or_default());
    let disks = payload["disk"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |key: &str| bytes(disks.iter().filter_map(|disk| disk[key].as_u64()).sum());
    format!(
        "cpu {:.1} % of {} cores, load {:.2} {:.2} {:.2}, memory {} of {}, disk {} of {}, network {} out {} in",
        number("cpu", "usage_percent"),
        payload["cpu"]["core_count"],
        number("cpu", "load_avg_1"),
        number("cpu", "load_avg_5"),
        number("cpu", "load_avg_15"),
        size("memory", "used_bytes"),
        size("memory", "total_bytes"),
        sum("used_bytes"),
        sum("total_bytes"),
        size("network", "bytes_sent"),
        size("network", "bytes_recv"),
    )
}

/// Passes the console's records on as they come.
pub(crate) fn follow(console: &Console, emit: impl Fn(Arc<Record>) -> bool + Send + 'static) {
    let mut view = console.within(EVER);
    std::thread::spawn(move || {
        while let Some(record) = view.take_next() {
            if !emit(record) {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use draupnir_console::{End, Request};
    use serde_json::json;

    use super::*;

    fn record(what: What) -> Record {
        Record { seq: 0, at: Instant::now(), at_ms: 1234, connection: 2, what }
    }

    fn frame(kind: &str, payload: &Value) -> Option<String> {
        let frame = json!({"protocol_version": "1.0", "type": kind, "payload": payload});
        line(&record(What::Text(frame.to_string(), frame)))
    }

    #[test]
    fn link_events_print_a_line() {
        let request = Request {
            path: "/api/v1/instances".to_owned(),
            headers: vec![("x-instance-id".to_owned(), "cinst1".to_owned())],
            ..Request::default()
        };
        for (what, wanted) in [
            (What::Registration(request.clone(), 201), "   1.234 s  registered   /api/v1/instances 201"),
            (What::Upgrade(request), "   1.234 s  connecting   cinst1"),
            (What::Opened, "   1.234 s  connected    link 2"),
            (What::Closed(Some(1000), "agent shutdown".to_owned()), "   1.234 s  close        1000 agent shutdown"),
            (What::Ended(End::Closed), "   1.234 s  ended        link 2: Closed"),
        ] {
            assert_eq!(line(&record(what)).as_deref(), Some(wanted));
        }
        assert_eq!(line(&record(What::Ping(vec![1]))), None);
    }

    #[test]
    fn frames_get_a_line() {
        let wanted = "   1.234 s  heartbeat    up 61 s";
        assert_eq!(frame("heartbeat", &json!({"uptime_seconds": 61})).as_deref(), Some(wanted));
        let wanted = "   1.234 s  event        connect again";
        assert_eq!(frame("event", &json!({"event_type": "connect", "message": "again"})).as_deref(), Some(wanted));
        let wanted = "   1.234 s  registration instance_id=i hostname=h provider=- region=- agent_version=0.1.0 os=linux arch=amd64";
        let payload =
            json!({"instance_id": "i", "hostname": "h", "agent_version": "0.1.0", "os": "linux", "arch": "amd64"});
        assert_eq!(frame("registration", &payload).as_deref(), Some(wanted));
        assert_eq!(frame("terminal:output", &json!({"data": ""})), None);
    }

    #[test]
    fn metrics_get_a_line() {
        let payload = json!({
            "cpu": {"usage_percent": 12.34, "load_avg_1": 0.5, "load_avg_5": 0.25, "load_avg_15": 0.1, "core_count": 2},
            "memory": {"used_bytes": 1_u64 << 30, "total_bytes": 2_u64 << 30},
            "disk": [{"used_bytes": 1024, "total_bytes": 4096}, {"used_bytes": 1024, "total_bytes": 4096}],
            "network": {"bytes_sent": 10, "bytes_recv": 2048},
        });
        let wanted = "   1.234 s  metrics      cpu 12.3 % of 2 cores, load 0.50 0.25 0.10, memory 1.0 GiB of 2.0 GiB, \
                      disk 2.0 KiB of 8.0 KiB, network 10 B out 2.0 KiB in";
        assert_eq!(frame("metrics", &payload).as_deref(), Some(wanted));
    }

    #[test]
    fn agent_text_cannot_control_the_terminal() {
        let wanted = "   1.234 s  event        error ·[2J";
        assert_eq!(frame("event", &json!({"event_type": "error", "message": "\u{1b}[2J"})).as_deref(), Some(wanted));
    }
}
