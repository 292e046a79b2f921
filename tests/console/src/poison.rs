//! The frames that bring the production console's process down, and with it the console of a whole fleet.
//!
//! Only the observed ones (CONSOLE.md, "Frames that bring it down"); a frame that is merely wrong is no poison.

use serde_json::Value;

/// Longest `X-Instance-ID` that the production console survives, in characters.
pub(crate) const INSTANCE_ID_CHARS_MAX: usize = 100;

/// Why this frame would be fatal, if it would.
pub(crate) fn fatal(frame: &Value) -> Option<String> {
    let payload = frame.as_object()?.get("payload");
    if payload == Some(&Value::Null) {
        return Some(format!("payload is null: {frame}"));
    }
    let payload = payload?;
    let why = match frame["type"].as_str()? {
        "metrics" => metrics(payload),
        "event" => ["eventType", "type"]
            .iter()
            .find(|key| payload.get(**key).is_some_and(|value| !value.is_string()))
            .map(|key| format!("the event's {key} is not a string")),
        "log:batch" => (!payload["lines"].is_array()).then(|| "lines is not an array".to_owned()),
        _ => None,
    }?;
    Some(format!("{why}: {frame}"))
}

fn metrics(payload: &Value) -> Option<String> {
    let disks = payload["disk"].as_array().map(Vec::as_slice).unwrap_or_default();
    if disks.iter().any(Value::is_null) {
        return Some("a null entry in disk".to_owned());
    }
    let groups = [payload, &payload["memory"], &payload["network"]].into_iter().chain(disks);
    groups.filter_map(Value::as_object).flatten().find_map(|(key, value)| {
        let counts =
            key.ends_with("_bytes") || key.ends_with("Bps") || key.starts_with("bytes_") || key.starts_with("packets_");
        let bad = value.is_number() && !value.is_u64();
        (counts && bad).then(|| format!("{key} is {value}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_observed_poison_is_known() {
        for frame in [
            json!({"type": "heartbeat", "payload": null}),
            json!({"type": "metrics", "payload": {"memory": {"used_bytes": 1.5}}}),
            json!({"type": "metrics", "payload": {"network": {"bytes_sent": -1}}}),
            json!({"type": "metrics", "payload": {"disk": [{"total_bytes": 0.5}]}}),
            json!({"type": "metrics", "payload": {"disk": [null]}}),
            json!({"type": "metrics", "payload": {"diskReadBps": 0.5}}),
            json!({"type": "event", "payload": {"eventType": 1}}),
            json!({"type": "log:batch", "payload": {"lines": {}}}),
        ] {
            assert!(fatal(&frame).is_some(), "{frame}");
        }
    }

    #[test]
    fn ordinary_frames_are_none() {
        for frame in [
            json!({"type": "heartbeat", "payload": {"uptime_seconds": 1}}),
            json!({"type": "metrics", "payload": {"cpu": {"usage_percent": 1.5}, "memory": {"used_bytes": 1}, "disk": []}}),
            json!({"type": "event", "payload": {"eventType": "CONNECT"}}),
            json!({"type": "unheard:of"}),
            json!([null]),
        ] {
            assert_eq!(fatal(&frame), None);
        }
    }
}
