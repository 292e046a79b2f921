//! `llm_usage:batch`: what AI tools on the instance used.
//!
//! It counts nothing. The console computes prices where `costUsd` is 0, and the agent knows none. A record without a
//! model, or with a number over 31 bits, would lose its whole batch: the one cannot be left out here, and the other is
//! clamped (CONSOLE.md, "Usage of language models").

use super::encode::{Payload, encode, sealed};
use super::event::MessageId;
use super::number::Count;
#[cfg(test)]
use super::schema;
#[cfg(test)]
use crate::llm::usage::MODEL_BYTES_MAX;
#[cfg(test)]
use draupnir_fsm::driver::USAGE_RECORDS_MAX;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// Largest number of tokens that the console takes.
const TOKENS_MAX: u64 = i32::MAX as u64;

/// One answer of a provider.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename_all = "camelCase", transform = schema::usage_constants))]
pub struct UsageRecord {
    /// The provider's name, as its part of the proxy's path has it.
    #[cfg_attr(test, schemars(schema_with = "schema::llm_provider"))]
    pub provider: &'static str,
    /// The model, never empty.
    #[cfg_attr(test, schemars(length(min = 1, max = MODEL_BYTES_MAX)))]
    pub model: String,
    /// What was asked for: `chat`, `embedding` and so on.
    #[cfg_attr(test, schemars(extend("enum" = ["chat", "embedding", "image", "audio", "rerank"])))]
    pub operation: &'static str,
    /// Input tokens.
    #[cfg_attr(test, schemars(range(max = TOKENS_MAX)))]
    pub input_tokens: u64,
    /// Output tokens.
    #[cfg_attr(test, schemars(range(max = TOKENS_MAX)))]
    pub output_tokens: u64,
    /// Input tokens read from the provider's cache, where it tells them.
    #[cfg_attr(test, schemars(range(max = TOKENS_MAX), skip_serializing_if = "Option::is_none"))]
    pub cache_read_tokens: Option<u64>,
    /// Input tokens written to the provider's cache, where it tells them.
    #[cfg_attr(test, schemars(range(max = TOKENS_MAX), skip_serializing_if = "Option::is_none"))]
    pub cache_write_tokens: Option<u64>,
    /// By which a receiver recognises a record that it has already seen.
    pub trace_id: MessageId,
    /// When the answer ended, in milliseconds since 1970.
    pub ts: Count,
}

impl Serialize for UsageRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct("UsageRecord", 11)?;
        record.serialize_field("provider", self.provider)?;
        record.serialize_field("model", &self.model)?;
        record.serialize_field("operation", self.operation)?;
        let tokens = [
            ("inputTokens", Some(self.input_tokens)),
            ("outputTokens", Some(self.output_tokens)),
            ("cacheReadTokens", self.cache_read_tokens),
            ("cacheWriteTokens", self.cache_write_tokens),
        ];
        for (name, tokens) in tokens {
            if let Some(tokens) = tokens {
                record.serialize_field(name, &tokens.min(TOKENS_MAX))?;
            }
        }
        record.serialize_field("costUsd", &0)?;
        record.serialize_field("captureTier", "proxy")?;
        record.serialize_field("traceId", &self.trace_id)?;
        record.serialize_field("ts", &self.ts)?;
        record.end()
    }
}

/// What AI tools on the instance used.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "UsageBatch"))]
pub(super) struct Batch<'a> {
    #[cfg_attr(test, schemars(length(min = 1, max = USAGE_RECORDS_MAX)))]
    records: &'a [UsageRecord],
}

impl UsageRecord {
    /// The message that holds these.
    pub fn batch(records: &[Self]) -> String {
        encode(&Batch { records })
    }
}

impl sealed::Object for Batch<'_> {}

impl Payload for Batch<'_> {
    const KIND: &'static str = "llm_usage:batch";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn batch_holds_what_the_console_takes() {
        let record = UsageRecord {
            provider: "anthropic",
            model: "claude\0x".to_owned(),
            operation: "chat",
            input_tokens: 10,
            output_tokens: u64::MAX,
            cache_read_tokens: Some(1),
            cache_write_tokens: None,
            trace_id: MessageId { process: 7, number: 1 },
            ts: Count::new(1_795_211_222_103),
        };
        let frame: Value = serde_json::from_str(&UsageRecord::batch(&[record])).expect("JSON");
        assert_eq!(frame["type"], "llm_usage:batch");
        let expected = json!({
            "provider": "anthropic", "model": "claude\u{fffd}x", "operation": "chat", "inputTokens": 10,
            "outputTokens": i32::MAX, "cacheReadTokens": 1, "costUsd": 0, "captureTier": "proxy",
            "traceId": "0000000000000007-1", "ts": 1_795_211_222_103_u64,
        });
        assert_eq!(frame["payload"], json!({ "records": [expected] }));
    }
}
