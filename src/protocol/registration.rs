//! Registration: the HTTP body, and the message of the same name.
//!
//! It sends nothing, chooses neither path nor moment, and reads no answer (`link`). Rules (wire.md, part B): `hostname` is
//! never empty, `tags` is always an object, what is empty is left out; the message is stored as an event, so it says
//! which one.

use super::encode::{Payload, encode, json, sealed};
use super::id::InstanceId;
use super::timestamp::Timestamp;
use draupnir_fsm::driver::ProviderName;
use serde::Serialize;
use std::collections::BTreeMap;

/// The names under which the production console knows providers.
const PROVIDERS_KNOWN: &[&str] = &[
    "fly",
    "docker",
    "devpod",
    "e2b",
    "kubernetes",
    "digitalocean",
    "gcp",
    "azure",
    "aws",
    "runpod",
    "northflank",
    "ssh",
];

/// What the instance says about itself.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    /// The id: the configured one for the HTTP body, the console's for the message.
    pub instance_id: &'a InstanceId,
    /// The host name; the id stands in for an empty one.
    pub hostname: &'a str,
    /// The provider as configured or detected.
    pub provider: Option<&'a str>,
    /// The region, if one is known.
    pub region: Option<&'a str>,
    /// The tags.
    pub tags: &'a BTreeMap<String, String>,
    /// The moment.
    pub timestamp: Timestamp,
}

impl Registration<'_> {
    /// The body of the HTTP request.
    pub fn http_body(&self, name: ProviderName) -> String {
        let provider = match name {
            ProviderName::Configured => self.provider,
            ProviderName::Alias => Some(alias(self.provider)),
        };
        json(&self.payload(provider, None))
    }

    /// The `registration` message.
    pub fn message(&self) -> String {
        encode(&self.payload(self.provider, Some("CONNECT")))
    }

    fn payload<'a>(&'a self, provider: Option<&'a str>, event_type: Option<&'static str>) -> Wire<'a> {
        Wire {
            instance_id: self.instance_id,
            hostname: Some(self.hostname).filter(|name| !name.is_empty()).unwrap_or(self.instance_id.as_str()),
            provider: provider.filter(|provider| !provider.is_empty()),
            region: self.region.filter(|region| !region.is_empty()),
            agent_version: env!("CARGO_PKG_VERSION"),
            os: os(),
            arch: arch(),
            tags: self.tags,
            timestamp: self.timestamp,
            event_type,
        }
    }
}

/// How the production console calls a provider; its generic one where it has no name for it.
fn alias(provider: Option<&str>) -> &str {
    match provider {
        Some("k8s") => "kubernetes",
        Some(known) if PROVIDERS_KNOWN.contains(&known) => known,
        Some(_) | None => "ssh",
    }
}

/// The operating system by its release name.
fn os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor by its release name.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Serialize)]
struct Wire<'a> {
    instance_id: &'a InstanceId,
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    agent_version: &'static str,
    os: &'static str,
    arch: &'static str,
    tags: &'a BTreeMap<String, String>,
    timestamp: Timestamp,
    #[serde(rename = "eventType", skip_serializing_if = "Option::is_none")]
    event_type: Option<&'static str>,
}

impl sealed::Object for Wire<'_> {}

impl Payload for Wire<'_> {
    const KIND: &'static str = "registration";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::UNIX_EPOCH;

    fn body(provider: Option<&str>, region: Option<&str>, name: ProviderName) -> Value {
        let registration = Registration {
            instance_id: &InstanceId::new("web-1").expect("an id"),
            hostname: "",
            provider,
            region,
            tags: &BTreeMap::new(),
            timestamp: UNIX_EPOCH.into(),
        };
        serde_json::from_str(&registration.http_body(name)).expect("JSON")
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let body = body(None, Some(""), ProviderName::Configured);
        assert_eq!(body.get("provider"), None);
        assert_eq!(body.get("region"), None);
        assert_eq!(body.get("eventType"), None);
        assert_eq!(body["tags"], serde_json::json!({}));
        assert_eq!(body["hostname"], "web-1");
    }

    #[test]
    fn the_alias_is_a_name_that_the_console_knows() {
        let provider = |provider| body(provider, None, ProviderName::Alias)["provider"].clone();
        assert_eq!(provider(Some("k8s")), "kubernetes");
        assert_eq!(provider(Some("fly")), "fly");
        assert_eq!(provider(Some("hetzner")), "ssh");
        assert_eq!(provider(None), "ssh");
        assert_eq!(body(Some("k8s"), None, ProviderName::Configured)["provider"], "k8s");
    }
}
