//! The frames that the console sends by itself.
//!
//! `link` decides when it sends them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The first frame of a connection: the console listens now.
pub(crate) fn greeting() -> Value {
    json!({"protocol_version": "1.0", "type": "log:subscribe", "payload": {"paths": ["*"]}})
}

/// The production console's answer to a heartbeat, in its native form.
pub(crate) fn heartbeat_pong(instance_id: Option<&str>) -> Value {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    json!({
        "protocolVersion": "1.0", "channel": "heartbeat", "type": "heartbeat:pong", "data": {"ok": true},
        "ts": u64::try_from(now_ms).unwrap_or(u64::MAX), "instanceId": instance_id,
    })
}

/// A pong as a server writes it.
pub(crate) fn pong_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x8A, u8::try_from(payload.len()).unwrap_or(0)];
    frame.extend_from_slice(payload);
    frame
}

/// A close frame as a server writes it, without a reason.
pub(crate) fn close_frame(code: u16) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    vec![0x88, 2, high, low]
}
