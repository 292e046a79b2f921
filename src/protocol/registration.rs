//! Registration: the HTTP body, and the message of the same name.
//!
//! It sends nothing, chooses neither path nor moment, and reads no answer (`link`). Rules (CONSOLE.md, "Registration"):
//! `hostname` is never empty, `tags` is always an object, what is empty is left out; the message is stored as an event,
//! so it says which one.

use super::encode::{Payload, encode, json, sealed};
use super::id::InstanceId;
use super::inventory::Inventory;
#[cfg(test)]
use super::inventory::REGISTRABLE_DISTROS;
#[cfg(test)]
use super::schema;
use super::timestamp::Timestamp;
use draupnir_fsm::driver::{ProviderName, RegisterPath, registered_name, registered_provider};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the instance says about itself.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    /// The id: the configured one for the HTTP body, the console's for the message.
    pub instance_id: &'a InstanceId,
    /// The name that the machine gives itself; the id stands in for an empty one.
    pub hostname: &'a str,
    /// The configured id, if there is one: the console shows it as the name of the instance.
    pub name: Option<&'a InstanceId>,
    /// The provider as configured or detected.
    pub provider: Option<&'a str>,
    /// The region, if one is known.
    pub region: Option<&'a str>,
    /// The tags.
    pub tags: &'a BTreeMap<String, String>,
    /// The software.
    pub inventory: &'a Inventory,
    /// The moment.
    pub timestamp: Timestamp,
}

impl Registration<'_> {
    /// The body of the HTTP request.
    pub fn http_body(&self, path: RegisterPath, name: ProviderName) -> String {
        json(&self.payload(registered_provider(self.provider, path, name), None))
    }

    /// The `registration` message.
    pub fn message(&self) -> String {
        encode(&self.payload(self.provider, Some("CONNECT")))
    }

    fn payload<'a>(&'a self, provider: Option<&'a str>, event_type: Option<&'static str>) -> RegistrationWire<'a> {
        let own = Some(self.hostname).filter(|own| !own.is_empty());
        let name = registered_name(self.name.map(InstanceId::as_str), own, self.provider);
        let hostname = name.unwrap_or(self.instance_id.as_str());
        let (distro, extensions) = self.inventory.registrable();
        RegistrationWire {
            instance_id: self.instance_id,
            hostname,
            machine_hostname: own.filter(|own| *own != hostname),
            provider: provider.filter(|provider| !provider.is_empty()),
            region: self.region.filter(|region| !region.is_empty()),
            agent_version: env!("CARGO_PKG_VERSION"),
            os: os(),
            arch: arch(),
            tags: self.tags,
            distro,
            extensions,
            timestamp: self.timestamp,
            event_type,
        }
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

/// What the instance says about itself.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Registration"))]
pub(super) struct RegistrationWire<'a> {
    instance_id: &'a InstanceId,
    /// The configured id where the operator set one, else the machine's host name.
    #[cfg_attr(test, schemars(length(min = 1)))]
    hostname: &'a str,
    /// The machine's host name where `hostname` is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    machine_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    region: Option<&'a str>,
    #[cfg_attr(test, schemars(regex(pattern = schema::VERSION_NUMBER)))]
    agent_version: &'static str,
    #[cfg_attr(test, schemars(extend("enum" = ["linux", "darwin"])))]
    os: &'static str,
    #[cfg_attr(test, schemars(extend("enum" = ["amd64", "arm64"])))]
    arch: &'static str,
    tags: &'a BTreeMap<String, String>,
    /// Only a distribution that the production console registers; others stand in the heartbeat alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend("enum" = REGISTRABLE_DISTROS)))]
    distro: Option<&'a str>,
    /// Names of Sindri's extensions, sorted, each once; left out where no ledger of extensions is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<schema::Names>"))]
    extensions: Option<&'a [String]>,
    timestamp: Timestamp,
    /// On the message alone: what the production console stores it as.
    #[serde(rename = "eventType", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(extend("enum" = ["CONNECT"])))]
    event_type: Option<&'static str>,
}

impl sealed::Object for RegistrationWire<'_> {}

impl Payload for RegistrationWire<'_> {
    const KIND: &'static str = "registration";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::UNIX_EPOCH;

    fn with<T>(change: impl FnOnce(Registration<'_>) -> T) -> T {
        change(Registration {
            instance_id: &InstanceId::new("web-1").expect("an id"),
            hostname: "",
            name: None,
            provider: None,
            region: None,
            tags: &BTreeMap::new(),
            inventory: &Inventory::default(),
            timestamp: UNIX_EPOCH.into(),
        })
    }

    fn body(provider: Option<&str>, path: RegisterPath, name: ProviderName) -> Value {
        let body = with(|usual| Registration { provider, region: Some(""), ..usual }.http_body(path, name));
        serde_json::from_str(&body).expect("JSON")
    }

    #[test]
    fn empty_fields_are_left_out() {
        let body = body(None, RegisterPath::Designed, ProviderName::Configured);
        assert_eq!(body.get("provider"), None);
        assert_eq!(body.get("region"), None);
        assert_eq!(body.get("eventType"), None);
        assert_eq!(body["tags"], serde_json::json!({}));
        assert_eq!(body["hostname"], "web-1");
    }

    #[test]
    fn the_alias_is_a_name_that_the_console_knows() {
        let provider = |provider| body(provider, RegisterPath::Observed, ProviderName::Alias)["provider"].clone();
        assert_eq!(provider(Some("k8s")), "kubernetes");
        assert_eq!(provider(Some("fly")), "fly");
        assert_eq!(provider(Some("hetzner")), "ssh");
        assert_eq!(provider(None), "ssh");
    }

    #[test]
    fn k8s_is_kubernetes_at_once_on_the_observed_path() {
        let provider = |provider, path| body(Some(provider), path, ProviderName::Configured)["provider"].clone();
        assert_eq!(provider("k8s", RegisterPath::Designed), "k8s");
        assert_eq!(provider("k8s", RegisterPath::Observed), "kubernetes");
        assert_eq!(provider("hetzner", RegisterPath::Observed), "hetzner");
    }

    #[test]
    fn configured_id_is_the_host_name_except_for_docker() {
        let name = InstanceId::new("web-1").expect("an id");
        for (provider, name, expected) in [
            (Some("fly"), Some(&name), json!(["web-1", "box"])),
            (Some("docker"), Some(&name), json!(["box", null])),
            (Some("fly"), None, json!(["box", null])),
        ] {
            let message = with(|usual| Registration { provider, name, hostname: "box", ..usual }.message());
            let payload = &serde_json::from_str::<Value>(&message).expect("JSON")["payload"];
            assert_eq!(json!([payload["hostname"], payload["machine_hostname"]]), expected);
        }
    }

    #[test]
    fn software_is_named_as_far_as_the_console_takes_it() {
        let names = Some(vec!["python".to_owned()]);
        for (distro, expected) in [("fedora", json!(["fedora", ["python"]])), ("arch", json!([null, ["python"]]))] {
            let inventory = Inventory::new(Some(distro), names.clone());
            let body = with(|usual| {
                let inventory = &inventory;
                Registration { inventory, ..usual }.http_body(RegisterPath::Observed, ProviderName::Configured)
            });
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(json!([body["distro"], body["extensions"]]), expected);
        }
    }
}
